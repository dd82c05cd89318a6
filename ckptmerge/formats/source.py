"""A safetensors checkpoint, single or sharded, read by tensor name."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import torch

from ckptmerge.domain.checkpoint import TensorEntry, TensorSpec
from ckptmerge.errors import CheckpointFormatError
from ckptmerge.formats.header import read_exactly
from ckptmerge.formats.manifest import (
    check_tensors,
    find_layout,
    open_descriptor,
    read_entries,
)
from ckptmerge.formats.tensors import as_bytes, empty_tensor


class SafetensorsSource:
    """The tensors of a checkpoint folder or file.

    Which shard holds a tensor is this class's secret: two checkpoints of one model may be cut
    differently. Files stay open until ``close``, so one that is replaced meanwhile is still read
    as it was, and one that is cut short gives an error.

    Raises:
        CheckpointFormatError: the path is no safetensors model, or its index disagrees with it.
        TruncatedFileError: a file's size does not match its header.
    """

    def __init__(self, path: Path) -> None:
        self.label = str(path)
        layout = find_layout(path)
        with ExitStack() as opened:
            self._files = {
                name: opened.enter_context(open_descriptor(layout.folder / name))
                for name in layout.weights
            }
            self._stamps = {name: _stamp(file) for name, file in self._files.items()}
            entries = [e for name, file in self._files.items() for e in read_entries(file, name)]
            check_tensors(layout, entries)
            self._opened = opened.pop_all()
        self._entries: dict[str, TensorEntry] = {
            entry.spec.name: entry for entry in sorted(entries, key=lambda entry: entry.spec)
        }
        self.specs: Mapping[str, TensorSpec] = {
            name: entry.spec for name, entry in self._entries.items()
        }

    def __enter__(self) -> "SafetensorsSource":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; reading afterwards fails."""
        self._opened.close()
        self._files.clear()

    def read_into(self, name: str, start: int, into: memoryview) -> None:
        """Fill ``into`` with the tensor's bytes from ``start`` on; safe from several threads.

        Raises:
            KeyError: there is no such tensor, or the source is closed.
            ValueError: the bytes asked for go past the tensor's end.
            TruncatedFileError: the file has become shorter.
        """
        entry = self._entries[name]
        if start + len(into) > entry.spec.bytes:
            raise ValueError(f"tensor {name!r} has no bytes {start} to {start + len(into)}")
        read_exactly(self._files[entry.file], entry.offset + start, into, entry.file)

    def read(self, name: str) -> torch.Tensor:
        """Return a whole tensor in memory of its own.

        Raises:
            KeyError: there is no such tensor, or the source is closed.
            TruncatedFileError: the file has become shorter.
        """
        tensor = empty_tensor(self.specs[name])
        self.read_into(name, 0, as_bytes(tensor))
        return tensor

    def require_unchanged(self) -> None:
        """Check that no file was written to since the source was opened.

        Raises:
            CheckpointFormatError: one was; what was read of it is neither the old nor the new.
        """
        for name, file in self._files.items():
            if _stamp(file) != self._stamps[name]:
                raise CheckpointFormatError(
                    f"{self.label}: {name} was written to while it was read; wait until the "
                    "training job has finished saving, then try again"
                )


def _stamp(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns
