"""Killed -9 at every system call that lasts, and at random: what was acknowledged is there.

A kill leaves all that the kernel was told; what it shows is whether the order of the steps is right
and whether the next start clears up. What a missing sync loses, only a power cut shows.
"""

import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.errors import CheckpointFormatError
from ckptmerge.formats.manifest import read_manifest
from service.settings import Settings
from tests.torture import controls, deeds, known_worker
from tests.torture.arrivals import settings_of, write_held_out
from tests.torture.finding import Finding, Scale
from tests.torture.inspected import Seen, look
from tests.torture.journal import Journal
from tests.torture.random_kills import kill_at_random
from tests.torture.traced import Moment, moments_of, trace

KILL = "signal=SIGKILL"

CHANCES = 3
"""Tries of one moment: what is opened beside the data differs from time to time."""

Deed = Callable[[Settings, Journal], None]


def torture(scale: Scale, scratch: Path) -> Iterator[Finding]:
    """Kill uploads, merges and promotions everywhere, and the real service wherever it is."""
    every = 10_000
    held_out = write_held_out(scratch)
    started, searched = scratch / "started", scratch / "searched"
    deeds.start(settings_of(started, held_out), Journal(scratch / "journal"))
    known_worker.search(searched, floats=8)
    start = Sweep(deeds.start, scratch / "start", held_out)
    upload = Sweep(deeds.take_in, scratch / "upload", held_out, base=started)
    merge = Sweep(deeds.hand_in, scratch / "merge", None, base=searched, then=deeds.publish)
    promotion = Sweep(deeds.publish, scratch / "promotion", None, base=searched)
    yield start.finding("a first start", at_most=scale.pick(short=2, full=40))
    yield upload.finding("an upload and its registration", at_most=scale.pick(short=10, full=every))
    yield _killed_merges(scratch / "write", at_most=scale.pick(short=4, full=every))
    yield merge.finding("a merge taken from its worker", at_most=scale.pick(short=4, full=every))
    yield promotion.finding("the way to a promotion", at_most=scale.pick(short=3, full=40))
    yield from _controls(scratch, held_out, started)
    yield from kill_at_random(scale, scratch / "random")


@dataclass(frozen=True)
class Sweep:
    """A deed of the service that is killed at one moment after the other."""

    deed: Deed
    folder: Path
    held_out: Path | None
    base: Path | None = None
    """Data folder that it begins with; it begins with none where this is None."""
    then: Deed | None = None
    """What takes it to its end after a kill; the deed itself where this is None."""

    def finding(self, name: str, *, at_most: int) -> Finding:
        """Kill it at so many moments, and start again after each."""
        moments = self.moments()
        promised = self._end(*self._begun())
        found, killed, chosen = Seen(), 0, spread(moments, at_most)
        for moment in chosen:
            settings, journal = self._killed(moment)
            killed += settings is not None
            if settings is None:
                continue
            found.add(look(settings, journal))
            # Whoever was not answered asks again; now it must come to the same end.
            if self._end(settings, journal) != promised:
                found.lost.append(f"the same end, after a kill before {moment}")
            found.add(look(settings, journal))
        return Finding(
            area="crashes",
            promise=f"{name}: 0 acknowledged objects lost, 0 partial ones visible, 0 files left "
            f"behind by SIGKILL before {_of(len(chosen), len(moments))} lasting calls, and asked "
            "again it comes to the same end",
            figure=f"{len(found.lost)} lost, {len(found.partial)} partial, {len(found.left)} left "
            f"by {killed} kills" + (f": {found}" if found else ""),
            held=not found and _enough(killed, chosen),
        )

    def kills(self, moments: Sequence[Moment]) -> Seen:
        """Kill it at these moments, and say what was found after each."""
        found = Seen()
        for moment in moments:
            settings, journal = self._killed(moment)
            if settings is not None:
                found.add(look(settings, journal))
        return found

    def moments(self) -> list[Moment]:
        """Do it undisturbed, and return its lasting calls."""
        settings, journal = self._begun()
        assert self._traced(settings, journal) == 0
        return moments_of(self._log, settings.data)

    def _killed(self, moment: Moment) -> tuple[Settings | None, Journal]:
        """Kill it there; a call that comes earlier or later this time gets another chance."""
        for _ in range(CHANCES):
            settings, journal = self._begun()
            if self._traced(settings, journal, moment) == -signal.SIGKILL:
                return settings, journal
        return None, journal

    def _end(self, settings: Settings, journal: Journal) -> object:
        (self.then or self.deed)(settings, journal)
        return journal.facts()[-1].get("digest")

    def _begun(self) -> tuple[Settings, Journal]:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        if self.base is not None:
            shutil.copytree(self.base, self.folder / "data")
        return settings_of(self.folder / "data", self.held_out), Journal(self.folder / "journal")

    def _traced(self, settings: Settings, journal: Journal, at: Moment | None = None) -> int:
        return trace(self.deed, settings, journal, log=self._log, inject=KILL, at=at)

    @property
    def _log(self) -> Path:
        return self.folder / "strace"


