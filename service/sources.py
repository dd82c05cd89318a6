"""Sources: checkpoints on the service's own disks, taken in only from beneath allowed folders."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.errors import CheckpointFormatError, SourceRefusedError
from ckptmerge.formats.manifest import find_layout
from ckptmerge.storage.blobs import BlobStore

_READ_AT_ONCE = 1 << 20


def take_in(source: str, roots: Sequence[Path], blobs: BlobStore) -> list[FileEntry]:
    """Copy a checkpoint's files into the blob store and return them.

    Raises:
        SourceRefusedError: the path does not lie beneath an allowed folder, or leads out of it.
        CheckpointFormatError: there is no safetensors model.
        OutOfSpaceError: the disk is full.
    """
    path = _allowed(source, roots)
    layout = find_layout(path)
    names = [*layout.weights, *layout.side, *([layout.index] if layout.index else [])]
    return [copy_file(layout.folder / name, name, blobs) for name in names]


def _allowed(source: str, roots: Sequence[Path]) -> Path:
    """Return the path, free of links, where it lies beneath one of the roots."""
    if not roots:
        raise SourceRefusedError(
            "this service reads no sources; start it with --source-root FOLDER to allow those "
            "beneath a folder, or upload the files"
        )
    path = Path(source)
    for root in map(Path.resolve, roots):
        try:
            beneath = Path(os.path.normpath(path)).relative_to(root)
        except ValueError:
            continue
        if path.is_absolute() and _no_links(root, beneath):
            return root / beneath
    raise SourceRefusedError(
        f"{source} does not lie beneath a --source-root of this service, or leads through a link; "
        f"allowed are {', '.join(map(str, roots))}"
    )


def _no_links(root: Path, beneath: Path) -> bool:
    """Walk down component by component; a link anywhere may lead out."""
    place = root
    for part in beneath.parts:
        place = place / part
        if place.is_symlink():
            return False
    return True


def copy_file(file: Path, name: str, blobs: BlobStore) -> FileEntry:
    """Copy one file into the blob store.

    What is opened is what is checked, whatever happens to its name meanwhile.

    Raises:
        CheckpointFormatError: it is not a regular file.
        OutOfSpaceError: the disk is full.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb", buffering=0) as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointFormatError(f"{file} is not a regular file")
        with blobs.writer(size=status.st_size) as writer:
            while block := opened.read(_READ_AT_ONCE):
                writer.write(block)
            digest = writer.commit()
    return FileEntry(name, status.st_size, digest)
