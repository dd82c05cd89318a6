"""The front door to checkpoints: one function for every format that can be read."""

from pathlib import Path

from ckptmerge.formats.source import SafetensorsSource


def open_checkpoint(path: str | Path) -> SafetensorsSource:
    """Open the checkpoint at ``path`` for reading: ``.specs``, ``.read(name)``.

    A context manager. Headers and index are checked now; tensors are read when asked for.

    Args:
        path: A folder with one or several safetensors files, or one safetensors file.

    Raises:
        CheckpointFormatError: there is no safetensors model; the message says what there is.
        TruncatedFileError: a file's size does not match its header.
    """
    return SafetensorsSource(Path(path))
