"""The engine: worker processes beside the service, one a device."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread

import structlog

from ckptmerge.errors import CkptmergeError
from ckptmerge.formats.claim import ClaimedFolder
from service.last_words import LastWords

_TOKEN = "CKPTMERGE_TOKEN"  # noqa: S105 - the name of the variable

_WORKER = "from ckptmerge.cli.main import main; main()"

_PERIOD = 2.0
"""Seconds between looks for workers that died."""

_PATIENCE = 10.0
"""Seconds that a worker has to end by itself."""

_KEPT = 8192
"""Bytes of a worker's stderr that are kept for when it dies."""

_log = structlog.get_logger(__name__)


class Workers:
    """Worker processes: started anew when one dies, and ended with this process.

    A worker that is killed loses its lease; without another one its task would wait for ever. What
    it was writing lies in a temporary folder of its own, which is cleared for the next one; those
    of a service that was killed are removed when the next service starts.

    Args:
        data: Folder for all this: merges need the room that blobs have, and /tmp may not.
    """

    def __init__(self, data: Path) -> None:
        self._folder = ClaimedFolder(data, ".workers-")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._command: list[str] = []
        self._names: dict[int, str] = {}
        self._words: dict[int, LastWords] = {}
        self._stopping = Event()
        self._minder = Thread(target=self._mind, name="ckptmerge-workers", daemon=True)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._minder.is_alive():
            self._minder.join()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
            process.communicate()  # waits, and closes our end of the pipe
        self._folder.remove()

    def start(
        self,
        devices: Sequence[str],
        url: str,
        *,
        certificate: str | None = None,
        token: str | None = None,
        on_death: Callable[[str, int, str], None],
    ) -> None:
        """Start one a device; each watches the pipe to this process and ends when it closes.

        Args:
            devices: What each runs on.
            url: Where the service is.
            certificate: The only one that they believe there, in PEM form.
            token: What they show there; through the environment, for everybody on a machine can
                read the command lines of others.
            on_death: Told, from a thread, the name of one that died, its exit code, and the end of
                what it said.
        """
        self._on_death = on_death
        self._identity = {} if token is None else {_TOKEN: token}
        # One thread for each of several: more would wait for each other.
        threads = ["--threads", "1"] if len(devices) > 1 else []
        self._command = [
            sys.executable, "-c", _WORKER, "worker", "--url", url, "--with-parent", *threads,
            *(["--readable-log"] if sys.stderr.isatty() else []), *self._pin(certificate),
        ]  # fmt: skip
        self._devices = tuple(devices)
        self._processes = [self._started(index) for index in range(len(devices))]
        self._minder.start()

    def _pin(self, certificate: str | None) -> list[str]:
        """Return the option by which workers know the service."""
        if certificate is None:
            return []
        # A copy: the file of the settings may be renewed while the service shows the one it read.
        file = self._folder.path / "certificate.pem"
        file.write_text(certificate, "ascii")
        return ["--certificate", str(file)]

    def _started(self, index: int) -> subprocess.Popen[bytes]:
        scratch = self._folder.path / str(index)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True, exist_ok=True)
        # A new name each time: a known one would be handed what the dead worker held, as if it had
        # only not heard the answer.
        self._names[index] = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._words[index] = words = LastWords(_KEPT)
        try:
            return subprocess.Popen(  # noqa: S603 - our own command
                [*self._command, "--device", self._devices[index], "--name", self._names[index]],
                stdin=subprocess.PIPE,
                stderr=words.entry,
                env={**os.environ, "TMPDIR": str(scratch), **self._identity},
            )
        finally:
            words.listen()

    def _mind(self) -> None:
        """Replace the dead, at most one generation a period: a worker that cannot start is slow."""
        while not self._stopping.wait(_PERIOD):
            for index, process in enumerate(self._processes):
                if process.poll() is not None:
                    _log.warning("a worker died; starting another", code=process.returncode)
                    try:
                        self._replace(index)
                    except (CkptmergeError, OSError) as error:
                        # A full disk, or too many processes: no reason to stop minding.
                        _log.warning("no worker could be started; trying again", reason=str(error))

    def _replace(self, index: int) -> None:
        """Start another worker in the place of a dead one; may be called again if that fails."""
        self._processes[index].communicate()
        code = self._processes[index].returncode
        self._on_death(self._names[index], code, self._words[index].of_the_dead())
        self._processes[index] = self._started(index)
