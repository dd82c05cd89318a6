"""Downloads and uploads over a line that is cut again and again: all of it comes, and once."""

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

from ckptmerge.client import blobs, parts
from ckptmerge.client.session import Patience, Session
from ckptmerge.domain.digest import Digest
from tests.torture.chaos_proxy import CutLine
from tests.torture.finding import Finding, Scale, require_program

AREA = "transfers"

MIB = 2**20

_TRIES = 200
"""Starts of a program; each brings more, so many are enough for any number of cuts."""

_PATIENCE = Patience(attempts=20, first=0.01, longest=0.05)

Fetch = Callable[[str, Path], None]
"""Brings what is at an address to a file, however often it has to ask."""


def resumed(url: str, scale: Scale, scratch: Path) -> Iterator[Finding]:
    """Cut every client's line to a service, and say what came through."""
    cuts = scale.pick(short=3, full=20)
    content = os.urandom(scale.pick(short=16, full=96) * MIB)
    digest = Digest.of_bytes(content)
    size = len(content)
    with Session(url, patience=_PATIENCE) as session:
        session.put(f"/v1/blobs/{digest}", lambda: [content], size=size)
    clients = {
        "curl -C -": _again_and_again([require_program("curl"), "-sS", "-f", "-C", "-", "-o"]),
        "aria2c -x4 -c": _aria2(),
        "wget -c": _again_and_again(
            [require_program("wget"), "-q", "-c", "-t", "0", "--waitretry=0", "-O"]
        ),
        "the client": lambda address, target: _own(address, target, size, digest),
    }
    for seed, (name, fetch) in enumerate(clients.items()):
        yield _downloaded(name, fetch, url, digest, scratch, cuts=cuts, seed=seed)
    yield from _uploaded(url, scale, scratch, cuts)


def _downloaded(
    name: str, fetch: Fetch, url: str, digest: Digest, scratch: Path, *, cuts: int, seed: int
) -> Finding:
    target = scratch / "fetched"
    with CutLine(url, seed=seed, cuts=cuts, after=(MIB // 2, 3 * MIB)) as line:
        fetch(f"{line.url}/v1/blobs/{digest}", target)
        made = line.cuts
    right = _digest(target) == digest
    target.unlink()
    return Finding(
        area=AREA,
        promise=f"{name}: right digest after {cuts} cuts",
        figure=f"{'right' if right else 'WRONG'} after {made}",
        held=right and made == cuts,
    )


def _again_and_again(command: Sequence[str]) -> Fetch:
    """Return a download by a program that is started until it is content."""

    def fetch(address: str, target: Path) -> None:
        for _ in range(_TRIES):
            asked = subprocess.run([*command, target, address], check=False, capture_output=True)
            if asked.returncode == 0:
                return
        raise AssertionError(f"{command[0]} brought nothing to an end in {_TRIES} tries")

    return fetch


def _aria2() -> Fetch:
    program = require_program("aria2c")

    def fetch(address: str, target: Path) -> None:
        _again_and_again(
            [program, "-q", "-x4", "-s4", "-k1M", "-c", "--file-allocation=none",
             "-d", str(target.parent), "-o"]
        )(address, Path(target.name))  # fmt: skip

    return fetch


def _own(address: str, target: Path, size: int, digest: Digest) -> None:
    url, _, path = address.partition("/v1/")
    with Session(url, patience=_PATIENCE) as session:
        blobs.download(session, f"/v1/{path}", target, size=size, digest=digest)


def _uploaded(url: str, scale: Scale, scratch: Path, cuts: int) -> Iterator[Finding]:
    """Send a large file in parts, and the same in one piece, which costs all of it each time."""
    size = blobs.WHOLE + scale.pick(short=8, full=192) * MIB
    file, whole = scratch / "sent", 3
    for seed, in_parts in enumerate((True, False)):
        _write(file, size, seed)
        wanted = cuts if in_parts else whole
        after = (MIB, 2 * size // wanted // 3) if in_parts else (24 * MIB, 48 * MIB)
        with CutLine(url, seed=seed, cuts=wanted, after=after) as line:
            with patch.object(blobs, "WHOLE", 0 if in_parts else size):
                again = _sent(line.url, file) - size
            made = line.cuts
        with Session(url) as session:
            there = session.exists(f"/v1/blobs/{_digest(file)}")
        within = again <= made * parts.PART
        yield Finding(
            area=AREA,
            promise=f"upload in parts: at most 8 MiB sent again for each of {wanted} cuts"
            if in_parts
            else f"control: in one piece, {wanted} cuts cost more than 8 MiB each",
            figure=f"{again / MIB:.1f} MiB in all for {made}"
            + ("" if there else ", and it never arrived"),
            held=there and made == wanted and within is in_parts,
        )
    file.unlink()


def _sent(url: str, file: Path) -> int:
    """Upload a file; return how many bytes were handed to connections for that."""
    sent, real = 0, parts.blocks

    def counted(*given: object) -> Iterator[bytes]:
        nonlocal sent
        for block in real(*given):  # type: ignore[arg-type] as it was called
            sent += len(block)
            yield block

    with (
        patch.object(parts, "blocks", counted),
        patch.object(blobs, "blocks", counted),
        Session(url, patience=_PATIENCE) as session,
    ):
        blobs.upload(session, file)
    return sent


def _write(file: Path, size: int, seed: int) -> None:
    block = hashlib.shake_128(bytes([seed])).digest(MIB)
    with file.open("wb") as sink:
        for _ in range(size // MIB):
            sink.write(block)


def _digest(file: Path) -> Digest:
    with file.open("rb") as source:
        return Digest(hashlib.file_digest(source, "sha256").hexdigest())
