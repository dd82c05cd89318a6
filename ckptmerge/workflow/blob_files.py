"""Files that are blobs: laid out as a folder for whoever reads folders, and described."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ckptmerge.domain.checkpoint import FileEntry, Manifest
from ckptmerge.errors import InvalidInputError
from ckptmerge.formats.manifest import read_manifest
from ckptmerge.storage.blobs import BlobStore

_COPIED_AT_ONCE = 1 << 20


@contextmanager
def laid_out(blobs: BlobStore, files: Sequence[FileEntry]) -> Iterator[Path]:
    """Make a folder in which every file stands under its name, for the length of the block.

    Blobs of this machine are linked to, others copied. What is found wrong with the files in the
    block is said of their names alone.

    Raises:
        MissingError: a blob is not there.
    """
    with tempfile.TemporaryDirectory(prefix="ckptmerge-files-") as holder:
        # Its name must say nothing: a folder's number is taken for its training step.
        folder = Path(holder) / "checkpoint"
        folder.mkdir()
        for file in files:
            place = folder / file.name
            if place.parent != folder:
                raise ValueError(f"{file.name!r} is not a plain file name")
            source = blobs.path(file.digest)
            if source is None:
                _copy(blobs, file, place)
            else:
                place.symlink_to(source)
        try:
            yield folder
        except InvalidInputError as error:
            # Whoever sent the files knows their names, and nothing of this folder.
            raise type(error)(str(error).replace(f"{folder}/", "")) from error


def manifest_of_blobs(blobs: BlobStore, files: Sequence[FileEntry]) -> Manifest:
    """Describe a model whose files are blobs, from their headers alone.

    Raises:
        CheckpointFormatError: they are no safetensors model.
        MissingError: a blob is not there.
    """
    with laid_out(blobs, files) as folder:
        found = read_manifest(folder, digests=False)
    return Manifest(tuple(sorted(files)), found.tensors)


def _copy(blobs: BlobStore, file: FileEntry, place: Path) -> None:
    with blobs.open(file.digest) as reader, place.open("xb") as target:
        for offset in range(0, reader.size, _COPIED_AT_ONCE):
            target.write(reader.read(offset, _COPIED_AT_ONCE))
