"""An application that is asked without a socket, and may do all of its work in one thread.

In one thread its system calls come in one order, the same each time, so that the n-th of a kind is
one moment of one request. strace counts the calls of every thread by itself.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.types import Message

from tests.integration.blob_service import OURS


class OneThreadLoop(asyncio.SelectorEventLoop):
    """An event loop that does what it is given for other threads at once, in its own."""

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: object
    ) -> asyncio.Future[Any]:
        """Do it now."""
        del executor
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whoever awaits it gets it
            done.set_exception(error)
        return done


@dataclass(frozen=True)
class Answer:
    """What the application has answered."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """Return the content of a JSON answer."""
        return json.loads(self.content)

    @property
    def problem(self) -> str | None:
        """Return the kind of problem that it is, such as ``out-of-space``."""
        if self.headers.get("content-type") != "application/problem+json":
            return None
        return self.json()["type"].removeprefix("/problems/")


class RefusedAnswerError(Exception):
    """The application did not do what it was asked for."""

    def __init__(self, request: str, answer: Answer) -> None:
        super().__init__(f"{request}: {answer.status} {answer.content[:300]!r}")
        self.request = request
        self.answer = answer


@dataclass(frozen=True)
class Asking:
    """A client of an application in the same process."""

    app: FastAPI

    async def json(self, method: str, path: str, body: object = None) -> Answer:
        """Ask with JSON; raises where the answer is no success."""
        content = b"" if body is None else json.dumps(body).encode()
        return await self.send(method, path, content, content_type="application/json")

    async def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """Ask with bytes; raises where the answer is no success.

        Raises:
            RefusedAnswerError: it is none.
        """
        answer = await self.answer(method, path, body, **headers)
        if answer.status >= 300:
            raise RefusedAnswerError(f"{method} {path}", answer)
        return answer

    async def answer(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """Ask, and return whatever is answered."""
        heard: list[Message] = []
        said = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if not said:
                await asyncio.Event().wait()  # the client stays until it has its answer
            return said.pop()

        async def send(message: Message) -> None:
            heard.append(message)

        await self.app(_scope(method, path, len(body), headers), receive, send)
        return Answer(
            heard[0]["status"],
            {name.decode(): value.decode() for name, value in heard[0]["headers"]},
            b"".join(message.get("body", b"") for message in heard[1:]),
        )


def _scope(method: str, path: str, size: int, headers: Mapping[str, str]) -> dict[str, Any]:
    given = {"host": OURS.rpartition("/")[2], "content-length": str(size), **headers}
    path, _, query = path.partition("?")
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "method": method,
        "path": path, "query_string": query.encode(),
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in given.items()],
    }  # fmt: skip
