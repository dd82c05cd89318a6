"""The doors through which files come into a service, each knocked at with a hostile one."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

import httpx2
import numpy as np
from safetensors.numpy import save

from ckptmerge.client.client import Client
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import CkptmergeError, ServiceError
from service.watcher import Watcher
from tests.e2e.running import RunningService
from tests.torture.hostile_file import Hostile, Place

RAW = {"Content-Type": "application/octet-stream"}
GOOD = save({"w": np.ones(8, np.float32)})
SHARDS = {f"{name}.safetensors": save({name: np.ones(2, np.float32)}) for name in "ab"}
SIDE: Mapping[str, bytes] = {"config.json": b'{"model_type":"llama"}', "tokenizer.json": b"{}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Knock:
    """What came of a file at one door."""

    file: Hostile
    door: str
    status: int | None
    """HTTP status; None where it was refused before anything was sent."""
    kind: str | None
    """Kind of problem; None where the file was taken."""
    seconds: float
    """Of the service's processor."""
    grown: int
    """Bytes by which the service's memory rose above what it held before."""
    said: str
    """The refusal in words."""

    @property
    def failed(self) -> str | None:
        """Say what is wrong with the answer; None where it is what is promised."""
        if self.status is not None and self.status >= 500:
            return f"{self.file.name!r} at {self.door}: {self.status}"
        # A watcher keeps it back without asking, and what is too long is not looked into.
        refused_early = self.file.refusal and (self.status is None or self.kind == "too-large")
        if self.kind != self.file.refusal and not refused_early:
            return f"{self.file.name!r} at {self.door}: {self.kind}, not {self.file.refusal}"
        if len(self.said) > 4000:
            return f"{self.file.name!r} at {self.door}: {len(self.said):,} characters of refusal"
        return None


