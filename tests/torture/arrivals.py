"""What a training job sends: its files, in one piece or in several, and a checkpoint over them."""

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from fastapi import FastAPI
from safetensors.numpy import save
from structlog.testing import capture_logs

from ckptmerge.domain.digest import Digest
from ckptmerge.wire.runs import WindowPolicySpec
from service.app import create_app
from service.engine import Workers
from service.serve import open_data
from service.settings import Limits, Settings
from tests.integration.whole_service import believe
from tests.torture.journal import Journal
from tests.torture.one_thread import Asking
from tests.unit.workflow.conducted import propose

RUN = "load"

FLOATS = 6000
"""Of a checkpoint: large enough for several pages, small enough to be sent hundreds of times."""


def write_held_out(folder: Path) -> Path:
    """Write documents that can judge a model, and return where."""
    path = folder / "held-out.jsonl"
    lines = (json.dumps({"text": f"document {n}", "domain": "prose"}) for n in range(200))
    path.write_text("\n".join(lines) + "\n")
    return path


def settings_of(data: Path, held_out: Path | None, *, lease_ttl: float = 60.0) -> Settings:
    """Return the settings of a service whose run never has enough checkpoints for a study."""
    window = WindowPolicySpec(size=64, every=2**30, minimum=2**30)
    limits = Limits(reserve=0, lease_ttl=lease_ttl)
    return Settings(data=data, held_out=held_out, window=window, limits=limits)


@contextmanager
def opened_app(settings: Settings) -> Iterator[FastAPI]:
    """Start as `ckptmerge serve` does, but for the socket and the threads."""
    with capture_logs(), open_data(settings) as (store, blobs), Workers(settings.data.absolute()):
        yield create_app(settings, store=store, blob_store=blobs, propose=propose, believe=believe)


def files_of(step: int) -> Mapping[str, bytes]:
    """Return the files of a step: its own weights, and side files that are always the same."""
    weights = np.random.default_rng(step).standard_normal(FLOATS).astype(np.float32)
    return {
        "model.safetensors": save({"w": weights}),
        "config.json": b"{}",
        "tokenizer.json": b'{"version": "1.0"}',
    }


async def arrive(
    asking: Asking, step: int, journal: Journal, *, in_parts: bool, run: str = RUN
) -> None:
    """Send a step's checkpoint, and write down every acknowledgement.

    Raises:
        RefusedAnswerError: it was refused.
    """
    files = files_of(step)
    for name, content in files.items():
        if in_parts and name == "model.safetensors":
            await _send_in_parts(asking, content, journal)
        else:
            await asking.send("PUT", f"/v1/blobs/{Digest.of_bytes(content)}", content)
        journal.say(blob=Digest.of_bytes(content).hex)
    body = {
        "step": step,
        "files": [
            {"name": name, "size": len(content), "digest": str(Digest.of_bytes(content))}
            for name, content in files.items()
        ],
    }
    answer = await asking.json("POST", f"/v1/runs/{run}/checkpoints", body)
    registered = answer.json()
    journal.say(checkpoint=registered["id"], digest=registered["digest"], step=step)


async def _send_in_parts(asking: Asking, content: bytes, journal: Journal) -> None:
    """Send a file in two parts, as the client does with a large one."""
    raw = bytes.fromhex(Digest.of_bytes(content).hex)
    answer = await asking.send(
        "POST", "/v1/uploads", upload_complete="?0", upload_length=str(len(content)),
        repr_digest=f"sha-256=:{base64.b64encode(raw).decode()}:",
    )  # fmt: skip
    location = answer.headers["location"]
    journal.say(upload=location.rpartition("/")[2], offset=0)
    half = len(content) // 2
    for start, part, complete in ((0, content[:half], "?0"), (half, content[half:], "?1")):
        await asking.send(
            "PATCH", location, part, content_type="application/partial-upload",
            upload_offset=str(start), upload_complete=complete,
        )  # fmt: skip
        journal.say(upload=location.rpartition("/")[2], offset=start + len(part))
