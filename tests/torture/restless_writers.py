"""Writers that never give up on a record, and a reader that follows them."""

from threading import Event, Thread
from types import TracebackType
from typing import Self

from ckptmerge.errors import StoreUnavailableError
from ckptmerge.storage.records import BlobRecord
from ckptmerge.storage.store import Store
from tests.e2e.running import wait_for

WRITERS = 3

BETWEEN = 20
"""Records that are acknowledged between one crash and the next."""

_PATIENCE = 60.0
"""Seconds."""

_PAUSE = 0.02
"""Seconds before a writer or the reader tries again."""


def record(name: str) -> BlobRecord:
    """Make a record of which nothing matters but its name."""
    return BlobRecord(hex=name, size=1, created=0.0)


class RestlessWriters:
    """Threads that write to a store until the end of the block, whatever it answers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stop = Event()
        self._threads = [Thread(target=self._write, args=(n,)) for n in range(WRITERS)]
        self._reader = Thread(target=self._follow)
        self.acknowledged: list[str] = []
        self.seen: list[str] = []
        """What the reader came to see, in its order."""
        self.refused = 0
        """Writes that were answered with an error, and tried again."""

    def __enter__(self) -> Self:
        for thread in (*self._threads, self._reader):
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in (*self._threads, self._reader):
            thread.join()

    def wait_for_more(self, count: int = BETWEEN) -> None:
        """Wait until so many more records are acknowledged than are by now."""
        target = len(self.acknowledged) + count
        wait_for(lambda: len(self.acknowledged) >= target, _PATIENCE)

    def _write(self, number: int) -> None:
        count = 0
        while not self._stop.is_set():
            name = f"{number}-{count}"
            try:
                self._put(name)
            except StoreUnavailableError:
                self.refused += 1
                self._stop.wait(_PAUSE)
            else:
                self.acknowledged.append(name)
                count += 1

    def _put(self, name: str) -> None:
        """Write a record, or find that it was written when it seemed not to be."""
        with self._store.write() as unit:
            if unit.get(BlobRecord, name) is None:
                unit.insert(record(name))

    def _follow(self) -> None:
        last_round = False
        while not last_round:
            last_round = self._stop.is_set() and not any(t.is_alive() for t in self._threads)
            try:
                with self._store.read() as snapshot:
                    last = self.seen[-1] if self.seen else None
                    self.seen += [r.hex for r in snapshot.find(BlobRecord, after=last)]
            except StoreUnavailableError:
                last_round = False
            self._stop.wait(_PAUSE)