@dataclass
class Doors:
    """A running service, and folders on its machine that it reads."""

    service: RunningService
    folder: Path
    """Of the test's own; beneath it what is handed in lies in folders."""
    http: httpx2.Client = field(init=False)
    _knocks: int = 0

    def __post_init__(self) -> None:
        self.http = httpx2.Client(base_url=self.service.url, timeout=120, trust_env=False)
        for root in (self.sources, self.watched):
            root.mkdir(parents=True, exist_ok=True)

    @property
    def sources(self) -> Path:
        """What the service was started with as its source root."""
        return self.folder / "sources"

    @property
    def watched(self) -> Path:
        """A folder that a watcher of the test's own looks at, since the service's waits seconds."""
        return self.folder / "watched"

    def knock(self, file: Hostile, *, only: int | None = None) -> Iterator[Knock]:
        """Hand a file in at every door that it fits, or at one of them, by a number."""
        content = file.make()
        doors = {
            Place.WEIGHTS: (self.raw, self.manifest, self.source, self.watch),
            Place.INDEX: (self.manifest, self.source, self.watch),
            Place.SIDE: (self.run_file, self.manifest, self.source, self.watch),
            Place.STRANGER: (self.manifest, self.source, self.watch),
            Place.HELD_OUT: (self.held_out,),
        }[file.place]
        for door in doors if only is None else [doors[only % len(doors)]]:
            self._knocks += 1
            yield self._knock(file, door, content)

    def takes_a_good_checkpoint(self) -> bool:
        """Say whether the service still does what it is there for."""
        self._knocks += 1
        run = f"good-{self._knocks}"
        answer = self.http.post(f"/v1/runs/{run}/checkpoints?step=1", content=GOOD, headers=RAW)
        ready = self.http.get("/readyz")
        return (answer.status_code, ready.status_code) == (201, 200)

    def raw(self, run: str, _file: Hostile, content: bytes) -> httpx2.Response:
        """Post the bytes of weights."""
        return self.http.post(f"/v1/runs/{run}/checkpoints?step=1", content=content, headers=RAW)

    def manifest(self, run: str, file: Hostile, content: bytes) -> httpx2.Response:
        """Upload every file as a blob, and register a manifest over them."""
        files = []
        for name, data in files_of(file, content).items():
            digest = str(Digest.of_bytes(data))
            stored = self.http.put(f"/v1/blobs/{digest}", content=data)
            if stored.status_code >= 300:
                return stored
            files.append({"name": name, "size": len(data), "digest": digest})
        return self.http.post(f"/v1/runs/{run}/checkpoints", json={"step": 1, "files": files})

    def source(self, run: str, file: Hostile, content: bytes) -> httpx2.Response:
        """Name a folder on the service's own disk."""
        with _laid_out(self.sources / "step-1", file, content) as folder:
            new = {"step": 1, "source": str(folder)}
            return self.http.post(f"/v1/runs/{run}/checkpoints", json=new)

    def run_file(self, run: str, file: Hostile, content: bytes) -> httpx2.Response:
        """Give a run a side file."""
        made = self.http.post("/v1/runs", json={"name": run})
        assert made.status_code == 201, made.text
        address = f"/v1/runs/{run}/files/{file.called}"
        return self.http.put(address, content=content, headers=RAW)

    def held_out(self, run: str, _file: Hostile, content: bytes) -> httpx2.Response:
        """Upload held-out documents."""
        return self.http.put(f"/v1/held-out-sets/{run}", content=content)

    def watch(self, run: str, file: Hostile, content: bytes) -> httpx2.Response | str:
        """Let the folder settle before a watcher, and push what it hands out."""
        watcher = Watcher(self.watched, settled_after=0)
        with _laid_out(self.watched / "step-1", file, content), Client(self.service.url) as client:
            watcher.look(0)
            for settled in watcher.look(1):
                try:
                    client.push(settled.path, run=run)
                except ServiceError as error:
                    problem = {"type": f"/problems/{error.kind}", "detail": str(error)}
                    return httpx2.Response(error.status or 599, json=problem)
                except CkptmergeError as error:
                    return str(error)
                return httpx2.Response(201)
        return "it was not handed out"

    def _knock(
        self, file: Hostile, door: Callable[..., httpx2.Response | str], content: bytes
    ) -> Knock:
        before = self._memory("VmRSS", reset=True)
        begin = self._processor()
        answer = door(f"r-{self._knocks}", file, content)
        seconds = self._processor() - begin
        refused = isinstance(answer, str)
        problem = {} if refused or answer.status_code < 400 else json.loads(answer.content)
        return Knock(
            file=file,
            door=door.__name__,
            status=None if refused else answer.status_code,
            kind="refused"
            if refused
            else problem.get("type", "/None").rpartition("/")[2]
            if problem
            else None,
            seconds=seconds,
            grown=self._memory("VmHWM") - before,
            said=answer if refused else problem.get("detail", ""),
        )

    def _memory(self, what: str, *, reset: bool = False) -> int:
        """Return bytes of the service's main process; 5 makes the peak what it is now (proc(5))."""
        process = Path("/proc", str(self.service.process))
        if reset:
            (process / "clear_refs").write_text("5")
        line = next(x for x in (process / "status").read_text().splitlines() if x.startswith(what))
        return int(line.split()[1]) * 1024

    def _processor(self) -> float:
        """Return seconds of processor that the service's main process has taken (proc(5))."""
        text = Path("/proc", str(self.service.process), "stat").read_text()
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def files_of(file: Hostile, content: bytes) -> Mapping[str, bytes]:
    """Return the files of a checkpoint in which one is hostile, and the others are good."""
    match file.place:
        case Place.INDEX:
            return {file.place.value: content, **SHARDS, **SIDE}
        case Place.STRANGER:
            return {file.called or "": content, **SIDE}
        case Place.SIDE:
            return {"model.safetensors": GOOD, **SIDE, file.called or "": content}
        case _:
            return {"model.safetensors": content, **SIDE}


@contextmanager
def _laid_out(folder: Path, file: Hostile, content: bytes) -> Iterator[Path]:
    """Write a checkpoint's files, for the length of the block."""
    folder.mkdir()
    try:
        for name, data in files_of(file, content).items():
            (folder / name).write_bytes(data)
        yield folder
    finally:
        rmtree(folder)
