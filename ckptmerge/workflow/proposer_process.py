"""The asking side of the proposer: a child process that is started, asked and replaced.

Torch-free, so a service that answers requests can own one. The child keeps no state, so a dead one
is replaced and asked again, and gives the answer that the first would have given.
"""

import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from types import TracebackType
from typing import IO, Self

from ckptmerge.errors import ProposerError, RefusedError
from ckptmerge.proposal.belief import Posterior, PosteriorRequest, posterior_from_json
from ckptmerge.proposal.request import Proposal, ProposalRequest, proposal_from_json

_MODULE = "ckptmerge.workflow.propose"

_LAST_LINES = 15
"""Lines of the child's stderr that an error quotes: the end of a traceback."""

_CHUNK = 1 << 16
"""Bytes moved through a pipe at a time."""


class ProposerProcess:
    """A proposer in a process of its own; a context manager, safe to share between threads.

    The child is started on entry, so that its imports (seconds) are over before the first request,
    and again whenever a request finds it dead. Requests are answered one at a time.
    """

    def __init__(self, *, timeout: float = 120.0, module: str = _MODULE) -> None:
        """Prepare, without starting anything yet.

        Args:
            timeout: Seconds that one request may take, a restart included; not those that it
                waits for others.
            module: What the child runs; another one only to test this side.
        """
        self._timeout = timeout
        self._module = module
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def __enter__(self) -> Self:
        with self._lock:
            self._living_child()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child, or None where none was started."""
        return None if self._child is None else self._child.process.pid

    def propose(self, request: ProposalRequest) -> Proposal:
        """Return the child's next candidate.

        Raises:
            ProposerError: the child refused the request, died twice, or took too long.
        """
        return proposal_from_json(self._answer(request.as_json()))

    def posterior(self, request: PosteriorRequest) -> Posterior:
        """Return what the child believes about the losses.

        Raises:
            RefusedError: there are too few observations to believe anything.
            ProposerError: the child refused the request, died twice, or took too long.
        """
        return posterior_from_json(self._answer(request.as_json()))

    def close(self) -> None:
        """End the child; a later request starts a new one."""
        with self._lock:
            self._discard()

    def _answer(self, request: str) -> str:
        """Ask the child, and return its answer where that is no refusal."""
        line = request.encode() + b"\n"
        with self._lock:
            deadline = time.monotonic() + self._timeout
            try:
                text = self._living_child().exchange(line, deadline)
            except _ChildDiedError:
                text = self._second_try(line, deadline)
            except TimeoutError as error:
                raise self._overdue() from error
        _require_answered(text)
        return text

    def _second_try(self, line: bytes, deadline: float) -> str:
        """Ask a fresh child; the first one may have been killed for no fault of the request."""
        try:
            return self._living_child().exchange(line, deadline)
        except _ChildDiedError as error:
            self._discard()
            raise ProposerError(
                f"the proposer died twice over the same request; it said last:\n{error}"
            ) from error
        except TimeoutError as error:
            raise self._overdue() from error

    def _overdue(self) -> ProposerError:
        """End a child that takes too long, and describe what happened."""
        said = "" if self._child is None else self._child.last_words()
        self._discard()
        return ProposerError(
            f"the proposer gave no answer within {self._timeout:g} s and was ended; allow more "
            f"time or look at what it said last:\n{said or '(nothing)'}"
        )

    def _living_child(self) -> "_Child":
        """Return the child, started anew where it is missing or dead."""
        if self._child is None or self._child.process.poll() is not None:
            self._discard()
            self._child = _Child(self._module)
        return self._child

    def _discard(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.end()
            self._child = None


class _ChildDiedError(Exception):
    """The child closed its pipes; the message is the end of its stderr."""


class _Child:
    """One process, the pipes to it, and a file for what it says on stderr."""

    def __init__(self, module: str) -> None:
        # A file, not a pipe: nobody need drain it while nothing is wrong.
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        # One thread: a GP of thirty points gains nothing from more, and the workers need them.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
        )
        if self.process.stdin is None or self.process.stdout is None:
            raise ProposerError("the proposer was started without pipes")
        self._stdin, self._stdout = self.process.stdin, self.process.stdout
        os.set_blocking(self._stdin.fileno(), False)

    def exchange(self, line: bytes, deadline: float) -> str:
        """Write a line and return the line that answers it.

        Neither pipe is waited for without a deadline: a stopped child does not read either.

        Raises:
            _ChildDiedError: the child went away.
            TimeoutError: the deadline (of time.monotonic) passed.
        """
        received = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdin, selectors.EVENT_WRITE)
            selector.register(self._stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                ready = selector.select(deadline - time.monotonic())
                if deadline <= time.monotonic():
                    raise TimeoutError
                for key, _ in ready:
                    if key.fileobj is self._stdout:
                        received += self._received()
                        continue
                    line = line[self._sent(line) :]
                    if not line:
                        selector.unregister(self._stdin)
        return received.decode()

    def last_words(self) -> str:
        """Return the end of the child's stderr."""
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_LAST_LINES:])

    def end(self) -> None:
        """Kill the child and release what it held; it keeps nothing that could be lost."""
        self.process.kill()
        self.process.wait()
        self._stdin.close()
        self._stdout.close()
        self._stderr.close()

    def _received(self) -> bytes:
        """Read what is there."""
        received = os.read(self._stdout.fileno(), _CHUNK)
        if not received:
            raise self._death()
        return received

    def _sent(self, line: bytes) -> int:
        """Write what the pipe takes and return how much that was."""
        try:
            return os.write(self._stdin.fileno(), line[:_CHUNK])
        except BrokenPipeError as error:
            raise self._death() from error

    def _death(self) -> _ChildDiedError:
        """Wait for the end of a child that closed a pipe, so that its last words are written."""
        self.process.kill()
        self.process.wait()
        return _ChildDiedError(self.last_words() or f"(exit code {self.process.returncode})")


def _require_answered(text: str) -> None:
    """Check that the child did as it was asked.

    Raises:
        ProposerError: it says that the request is none.
        RefusedError: it says why it cannot answer.
    """
    answer = json.loads(text)
    if "error" in answer:
        raise ProposerError(f"the proposer refused the request: {answer['error']}")
    if "refused" in answer:
        raise RefusedError(answer["refused"])
