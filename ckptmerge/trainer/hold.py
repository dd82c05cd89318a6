"""Hold: files of a checkpoint kept until they are sent, whatever the trainer does to its own."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ckptmerge.client.push import checkpoint_files, stamp
from ckptmerge.errors import InvalidInputError
from ckptmerge.formats.step import TRAINER_STATE

_LINKED = ".safetensors"
"""Only weights are worth a link: a copy of anything else is cheap, and safe from overwriting."""


@dataclass(frozen=True)
class HeldCheckpoint:
    """A checkpoint that stays readable until it is removed."""

    folder: Path
    step: int
    tokens: int | None
    stamps: Mapping[Path, object]
    """What the held files looked like when the trainer had just written them."""

    def require_unchanged(self) -> None:
        """Check that nobody has written to the held files.

        Raises:
            InvalidInputError: the trainer has overwritten them, through its own name for them.
        """
        if any(stamp(file) != before for file, before in self.stamps.items()):
            raise InvalidInputError(
                "the trainer has overwritten its files since; save every step under a new name, "
                "or give the callback a hold folder on another file system, where files are copied"
            )

    def remove(self) -> None:
        """Let go of the files."""
        shutil.rmtree(self.folder, ignore_errors=True)


def hold(path: Path, folder: Path, *, step: int, tokens: int | None) -> HeldCheckpoint:
    """Keep a checkpoint's files in a new folder: weights as hard links where that can be.

    A link costs neither time nor space, and outlives the name that the trainer removes. Where
    there can be none, on another file system, the weights are copied, at the disk's speed.

    Raises:
        CheckpointFormatError: there is no safetensors model at ``path``.
        OSError: a file cannot be read, or the folder not be written.
    """
    files = dict(checkpoint_files(path))
    if (path / TRAINER_STATE).is_file():
        files[TRAINER_STATE] = path / TRAINER_STATE
    folder.mkdir()
    try:
        held = [_keep(source, folder / name) for name, source in files.items()]
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return HeldCheckpoint(folder, step, tokens, {file: stamp(file) for file in held})


def _keep(source: Path, target: Path) -> Path:
    if source.name.endswith(_LINKED):
        try:
            # Through a symbolic link, what is kept is the file and not the link to it.
            os.link(source.resolve(), target)
        except OSError:
            pass  # another file system, one without links, or somebody else's file
        else:
            return target
    shutil.copyfile(source, target)
    return target
