"""Digests, recipes, run names, levels: what identity and honesty hang on."""

import math

import pytest

from ckptmerge.domain.certificate import Certificate, Gain, Interval, alpha
from ckptmerge.domain.checkpoint import FileEntry, Manifest, TensorEntry, TensorSpec
from ckptmerge.domain.digest import Digest, canonical_json
from ckptmerge.domain.observation import Split
from ckptmerge.domain.recipe import Recipe
from ckptmerge.domain.run import Era, Run
from ckptmerge.domain.weights import GroupedWeights, MergeWeights, WeightGroup
from ckptmerge.errors import InvalidInputError, InvalidWeightsError

A, B = Digest.of_bytes(b"a"), Digest.of_bytes(b"b")


def test_a_digest_reads_back_what_it_writes() -> None:
    assert Digest.parse(str(A)) == A
    for bad in ("sha256:12", "md5:" + A.hex, A.hex.upper()):
        with pytest.raises(ValueError, match=r"sha256|SHA-256"):
            Digest.parse(bad)


def test_canonical_json_does_not_depend_on_order_and_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": 0.1}) == '{"a":0.1,"b":1}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(math.nan)


def test_the_content_digest_ignores_sharding_and_the_checkpoint_digest_does_not() -> None:
    first, second = TensorSpec("a", "F32", (1,)), TensorSpec("b", "F32", (1,))
    whole = Manifest(
        (FileEntry("model.safetensors", 8, A),),
        (
            TensorEntry(first, "model.safetensors", 0, A),
            TensorEntry(second, "model.safetensors", 4, B),
        ),
    )
    shards = Manifest(
        (FileEntry("1.safetensors", 4, A), FileEntry("2.safetensors", 4, B)),
        (TensorEntry(second, "2.safetensors", 0, B), TensorEntry(first, "1.safetensors", 0, A)),
    )
    assert whole.content == shards.content
    assert whole.digest != shards.digest
    with pytest.raises(ValueError, match="no digest"):
        _ = Manifest((), (TensorEntry(first, "m", 0),)).content


@pytest.mark.parametrize(
    "weights",
    [
        MergeWeights.of(0.1, 0.9),
        GroupedWeights((WeightGroup("all", ".*", MergeWeights.of(1 / 3, 2 / 3)),)),
    ],
)
def test_a_recipe_survives_the_metadata_of_a_file(weights: MergeWeights | GroupedWeights) -> None:
    recipe = Recipe((A, B), weights, dtype="bf16", shard_size=10)
    assert Recipe.from_metadata(recipe.as_metadata()) == recipe


def test_a_foreign_file_has_no_recipe_and_a_spoilt_one_says_so() -> None:
    assert Recipe.from_metadata({"format": "pt"}) is None
    with pytest.raises(InvalidInputError, match="not a recipe"):
        Recipe.from_metadata({"recipe": '{"weights": [1.0]}'})
    with pytest.raises(InvalidInputError):
        Recipe.from_json({**Recipe((A,), MergeWeights.of(1.0)).as_json(), "arithmetic": "2"})


def test_a_recipe_needs_a_weight_for_each_parent() -> None:
    with pytest.raises(InvalidWeightsError, match="2 merge weights for 1"):
        Recipe((A,), MergeWeights.of(0.5, 0.5))


@pytest.mark.parametrize("name", ["", "Upper", "-x", "a/b", "v1", "a" * 97])
def test_run_names_that_would_not_fit_a_url_are_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        Run(name, Era(A))


def test_an_era_counts_its_tests() -> None:
    first, era = Era(A).next_test()
    second, _ = era.next_test()
    assert (first, second) == (1, 2)


def test_the_levels_of_all_tests_sum_to_five_percent() -> None:
    assert alpha(1) == pytest.approx(0.0304, abs=1e-4)
    assert math.fsum(alpha(j) for j in range(1, 100_000)) == pytest.approx(0.05, abs=1e-6)
    with pytest.raises(ValueError, match="counted from 1"):
        alpha(0)


def certificate(*ps: float, units: int = 40, worse: tuple[str, ...] = ()) -> Certificate:
    gains = tuple(
        Gain(f"rival {i}", Interval(0.1, 0.0, 0.2), p, Split.CERTIFY, 99) for i, p in enumerate(ps)
    )
    return Certificate("winner", 1, gains, worse, A, 99, units)


def test_a_certificate_passes_only_when_everything_was_shown() -> None:
    assert certificate(0.03, 0.001).passed
    assert not certificate(0.031, 0.001).passed, "the worst of the p-values decides"
    assert not certificate(0.001, units=29).passed
    assert not certificate(0.001, worse=("code",)).passed
    assert not certificate().passed, "nothing was compared"
    assert certificate(0.03, 0.001).gain.against == "rival 0"
