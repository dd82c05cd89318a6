"""Inspection: digests and finiteness of a weight file, taken while its bytes pass by.

Reading a checkpoint and writing a merge need the same facts of every byte: the SHA-256 of its
file, the SHA-256 of its tensor, whether a NaN or an infinity is in it, and that the buffer which
carried it is free again. Each fact has a thread of its own; hashlib, numpy and the kernel let go
of the interpreter lock, so a file takes about as long as the slowest of them.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np

from ckptmerge.domain.checkpoint import FileEntry, TensorEntry, TensorSpec
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import NonFiniteTensorError

BLOCK = 8 * 2**20
"""Bytes in one buffer; a multiple of every element's size, so no element is ever cut."""

DEPTH = 4
"""Buffers of one inspection: one is being filled while the others are read."""

# All bits of the exponent set is what IEEE 754 calls infinity or NaN.
_EXPONENTS = {
    "F64": (np.dtype("<u8"), 0x7FF0_0000_0000_0000),
    "F32": (np.dtype("<u4"), 0x7F80_0000),
    "F16": (np.dtype("<u2"), 0x7C00),
    "BF16": (np.dtype("<u2"), 0x7F80),
}

_SCANNED_AT_ONCE = 2**16  # elements; their masks stay in the cache

_TENSORS_SHOWN = 5


class Inspection:
    """One weight file passing by, in the order of its bytes.

    ``lend`` a buffer, fill it, ``feed`` it, and ``finish`` at the end. There are ``depth`` buffers
    and no more: memory stays bounded, and a slow disk slows down whoever fills them.

    Args:
        file: Base name, for entries and messages.
        header: The bytes before the first tensor's.
        identify: Whether to digest the file as a whole.
        contents: Whether to digest every tensor by itself.
        block: Bytes in one buffer.
        depth: How many buffers.
    """

    def __init__(
        self,
        file: str,
        header: bytes,
        *,
        identify: bool = True,
        contents: bool = True,
        block: int = BLOCK,
        depth: int = DEPTH,
    ) -> None:
        self._name = file
        self._size = len(header)
        self._file = hashlib.sha256(header) if identify else None
        self._contents = contents
        self._tensors: dict[str, hashlib._Hash] = {}
        self._bad: Counter[str] = Counter()
        self._lanes = [ThreadPoolExecutor(1, "ckptmerge-inspect") for _ in range(3)]
        self._free: deque[tuple[memoryview, tuple[Future[None], ...]]] = deque(
            (np.empty(block, np.uint8).data, ()) for _ in range(depth)
        )

    def __enter__(self) -> "Inspection":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for lane in self._lanes:
            lane.shutdown(wait=True, cancel_futures=True)

    def lend(self, size: int) -> memoryview:
        """Return a writable buffer of ``size`` bytes; waits until one has been read by everyone.

        Whatever went wrong with the bytes it carried before is raised here.
        """
        buffer, readers = self._free.popleft()
        for reader in readers:
            reader.result()
        self._free.append((buffer, ()))
        return buffer[:size]

    def feed(self, spec: TensorSpec, view: memoryview, *readers: Future[None]) -> None:
        """Take the next bytes of the file, which belong to ``spec``.

        Args:
            spec: The tensor; its bytes come in order and whole elements at a time.
            view: The buffer lent last, filled.
            readers: Who else reads the buffer and must be done before it is lent again.
        """
        digest, tensor, scan = self._lanes
        self._size += len(view)
        buffer, _ = self._free.pop()
        done = (
            *([digest.submit(self._file.update, view)] if self._file else []),
            *([tensor.submit(self._update_tensor, spec.name, view)] if self._contents else []),
            scan.submit(self._scan, spec, view),
            *readers,
        )
        self._free.append((buffer, done))

    @property
    def identity(self) -> FileEntry:
        """The file's entry, after ``finish``.

        Raises:
            ValueError: the file was not to be identified.
        """
        if self._file is None:
            raise ValueError(f"{self._name} passed without being digested as a whole")
        return FileEntry(self._name, self._size, Digest(self._file.hexdigest()))

    def finish(self, entries: Sequence[TensorEntry]) -> tuple[TensorEntry, ...]:
        """Wait for the last bytes; return ``entries``, with their digests where these were taken.

        Raises:
            NonFiniteTensorError: some tensor holds NaN or infinity.
        """
        for _, readers in self._free:
            for reader in readers:
                reader.result()
        self._refuse_non_finite()
        if not self._contents:
            return tuple(entries)
        empty = hashlib.sha256()
        return tuple(
            TensorEntry(
                entry.spec,
                entry.file,
                entry.offset,
                Digest(self._tensors.get(entry.spec.name, empty).hexdigest()),
            )
            for entry in entries
        )

    def _update_tensor(self, name: str, view: memoryview) -> None:
        self._tensors.setdefault(name, hashlib.sha256()).update(view)

    def _scan(self, spec: TensorSpec, view: memoryview) -> None:
        count = count_non_finite(view, spec.dtype)
        if count:
            self._bad[spec.name] += count

    def _refuse_non_finite(self) -> None:
        if not self._bad:
            return
        shown = ", ".join(
            f"{name} ({n} numbers)" for name, n in self._bad.most_common(_TENSORS_SHOWN)
        )
        raise NonFiniteTensorError(
            f"{self._name}: {len(self._bad)} of its tensors hold NaN or infinity: {shown}; "
            "training diverged or the file is damaged, take an earlier checkpoint"
        )


def count_non_finite(block: memoryview, dtype: str) -> int:
    """Count the NaN and infinities among the numbers of a safetensors dtype; 0 if not floating.

    Integer masks do it, since numpy knows no bfloat16. Eight-bit floats are not looked at: they
    are never merged.
    """
    if dtype not in _EXPONENTS:
        return 0
    kind, exponent = _EXPONENTS[dtype]
    numbers = np.frombuffer(block, kind)
    mask = kind.type(exponent)
    count = 0
    for start in range(0, len(numbers), _SCANNED_AT_ONCE):
        exponents = numbers[start : start + _SCANNED_AT_ONCE] & mask
        if exponents.max() == mask:
            count += int(np.count_nonzero(exponents == mask))
    return count
