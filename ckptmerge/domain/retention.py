"""Retention: which checkpoints and merges keep their bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from ckptmerge.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What a run keeps; a rule that is None lets nothing go.

    A checkpoint stays where any of `keep_last`, `keep_every` and `ttl` says so. The quota comes
    after the rules, and takes what they would keep: merges first, which can be rebuilt.

    Raises:
        InvalidInputError: a number is below one.
    """

    keep_last: int | None = None
    """So many of the newest checkpoints stay."""
    keep_every: int | None = None
    """Checkpoints whose step it divides stay."""
    keep_best: int | None = None
    """So many of the newest promoted merges keep their bytes."""
    ttl: int | None = None
    """Checkpoints that arrived within so many seconds stay."""
    quota: int | None = None
    """So many bytes the run may hold: beyond it the oldest go that only a rule keeps."""

    def __post_init__(self) -> None:
        for rule in fields(self):
            value = getattr(self, rule.name)
            if value is not None and value < 1:
                raise InvalidInputError(f"{rule.name} must be at least 1, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCheckpoint:
    """A checkpoint whose bytes are there."""

    id: str
    attempt: int
    step: int
    complete: bool = True
    """Whether it can be merged; others wait for files that are missing."""
    pinned: bool = False
    superseded: bool = False
    """Whether another has taken its place at its step."""
    age: float = 0.0
    """Seconds since it arrived."""
    bytes: int = 0
    """Of all its files, also those that others share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldMerge:
    """A merge whose bytes are there."""

    id: str
    parents: tuple[str, ...]
    """Ids of the checkpoints that it is rebuilt from."""
    promoted: bool
    pinned: bool = False
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Everything a run holds, and what it is needed for."""

    attempt: int
    """The one that new checkpoints belong to."""
    window: int
    """How many of the newest checkpoints the next study may take some of."""
    checkpoints: tuple[HeldCheckpoint, ...] = ()
    merges: tuple[HeldMerge, ...] = ()
    """Oldest first."""
    best: frozenset[str] = frozenset()
    """Ids of what is best now: what was promoted last, and what somebody put in its place."""
    needed: Mapping[str, str] = field(default_factory=dict[str, str])
    """By id of a checkpoint or merge: the study that is still going and needs it."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of the bytes of one checkpoint or merge."""

    id: str
    goes: bool
    reason: str
    firm: bool = False
    """Whether it stays under any policy."""


def decide_fates(retention: Retention, holdings: Holdings) -> tuple[Fate, ...]:
    """Say of every checkpoint and merge whether its bytes go, and why.

    What is best, pinned, or needed by a study stays under any policy; so do the newest window and
    the parents of every merge that stays, without which its recipe would be a promise nobody can
    keep. Merges that a study wrote and did not promote go with its end, under any policy too.
    Whoever removes what goes and asks again is told that nothing more goes.
    """
    fates = _fates(retention, holdings, frozenset())
    pushed_out: set[str] = set()
    while (next_out := _beyond_quota(retention, holdings, fates)) is not None:
        pushed_out.add(next_out)
        # Anew each time: where a merge goes, its parents need not stay for it.
        fates = _fates(retention, holdings, frozenset(pushed_out))
    return fates


def _beyond_quota(retention: Retention, holdings: Holdings, fates: tuple[Fate, ...]) -> str | None:
    """Name what goes next for the run to come within its quota; None where nothing has to, or can.

    Superseded checkpoints first, then merges, which their recipes can bring back, then checkpoints;
    of each the oldest.
    """
    staying = {fate.id: fate for fate in fates if not fate.goes}
    checkpoints = sorted(
        holdings.checkpoints, key=lambda c: (not c.superseded, c.attempt, c.step)
    )  # fmt: skip
    superseded = [c for c in checkpoints if c.superseded]
    in_order = (*superseded, *holdings.merges, *checkpoints[len(superseded) :])
    held = sum(item.bytes for item in in_order if item.id in staying)
    if retention.quota is None or held <= retention.quota:
        return None
    loose = (i.id for i in in_order if i.id in staying and not staying[i.id].firm and i.bytes)
    return next(loose, None)


def _fates(
    retention: Retention, holdings: Holdings, pushed_out: frozenset[str]
) -> tuple[Fate, ...]:
    fates = _by_rules(retention, holdings, pushed_out)
    return tuple(
        Fate(
            fate.id, goes=True, reason=f"the run holds more than {retention.quota:,} bytes (quota)"
        )
        if fate.id in pushed_out and not fate.goes and not fate.firm
        else fate
        for fate in fates
    )


def _by_rules(
    retention: Retention, holdings: Holdings, pushed_out: frozenset[str]
) -> tuple[Fate, ...]:
    merges = _merges(retention, holdings)
    staying = {fate.id for fate in merges if not fate.goes and fate.id not in pushed_out}
    parent_of = {
        parent: merge.id
        for merge in holdings.merges
        if merge.id in staying
        for parent in merge.parents
    }
    return (*_checkpoints(retention, holdings, parent_of), *merges)


def _checkpoints(
    retention: Retention, holdings: Holdings, parent_of: Mapping[str, str]
) -> list[Fate]:
    oldest_first = sorted(holdings.checkpoints, key=lambda c: (c.attempt, c.step))
    standing = [c for c in oldest_first if c.complete and not c.superseded]
    present = [c.id for c in standing if c.attempt == holdings.attempt]
    window = frozenset(present[-holdings.window :])
    fates: list[Fate] = []
    newer = len(standing)
    for checkpoint in oldest_first:
        newer -= checkpoint.complete and not checkpoint.superseded
        reason = _protected(checkpoint, holdings)
        if reason is None and checkpoint.id in window:
            reason = f"one of the newest {holdings.window}, which the next study may merge"
        if reason is None and checkpoint.id in parent_of:
            reason = f"merge {parent_of[checkpoint.id]} stays, and is rebuilt from it"
        fates.append(
            _by_rule(retention, checkpoint, newer)
            if reason is None
            else Fate(checkpoint.id, goes=False, reason=reason, firm=True)
        )
    return fates


def _by_rule(retention: Retention, checkpoint: HeldCheckpoint, newer: int) -> Fate:
    """Apply the policy to a checkpoint that nothing protects; ``newer`` complete ones follow it.

    A checkpoint that waits for files does not push out one that can be merged.
    """
    last, every, ttl = retention.keep_last, retention.keep_every, retention.ttl
    if last is None and every is None and ttl is None:
        return Fate(checkpoint.id, goes=False, reason="no rule lets checkpoints go")
    if checkpoint.superseded:
        return Fate(checkpoint.id, goes=True, reason="another has taken its place at its step")
    if last is not None and newer < last:
        return Fate(checkpoint.id, goes=False, reason=f"one of the newest {last} (keep_last)")
    if every is not None and checkpoint.step % every == 0:
        return Fate(checkpoint.id, goes=False, reason=f"step divisible by {every} (keep_every)")
    if ttl is not None and checkpoint.age <= ttl:
        return Fate(checkpoint.id, goes=False, reason=f"not older than {ttl:,} seconds (ttl)")
    reasons = [f"{last} newer ones stay (keep_last)"] if last is not None else []
    reasons += [f"step not divisible by {every} (keep_every)"] if every is not None else []
    reasons += [f"older than {ttl:,} seconds (ttl)"] if ttl is not None else []
    return Fate(checkpoint.id, goes=True, reason=", ".join(reasons))


def _merges(retention: Retention, holdings: Holdings) -> list[Fate]:
    promoted = [merge.id for merge in holdings.merges if merge.promoted]
    best = retention.keep_best
    newest = frozenset(promoted if best is None else promoted[-best:])
    fates: list[Fate] = []
    for merge in holdings.merges:
        reason = _protected(merge, holdings)
        if reason is not None:
            fates.append(Fate(merge.id, goes=False, reason=reason, firm=True))
        elif not merge.promoted:
            fates.append(Fate(merge.id, goes=True, reason="its study ended without promoting it"))
        elif merge.id not in newest:
            reason = f"{best} newer promoted merges stay (keep_best)"
            fates.append(Fate(merge.id, goes=True, reason=reason))
        elif best is None:
            reason = "no rule lets promoted merges go"
            fates.append(Fate(merge.id, goes=False, reason=reason))
        else:
            reason = f"one of the newest {best} promoted merges (keep_best)"
            fates.append(Fate(merge.id, goes=False, reason=reason))
    return fates


def _protected(held: HeldCheckpoint | HeldMerge, holdings: Holdings) -> str | None:
    """Say why something stays under any policy; None where nothing says so yet."""
    if held.id in holdings.best:
        return "the best of the run"
    if held.pinned:
        return "pinned by hand"
    if held.id in holdings.needed:
        return f"study {holdings.needed[held.id]} is still going, and needs it"
    return None
