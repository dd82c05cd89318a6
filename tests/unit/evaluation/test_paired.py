import math

import numpy as np
import pytest

from ckptmerge.domain.observation import Objective, Split
from ckptmerge.errors import HeldOutSetError, InvalidInputError
from ckptmerge.evaluation.paired import (
    bits_per_byte,
    domain_weights,
    domains_not_kept,
    gain,
    replicates,
    score,
)
from ckptmerge.evaluation.scores import DocumentScores

EQUAL = Objective()
LN2 = math.log(2)


def documents(rng, counts, *, group=1):
    """Documents of skewed lengths: (bytes, domains, units), ``group`` documents a unit."""
    domains = tuple(d for d, n in counts.items() for _ in range(n))
    units = tuple(f"unit {i // group}" for n in counts.values() for i in range(n))
    return np.ceil(rng.lognormal(6, 0.8, len(domains))).astype(np.int64), domains, units


def scored(bits, sizes, domains, units):
    """Scores of ``bits`` a byte, or of one number for all documents."""
    nats = np.asarray(bits) * sizes * LN2
    return DocumentScores(
        nats=nats, bytes=sizes, tokens=sizes // 3 + 1, domains=domains, units=units
    )


def compare(subject, against, objective=EQUAL, **more):
    settings = {"name": "newest", "split": Split.CERTIFY, "seed": 0} | more
    return gain(subject, against, objective=objective, **settings)


def pair(seed=0, *, better=0.02, spread=0.05, group=1, correlated=False, **counts):
    rng = np.random.default_rng(seed)
    held = documents(rng, counts or {"code": 60, "web": 80, "math": 50}, group=group)
    difficulty = 1.0 + 0.3 * rng.normal(size=len(held[0]))
    differences = rng.normal(size=len(held[0]))
    if correlated:
        differences = np.repeat(differences[::group], group)
    old = scored(difficulty, *held)
    return scored(difficulty - better - spread * differences, *held), old


def test_bits_per_byte_is_the_mean_over_domains_of_the_ratio_of_sums():
    rng = np.random.default_rng(0)
    made = scored(rng.random(300), *documents(rng, {"a": 200, "b": 70, "c": 30}))
    totals = {}
    for domain, nats, size in zip(made.domains, made.nats, made.bytes, strict=True):
        row = totals.setdefault(domain, [0.0, 0])
        row[0] += nats
        row[1] += size
    expected = float(np.mean([n / math.log(2) / b for n, b in totals.values()]))
    assert bits_per_byte(made, EQUAL) == pytest.approx(expected, rel=1e-13)
    assert score(made, EQUAL, Split.ALL, seed=0).interval.mean == pytest.approx(expected)


def test_domains_weigh_as_the_objective_says():
    made = scored([1.0, 2.0, 4.0], np.array([10, 10, 10]), ("a", "b", "c"), ("1", "2", "3"))
    assert bits_per_byte(made, Objective({"a": 3.0, "b": 1.0})) == pytest.approx(1.25)
    assert domain_weights(made, Objective({"a": 3.0, "b": 1.0})) == {"a": 0.75, "b": 0.25, "c": 0}
    assert domain_weights(made, EQUAL) == dict.fromkeys("abc", pytest.approx(1 / 3))


@pytest.mark.parametrize("objective", [Objective({"cod": 1.0}), Objective({}, {"cod": 0.1})])
def test_a_domain_that_no_document_is_of_is_refused(objective):
    subject, old = pair()
    with pytest.raises(HeldOutSetError, match=r"names domain 'cod'.* 'code', 'math', 'web'"):
        compare(subject, old, objective)


def test_a_gain_is_positive_where_the_subject_is_better():
    subject, old = pair()
    found = compare(subject, old)
    difference = bits_per_byte(old, EQUAL) - bits_per_byte(subject, EQUAL)
    assert found.interval.mean == pytest.approx(difference)
    assert found.interval.low < difference < found.interval.high
    assert found.p < 1e-3
    assert compare(old, subject).interval.mean == pytest.approx(-difference)
    assert compare(old, subject).p > 0.99
    assert (found.against, found.split, found.documents) == ("newest", Split.CERTIFY, 190)


def test_every_domain_has_a_gain_of_its_own():
    subject, old = pair(code=60, web=20)
    found = compare(subject, old).domains
    assert {d: (part.documents, part.too_few) for d, part in found.items()} == {
        "code": (60, False),
        "web": (20, True),
    }
    web = Objective({"web": 1.0})
    assert found["web"].interval == compare(subject, old, web).domains["web"].interval
    assert found["web"].interval.mean == pytest.approx(compare(subject, old, web).interval.mean)


def test_thirty_documents_of_one_group_are_too_few():
    subject, old = pair(group=2, code=50, web=60)
    found = compare(subject, old).domains
    assert (found["code"].too_few, found["web"].too_few) == (True, False)


def test_identical_models_gain_nothing_for_sure():
    subject, _ = pair()
    found = compare(subject, subject)
    assert (found.interval.mean, found.interval.low, found.interval.high) == (0, 0, 0)
    assert found.p == 1


def test_pairing_leaves_the_documents_own_difficulty_out():
    subject, old = pair(spread=0.01)
    paired = compare(subject, old).interval
    alone = score(subject, EQUAL, Split.CERTIFY, seed=0).interval
    assert paired.high - paired.low < 0.15 * (alone.high - alone.low)


