"""A checkpoint held open: what happens to its names afterwards changes nothing of what is read.

Whoever may write to a folder can put a link in the place of anything in it, at any moment: a path
that was looked at is another path when it is opened. So every component is opened from the one
before, without following links, and what is read is the files that are open.
"""

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ckptmerge.errors import CheckpointFormatError, InvalidInputError, SourceRefusedError
from ckptmerge.formats.manifest import is_model_file
from ckptmerge.formats.step import TRAINER_STATE

MOST_FILES = 500
"""Files of one checkpoint that are held; the largest models there are have two hundred."""

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def hold(root: Path, beneath: Sequence[str]) -> Iterator[Path]:
    """Hold a checkpoint beneath a root, for the length of the block.

    Returns where it can be read as the folder or file that it is: a folder of its name, in which
    each name of a model's file leads to the file that is open. What is found wrong with it in the
    block is said of the path that it was given by.

    Args:
        root: A folder that is trusted, itself a link or not.
        beneath: The way down from there, a name each; none of them may be a link.

    Raises:
        SourceRefusedError: the way, or a file of the model, is a link or cannot be opened.
        CheckpointFormatError: nothing is there, or a file of the model is no regular file.
    """
    with ExitStack() as held, tempfile.TemporaryDirectory(prefix="ckptmerge-held-") as holder:
        way = root.joinpath(*beneath)
        if any(name in {"", ".", ".."} or "/" in name for name in beneath):
            raise SourceRefusedError(
                f"{way} does not go straight down from {root}; name it plainly"
            )
        place = held.enter_context(_opened(root, way, None, os.O_RDONLY | os.O_DIRECTORY))
        for name in beneath:
            place = held.enter_context(_opened(name, way, place, _OPEN))
        # The name is the checkpoint's own, since its number is taken for the training step.
        folder = Path(holder) / (way.name if beneath else "checkpoint")
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            _require_regular(os.fstat(place), way)
            folder.symlink_to(_own(place))
        else:
            folder.mkdir()
            for name in _names_of_model(place, way):
                file = held.enter_context(_opened(name, way / name, place, _OPEN))
                _require_regular(os.fstat(file), way / name)
                (folder / name).symlink_to(_own(file))
        try:
            yield folder
        except InvalidInputError as error:
            # Whoever reads the message knows the checkpoint by the path that it has.
            raise type(error)(str(error).replace(str(folder), str(way))) from error


def _names_of_model(descriptor: int, way: Path) -> list[str]:
    with os.scandir(descriptor) as listing:
        names = sorted(e.name for e in listing if is_model_file(e.name) or e.name == TRAINER_STATE)
    if len(names) > MOST_FILES:
        raise CheckpointFormatError(
            f"{way} holds {len(names)} files of a model; at most {MOST_FILES} are read, save it in "
            "larger shards"
        )
    return names


def _own(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


@contextmanager
def _opened(name: Path | str, said: Path, within: int | None, flags: int) -> Iterator[int]:
    """Open a name within an open folder.

    Raises:
        CheckpointFormatError: there is no such name, or it is a pipe or a device.
        SourceRefusedError: it is a link, or cannot be opened.
    """
    try:
        if within is not None:
            # Before it is opened: to open a device can already do something.
            _require_file_or_folder(os.stat(name, dir_fd=within, follow_symlinks=False), said)
        descriptor = os.open(name, flags, dir_fd=within)
    except FileNotFoundError as error:
        raise CheckpointFormatError(
            f"{said} does not exist; give a checkpoint folder or file"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a name with NUL in it
        raise SourceRefusedError(
            f"{said} cannot be opened as a checkpoint ({error}); links are not followed"
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _require_file_or_folder(status: os.stat_result, said: Path) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise SourceRefusedError(
            f"{said} is a link, and links are not followed; copy what it names"
        )
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise CheckpointFormatError(f"{said} is neither a regular file nor a folder")


def _require_regular(status: os.stat_result, said: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointFormatError(f"{said} is not a regular file; a model's files are")
