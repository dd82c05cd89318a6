"""What a process says on its stderr: passed on to ours, and the end of it kept for when it dies."""

import os
from contextlib import suppress
from threading import Thread

_CHUNK = 1 << 16
"""Bytes read at a time."""

_PATIENCE = 1.0
"""Seconds for the end of a dead process's stderr: a child of its own may hold it open."""


class LastWords:
    """The stderr of one process: give it ``entry``, then ``listen``, and ask when it is dead.

    Args:
        keep: How many bytes of its end are kept.
    """

    def __init__(self, keep: int) -> None:
        self._exit, self.entry = os.pipe()
        """``entry`` is the descriptor that the process writes to."""
        self._keep = keep
        self._kept = b""
        self._thread = Thread(target=self._pass_on, name="ckptmerge-stderr", daemon=True)

    def listen(self) -> None:
        """Begin, once the process has been given its end."""
        os.close(self.entry)
        self._thread.start()

    def of_the_dead(self) -> str:
        """Return the end of what it said; call when the process has ended."""
        self._thread.join(_PATIENCE)
        return self._kept.decode(errors="replace")

    def _pass_on(self) -> None:
        while chunk := os.read(self._exit, _CHUNK):
            self._kept = (self._kept + chunk)[-self._keep :]
            with suppress(OSError):  # nobody listens to us: no reason to stop a worker
                os.write(2, chunk)
        os.close(self._exit)
