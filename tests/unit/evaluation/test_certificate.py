import math

import numpy as np
import pytest

from ckptmerge.domain.certificate import alpha
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Objective, Split
from ckptmerge.errors import HeldOutSetError, InvalidInputError
from ckptmerge.evaluation.certificate import certify
from ckptmerge.evaluation.scores import DocumentScores

HELD_OUT, ARTIFACT = Digest.of_bytes(b"documents"), Digest.of_bytes(b"model")


def model(bits, rng, domains, *, units=None):
    """Scores of ``bits`` a byte on documents whose lengths ``rng`` draws."""
    sizes = np.ceil(rng.lognormal(6, 0.8, len(domains))).astype(np.int64)
    units = tuple(map(str, range(len(domains)))) if units is None else units
    return DocumentScores(
        nats=bits * sizes * math.log(2), bytes=sizes, tokens=sizes, domains=domains, units=units
    )


def models(seed=0, *, domains=("a",) * 60 + ("b",) * 60, units=None, noise=0.05, **bits):
    """A model a name, each noisy round its bits a byte, on the same documents."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, value in bits.items():
        noisy = np.asarray(value) + noise * rng.normal(size=len(domains))
        found[name] = model(noisy, np.random.default_rng([seed, 1]), domains, units=units)
    return found


def judge(found, *, test=1, objective=None, seed=0):
    rivals = {name: scores for name, scores in found.items() if name != "winner"}
    return certify(
        found["winner"],
        rivals,
        name="winner",
        objective=objective or Objective(),
        test=test,
        held_out=HELD_OUT,
        artifact=ARTIFACT,
        seed=seed,
    )


def test_a_winner_that_beats_everything_passes():
    found = judge(models(winner=1.0, newest=1.1, best=1.08))
    assert found.passed
    assert [gain.against for gain in found.gains] == ["newest", "best"]
    assert found.gain.against == "best"
    assert found.p == found.gains[1].p < found.alpha
    assert all(gain.split is Split.CERTIFY for gain in found.gains)
    assert (found.subject, found.test, found.held_out, found.artifact) == (
        "winner", 1, HELD_OUT, ARTIFACT,
    )  # fmt: skip


@pytest.mark.parametrize("equal", ["newest", "best"])
def test_beating_all_rivals_but_one_is_not_enough(equal):
    bits = {"newest": 1.1, "best": 1.1} | {equal: 1.0}
    assert not judge(models(winner=1.0, **bits)).passed


def test_the_level_falls_with_every_test_of_the_era():
    found = models(1, winner=1.0, newest=1.025)
    p = judge(found).p
    assert alpha(10) < p < alpha(1)
    assert judge(found).passed
    assert not judge(found, test=10).passed


def test_a_domain_worse_than_its_limit_refuses_a_winner_that_gains_overall():
    bits = {"winner": np.repeat([0.5, 1.03], 60), "newest": 1.0}
    limits = Objective({}, {"a": 0.01, "b": 0.01})
    assert judge(models(**bits)).passed
    found = judge(models(**bits), objective=limits)
    assert found.p < found.alpha
    assert found.worse_domains == ("b",)
    assert not found.passed
    assert judge(models(**bits), objective=Objective({}, {"b": 0.1})).passed


def test_limits_are_held_against_the_newest_checkpoint_and_at_this_tests_level():
    bits = {"winner": 1.0, "newest": np.repeat([1.1, 1.0], 60), "best": np.repeat([1.2, 0.8], 60)}
    limited = Objective({"a": 1.0}, {"b": 0.04})
    assert judge(models(1, **bits), objective=limited).worse_domains == ()
    assert judge(models(1, **bits), objective=limited, test=1000).worse_domains == ("b",)


def test_limits_without_the_newest_checkpoint_are_refused():
    found = models(winner=1.0, best=1.1)
    with pytest.raises(InvalidInputError, match="'newest' is not among the rivals"):
        judge(found, objective=Objective({}, {"a": 0.1}))


def test_the_newest_checkpoint_itself_has_no_limits_to_keep():
    found = models(newest=1.0, best=1.1)
    made = certify(
        found["newest"],
        {"best": found["best"]},
        name="newest",
        objective=Objective({}, {"a": 0.0}),
        test=1,
        held_out=HELD_OUT,
        artifact=None,
        seed=0,
    )
    assert made.passed
    assert made.artifact is None


def test_twenty_nine_independent_documents_certify_nothing():
    for count, passed in ((29, False), (30, True)):
        domains = ("a",) * (count - 10) + ("b",) * 10
        found = judge(models(winner=1.0, newest=2.0, domains=domains))
        assert (found.units, found.documents, found.passed) == (count, count, passed)


def test_documents_of_a_group_count_as_one_unit_in_each_domain():
    units = tuple(f"file {i % 20}" for i in range(120))
    found = judge(models(winner=1.0, newest=2.0, units=units))
    assert (found.units, found.documents) == (40, 120)


def test_documents_that_weigh_nothing_are_no_evidence():
    domains = ("a",) * 20 + ("b",) * 100
    found = judge(models(winner=1.0, newest=2.0, domains=domains), objective=Objective({"a": 1.0}))
    assert (found.units, found.passed) == (20, False)


def test_a_winner_without_rivals_is_refused():
    with pytest.raises(InvalidInputError, match="against nothing"):
        judge(models(winner=1.0))


def test_rivals_scored_on_other_documents_are_refused():
    found = models(0, winner=1.0) | models(1, newest=1.1)
    with pytest.raises(HeldOutSetError, match="different documents"):
        judge(found)


def test_false_promotions_are_as_rare_as_the_level_says():
    # The null hardest to tell: no better than the newest, far better than everything else.
    domains = ("a",) * 60 + ("b",) * 60 + ("c",) * 60
    bits = {"winner": 1.0, "newest": 1.0, "best": 1.5}
    promoted = 0
    for seed in range(300):
        found = models(seed, domains=domains, **bits)
        promoted += judge(found, seed=seed).passed
    assert promoted / 300 <= 0.05
    assert promoted > 3  # a test that never promotes would be no test
