"""Which training step a checkpoint is of, as its trainer or else its name says."""

import json
import re
from pathlib import Path

from ckptmerge.errors import CheckpointFormatError

TRAINER_STATE = "trainer_state.json"
"""Where a trainer says which step a folder is of."""

_LARGEST = 64 * 2**20
"""Bytes of it that are read: it holds what the trainer logged, a line a step."""

_LAST_INTEGER = re.compile(r"(\d+)(?!.*\d)")


def step_and_tokens(path: Path) -> tuple[int | None, int | None]:
    """Find a checkpoint's step and tokens: trainer_state.json first, else the name's last integer.

    Raises:
        CheckpointFormatError: trainer_state.json is not what a trainer writes.
    """
    state = path / TRAINER_STATE
    if not state.is_file():
        match = _LAST_INTEGER.search(path.name if path.is_dir() else path.stem)
        return int(match.group(1)) if match else None, None
    try:
        content = json.loads(_read(state))
        tokens = content.get("num_input_tokens_seen")
        return int(content["global_step"]), int(tokens) if tokens else None
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise CheckpointFormatError(f"{state} has no readable global_step: {error}") from error


def _read(state: Path) -> str:
    if state.stat().st_size > _LARGEST:
        raise ValueError(f"it takes more than {_LARGEST:,} bytes")
    return state.read_text("utf-8")
