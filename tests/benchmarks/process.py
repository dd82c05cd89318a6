"""A command as a process of its own: its time, its processor time, and its most memory."""

import os
import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LOOK_EVERY = 0.02
"""Seconds between two looks at a process's memory."""

_LAST_WORDS = 2000
"""Characters of a failed command's output that the error quotes."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a finished command cost."""

    seconds: float
    """From its start to its exit, the interpreter's start and all imports included."""
    processor: float
    """Seconds of processor time over all threads and children."""
    peak: int
    """Bytes: the high-water mark of resident memory, mapped files included, over the process and
    its children (the sum of each one's own mark)."""


class CommandFailedError(Exception):
    """A command that was to be measured ended with an error; the message holds its last words."""


def run_measured(
    command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None
) -> Measured:
    """Run a command to its end and measure it.

    Raises:
        CommandFailedError: it exits with an error; a time to failure is no time.
    """
    begin, before = time.perf_counter(), _processor_time()
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
    )
    watch = _MemoryWatch(process.pid)
    try:
        said, _ = process.communicate()
    except BaseException:
        process.kill()
        raise
    elapsed = time.perf_counter() - begin
    peak = watch.end()
    if process.returncode:
        words = said.decode(errors="replace")[-_LAST_WORDS:]
        raise CommandFailedError(f"{command[0]} exited with {process.returncode}: {words}")
    return Measured(elapsed, _processor_time() - before, peak)


def _processor_time() -> float:
    """Return what all children that have ended took together."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _MemoryWatch(threading.Thread):
    """Reads the high-water marks of a process and its children until told to end.

    VmHWM, not getrusage: the latter also counts what the forking parent held. The mark only rises,
    so a look misses nothing but growth in a process's last fiftieth of a second.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._marks: dict[int, int] = {}
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(_LOOK_EVERY):
            for pid in (self._pid, *_children(self._pid)):
                self._marks[pid] = max(_high_water(pid), self._marks.get(pid, 0))

    def end(self) -> int:
        """Return the sum of the marks seen, in bytes."""
        self._over.set()
        self.join()
        return sum(self._marks.values())


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has just ended
        return []


def _high_water(pid: int) -> int:
    """Return a process's peak resident memory in bytes, 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
