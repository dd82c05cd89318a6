"""Sources: checkpoints on the service's own disks, taken in only from beneath allowed folders."""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.errors import CheckpointFormatError, SourceRefusedError
from ckptmerge.formats.held_folder import hold
from ckptmerge.formats.manifest import find_layout
from ckptmerge.storage.blobs import BlobStore

_READ_AT_ONCE = 1 << 20


def take_in(
    source: str, roots: Sequence[Path], blobs: BlobStore, *, in_place: bool = False
) -> list[FileEntry]:
    """Copy a checkpoint's files into the blob store and return them.

    Args:
        source: Path of the checkpoint.
        roots: Folders beneath which it must lie.
        blobs: Where the copies go.
        in_place: Whether its weights are to stay where they are instead; the small files beside
            them are copied all the same.

    Raises:
        SourceRefusedError: the path does not lie beneath an allowed folder, or leads out of it.
        CheckpointFormatError: there is no safetensors model.
        OutOfSpaceError: the disk is full.
    """
    root, beneath = _allowed(source, roots)
    with hold(root, beneath) as path:
        layout = find_layout(path)
        place = root.joinpath(*beneath) if path.is_dir() else root.joinpath(*beneath[:-1])
        small = [*layout.side, *([layout.index] if layout.index else [])]
        return [
            *(
                _note_file(place / name, layout.folder / name, blobs)
                if in_place
                else copy_file(layout.folder / name, name, blobs)
                for name in layout.weights
            ),
            *(copy_file(layout.folder / name, name, blobs) for name in small),
        ]


def _note_file(file: Path, held: Path, blobs: BlobStore) -> FileEntry:
    """Note a file that stays where it is, and is the one that is held open.

    Raises:
        SourceRefusedError: its name leads somewhere else by now.
    """
    with suppress(OSError):
        digest, size = blobs.take_in_place(file)
        if held.samefile(file):
            return FileEntry(file.name, size, digest)
    raise SourceRefusedError(
        f"{file} was replaced while it was read; register it when nobody writes to its folder"
    )


def _allowed(source: str, roots: Sequence[Path]) -> tuple[Path, Sequence[str]]:
    """Return the root that the path lies beneath, and the way down from there."""
    if not roots:
        raise SourceRefusedError(
            "this service reads no sources; start it with --source-root FOLDER to allow those "
            "beneath a folder, or upload the files"
        )
    for root in map(Path.resolve, roots):
        try:
            beneath = Path(os.path.normpath(source)).relative_to(root)
        except ValueError:
            continue
        return root, beneath.parts
    raise SourceRefusedError(
        f"{source} does not lie beneath a --source-root of this service; allowed are "
        f"{', '.join(map(str, roots))}, and what is beneath them without links"
    )


def copy_file(file: Path, name: str, blobs: BlobStore) -> FileEntry:
    """Copy one file into the blob store.

    What is opened is what is checked, whatever happens to its name meanwhile.

    Raises:
        CheckpointFormatError: it is not a regular file.
        OutOfSpaceError: the disk is full.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb", buffering=0) as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointFormatError(f"{file} is not a regular file")
        with blobs.writer(size=status.st_size) as writer:
            while block := opened.read(_READ_AT_ONCE):
                writer.write(block)
            digest = writer.commit()
    return FileEntry(name, status.st_size, digest)
