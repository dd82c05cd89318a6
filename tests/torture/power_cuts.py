"""Power is lost again and again while uploads come: what was acknowledged before is on the disk."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random

from service.settings import Settings
from tests.torture import controls, deeds
from tests.torture.arrivals import settings_of, write_held_out
from tests.torture.disk_images import DiskImage, disk_image, mounted
from tests.torture.finding import Finding, Scale
from tests.torture.inspected import Seen, look
from tests.torture.journal import Journal
from tests.torture.traced import PROCESSES

LONGEST = 0.3
"""Seconds from one cut to the next, at most: several checkpoints arrive in it."""

MORE = 4
"""Acknowledgements from one cut to the next, at least."""


@dataclass
class PowerCuts:
    """Cuts of one service's power, and what they have come to."""

    folder: Path
    made: int = 0
    seen: Seen = field(default_factory=Seen)
    acknowledged: int = 0
    """Facts that clients had been told of before the last cut."""

    @property
    def journal(self) -> Journal:
        """What clients are told."""
        return Journal(self.folder / "journal")

    def make(self, disk: DiskImage, process: int, held_out: Path) -> None:
        """Cut the power, and look at what is left of the disk."""
        copy, known = self.folder / "copy.img", Journal(self.folder / "known")
        os.kill(process, signal.SIGSTOP)
        try:
            shutil.copyfile(self.journal.path, known.path)
            disk.cut(copy)
            with mounted(copy, self.folder / "copy"):
                self.seen.add(look(settings_of(self.folder / "copy" / "data", held_out), known))
        finally:
            os.kill(process, signal.SIGCONT)
        self.made += 1
        self.acknowledged = len(known.facts())
        copy.unlink()

    def __str__(self) -> str:
        return (
            f"{len(self.seen.lost)} lost and {len(self.seen.partial)} partial in {self.made} cuts, "
            f"the last after {self.acknowledged:,} acknowledgements"
        )


def torture(scale: Scale, scratch: Path) -> Iterator[Finding]:
    """Cut the power of a service that takes checkpoints, and of two that break a rule."""
    cuts = _cut(scratch, deeds.keep_arriving, scale.pick(short=5, full=50))
    yield Finding(
        area="power_cuts",
        promise=f"0 acknowledged objects lost, 0 partial ones visible and the database whole after "
        f"{cuts.made} power cuts",
        figure=str(cuts) + (f": {cuts.seen}" if cuts.seen else ""),
        held=not cuts.seen and cuts.acknowledged >= MORE * cuts.made > 0,
    )
    some = scale.pick(short=2, full=5)
    cuts = _cut(scratch, controls.keep_arriving_without_syncs, some)
    yield Finding(
        area="power_cuts",
        promise="control: without fsync, acknowledged objects are lost or partial",
        figure=str(cuts),
        held=bool(cuts.seen.lost or cuts.seen.partial),
    )
    cuts = _cut(scratch, controls.keep_arriving_without_synchronous, some)
    yield Finding(
        area="power_cuts",
        promise="control: with synchronous=OFF, acknowledged commits are lost",
        figure=str(cuts),
        held=bool(cuts.seen.lost),
    )


def _cut(scratch: Path, deed: Callable[[Settings, Journal], None], cuts: int) -> PowerCuts:
    """Cut the power of a deed that goes on for as long as it may."""
    done = PowerCuts(scratch / deed.__name__)
    done.folder.mkdir()
    held_out, random = write_held_out(done.folder), Random(4)  # noqa: S311 - the same each time
    with disk_image(done.folder) as disk:
        settings = settings_of(disk.folder / "data", held_out)
        with _going_on(deed, settings, done.journal) as process:
            for _ in range(cuts):
                _await(done.journal, done.acknowledged + MORE, process)
                time.sleep(random.uniform(0, LONGEST))
                done.make(disk, process.pid or 0, held_out)
    shutil.rmtree(done.folder)
    return done


@contextmanager
def _going_on(
    deed: Callable[[Settings, Journal], None], settings: Settings, journal: Journal
) -> Iterator[BaseProcess]:
    """Let a deed go on in a process of its own."""
    process = PROCESSES.Process(target=deed, args=(settings, journal))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def _await(journal: Journal, facts: int, process: BaseProcess) -> None:
    """Wait until clients have been told of so much."""
    while len(journal.facts()) < facts:
        assert process.is_alive(), "it ended before its power was cut"
        time.sleep(0.02)
