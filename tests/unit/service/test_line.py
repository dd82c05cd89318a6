"""Work goes to whoever waits longest, at once, and the others are not woken for nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from service.line import Line


@dataclass
class Works:
    """Work, and workers that wait for it as the route of leases does."""

    line: Line = field(default_factory=Line)
    left: list[str] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)
    taken: list[tuple[str, str]] = field(default_factory=list)
    slow: asyncio.Event | None = None
    """Until which a look takes."""

    async def worker(self, name: str, suits: str = "") -> None:
        with self.line.place() as place:
            while True:
                self.looks.append(name)
                found = next((work for work in self.left if work.startswith(suits)), None)
                if found is not None:
                    self.left.remove(found)
                more = bool(self.left)
                if self.slow is not None:
                    await self.slow.wait()
                await asyncio.sleep(0)  # a look takes a while, as that of the route does
                place.looked(more=more)
                if found is not None:
                    self.taken.append((name, found))
                    return
                if not await place.called(10):
                    return

    def add(self, *work: str) -> None:
        self.left += work
        self.line.call()


def play(story: Callable[[Works], Awaitable[None]], **workers: str) -> Works:
    """Let workers wait, clear what they have looked at, and let the story happen."""

    async def whole() -> Works:
        works = Works()
        tasks = [asyncio.create_task(works.worker(name, suits)) for name, suits in workers.items()]
        await settled()
        works.looks.clear()
        await story(works)
        await settled()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return works

    return asyncio.run(whole())


async def settled() -> None:
    await asyncio.sleep(0.01)


def test_one_piece_of_work_wakes_one_worker() -> None:
    async def story(works: Works) -> None:
        works.add("one")

    works = play(story, a="", b="", c="")
    assert works.taken == [("a", "one")]
    assert works.looks == ["a"]


def test_nothing_wakes_one_worker_and_no_more() -> None:
    async def story(works: Works) -> None:
        works.add()

    assert play(story, a="", b="", c="").looks == ["a"]


def test_as_much_work_as_there_are_workers_is_taken_in_order() -> None:
    async def story(works: Works) -> None:
        works.add("one", "two", "three")

    works = play(story, a="", b="", c="", d="")
    assert works.taken == [("a", "one"), ("b", "two"), ("c", "three")]
    assert works.looks == ["a", "b", "c"]


def test_work_that_the_first_cannot_do_reaches_the_one_who_can() -> None:
    async def story(works: Works) -> None:
        works.add("merge")

    assert play(story, a="score", b="score", c="merge").taken == [("c", "merge")]


def test_work_that_comes_while_somebody_looks_is_not_missed() -> None:
    async def story(works: Works) -> None:
        works.slow = asyncio.Event()
        works.add()  # a looks, and finds nothing
        await settled()
        works.add("one")
        works.slow.set()
        await settled()
        assert works.taken, "the work waits for a call that never comes"

    assert play(story, a="", b="").taken == [("a", "one")]


def test_work_that_comes_during_a_first_look_is_not_missed() -> None:
    async def story(works: Works) -> None:
        works.slow = asyncio.Event()
        late = asyncio.create_task(works.worker("late"))
        await settled()
        works.add("one")
        works.slow.set()
        await settled()
        assert works.taken == [("late", "one")]
        await late

    play(story)


def test_who_leaves_when_called_leaves_the_work_to_the_next() -> None:
    async def story(works: Works) -> None:
        first = asyncio.create_task(works.worker("first"))
        await settled()
        second = asyncio.create_task(works.worker("second"))
        await settled()
        works.add("one")
        first.cancel()
        await settled()
        assert works.taken == [("second", "one")]
        second.cancel()

    play(story)


def test_everybody_can_be_called_at_once() -> None:
    async def story(works: Works) -> None:
        works.line.call_all()

    assert sorted(play(story, a="", b="", c="").looks) == ["a", "b", "c"]


def test_who_is_called_during_a_first_look_still_passes_the_call_on() -> None:
    async def story(works: Works) -> None:
        works.slow = until = asyncio.Event()
        first = asyncio.create_task(works.worker("first", "merge"))
        await settled()
        works.slow = None
        second = asyncio.create_task(works.worker("second", "score"))
        await settled()
        works.add("score")
        until.set()
        await settled()
        assert works.taken == [("second", "score")]
        first.cancel()
        await second

    play(story)
