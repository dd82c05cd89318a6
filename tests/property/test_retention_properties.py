"""Whatever a run holds and whatever its policy: nothing protected goes, and going ends."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ckptmerge.domain.retention import (
    HeldCheckpoint,
    HeldMerge,
    Holdings,
    Retention,
    decide_fates,
)

NUMBER = st.none() | st.integers(1, 5)

POLICIES = st.builds(
    Retention, keep_last=NUMBER, keep_every=NUMBER, keep_best=NUMBER, ttl=NUMBER, quota=NUMBER
)


@st.composite
def any_holdings(draw: st.DrawFn) -> Holdings:
    places = draw(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 12)), unique=True))
    checkpoints = tuple(
        HeldCheckpoint(
            id=f"c{attempt}-{step}", attempt=attempt, step=step,
            complete=draw(st.booleans()), pinned=draw(st.booleans()),
            superseded=draw(st.booleans()), age=draw(st.integers(0, 6)),
            bytes=draw(st.integers(0, 3)),
        )
        for attempt, step in places
    )  # fmt: skip
    ids = [c.id for c in checkpoints]
    parents = st.lists(st.sampled_from(ids), max_size=3) if ids else st.just([])
    merges = tuple(
        HeldMerge(
            id=f"a{number}", parents=tuple(draw(parents)), promoted=draw(st.booleans()),
            pinned=draw(st.booleans()), bytes=draw(st.integers(0, 3)),
        )
        for number in range(draw(st.integers(0, 5)))
    )  # fmt: skip
    some = [*ids, *(m.id for m in merges)]
    chosen = st.sets(st.sampled_from(some), max_size=3) if some else st.just(set[str]())
    return Holdings(
        attempt=draw(st.integers(1, 3)),
        window=draw(st.integers(1, 4)),
        checkpoints=checkpoints,
        merges=merges,
        best=frozenset(draw(chosen)),
        needed=dict.fromkeys(draw(chosen), "s1"),
    )


def gone(policy: Retention, held: Holdings) -> set[str]:
    return {fate.id for fate in decide_fates(policy, held) if fate.goes}


def without(held: Holdings, ids: set[str]) -> Holdings:
    return replace(
        held,
        checkpoints=tuple(c for c in held.checkpoints if c.id not in ids),
        merges=tuple(m for m in held.merges if m.id not in ids),
    )


@given(POLICIES, any_holdings())
def test_nothing_protected_ever_goes(policy: Retention, held: Holdings) -> None:
    going = gone(policy, held)
    stays = [m for m in held.merges if m.id not in going]
    newest = sorted(
        (
            c
            for c in held.checkpoints
            if c.complete and not c.superseded and c.attempt == held.attempt
        ),
        key=lambda c: c.step,
    )[-held.window :]
    assert not going & held.best
    assert not going & held.needed.keys()
    assert not going & {x.id for x in (*held.checkpoints, *held.merges) if x.pinned}
    assert not going & {c.id for c in newest}
    assert not going & {parent for m in stays for parent in m.parents}


@given(POLICIES, any_holdings())
def test_what_goes_leaves_nothing_more_to_go(policy: Retention, held: Holdings) -> None:
    assert gone(policy, without(held, gone(policy, held))) == set()


@given(POLICIES, any_holdings())
def test_everything_has_one_fate_and_a_reason(policy: Retention, held: Holdings) -> None:
    fates = decide_fates(policy, held)
    assert sorted(f.id for f in fates) == sorted(x.id for x in (*held.checkpoints, *held.merges))
    assert all(fate.reason for fate in fates)


@given(any_holdings())
def test_without_rules_only_merges_that_nobody_promoted_go(held: Holdings) -> None:
    assert gone(Retention(), held) <= {m.id for m in held.merges if not m.promoted}


@given(POLICIES, any_holdings())
def test_what_stays_beyond_the_quota_is_what_nothing_may_take(
    policy: Retention, held: Holdings
) -> None:
    fates = {fate.id: fate for fate in decide_fates(policy, held)}
    staying = [x for x in (*held.checkpoints, *held.merges) if not fates[x.id].goes]
    over = policy.quota is not None and sum(x.bytes for x in staying) > policy.quota
    assert not over or all(fates[x.id].firm for x in staying if x.bytes)
