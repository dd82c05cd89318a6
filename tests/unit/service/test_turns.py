"""Requests that go on with one thing come one after the other, and stop for who is in a hurry."""

import asyncio

import pytest

from service.turns import Turns


async def hold(turns: Turns, said: list[str], name: str, *, until: asyncio.Event) -> None:
    async with turns.taken("upload") as turn:
        said.append(f"{name} begins")
        try:
            async with turn.stoppable():
                await until.wait()
        except TimeoutError:
            said.append(f"{name} is stopped")
        said.append(f"{name} ends")


def test_one_comes_after_the_other() -> None:
    async def play() -> list[str]:
        turns, said, until = Turns(), [], asyncio.Event()
        both = [asyncio.create_task(hold(turns, said, name, until=until)) for name in "ab"]
        await asyncio.sleep(0.01)
        assert said == ["a begins"]
        until.set()
        await asyncio.gather(*both)
        return said

    assert asyncio.run(play()) == ["a begins", "a ends", "b begins", "b ends"]


def test_who_is_in_a_hurry_stops_everybody_before_them() -> None:
    async def play() -> list[str]:
        turns, said, never = Turns(), [], asyncio.Event()
        both = [asyncio.create_task(hold(turns, said, name, until=never)) for name in "ab"]
        await asyncio.sleep(0.01)
        async with asyncio.timeout(5), turns.taken("upload", hurry=True):
            said.append("at once")
        await asyncio.gather(*both)
        return said

    assert asyncio.run(play()) == [
        "a begins", "a is stopped", "a ends", "b begins", "b is stopped", "b ends", "at once",
    ]  # fmt: skip


def test_things_of_other_names_do_not_wait() -> None:
    async def play() -> None:
        turns = Turns()
        async with turns.taken("one"), asyncio.timeout(5), turns.taken("other"):
            pass

    asyncio.run(play())


def test_nothing_is_remembered_of_turns_that_are_over() -> None:
    async def play() -> Turns:
        turns, until = Turns(), asyncio.Event()
        holding = asyncio.create_task(hold(turns, [], "a", until=until))
        await asyncio.sleep(0.01)
        impatient = asyncio.create_task(hold(turns, [], "b", until=until))
        await asyncio.sleep(0.01)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        until.set()
        await holding
        return turns

    assert asyncio.run(play())._turns == {}


def test_a_hurry_that_is_given_up_stops_nobody_who_comes_later() -> None:
    async def play() -> list[str]:
        turns, said, until = Turns(), [], asyncio.Event()
        async with turns.taken("upload"):
            hurried = asyncio.create_task(take(turns))
            await asyncio.sleep(0.01)
            waiting = asyncio.create_task(hold(turns, said, "a", until=until))
            hurried.cancel()
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        until.set()
        await waiting
        return said

    async def take(turns: Turns) -> None:
        async with turns.taken("upload", hurry=True):
            pass

    assert asyncio.run(play()) == ["a begins", "a ends"]
