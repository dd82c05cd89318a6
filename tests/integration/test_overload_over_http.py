"""What is too much is refused by its head alone, politely, and others are not held up by it."""

import asyncio
from dataclasses import dataclass, field

from fastapi import FastAPI
from starlette.types import Message

from service.problems import Problem
from service.settings import Limits, Settings
from tests.integration.shell import Shell

SIZE = 2**21
"""Bytes of a body that is no mere message."""


@dataclass
class Client:
    """One request, whose body comes when it is told to."""

    app: FastAPI
    method: str
    path: str
    bidden: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    heard: list[Message] = field(default_factory=list)

    async def __call__(self) -> None:
        head = [(b"host", b"127.0.0.1"), (b"content-length", str(SIZE).encode())]
        await self.app(
            {
                "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"},
                "method": self.method, "path": self.path, "query_string": b"", "headers": head,
            },
            self._receive,
            self._send,
        )  # fmt: skip

    async def _receive(self) -> Message:
        self.asked += 1
        self.begun.set()
        await self.bidden.wait()
        return {"type": "http.request", "body": bytes(SIZE), "more_body": False}

    async def _send(self, message: Message) -> None:
        self.heard.append(message)

    @property
    def status(self) -> int:
        return self.heard[0]["status"]

    def header(self, name: bytes) -> bytes | None:
        return dict(self.heard[0]["headers"]).get(name)


def test_one_upload_too_many_is_refused_unread_and_others_go_on() -> None:
    shell = Shell(Settings(limits=Limits(uploads_at_once=1)))

    async def play() -> None:
        app = shell.app()
        first, second, again = (Client(app, "PUT", f"/v1/blobs/{n}") for n in range(3))
        small = Client(app, "GET", "/healthz")
        going = asyncio.create_task(first())
        await asyncio.wait_for(first.begun.wait(), 5)
        await asyncio.wait_for(second(), 5)
        assert (second.status, second.asked) == (503, 0)
        assert (second.header(b"retry-after"), second.header(b"connection")) == (b"2", b"close")
        problem = Problem.model_validate_json(second.heard[1]["body"])
        assert (problem.type, problem.status) == ("/problems/overloaded", 503)
        small.bidden.set()
        await asyncio.wait_for(small(), 5)
        assert small.status == 200
        first.bidden.set()
        await asyncio.wait_for(going, 5)
        again.bidden.set()
        await asyncio.wait_for(again(), 5)
        assert (first.status, again.status) == (200, 200)

    asyncio.run(play())
    assert shell.changes == [bytes(SIZE)] * 2


def test_who_may_not_come_in_takes_nobodys_place() -> None:
    shell = Shell(Settings(token="mbo_" + "0123456789ABCDEF", limits=Limits(uploads_at_once=1)))

    async def play() -> None:
        app = shell.app()
        for _ in range(3):
            stranger = Client(app, "PUT", "/v1/blobs/1")
            await asyncio.wait_for(stranger(), 5)
            assert stranger.status == 401

    asyncio.run(play())
