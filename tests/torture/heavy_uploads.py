"""Very large uploads at once, in little memory; and one blob from many clients, kept once."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import httpx2

from ckptmerge.domain.digest import Digest
from tests.benchmarks.raw_http import put
from tests.benchmarks.served import Served
from tests.torture.finding import Finding, Scale

AREA = "transfers"

MIB = 2**20

GROWTH = 64 * MIB
"""Bytes that the service may hold beyond what it holds idle."""

SAME = 16
"""Clients with the same blob."""


def heavy_uploads(service: Served, scale: Scale) -> Iterator[Finding]:
    """Send what no memory holds, and what everybody else sends."""
    at_once, blocks = scale.pick(short=4, full=8), scale.pick(short=64, full=1024)
    idle = service.begin_peak()
    with ThreadPoolExecutor(at_once) as clients:
        list(clients.map(partial(_send, service.url, blocks), range(at_once)))
    growth = service.peak() - idle
    yield Finding(
        area=AREA,
        promise=f"{at_once} uploads of {blocks} MiB at once: at most 64 MiB of memory over idle",
        figure=f"{growth / MIB:.0f} MiB over {idle / MIB:.0f}",
        held=growth <= GROWTH,
    )
    idle = service.begin_peak()
    httpx2.post(f"{service.url}/v1/runs", json={"name": "x" * 2 * GROWTH}, timeout=120)
    growth = service.peak() - idle
    yield Finding(
        area=AREA,
        promise="control: a body that is read into memory shows",
        figure=f"{growth / MIB:.0f} MiB",
        held=growth > GROWTH,
    )
    yield _same(service, scale)


def _send(url: str, blocks: int, seed: int) -> None:
    """Send one block over and over, as a blob of its own."""
    block = hashlib.shake_128(b"heavy" + bytes([seed])).digest(MIB)
    hashed = hashlib.sha256()
    for _ in range(blocks):
        hashed.update(block)
    put(url, Digest(hashed.hexdigest()), blocks * MIB, (block for _ in range(blocks)))


def _same(service: Served, scale: Scale) -> Finding:
    content = hashlib.shake_128(b"same").digest(scale.pick(short=8, full=32) * MIB)
    digest, together = Digest.of_bytes(content), Barrier(SAME)

    def send(_: int) -> int:
        together.wait()
        with httpx2.Client(base_url=service.url, timeout=120) as client:
            return client.put(f"/v1/blobs/{digest}", content=content).status_code

    with ThreadPoolExecutor(SAME) as clients:
        statuses = Counter(clients.map(send, range(SAME)))
    stored = service.folder / "service" / "data" / "blobs"
    files = [*stored.rglob(f"{digest.hex}*"), *stored.glob(".incoming-*/*")]
    return Finding(
        area=AREA,
        promise=f"the same blob from {SAME} clients at once: one file, and 201 or 200 for each",
        figure=f"{len(files)} file, {json.dumps(statuses)}",
        held=len(files) == 1 and set(statuses) <= {200, 201} and sum(statuses.values()) == SAME,
    )
