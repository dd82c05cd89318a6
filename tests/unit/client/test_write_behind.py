"""What a download brings is put away in order, all of it, by a thread that is never far behind."""

import threading
from random import Random

import pytest

from ckptmerge.client import write_behind
from ckptmerge.client.write_behind import BLOCK, WriteBehind

PATIENCE = 20.0


class Shelf:
    """Keeps what it is given; can be made to wait, and to fail at one block."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.kept: list[bytes] = []
        self.may = threading.Event()
        self.may.set()
        self._fails_at = fails_at
        self._asked = 0

    def put(self, block: memoryview) -> None:
        assert self.may.wait(PATIENCE)
        self._asked += 1
        if self._asked - 1 == self._fails_at:
            raise OSError("no room on this shelf")
        self.kept.append(bytes(block))


def chunks(seed: int, total: int) -> list[bytes]:
    random, made = Random(seed), []  # noqa: S311 - no secret
    while total > 0:
        made.append(random.randbytes(min(random.randint(1, 200_000), total)))
        total -= len(made[-1])
    return made


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 9 * BLOCK + 7])
def test_everything_is_put_away_in_order(size: int) -> None:
    shelf, given = Shelf(), chunks(size, size)
    with WriteBehind(shelf.put) as behind:
        for chunk in given:
            behind.take(chunk)
    assert b"".join(shelf.kept) == b"".join(given)


def test_a_chunk_of_many_blocks_is_put_away_whole() -> None:
    shelf, given = Shelf(), Random(1).randbytes(5 * BLOCK + 3)  # noqa: S311 - no secret
    with WriteBehind(shelf.put) as behind:
        behind.take(given)
    assert b"".join(shelf.kept) == given


def test_what_came_before_a_cut_is_put_away() -> None:
    shelf, given = Shelf(), chunks(2, 3 * BLOCK + 5)

    def cut() -> None:
        with WriteBehind(shelf.put) as behind:
            for chunk in given:
                behind.take(chunk)
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        cut()
    assert b"".join(shelf.kept) == b"".join(given)


@pytest.mark.parametrize("blocks", [1, 9])
def test_nothing_follows_what_could_not_be_put_away(blocks: int) -> None:
    shelf = Shelf(fails_at=0)

    def fill() -> None:
        with WriteBehind(shelf.put) as behind:
            for _ in range(blocks):
                behind.take(bytes(BLOCK))

    with pytest.raises(OSError, match="no room on this shelf"):
        fill()
    assert shelf.kept == []


def test_the_network_waits_for_a_shelf_that_is_far_behind() -> None:
    shelf, taken = Shelf(), []
    shelf.may.clear()

    def bring() -> None:
        with WriteBehind(shelf.put) as behind:
            for number in range(20):
                behind.take(bytes(BLOCK))
                taken.append(number)

    network = threading.Thread(target=bring)
    network.start()
    network.join(0.2)
    assert len(taken) < write_behind._BLOCKS
    shelf.may.set()
    network.join(PATIENCE)
    assert len(taken) == len([block for block in shelf.kept if block]) == 20
