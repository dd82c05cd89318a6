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


def aged(*days: int) -> Holdings:
    """Checkpoints of ten bytes each that arrived so many days ago."""
    everything = (
        checkpoint(1000 - day, age=day * DAY, bytes=10) for day in days
    )  # fmt: skip
    return holdings(checkpoints=tuple(everything), window=1)


DAY = 86_400.0
WEEK = tuple(range(7, -1, -1))


@pytest.mark.parametrize(
    ("retention", "expected"),
    [
        (Retention(ttl=int(3 * DAY)), steps(*(1000 - day for day in (7, 6, 5, 4)))),
        (Retention(ttl=1), steps(*(1000 - day for day in WEEK[:-1]))),
        # What any rule keeps stays.
        (Retention(ttl=int(3 * DAY), keep_last=6), steps(993, 994)),
        (Retention(ttl=int(3 * DAY), keep_every=995), steps(993, 994, 996)),
        (Retention(ttl=int(30 * DAY)), set()),
    ],
)
def test_checkpoints_go_when_they_are_old_enough(retention: Retention, expected: set[str]) -> None:
    assert gone(retention, aged(*WEEK)) == expected


@pytest.mark.parametrize(
    ("quota", "expected"),
    [(80, set()), (79, steps(993)), (50, steps(993, 994, 995)), (41, steps(993, 994, 995, 996))],
)
def test_beyond_the_quota_the_oldest_go_though_no_other_rule_says_so(
    quota: int, expected: set[str]
) -> None:
    assert gone(Retention(quota=quota), aged(*WEEK)) == expected
    assert gone(Retention(quota=quota, keep_last=8), aged(*WEEK)) == expected


def test_a_quota_takes_nothing_that_is_protected() -> None:
    held = replace(aged(*WEEK), best=frozenset({"c993"}), needed={"c994": "s1"})
    assert gone(Retention(quota=1), held) == steps(995, 996, 997, 998, 999)


def test_a_quota_takes_merges_first_and_then_what_they_were_made_of() -> None:
    merges = tuple(
        replace(merge(name, 993, 994), bytes=10) for name in ("a1", "a2")
    )  # fmt: skip
    held = replace(aged(*WEEK), merges=merges, best=frozenset({"a2"}))
    assert gone(Retention(quota=90), held) == {"a1"}
    assert gone(Retention(quota=80), held) == {"a1"} | steps(995)
    released = replace(held, best=frozenset())
    assert gone(Retention(quota=60), released) == {"a1", "a2"} | steps(993, 994)


def test_a_quota_takes_superseded_checkpoints_before_anything_else() -> None:
    held = aged(*WEEK)
    wrong = checkpoint(999, age=0.0, bytes=10, superseded=True)
    held = replace(held, checkpoints=(*held.checkpoints, replace(wrong, id="wrong")))
    assert gone(Retention(quota=80), held) == {"wrong"}


@pytest.mark.parametrize("rule", ["keep_last", "keep_every", "keep_best", "ttl", "quota"])
def test_a_rule_that_keeps_nothing_is_refused(rule: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{rule} must be at least 1, not 0"):
        Retention(**{rule: 0})
