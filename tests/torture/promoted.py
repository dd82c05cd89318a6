"""Downloads of a run's best while another is promoted: one file or the other, never a mix."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2

from ckptmerge.client.client import Client
from tests.torture.chaos_proxy import CutLine
from tests.torture.finding import Finding, Scale

AREA = "transfers"

RUN = "flipping"

FILE = f"/v1/runs/{RUN}/best/files/model.safetensors"

_PIECE = 2**20


@dataclass
class Flipping:
    """A run with two checkpoints, of which the other is promoted when it is told so."""

    client: Client
    steps: tuple[int, int]
    digests: frozenset[str]
    """Of the two files that its best may be."""
    flips: int = 0

    def flip(self) -> None:
        """Promote the other one."""
        self.flips += 1
        step = self.steps[self.flips % 2]
        self.client.pin(RUN, f"step-{step}", reason=f"flip {self.flips}")


def promoted(url: str, scale: Scale, scratch: Path) -> Iterator[Finding]:
    """Promote in the middle of every download, and look at what came."""
    rounds = scale.pick(short=10, full=200)
    with Client(url) as client, CutLine(url, seed=5, delay=0.005) as line:
        flipping = _flipping(client, scratch, megabytes=scale.pick(short=6, full=8))
        with (
            httpx2.Client(base_url=line.url, follow_redirects=True, timeout=60) as asking,
            Client(line.url) as user,
        ):
            found, statuses = Counter[str](), Counter[int]()
            for _ in range(rounds):
                found[_kind(flipping, _streamed(flipping, asking))] += 1
                found[_kind(flipping, _in_pieces(flipping, asking, statuses))] += 1
                found[_kind(flipping, _by_client(flipping, user, scratch))] += 1
            spliced = sum(
                _kind(flipping, _in_pieces(flipping, asking, None)) == "spliced"
                for _ in range(scale.pick(short=3, full=10))
            )
    yield Finding(
        area=AREA,
        promise=f"a promotion in the middle of {3 * rounds} downloads of the best: 0 spliced",
        figure=f"{found['spliced']} spliced, {found['one']} whole, {flipping.flips} promotions",
        held=found == {"one": 3 * rounds},
    )
    yield Finding(
        area=AREA,
        promise=f"If-Range with the ETag from before a promotion: {rounds} times 200, never 206",
        figure=", ".join(f"{count} times {status}" for status, count in statuses.items()),
        held=statuses == {200: rounds},
    )
    yield Finding(
        area=AREA,
        promise="control: without If-Range, pieces of both files come together",
        figure=f"{spliced} spliced",
        held=spliced > 0,
    )


def _flipping(client: Client, scratch: Path, *, megabytes: int) -> Flipping:
    """Make the run; it has one tensor, of other bytes at each step."""
    client._session.json(
        "POST", "/v1/runs", {"name": RUN, "window": {"size": 8, "every": 8, "minimum": 8}}
    )
    digests, steps = set[str](), (100, 200)
    for step in steps:
        folder = scratch / f"step-{step}"
        folder.mkdir()
        content = _safetensors(value=step, elements=megabytes * 2**20 // 4)
        (folder / "model.safetensors").write_bytes(content)
        for name in ("config.json", "tokenizer.json"):
            (folder / name).write_text("{}")
        client.push(folder, run=RUN, step=step)
        digests.add(hashlib.sha256(content).hexdigest())
        shutil.rmtree(folder)
    return Flipping(client, steps, frozenset(digests))


def _safetensors(*, value: int, elements: int) -> bytes:
    """Return a file with one F32 tensor, in which no two MiB are the same in both files."""
    header = json.dumps(
        {"weight": {"dtype": "F32", "shape": [elements], "data_offsets": [0, 4 * elements]}}
    ).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + value.to_bytes(4, "little") * elements


def _kind(flipping: Flipping, digest: str) -> str:
    return "one" if digest in flipping.digests else "spliced"


def _streamed(flipping: Flipping, asking: httpx2.Client) -> str:
    """Fetch the best in one request, and promote the other when a part of it has come."""
    hashed = hashlib.sha256()
    with asking.stream("GET", FILE) as answer:
        for number, piece in enumerate(answer.iter_raw(_PIECE)):
            hashed.update(piece)
            if number == 1:
                flipping.flip()
    return hashed.hexdigest()


def _in_pieces(flipping: Flipping, asking: httpx2.Client, statuses: Counter[int] | None) -> str:
    """Fetch the best piece by piece from its changing address, and promote the other in between.

    With ``statuses`` each piece is asked for with If-Range, and what the first one after the
    promotion is answered with is counted; without, as a careless program does.
    """
    content, tag, pieces = b"", "", 0
    while True:
        wanted = {"Range": f"bytes={len(content)}-{len(content) + _PIECE - 1}"}
        if statuses is not None and tag:
            wanted["If-Range"] = tag
        answer = asking.get(FILE, headers=wanted)
        if statuses is not None and pieces == 2:
            statuses[answer.status_code] += 1
        content = answer.content if answer.status_code == 200 else content + answer.content
        tag, pieces = answer.headers["etag"], pieces + 1
        whole = answer.headers.get("content-range", "").rpartition("/")[2]
        if answer.status_code == 200 or len(content) >= int(whole):
            return hashlib.sha256(content).hexdigest()
        if pieces == 2:
            flipping.flip()


def _by_client(flipping: Flipping, user: Client, scratch: Path) -> str:
    """Fetch the best as users of the client do, and promote the other when a part has come."""
    flips = flipping.flips

    def flip_once(_bytes: int) -> None:
        if flipping.flips == flips:
            flipping.flip()

    out = user.best(RUN).download(scratch / "best", flip_once)
    digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    shutil.rmtree(out)
    return digest
