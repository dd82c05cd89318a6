"""A deed under strace: which of its system calls last, and what becomes of it when one fails.

Between two of the calls listed here nothing changes on a disk, so a kill before each of them is a
kill at every moment that can be told from another one afterwards.
"""

import multiprocessing
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tests.torture.finding import require_program

SYNCS = ("fsync", "fdatasync", "sync_file_range", "msync")
WRITES = ("write", "pwrite64", "writev", "pwritev", "ftruncate", "fallocate")
NAMES = (
    "openat", "mkdir", "mkdirat", "link", "linkat", "symlink", "symlinkat", "rename", "renameat",
    "renameat2", "unlink", "unlinkat", "rmdir",
)  # fmt: skip
"""Of these an openat lasts where it may make the file."""
LASTING = (*SYNCS, *WRITES, *NAMES)

_CALL = re.compile(r"(\d+) +(\w+)\((.*)")

_SECONDS = 60.0
"""How long a deed may take; a quiet machine needs one or two."""

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.torture.controls", "tests.torture.known_worker"])
"""Starts processes that have all imported already, in milliseconds."""


@dataclass(frozen=True)
class Moment:
    """The n-th system call of a kind that a thread makes."""

    call: str
    nth: int
    where: str
    """What it was about, as strace shows it."""

    def __str__(self) -> str:
        return f"{self.call} no. {self.nth} ({self.where[:120]})"


def calls_of(log: Path) -> list[tuple[str, str, str]]:
    """Return what strace saw: thread, call, and what it was about and came to."""
    matches = map(_CALL.match, log.read_text(errors="replace").splitlines())
    return [(m[1], m[2], m[3]) for m in matches if m is not None and m[2] in LASTING]


def moments_of(log: Path, data: Path, *, between: Path | None = None) -> list[Moment]:
    """Return the lasting calls of a traced deed within a folder, in their order.

    Args:
        log: What strace wrote.
        data: The folder.
        between: A file; only what lies between the first and the last write to it counts.
    """
    counted: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, int], Moment] = {}
    calls = calls_of(log)
    marks = [
        n for n, (_, call, rest) in enumerate(calls) if call == "write" and str(between) in rest
    ]
    first, last = (marks[0], marks[-1]) if between is not None else (0, len(calls))
    for number, (thread, call, rest) in enumerate(calls):
        counted[thread, call] += 1
        lasts = first <= number <= last and (call != "openat" or "O_CREAT" in rest)
        if lasts and str(data) in rest:
            nth = counted[thread, call]
            found.setdefault((call, nth), Moment(call, nth, rest.replace(str(data), "…")))
    return list(found.values())


def trace(
    deed: Callable[..., None], *args: object, log: Path,
    inject: str | None = None, at: Moment | None = None,
) -> int:  # fmt: skip
    """Do a deed in a process of its own under strace, and return its exit code.

    Args:
        deed: A function of a module.
        args: What it is called with.
        log: Where strace writes the lasting calls.
        inject: What is done to the call at the moment, such as ``signal=SIGKILL``.
        at: When; never where it is None.
    """
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=_wait_and_do, args=(theirs, deed, args))
    process.start()
    theirs.close()
    tampering = [] if at is None else ["-e", f"inject={at.call}:{inject}:when={at.nth}"]
    watched = ",".join(LASTING)
    command = [
        require_program("strace"), "-f", "-y", "-qq", "-o", str(log), "-e", f"trace={watched}",
        *tampering, "-p", str(process.pid),
    ]  # fmt: skip
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        _await_tracer(process.pid or 0, tracer)
        ours.send_bytes(b"go")
        process.join(_SECONDS)
        return process.exitcode if process.exitcode is not None else _stuck(deed, at)
    finally:
        process.kill()
        process.join()
        tracer.terminate()
        tracer.communicate()
        ours.close()


def _wait_and_do(go: Connection, deed: Callable[..., None], args: tuple[object, ...]) -> None:
    go.recv_bytes()
    deed(*args)


def _await_tracer(process: int, tracer: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _SECONDS
    while "TracerPid:\t0\n" in Path(f"/proc/{process}/status").read_text():
        if tracer.poll() is not None or time.monotonic() > deadline:
            said = tracer.communicate()[1].decode(errors="replace") if tracer.poll() else "silent"
            raise RuntimeError(f"strace cannot attach: {said}")
        time.sleep(0.002)


def _stuck(deed: Callable[..., None], at: Moment | None) -> int:
    raise RuntimeError(f"{deed.__name__} came to no end within {_SECONDS:.0f} s, at {at}")
