"""A service over loopback that holds everything in dictionaries, and a line to it that breaks."""

import json
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock, Thread

import uvicorn
from fastapi import FastAPI, Request, Response

from ckptmerge.domain.digest import Digest
from ckptmerge.wire.best import Best
from ckptmerge.wire.checkpoints import CheckpointResource, NewCheckpoint
from ckptmerge.wire.resource import File


@dataclass
class Service:
    """Blobs and checkpoints in dictionaries, and what went over the line."""

    url: str = ""
    token: str | None = None
    """What the list of studies asks for."""
    ranges: bool = True
    blobs: dict[str, bytes] = field(default_factory=dict)
    wrong: dict[str, bytes] = field(default_factory=dict)
    """What is served in place of a blob, by a service that is broken."""
    checkpoints: dict[tuple[int, int], CheckpointResource] = field(default_factory=dict)
    puts: int = 0
    gets: list[str | None] = field(default_factory=list)
    """The Range of every GET of a blob."""

    def reset(self) -> None:
        """Forget everything but the address."""
        vars(self).update(vars(Service(url=self.url)))

    def app(self) -> FastAPI:
        app = FastAPI()
        app.head("/v1/blobs/{name}")(self._head_blob)
        app.put("/v1/blobs/{name}")(self._put_blob)
        app.get("/v1/blobs/{name}")(self._get_blob)
        app.post("/v1/runs/{run}/checkpoints")(self._register)
        app.get("/v1/runs/{run}")(lambda run: {"name": run, "surprise": 1})
        app.get("/v1/runs/{run}/best")(self._best)
        app.get("/v1/studies")(self._studies)
        app.get("/v1/studies/{name}")(study)
        app.get("/v1/studies/{name}/trials")(trials)
        return app

    def add(self, content: bytes) -> str:
        digest = str(Digest.of_bytes(content))
        self.blobs[digest] = content
        return f"/v1/blobs/{digest}"

    async def _head_blob(self, name: str) -> Response:
        return Response(status_code=200 if name in self.blobs else 404)

    async def _put_blob(self, name: str, request: Request) -> Response:
        self.puts += 1
        content = await request.body()
        if str(Digest.of_bytes(content)) != name:
            return problem(422, "digest-mismatch", "the bytes are not those of the address")
        known = name in self.blobs
        self.blobs[name] = content
        return Response(status_code=200 if known else 201)

    async def _get_blob(self, name: str, request: Request) -> Response:
        span = request.headers.get("range")
        self.gets.append(span)
        if name not in self.blobs:
            return problem(404, "missing", f"there is no blob {name}")
        content = self.wrong.get(name, self.blobs[name])
        tag = f'"{name.removeprefix("sha256:")}"'
        headers = {"ETag": tag}
        if span is None or not self.ranges or request.headers.get("if-range") not in {None, tag}:
            return Response(content, headers=headers)
        start = int(span.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            return problem(416, "range-not-satisfiable", "nothing lies there")
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return Response(content[start:], 206, headers)

    async def _register(self, run: str, new: NewCheckpoint, attempt: str | None = None) -> Response:
        number = max((a for a, _ in self.checkpoints), default=1) + (attempt == "next")
        files = [
            File(**ref.model_dump(), href=f"/v1/blobs/{ref.digest}") for ref in new.files or ()
        ]
        digest = str(Digest.of_json([[f.name, f.digest] for f in files]))
        known = self.checkpoints.get((number, new.step))
        if known is not None and known.digest != digest:
            return problem(409, "step-exists", "other bytes; ?attempt=next begins a new attempt")
        made = known or CheckpointResource(
            id=f"c_{len(self.checkpoints)}", run=run, attempt=number, step=new.step,
            tokens=new.tokens, digest=digest, content=digest, state="complete", missing=[],
            parameters=1, bytes=1, created="2026-01-01T00:00:00Z", files=files,
        )  # fmt: skip
        self.checkpoints[number, new.step] = made
        return Response(made.model_dump_json(), 200 if known else 201)

    async def _best(self, run: str) -> Response:
        if not self.checkpoints:
            return problem(404, "missing", f"run {run!r} has no complete checkpoint yet")
        newest = self.checkpoints[max(self.checkpoints)]
        return Response(best_of(newest).model_dump_json())

    async def _studies(self, request: Request, after: str | None = None) -> Response:
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return problem(401, "unauthorized", "say who asks: give a token")
        names = ["s_3", "s_2", "s_1"]
        start = names.index(after) + 1 if after else 0
        following = names[start] if start < 2 else None
        return Response(json.dumps({"items": [study(names[start])], "next": following}))


def problem(status: int, kind: str, detail: str) -> Response:
    content = {"type": f"/problems/{kind}", "title": kind, "status": status, "detail": detail}
    return Response(json.dumps(content), status, media_type="application/problem+json")


def best_of(newest: CheckpointResource) -> Best:
    return Best(
        run=newest.run, kind="checkpoint", promoted=False, reason="no study has been decided yet",
        artifact=None, digest=newest.digest, step=newest.step, tokens=newest.tokens, study=None,
        stopped="", weights=None, groups=None, score=None, baselines={}, gains=[],
        better_than_uniform=None, certificate=None, tests=[], passes=None, files=newest.files,
    )  # fmt: skip


def study(name: str) -> dict[str, object]:
    return {
        "id": name, "run": "olmo-1b", "era": 1, "state": "searching", "stopped": None,
        "checkpoints": ["c_1", "c_2"], "steps": [100, 200], "space": "pair", "lower": [0.0],
        "upper": [1.0], "budget": 24, "seed": 0, "dtype": "keep", "trials": 3, "observed": 2,
        "winner": None, "verdict": None, "created": "2026-01-01T00:00:00Z",
    }  # fmt: skip


def trials() -> dict[str, object]:
    trial = {
        "trial": 0, "name": "uniform-2", "weights": [0.5, 0.5], "state": "observed", "value": 2.2,
        "standard_error": 0.0, "reason": None, "reused": False, "worker": "w",
        "attempts": 1, "seconds": {},
    }  # fmt: skip
    return {"items": [trial], "next": None}


@contextmanager
def serving() -> Iterator[Service]:
    """Serve until the end of the block."""
    service = Service()
    config = uvicorn.Config(service.app(), log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        service.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield service
        server.should_exit = True
        thread.join()


@dataclass
class Cutter:
    """A line to a server that is cut after so many bytes, so many times."""

    url: str
    cuts: int
    """Cuts still to be made."""
    after: int
    carried: int = 0
    lock: Lock = field(default_factory=Lock)

    def carry(self, source: socket.socket, target: socket.socket) -> None:
        """Copy one direction; the cut resets both ends, as a line that fails does."""
        passed = 0
        with suppress(OSError):
            while block := source.recv(16_384):
                target.sendall(block)
                passed += len(block)
                with self.lock:
                    self.carried += len(block)
                    cut = passed >= self.after and self.cuts > 0
                    self.cuts -= cut
                if cut:
                    break
            else:
                target.shutdown(socket.SHUT_WR)
                return
            for end in (source, target):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def cut_line(service: Service, *, cuts: int, after: int) -> Iterator[Cutter]:
    upstream = ("127.0.0.1", int(service.url.rpartition(":")[2]))
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(64) as pumps:
        cutter = Cutter(f"http://127.0.0.1:{listener.getsockname()[1]}", cuts, after)
        ends: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    far = socket.create_connection(upstream)
                    ends.extend((near, far))
                    pumps.submit(cutter.carry, near, far)
                    pumps.submit(cutter.carry, far, near)

        thread = Thread(target=accept, daemon=True)
        thread.start()
        yield cutter
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
    for end in ends:
        end.close()
