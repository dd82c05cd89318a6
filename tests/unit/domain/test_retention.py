"""Which bytes go: the rules, and what no rule touches."""

from dataclasses import replace

import pytest

from ckptmerge.domain.retention import (
    HeldCheckpoint,
    HeldMerge,
    Holdings,
    Retention,
    decide_fates,
)
from ckptmerge.errors import InvalidInputError

STEPS = range(100, 1100, 100)


def checkpoint(step: int, attempt: int = 1, **changes) -> HeldCheckpoint:
    return HeldCheckpoint(id=f"c{step}", attempt=attempt, step=step, **changes)


def merge(name: str, *parents: int, promoted: bool = True, pinned: bool = False) -> HeldMerge:
    ids = tuple(f"c{step}" for step in parents)
    return HeldMerge(id=name, parents=ids, promoted=promoted, pinned=pinned)


def holdings(**changes) -> Holdings:
    """Ten checkpoints, of which the next study takes its window from the newest two."""
    everything = tuple(checkpoint(step) for step in STEPS)
    return replace(Holdings(attempt=1, window=2, checkpoints=everything), **changes)


def with_one(step: int, **changes) -> Holdings:
    """The same, where one checkpoint is special."""
    held = holdings()
    return replace(
        held,
        checkpoints=tuple(replace(c, **changes) if c.step == step else c for c in held.checkpoints),
    )


def gone(retention: Retention, held: Holdings) -> set[str]:
    return {fate.id for fate in decide_fates(retention, held) if fate.goes}


def steps(*numbers: int) -> set[str]:
    return {f"c{number}" for number in numbers}


LAST_3 = Retention(keep_last=3)
OLD = steps(*range(100, 800, 100))


@pytest.mark.parametrize(
    ("retention", "held", "expected"),
    [
        (Retention(), holdings(), set()),
        (LAST_3, holdings(), OLD),
        (Retention(keep_last=1), holdings(), steps(*range(100, 900, 100))),
        (Retention(keep_every=300), holdings(), steps(100, 200, 400, 500, 700, 800)),
        (Retention(keep_last=4, keep_every=300), holdings(), steps(100, 200, 400, 500)),
        (Retention(keep_best=1), holdings(), set()),
        (LAST_3, with_one(200, pinned=True), OLD - steps(200)),
        (LAST_3, holdings(best=frozenset({"c300"})), OLD - steps(300)),
        (LAST_3, holdings(needed={"c400": "s1"}), OLD - steps(400)),
        (LAST_3, holdings(window=5), OLD - steps(600, 700)),
        (LAST_3, holdings(merges=(merge("a1", 100, 200),)), OLD - steps(100, 200)),
        # A checkpoint that waits for its tokenizer pushes out none that can be merged.
        (LAST_3, with_one(900, complete=False), OLD - steps(700)),
        (LAST_3, with_one(500, complete=False), OLD),
        # Windows are of the present attempt alone; the newest are counted over all of them.
        (Retention(keep_last=1), holdings(attempt=2), steps(*range(100, 1000, 100))),
    ],
)
def test_checkpoints_go_by_rule_and_never_what_is_needed(
    retention: Retention, held: Holdings, expected: set[str]
) -> None:
    assert gone(retention, held) == expected


def test_after_a_rollback_the_newest_are_those_of_the_new_attempt() -> None:
    branched = (checkpoint(500, attempt=2), checkpoint(600, attempt=2))
    held = replace(
        holdings(attempt=2),
        checkpoints=(
            *(checkpoint(step) for step in (800, 900)),
            *(replace(c, id=f"{c.id}-2") for c in branched),
        ),
    )
    assert gone(Retention(keep_last=2), held) == steps(800, 900)


MERGES = (merge("a1"), merge("a2"), merge("a3"))


@pytest.mark.parametrize(
    ("retention", "held", "expected"),
    [
        (Retention(), holdings(merges=MERGES), set()),
        (LAST_3, holdings(checkpoints=(), merges=MERGES), set()),
        (Retention(keep_best=1), holdings(merges=MERGES), {"a1", "a2"}),
        (Retention(keep_best=2), holdings(merges=MERGES), {"a1"}),
        (Retention(keep_best=1), holdings(merges=MERGES, best=frozenset({"a1"})), {"a2"}),
        (
            Retention(keep_best=1),
            holdings(merges=(merge("a1", pinned=True), *MERGES[1:])),
            {"a2"},
        ),
        (Retention(keep_best=1), holdings(merges=MERGES, needed={"a2": "s1"}), {"a1"}),
        # What was not promoted is nobody's once its study is over, whatever the policy.
        (Retention(), holdings(merges=(*MERGES, merge("a4", promoted=False))), {"a4"}),
        (
            Retention(),
            holdings(merges=(merge("a4", promoted=False),), needed={"a4": "s1"}),
            set(),
        ),
        (Retention(keep_best=1), holdings(merges=(*MERGES, merge("a4", promoted=False))),
         {"a1", "a2", "a4"}),
    ],
)  # fmt: skip
def test_merges_go_by_rule_and_with_studies_that_did_not_promote_them(
    retention: Retention, held: Holdings, expected: set[str]
) -> None:
    assert gone(retention, held) == expected


def test_parents_go_together_with_the_last_merge_that_is_rebuilt_from_them() -> None:
    held = holdings(merges=(merge("a1", 100, 200), merge("a2", 200, 300)))
    policy = Retention(keep_last=3, keep_best=1)
    assert gone(policy, held) == {"a1"} | OLD - steps(200, 300)


def test_every_checkpoint_and_merge_is_told_why() -> None:
    held = holdings(
        checkpoints=tuple(checkpoint(step) for step in (100, 200, 300, 400)),
        merges=(merge("a1", 200), merge("a2", promoted=False)),
        window=1,
        best=frozenset({"a1"}),
        needed={"c300": "s1"},
    )
    policy = Retention(keep_last=1, keep_every=1000)
    assert {fate.id: fate.reason for fate in decide_fates(policy, held)} == {
        "c100": "1 newer ones stay (keep_last), step not divisible by 1000 (keep_every)",
        "c200": "merge a1 stays, and is rebuilt from it",
        "c300": "study s1 is still going, and needs it",
        "c400": "one of the newest 1, which the next study may merge",
        "a1": "the best of the run",
        "a2": "its study ended without promoting it",
    }


@pytest.mark.parametrize("rule", ["keep_last", "keep_every", "keep_best"])
def test_a_rule_that_keeps_nothing_is_refused(rule: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{rule} must be at least 1, not 0"):
        Retention(**{rule: 0})