def test_groups_that_go_together_widen_the_interval():
    subject, old = pair(group=10, correlated=True, code=400, web=400)
    apart = [
        DocumentScores(
            nats=s.nats,
            bytes=s.bytes,
            tokens=s.tokens,
            domains=s.domains,
            units=tuple(map(str, range(len(s)))),
        )
        for s in (subject, old)
    ]
    grouped, each = compare(subject, old).interval, compare(*apart).interval
    assert grouped.mean == pytest.approx(each.mean)
    assert grouped.high - grouped.low > 2 * (each.high - each.low)


def test_equal_labels_in_two_domains_are_two_units():
    sizes = np.full(80, 100)
    nats = np.abs(np.random.default_rng(0).normal(size=80)) * sizes
    units = tuple(f"group {i % 40}" for i in range(80))
    made = DocumentScores(
        nats=nats, bytes=sizes, tokens=sizes, domains=("a",) * 40 + ("b",) * 40, units=units
    )
    assert not any(part.too_few for part in score(made, EQUAL, Split.ALL, seed=0).domains.values())


def test_scores_on_other_documents_cannot_be_compared():
    with pytest.raises(HeldOutSetError, match="different documents"):
        compare(pair(0)[0], pair(1)[1])


def test_a_broken_model_cannot_be_compared():
    subject, old = pair()
    nats = subject.nats.copy()
    nats[3:5] = math.nan, math.inf
    broken = DocumentScores(
        nats=nats,
        bytes=old.bytes,
        tokens=old.tokens,
        domains=old.domains,
        units=old.units,
    )
    for do in (
        lambda: compare(broken, old),
        lambda: compare(old, broken),
        lambda: score(broken, EQUAL, Split.ALL, seed=0),
    ):
        with pytest.raises(InvalidInputError, match="on 2 of 190 documents"):
            do()


def test_the_level_sets_the_width():
    subject, old = pair()
    narrow, wide = (compare(subject, old, level=level).interval for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert (narrow.level, wide.level) == (0.5, 0.99)


def test_another_seed_gives_other_resamples_and_the_same_gain():
    subject, old = pair()
    a, b = (compare(subject, old, seed=seed).interval for seed in (0, 1))
    assert a.mean == b.mean
    assert a.low != b.low
    assert a == compare(subject, old, seed=0).interval


def test_a_limit_is_kept_only_where_that_was_shown():
    rng = np.random.default_rng(0)
    held = documents(rng, {"same": 200, "worse": 200, "unsure": 200, "few": 20})
    worse = np.repeat([0.0, 0.05, 0.0, 0.0], [200, 200, 200, 20])
    spread = np.repeat([0.01, 0.01, 1.0, 0.001], [200, 200, 200, 20])
    subject = scored(3.0 + worse + spread * rng.normal(size=620), *held)
    old = scored(np.full(620, 3.0), *held)
    limits = dict.fromkeys(["same", "worse", "unsure", "few"], 0.02)

    def not_kept(limits, alpha=0.03):
        objective = Objective({}, limits)
        return domains_not_kept(subject, old, objective=objective, alpha=alpha, seed=0)

    assert not_kept(limits) == ("few", "unsure", "worse")
    assert not_kept({"worse": 0.1, "same": 0.02}) == ()
    assert not_kept({"same": 0}, alpha=1e-9) == ("same",)


def test_replicates_spread_as_the_interval_does():
    made = pair(code=200, web=200)[0]
    spread = np.std(replicates(made, EQUAL, count=2000))
    interval = score(made, EQUAL, Split.ALL, seed=0).interval
    assert 4 * spread == pytest.approx(interval.high - interval.low, rel=0.1)
    assert np.mean(replicates(made, EQUAL, count=2000)) == pytest.approx(
        interval.mean, abs=0.2 * spread
    )


def test_replicates_of_two_candidates_are_of_the_same_resamples():
    subject, old = pair(spread=0.0, better=0.02)
    differences = np.subtract(replicates(old, EQUAL), replicates(subject, EQUAL))
    assert differences == pytest.approx(np.full(64, 0.02), abs=1e-12)
    assert np.std(replicates(old, EQUAL)) > 0.01
    assert replicates(old, EQUAL, seed=1) != replicates(old, EQUAL)


def test_a_domain_without_weight_does_not_move_the_replicates():
    _, old = pair()
    code = Objective({"code": 1.0})
    only = [i for i, domain in enumerate(old.domains) if domain == "code"]
    alone = scored(
        old.nats[only] / old.bytes[only] / LN2, old.bytes[only], ("code",) * 60,
        tuple(old.units[i] for i in only),
    )  # fmt: skip
    assert replicates(old, code) == pytest.approx(replicates(alone, code))


@pytest.fixture(scope="module")
def simulated():
    """Gains in 400 held-out sets of three domains, whose true gain is 0.05 in every one.

    A unit's gain a byte is skewed and grows noisier with its length, as real ones do.
    """
    found = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        held = documents(rng, {"a": 60, "b": 90, "c": 120})
        noise = rng.gamma(4.0, 0.5, 270) - 2.0
        old = scored(np.full(270, 3.0), *held)
        subject = scored(2.95 - 0.1 * noise, *held)
        found.append(compare(subject, old, seed=seed, resamples=500))
    return found


def test_intervals_hold_the_truth_as_often_as_they_say(simulated):
    held = np.mean([each.interval.low <= 0.05 <= each.interval.high for each in simulated])
    assert 0.92 <= held <= 0.98


def test_intervals_of_a_domain_hold_the_truth_as_often_as_they_say(simulated):
    for domain in "abc":
        intervals = [each.domains[domain].interval for each in simulated]
        held = np.mean([each.low <= 0.05 <= each.high for each in intervals])
        assert 0.91 <= held <= 0.98


def test_a_real_gain_is_found(simulated):
    assert np.mean([each.p < 0.0304 for each in simulated]) > 0.95
