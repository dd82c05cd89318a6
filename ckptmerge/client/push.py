"""A checkpoint on its way to a service: its files, its step, and what is posted about it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import ValidationError

from ckptmerge.client.answer import read_answer
from ckptmerge.client.blobs import upload
from ckptmerge.client.partial_file import OnBytes
from ckptmerge.client.session import Session
from ckptmerge.errors import CheckpointFormatError, InvalidInputError
from ckptmerge.formats.manifest import WEIGHTS, find_layout
from ckptmerge.formats.step import TRAINER_STATE, step_and_tokens
from ckptmerge.wire.checkpoints import CheckpointResource, NewCheckpoint

_VERIFYING = 900.0
"""Seconds for a service to read every byte of a checkpoint before it answers."""

Attempt = Literal["next"]
"""Opens a new attempt of the run at this step: it was rolled back and continues from here."""


def push(
    session: Session,
    path: Path,
    *,
    run: str,
    step: int | None = None,
    tokens: int | None = None,
    attempt: Attempt | None = None,
    supersede: bool = False,
    on_bytes: OnBytes | None = None,
) -> CheckpointResource:
    """Upload a checkpoint's files and register it; the same again changes nothing.

    Args:
        session: The service.
        path: A folder with a model as safetensors, or one safetensors file.
        run: The run it belongs to.
        step: Its training step; trainer_state.json or the last integer of its name by default.
        tokens: Tokens trained on up to there.
        attempt: ``"next"`` where the run was rolled back and has other bytes at this step.
        supersede: Whether to take the place of other bytes at this step, which were wrong.
        on_bytes: Told how many more bytes the service has.

    Raises:
        CheckpointFormatError: there is no safetensors model at ``path``.
        InvalidInputError: no step is given and none can be found, or a file cannot be sent.
        ServiceError: the service refuses (``step-exists``: it has other bytes at this step), stays
            busy, or cannot be reached.
    """
    files = checkpoint_files(path)
    found_step, found_tokens = _told_by(path, required=step is None)
    step = found_step if step is None else step
    if step is None:
        raise InvalidInputError(
            f"{path}: which training step is this? Give the step, end the name with it "
            f"(step-1000), or keep the trainer's {TRAINER_STATE} in the folder"
        )
    before = {file: stamp(file) for file in files.values()}
    sent = [upload(session, files[name], name=name, on_bytes=on_bytes) for name in files]
    if any(stamp(file) != before[file] for file in before):
        raise InvalidInputError(
            f"{path} changed while it was sent, so its files may be of different steps; push it "
            "when nobody writes to it"
        )
    tokens = found_tokens if tokens is None else tokens
    try:
        new = NewCheckpoint(step=step, tokens=tokens, files=sent)
    except ValidationError as error:
        wrong = "; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())
        raise InvalidInputError(f"{path} cannot be registered as step {step}: {wrong}") from error
    answer = session.json(
        "POST",
        f"/v1/runs/{quote(run, safe='')}/checkpoints",
        new,
        params=_said(attempt, supersede=supersede),
        timeout=_VERIFYING,
    )
    return read_answer(CheckpointResource, answer)


def _said(attempt: Attempt | None, *, supersede: bool) -> dict[str, str] | None:
    said = {"attempt": attempt} if attempt is not None else {}
    return {**said, **({"supersede": "true"} if supersede else {})} or None


def checkpoint_files(path: Path) -> Mapping[str, Path]:
    """Name the files that make a checkpoint, and say where they lie.

    A single file goes by the name under which transformers looks for one.

    Raises:
        CheckpointFormatError: there is no safetensors model at ``path``.
    """
    if path.is_file():
        return {WEIGHTS: path}
    layout = find_layout(path)
    index = [layout.index] if layout.index else []
    return {name: path / name for name in sorted({*layout.weights, *index, *layout.side})}


def stamp(file: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is written to, without reading it; None where it is gone."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _told_by(path: Path, *, required: bool) -> tuple[int | None, int | None]:
    """Find step and tokens; where the step is known, a file that cannot be read says nothing."""
    try:
        return step_and_tokens(path)
    except CheckpointFormatError:
        if required:
            raise
        return None, None
