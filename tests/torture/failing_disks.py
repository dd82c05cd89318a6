"""Calls of the disk that fail, one at a time: what the client is told, and what is left."""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.torture import deeds
from tests.torture.arrivals import settings_of, write_held_out
from tests.torture.crashes import spread
from tests.torture.finding import Finding, Scale
from tests.torture.inspected import Seen, look
from tests.torture.journal import Journal
from tests.torture.traced import SYNCS, WRITES, Moment, calls_of, moments_of, trace

_PATH = re.compile(r"\d+<([^>]*)>|\"([^\"]*)\"")


@dataclass(frozen=True)
class Fault:
    """An error of the disk, and what a client must be told of it."""

    error: str
    calls: Sequence[str]
    status: int
    problem: str


FAILING = Fault("EIO", (*SYNCS, *WRITES, "link", "linkat"), 503, "disk-failed")
FULL = Fault("ENOSPC", (*WRITES, "mkdir", "link", "linkat"), 507, "out-of-space")


def fail_calls(scale: Scale, folder: Path) -> Iterator[Finding]:
    """Let calls of one upload and registration fail, each in its turn."""
    folder.mkdir()
    held_out = write_held_out(folder)
    started = folder / "started"
    deeds.start(settings_of(started, held_out), Journal(folder / "journal"))
    for fault in (FAILING, FULL):
        yield _fail(fault, folder / fault.error, started, held_out, scale)


def _fail(fault: Fault, folder: Path, started: Path, held_out: Path, scale: Scale) -> Finding:
    moments = [m for m in _moments(folder, started, held_out) if m.call in fault.calls]
    chosen = spread(moments, scale.pick(short=6, full=10_000))
    found, wrong, refused = Seen(), list[str](), 0
    for moment in chosen:
        shutil.rmtree(folder)
        shutil.copytree(started, folder / "data")
        settings, journal = settings_of(folder / "data", held_out), Journal(folder / "journal")
        log = folder / "strace"
        code = trace(
            deeds.insist, settings, journal, log=log, inject=f"error={fault.error}", at=moment
        )
        told = [fact for fact in journal.facts() if "refused" in fact]
        refused += len(told)
        if any((fact["status"], fact["problem"]) != (fault.status, fault.problem) for fact in told):
            wrong.append(f"told {told} of {moment}")
        if code != 0 or not journal.facts()[-1].get("ended"):
            wrong.append(f"sent again it failed, after {moment}")
        wrong += _synced_again(log)
        found.add(look(settings, journal))
    return Finding(
        area="bad_disks",
        promise=f"{fault.error} once at {len(chosen)} of the {len(moments)} calls of an upload and "
        f"its registration: answered with {fault.status} {fault.problem} where it matters, 0 "
        "acknowledged objects lost or partial ones visible, no file synced again without being "
        "written again, and sent again it succeeds",
        figure=f"{refused} refused, {len(wrong)} wrong, {len(found.lost)} lost, "
        f"{len(found.partial)} partial, {len(found.left)} left"
        + (f": {found}" if found else "")
        + "".join(f"; {each}" for each in wrong[:3]),
        held=not found and not wrong and refused > 0,
    )


def _moments(folder: Path, started: Path, held_out: Path) -> list[Moment]:
    """Return what the requests alone call: a service that cannot start acknowledges nothing."""
    shutil.copytree(started, folder / "data")
    settings, journal = settings_of(folder / "data", held_out), Journal(folder / "journal")
    assert trace(deeds.insist, settings, journal, log=folder / "strace") == 0
    return moments_of(folder / "strace", settings.data, between=journal.path)


def _synced_again(log: Path) -> Iterator[str]:
    """Name a file whose sync failed, and was tried again with nothing written in between."""
    failed: str | None = None
    for _, call, rest in calls_of(log):
        paths = ["".join(found) for found in _PATH.findall(rest)]
        if failed is None:
            failed = paths[0] if call in SYNCS and "(INJECTED)" in rest else None
        elif call in SYNCS and paths[:1] == [failed]:
            yield f"{failed} was synced again"
            return
        elif any(path == failed or path.startswith(f"{failed}/") for path in paths):
            return
