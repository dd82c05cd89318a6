"""1. A checkpoint arrives: read every byte of it once, and know what it is."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from ckptmerge.domain.checkpoint import Checkpoint
from ckptmerge.errors import InvalidInputError
from ckptmerge.formats.manifest import read_manifest
from ckptmerge.formats.step import step_and_tokens

_AT_ONCE = 2
"""Checkpoints read at the same time: one digest does not keep a disk busy, two mostly do."""


def register(
    path: Path,
    *,
    step: int | None = None,
    identify: bool = True,
    on_bytes: Callable[[int], None] | None = None,
) -> Checkpoint:
    """Verify a checkpoint on disk and describe it.

    Every byte is read once: digested, and checked for NaN and infinity. ``on_bytes`` hears how many
    bytes were read since it was last called. Without ``identify`` only the tensors are digested,
    not the files: the content is known, the checkpoint's own digest is not.

    Raises:
        CheckpointFormatError: it is not a safetensors checkpoint, or damaged.
        InvalidInputError: no step is given and none can be found.
    """
    manifest = read_manifest(path, files=identify, on_bytes=on_bytes)
    found = step_and_tokens(path)
    if step is None and found[0] is None:
        raise InvalidInputError(
            f"{path}: which training step is this? End the folder's name with the step "
            "(step-1000), or keep the trainer's trainer_state.json in it"
        )
    return Checkpoint(
        label=str(path),
        step=step if step is not None else found[0] or 0,
        manifest=manifest,
        tokens=found[1],
    )


def register_in_order(
    paths: Sequence[Path],
    *,
    identify: bool = True,
    on_bytes: Callable[[int], None] | None = None,
) -> tuple[Checkpoint, ...]:
    """Register checkpoints, two at a time, and put them oldest first.

    Where no checkpoint tells its step, the order given is the order of training. ``on_bytes`` is
    called from one thread at a time.

    Raises:
        InvalidInputError: only some of them tell their step.
    """
    steps = [step_and_tokens(path)[0] for path in paths]
    untold = all(step is None for step in steps)
    counter = _Counter(on_bytes)

    def one(position: int) -> Checkpoint:
        step = position if untold else None
        return register(paths[position], step=step, identify=identify, on_bytes=counter.count)

    with ThreadPoolExecutor(_AT_ONCE, "ckptmerge-register") as readers:
        try:
            checkpoints = list(readers.map(one, range(len(paths))))
        except BaseException:
            counter.stop()
            readers.shutdown(cancel_futures=True)
            raise
    return tuple(sorted(checkpoints, key=lambda checkpoint: checkpoint.step))


class _Counter:
    """Counts bytes for several readers, and ends the others once one of them has failed."""

    def __init__(self, on_bytes: Callable[[int], None] | None) -> None:
        self._on_bytes = on_bytes
        self._lock = Lock()
        self._stopped = False

    def count(self, amount: int) -> None:
        with self._lock:
            if self._stopped:
                raise _StoppedError
            if self._on_bytes:
                self._on_bytes(amount)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True


class _StoppedError(Exception):
    """Another reader has failed, or the user has had enough; nobody ever sees this one."""


def missing_side_files(path: Path) -> tuple[str, ...]:
    """Name what transformers needs beside the weights and does not find there."""
    folder = path if path.is_dir() else path.parent
    needed = {"config.json": ("config.json",), "tokenizer": ("tokenizer.json", "tokenizer.model")}
    return tuple(
        what for what, names in needed.items() if not any((folder / n).is_file() for n in names)
    )
