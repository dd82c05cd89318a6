"""Callback: a training job says what it has saved, and goes on training."""

import atexit
import logging
import os
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from ckptmerge.client.client import Client
from ckptmerge.client.session import Patience
from ckptmerge.errors import CkptmergeError, InvalidInputError
from ckptmerge.formats.claim import ClaimedFolder
from ckptmerge.trainer.hold import HeldCheckpoint, hold
from ckptmerge.trainer.outbox import Outbox

logger = logging.getLogger("ckptmerge.trainer")

_RANKS = ("RANK", "SLURM_PROCID")
"""Variables in which torchrun and Slurm say which process of a job this is."""

_HOLD = ".ckptmerge-hold-"


class CheckpointMergeCallback:
    """Sends the checkpoints that a training job saves to a service, in the background.

    Nothing here waits for the service or raises into training: what goes wrong is logged as a
    warning of the logger ``ckptmerge.trainer``. Of a distributed job only rank 0 sends.

    Args:
        url: Where the service is; it need not be up yet.
        run: Name of the run there.
        token: Bearer token, where the service asks for one.
        hold: Folder that keeps files until they are sent; by default a hidden one beside the first
            checkpoint, so that keeping them is a matter of hard links.
        queue: Checkpoints that may wait; one more pushes out the oldest.
        patience: How often to try one request.
        environ: Variables that say which rank this is.

    Raises:
        InvalidInputError: the address, the token or ``queue`` cannot be one: here, before training.
    """

    def __init__(
        self,
        url: str,
        *,
        run: str,
        token: str | None = None,
        hold: Path | None = None,
        queue: int = 4,
        patience: Patience | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        if queue < 1:
            raise InvalidInputError(f"a queue of {queue} holds no checkpoint; give at least 1")
        self._client = Client(url, token, patience=patience)
        self._run = run
        self._hold = hold
        self._limit = queue
        self._sends = _rank(environ) == 0
        self._numbers = count()
        self._claimed: ClaimedFolder | None = None
        self._outbox: Outbox | None = None
        self._process = os.getpid()
        atexit.register(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def saved(self, path: str | Path, step: int, tokens: int | None = None) -> None:
        """Say that a checkpoint is complete on disk; afterwards the trainer may delete it.

        Args:
            path: A folder with a model as safetensors, or one safetensors file.
            step: Its training step.
            tokens: Tokens trained on up to there; trainer_state.json's number by default.
        """
        if not self._sends or os.getpid() != self._process:
            return
        try:
            self._keep(Path(path), step, tokens)
        except (CkptmergeError, OSError) as error:
            logger.warning("ckptmerge: the checkpoint of step %d is not sent: %s", step, error)
        except Exception:
            logger.exception("ckptmerge: the checkpoint of step %d is not sent", step)

    def close(self, timeout: float = 600.0) -> None:
        """Wait for what is still to be sent, no longer than ``timeout`` seconds.

        A service that cannot be reached is not waited for. Called at the end of the process where
        nobody did before.
        """
        if os.getpid() != self._process:
            return  # a child of the training process, whose outbox is the parent's
        atexit.unregister(self.close)
        if self._outbox is not None:
            self._outbox.close(timeout)
        if self._claimed is not None:
            self._claimed.remove()
        self._sends, self._outbox, self._claimed = False, None, None
        self._client.close()

    def _keep(self, path: Path, step: int, tokens: int | None) -> None:
        if self._claimed is None:
            parent = self._hold or path.absolute().parent
            parent.mkdir(parents=True, exist_ok=True)
            self._claimed = ClaimedFolder(parent, _HOLD)
        folder = self._claimed.path / f"{next(self._numbers)}-step-{step}"
        held = hold(path, folder, step=step, tokens=tokens)
        if self._outbox is None:
            self._outbox = Outbox(self._send, limit=self._limit)
        self._outbox.put(held)

    def _send(self, held: HeldCheckpoint) -> None:
        held.require_unchanged()
        known = self._client.push(held.folder, run=self._run, step=held.step, tokens=held.tokens)
        logger.info("ckptmerge: step %d of run %s is %s", held.step, self._run, known.id)
        if known.missing:
            logger.warning(
                "ckptmerge: step %d of run %s lacks %s and cannot be merged; save it beside the "
                "weights, or PUT it to the run", held.step, self._run, ", ".join(known.missing),
            )  # fmt: skip


def _rank(environ: Mapping[str, str]) -> int:
    """Return which process of a distributed job this is; 0 where nothing says so."""
    said = next((environ[name] for name in _RANKS if environ.get(name)), "0")
    return int(said) if said.isdecimal() else 0
