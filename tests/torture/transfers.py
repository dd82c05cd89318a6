"""Transfers: what is cut is resumed, what is promoted is never mixed, what is slow is let go."""

import json
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.served import Served
from tests.e2e.running import RunningService
from tests.torture.finding import Finding, Scale
from tests.torture.heavy_uploads import heavy_uploads
from tests.torture.promoted import promoted
from tests.torture.resumed import resumed
from tests.torture.slow_clients import slow_clients


def torture(scale: Scale, scratch: Path) -> Iterator[Finding]:
    """Bring bytes in and out of a real service in all the ways in which that can go wrong."""
    held_out = scratch / "held-out.jsonl"
    lines = (json.dumps({"text": f"document {number}"}) for number in range(200))
    held_out.write_text("\n".join(lines))
    folder = scratch / "service"
    folder.mkdir()
    limits = {"CKPTMERGE_LARGEST_JSON": str(2**28)}
    with RunningService(folder, held_out, workers=0, environ=limits) as service:
        yield from resumed(service.url, scale, scratch)
        yield from promoted(service.url, scale, scratch)
        yield from heavy_uploads(Served(service, scratch), scale)
    yield from slow_clients(held_out, scratch)
