"""An ASGI client, for tests of what happens when a client breaks off."""

import asyncio

from fastapi import FastAPI
from starlette.types import Message, Receive

from tests.integration.blob_service import ADDRESS


class Client:
    """An ASGI client that says what it is told to, and then leaves."""

    def __init__(self, *said: bytes, more: bool = False) -> None:
        self.said = [
            {"type": "http.request", "body": part, "more_body": more or number < len(said)}
            for number, part in enumerate(said, 1)
        ]
        self.taken = 0
        self.heard: list[Message] = []

    async def receive(self) -> Message:
        self.taken += 1
        return self.said.pop(0) if self.said else {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.heard.append(message)
        await asyncio.sleep(0.005)  # long enough for its leaving to be seen

    def stay_until(self, messages: int) -> Receive:
        async def receive() -> Message:
            while len(self.heard) < messages:  # noqa: ASYNC110 - a list has no event
                await asyncio.sleep(0.001)
            return {"type": "http.disconnect"}

        return receive

    def ask(self, app: FastAPI, method: str = "PUT", path: str = ADDRESS, **headers: str) -> int:
        """Return the status of the answer; 0 where none was sent."""
        lines = [(b"host", b"127.0.0.1")]
        lines += [(k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in headers.items()]
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "method": method,
            "path": path, "query_string": b"", "headers": lines,
        }  # fmt: skip
        asyncio.run(app(scope, self.receive, self.send))
        return self.heard[0]["status"] if self.heard else 0

    def header(self, name: bytes) -> bytes | None:
        return dict(self.heard[0]["headers"]).get(name)