def _of(chosen: int, known: int) -> str:
    return f"each of its {known}" if chosen == known else f"{chosen} of its {known}"


def spread(moments: Sequence[Moment], at_most: int) -> list[Moment]:
    """Choose moments all over a deed: the rare calls first, then the writes between them."""
    rare = [moment for moment in moments if moment.call != "pwrite64"]
    common = [moment for moment in moments if moment.call == "pwrite64"]
    chosen = _every(rare, at_most)
    chosen += _every(common, max(at_most - len(chosen), at_most // 4))
    return sorted(chosen, key=moments.index)


def _every(moments: Sequence[Moment], at_most: int) -> list[Moment]:
    """Choose at most so many, evenly spaced."""
    if len(moments) <= at_most:
        return list(moments)
    return [moments[number * len(moments) // at_most] for number in range(at_most)]


def _killed_merges(folder: Path, *, at_most: int) -> Finding:
    """Kill a merge while it is written."""
    parents = folder / "parents"
    for index, name in enumerate("ab"):
        (parents / name).mkdir(parents=True)
        tensors = {f"w{n}": np.full((50, 60), index + n, np.float32) for n in range(12)}
        save_file(tensors, parents / name / "model.safetensors")
        (parents / name / "config.json").write_text("{}")
    whole = folder / "whole" / "merged"
    assert trace(deeds.write_merge, parents, whole, log=folder / "strace") == 0
    moments = moments_of(folder / "strace", whole.parent)
    promised = read_manifest(whole).files
    wrong: list[str] = []
    killed = 0
    for moment in (chosen := spread(moments, at_most)):
        out = folder / "killed" / "merged"
        for _ in range(CHANCES):
            shutil.rmtree(out.parent, ignore_errors=True)
            code = trace(
                deeds.write_merge, parents, out, log=folder / "strace", inject=KILL, at=moment
            )
            if code == -signal.SIGKILL:
                killed += 1
                break
        if out.exists() and not _is_whole(out, promised):
            wrong.append(f"partial, before {moment}")
        if not out.exists():
            deeds.write_merge(parents, out)
        if not _is_whole(out, promised) or len(list(out.parent.iterdir())) != 1:
            wrong.append(f"not the same merge or something beside it, after {moment}")
    return Finding(
        area="crashes",
        promise="a merge as it is written: nothing or all of it under its name after SIGKILL "
        f"before {_of(len(chosen), len(moments))} lasting calls, and the next one clears up",
        figure=f"{len(wrong)} wrong after {killed} kills" + "".join(f"; {w}" for w in wrong[:3]),
        held=not wrong and _enough(killed, chosen),
    )


def _enough(killed: int, chosen: Sequence[Moment]) -> bool:
    """Say whether the deed was killed nearly wherever it was to be.

    How often a library opens a file beside the data differs from run to run, so that a moment may
    not come again however often it is tried.
    """
    return killed >= max(1, len(chosen) - max(1, len(chosen) // 20))


def _is_whole(folder: Path, promised: tuple[FileEntry, ...]) -> bool:
    """Say whether a model folder is complete, and the one that was promised."""
    try:
        return read_manifest(folder).files == promised
    except CheckpointFormatError:
        return False


def _controls(scratch: Path, held_out: Path, started: Path) -> Iterator[Finding]:
    """Break the order of the steps, and see that the same look finds it."""
    in_place = Sweep(controls.take_in_in_place, scratch / "in-place", held_out, started)
    moments = [m for m in in_place.moments() if m.call == "write" and "/sha256/" in m.where]
    found = in_place.kills(moments[1:2] + moments[-1:])
    yield Finding(
        area="crashes",
        promise="control: with blobs written under their own names, partial ones are visible",
        figure=f"{len(found.partial)} partial in 2 kills",
        held=bool(found.partial),
    )
    early = Sweep(controls.take_in_acknowledged_early, scratch / "early", held_out, started)
    links = [moment for moment in early.moments() if moment.call in {"link", "linkat"}]
    found = early.kills(links[-2:])
    yield Finding(
        area="crashes",
        promise="control: acknowledged before it is done, objects are lost",
        figure=f"{len(found.lost)} lost in 2 kills",
        held=bool(found.lost),
    )
