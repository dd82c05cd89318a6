"""The demo's processes: the service, started anew should it die, and the training job."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from ckptmerge.cli import render
from ckptmerge.errors import CkptmergeError

_CKPTMERGE = [sys.executable, "-c", "from ckptmerge.cli.main import main; main()"]

# One thread each for training and scoring: kernels this small gain nothing from a second one.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

_START = 60.0
"""Seconds in which a service must answer; it takes two or three."""

_PATIENCE = 30.0
"""Seconds that a process has to end by itself once it was asked to."""


class DemoFailedError(CkptmergeError):
    """The demo found that something it says does not hold."""


class Serving:
    """`ckptmerge serve` on a free port of this machine; a context manager that ends it.

    Args:
        out: The demo's folder: ``service.yaml`` is read there, ``service`` and ``service.log``
            are written.
    """

    def __init__(self, out: Path) -> None:
        self.log = out / "service.log"
        self.data = out / "service"
        self._settings = out / "service.yaml"
        self._ready = out / ".service-ready"
        self._port = 0
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            _end(self._process)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _end(self._process)

    def mind(self) -> None:
        """Start the service again where it has died, as whatever supervises a real one would."""
        if self._process is not None and self._process.poll() is not None:
            render.out.print(f"the service died (code {self._process.returncode}); starting it")
            self._start()

    def _start(self) -> None:
        """Start the service and wait until it answers.

        Raises:
            DemoFailedError: it ended, or does not answer.
        """
        self._ready.unlink(missing_ok=True)
        command = [
            *_CKPTMERGE, "serve", "--config", self._settings, "--data", self.data,
            "--port", str(self._port), "--ready-file", self._ready,
        ]  # fmt: skip
        self._process = _started(command, self.log)
        deadline = time.monotonic() + _START
        while not self._ready.exists():
            code = self._process.poll()
            if code is not None and code < 0:  # killed, and no fault of its own
                self._process = _started(command, self.log)
            elif code is not None or time.monotonic() > deadline:
                raise DemoFailedError(f"the service does not start:\n{_end_of(self.log)}")
            time.sleep(0.05)
        self.url = self._ready.read_text("utf-8")
        self._port = int(self.url.rsplit(":", 1)[1])


class Training:
    """The pretraining job, which knows nothing of the service but its address."""

    def __init__(
        self,
        out: Path,
        url: str,
        run: str,
        *,
        plan: str,
        schedule: str,
        every: int,
        count: int,
        seed: int,
        documents: int,
    ) -> None:
        self.folder = out / "run"
        self.log = out / "training.log"
        self._command = [
            sys.executable, "-m", "ckptmerge.pretrain", "--out", self.folder, "--url", url,
            "--run", run, "--plan", plan, "--schedule", schedule, "--steps", str(every * count),
            "--every", str(every), "--seed", str(seed), "--held-out-documents", str(documents),
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = _started(self._command, self.log)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _end(self._process)

    @property
    def checkpoints(self) -> tuple[Path, ...]:
        """Folders of the checkpoints, oldest first."""
        return tuple(sorted(self.folder.glob("step-*")))

    @property
    def held_out(self) -> Path:
        """Documents that training never saw."""
        return self.folder / "held-out.jsonl"

    @property
    def over(self) -> bool:
        """Whether training has come to its end.

        Raises:
            DemoFailedError: it ended before that.
        """
        code = None if self._process is None else self._process.poll()
        if code:
            raise DemoFailedError(f"training ended with code {code}:\n{_end_of(self.log)}")
        return code == 0

    @property
    def last_words(self) -> str:
        """What the job said last: how long it waited for the service."""
        return self.log.read_text("utf-8").rstrip().rpartition("\n")[2]


def _started(command: list[str | Path], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as written:
        return subprocess.Popen(  # noqa: S603 - our own commands
            command, stdin=subprocess.DEVNULL, stdout=written, stderr=written,
            env={**os.environ, **_ENVIRONMENT},
        )  # fmt: skip


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-15:])
