"""A real service in processes of its own, for tests that kill them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ckptmerge.client.client import Client
from ckptmerge.errors import ServiceError
from tests.e2e.processes import processes_of

COMMAND = [sys.executable, "-c", "from ckptmerge.cli.main import main; main()"]


class RunningService:
    """`ckptmerge serve` on a data folder; can be killed and started again."""

    def __init__(
        self,
        folder: Path,
        held_out: Path,
        *,
        workers: int = 1,
        watch: Path | None = None,
        environ: Mapping[str, str] | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.folder = folder
        self._command = command
        self._environ = environ or {}
        self._held_out = held_out
        self._watch = [] if watch is None else ["--watch", watch]
        self._workers = workers
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self._port = 0

    def __enter__(self) -> "RunningService":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, on the same port as before, and wait until requests are answered."""
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [
                *self._command, "serve", "--data", self.folder / "data", "--port", str(self._port),
                "--held-out", self._held_out, "--workers", str(self._workers),
                "--ready-file", ready, *self._watch,
            ],
            stdout=log, stderr=log, start_new_session=True,
            env={
                **os.environ, "CKPTMERGE_LEASE_TTL": "6", "CKPTMERGE_RESERVE": "0", **self._environ,
            },
        )  # fmt: skip
        log.close()
        wait_for(ready.exists, 60, lambda: self.log()[-3000:])
        self.url = ready.read_text()
        self._port = int(self.url.rsplit(":", 1)[1])

    @property
    def process(self) -> int:
        """The id of the service's main process."""
        assert self._process is not None, "it has not been started"
        return self._process.pid

    def stop(self) -> int:
        """Ask the service to end, and wait until it has; return its exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(60)
        self._process = None
        return code

    def kill(self) -> None:
        """Kill the service; its workers end by themselves."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def kill_worker(self) -> bool:
        """Kill a worker; False where there is none."""
        found = self.processes("worker --url")
        for process in found[:1]:
            os.kill(process, signal.SIGKILL)
        return bool(found)

    def processes(self, command: str) -> list[int]:
        """Return the ids of this service's child processes whose command line holds ``command``."""
        if self._process is None:
            return []
        return processes_of(os.getpgid(self._process.pid), command)

    def log(self) -> str:
        """Return what the service has said."""
        return (self.folder / "log").read_text(errors="replace")


def wait_for(
    what: Callable[[], object], seconds: float, said: Callable[[], str] = lambda: ""
) -> None:
    """Wait until something is so, and fail with what was said where it never is."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds} s: {said()}"
        time.sleep(0.1)


def decided(client: Client, run: str) -> bool:
    """Say whether the run's newest study is over; False while the service is away."""
    try:
        study = next(iter(client.studies(run)), None)
    except ServiceError:
        return False
    return study is not None and study.state not in {"searching", "frozen"}
