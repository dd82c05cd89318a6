import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptmerge.domain.observation import Objective, Split
from ckptmerge.evaluation.paired import bits_per_byte, gain, replicates, score
from ckptmerge.evaluation.scores import DocumentScores

quick = settings(deadline=None, max_examples=25)


recipes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32),
        "count": st.integers(4, 60),
        "domains": st.integers(1, 3),
        "units": st.integers(2, 80),
        "better": st.sampled_from([0.0, 0.001, 0.05]),
        "spread": st.sampled_from([0.0, 0.01, 0.3]),
    }
)


def models(recipe):
    """Two models on the same documents: one to three domains, some units of several documents.

    Not a strategy: the type checks on scores draw random numbers, which Hypothesis forbids there.
    """
    rng, count = np.random.default_rng(recipe["seed"]), recipe["count"]
    sizes = rng.integers(1, 2000, count)
    fields = {
        "bytes": sizes,
        "tokens": sizes,
        "domains": tuple(rng.choice(["a", "b", "c"][: recipe["domains"]], count).tolist()),
        "units": tuple(f"u{i}" for i in rng.integers(0, recipe["units"], count)),
    }
    base = sizes * rng.gamma(9.0, 0.1, count)
    other = base + sizes * (recipe["better"] + recipe["spread"] * rng.random(count))
    return DocumentScores(nats=base, **fields), DocumentScores(nats=other, **fields)


def changed(scores, *, nats=None, order=None):
    order = np.arange(len(scores)) if order is None else order
    return DocumentScores(
        nats=(scores.nats if nats is None else nats)[order],
        bytes=scores.bytes[order],
        tokens=scores.tokens[order],
        domains=tuple(scores.domains[i] for i in order),
        units=tuple(scores.units[i] for i in order),
    )


def compare(subject, against):
    return gain(
        subject, against, name="x", objective=Objective(), split=Split.ALL, seed=0, resamples=300
    )


def close(a, b):
    return np.isclose(a, b, rtol=1e-6, atol=1e-9)


@quick
@given(recipes, st.randoms(use_true_random=False))
def test_the_order_of_the_documents_changes_nothing(recipe, random):
    pair = models(recipe)
    order = list(range(len(pair[0])))
    random.shuffle(order)
    order = np.array(order)
    shuffled = [changed(scores, order=order) for scores in pair]
    a, b = compare(*pair), compare(*shuffled)
    assert a == b
    assert replicates(pair[0], Objective()) == replicates(shuffled[0], Objective())


@quick
@given(recipes, st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=4))
def test_p_falls_as_the_subject_gets_better(recipe, shifts):
    subject, against = models(recipe)
    ps = [
        compare(changed(subject, nats=subject.nats - shift * subject.bytes), against).p
        for shift in sorted(shifts)
    ]
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in itertools.pairwise(ps))


@quick
@given(recipes)
def test_a_p_is_a_probability_and_an_interval_holds_its_mean(recipe):
    found = compare(*models(recipe))
    assert 0 < found.p <= 1
    for interval in [found.interval, *(part.interval for part in found.domains.values())]:
        assert interval.low <= interval.mean + 1e-9
        assert interval.mean <= interval.high + 1e-9


@quick
@given(recipes)
def test_a_model_gains_nothing_over_itself(recipe):
    subject, _ = models(recipe)
    assert compare(subject, subject).p == 1


@quick
@given(recipes)
def test_a_gain_is_the_difference_of_two_scores(recipe):
    pair = models(recipe)
    subject, against = (bits_per_byte(scores, Objective()) for scores in pair)
    assert close(compare(*pair).interval.mean, against - subject)
    whole = score(pair[0], Objective(), Split.ALL, seed=0, resamples=100)
    assert close(whole.interval.mean, subject)


@quick
@given(recipes, st.sampled_from([0.25, 2.0, 64.0]))
def test_losses_on_another_scale_scale_the_interval_and_keep_the_p(recipe, factor):
    pair = models(recipe)
    scaled = [changed(scores, nats=scores.nats * factor) for scores in pair]
    a, b = compare(*pair), compare(*scaled)
    assert b.interval.low == a.interval.low * factor
    assert b.interval.high == a.interval.high * factor
    assert b.p == a.p
