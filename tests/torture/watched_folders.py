"""Folders that somebody else writes to: slowly, half, into the void, and with links in the end.

Time here is the watcher's own argument, so two hundred slow writers take no longer than their
writes; what races is real threads on a real disk.
"""

import os
import random
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import numpy as np
from safetensors.numpy import save

from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import CkptmergeError
from ckptmerge.formats.held_folder import hold
from ckptmerge.formats.manifest import find_layout
from ckptmerge.storage.blobs import BlobStore
from ckptmerge.storage.memory_blobs import MemoryBlobStore
from service.sources import copy_file, take_in
from service.watcher import Watcher

SETTLED_AFTER = 5.0
INSIDE = save({"w": np.arange(1000, dtype=np.float32)})
CANARY = save({"w": np.full(1000, 7.0, np.float32)})
"""Content that lies outside of every root: where its digest is found, a link was followed."""
SIDE = {"config.json": b"{}", "tokenizer.json": b"{}"}

_TRIES = 50

Taker = Callable[[str, Sequence[Path], BlobStore], list[FileEntry]]


def write(folder: Path, weights: bytes = INSIDE) -> Path:
    """Write a whole checkpoint."""
    folder.mkdir(parents=True)
    for name, content in {"model.safetensors": weights, **SIDE}.items():
        (folder / name).write_bytes(content)
    return folder


def half_written(root: Path, writers: int, *, rng: random.Random) -> tuple[int, int]:
    """Let writers write slowly, some of them only in part, while a watcher looks on.

    Pauses are shorter than what a watcher waits, and as often longer.

    Returns:
        How many checkpoints were handed out while they were not whole; and how many whole ones
        never were.
    """
    watcher = Watcher(root, settled_after=SETTLED_AFTER)
    now, early, never = 0.0, 0, 0
    for number in range(writers):
        folder = root / f"step-{number}"
        folder.mkdir()
        dies = rng.random() < 0.3
        cuts = sorted(rng.sample(range(len(INSIDE)), 5))
        for name, content in SIDE.items():
            (folder / name).write_bytes(content)
        for begin, end in zip([0, *cuts], [*cuts, len(INSIDE)], strict=True):
            if dies and end == len(INSIDE):
                break
            with (folder / "model.safetensors").open("ab") as file:
                file.write(INSIDE[begin:end])
            for _ in range(2):
                now += rng.choice([0.1, SETTLED_AFTER - 0.1, 3 * SETTLED_AFTER])
                early += sum(not _is_whole(settled.path) for settled in watcher.look(now))
        now += SETTLED_AFTER
        watcher.look(now)
        found = watcher.look(now + SETTLED_AFTER)
        never += not dies and folder not in {settled.path for settled in found}
        early += sum(not _is_whole(settled.path) for settled in found)
        shutil.rmtree(folder)
    return early, never


def _is_whole(folder: Path) -> bool:
    with hold(folder.parent, [folder.name]) as held:
        return (held / "model.safetensors").read_bytes() == INSIDE


def strange_entries(root: Path, outside: Path) -> Iterator[str]:
    """Put what is no plain file or folder into a root, one after the other, and name each."""
    plain = write(outside / "plain", CANARY)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        for what, make in _MAKERS.items():
            folder = write(root / "step-1")
            (folder / name).unlink()
            make(folder / name, plain / "model.safetensors")
            yield f"{name} as {what}"
            shutil.rmtree(folder)
    for what, make in _MAKERS.items():
        make(root / "step-1", plain)
        yield f"the folder as {what}"
        (root / "step-1").unlink()
    for name in (".step-1", "step-1.tmp", "step-1.partial", "step-1.incomplete"):
        yield f"a folder {write(root / name, CANARY).name}"
        shutil.rmtree(root / name)


def _socket(place: Path, _to: Path) -> None:
    # Bound by a short name: an address of this kind has at most 108 bytes.
    with socket.socket(socket.AF_UNIX) as listening:
        descriptor = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
        listening.bind(f"/proc/self/fd/{descriptor}/{place.name}")
        os.close(descriptor)


_MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "a link": lambda place, to: place.symlink_to(to),
    "a link to itself": lambda place, _to: place.symlink_to(place),
    "a link to nothing": lambda place, to: place.symlink_to(to / "nothing"),
    "a link to a device": lambda place, _to: place.symlink_to("/dev/zero"),
    "a pipe": lambda place, _to: os.mkfifo(place),
    "a socket": _socket,
}


def strange_and_taken(root: Path, outside: Path) -> tuple[int, list[str]]:
    """Return how many strange entries a watcher saw, and which of them it handed out."""
    tried, taken = 0, []
    for what in strange_entries(root, outside):
        tried += 1
        watcher = Watcher(root, settled_after=SETTLED_AFTER)
        watcher.look(0)
        taken += [what] if watcher.look(SETTLED_AFTER) else []
    return tried, taken


def canaries_through(folder: Path, cases: int, take: Taker = take_in) -> tuple[int, int]:
    """Take in a source again and again while its names are flipped for links to the outside.

    Args:
        folder: Of the test's own, empty.
        cases: How many flips of each kind are raced with: folders, their parents, single files.
        take: What takes in sources.

    Returns:
        How often the outside's content came into the store; and how often the inside's did.
    """
    outside = write(folder / "outside" / "step-1", CANARY)
    root = folder / "root"
    inside = write(root / "run" / "step-1")
    flips = {
        inside: outside,
        inside.parent: outside.parent,
        inside / "model.safetensors": outside / "model.safetensors",
    }
    got = {Digest.of_bytes(CANARY): 0, Digest.of_bytes(INSIDE): 0}
    for place, to in flips.items():
        for _ in range(cases):
            blobs = MemoryBlobStore()
            with _flipping(place, to):
                for _ in range(_TRIES):
                    with suppress(CkptmergeError, OSError):
                        take(str(inside), [root], blobs)
            for digest in got:
                got[digest] += blobs.size(digest) is not None
    return got[Digest.of_bytes(CANARY)], got[Digest.of_bytes(INSIDE)]


def looks_then_opens(source: str, roots: Sequence[Path], blobs: BlobStore) -> list[FileEntry]:
    """Take in a source as many do: look for links first, and open the path afterwards.

    Between the two it is interrupted until a link is there, which takes bad luck elsewhere.
    """
    path = Path(source)
    layout = find_layout(path)
    ways = [roots[0] / beneath for beneath in ("run", "run/step-1", "run/step-1/model.safetensors")]
    if any(way.is_symlink() for way in ways):
        return []
    end = time.monotonic() + 1
    while not any(way.is_symlink() for way in ways) and time.monotonic() < end:
        pass
    return [copy_file(layout.folder / name, name, blobs) for name in layout.weights]


@contextmanager
def _flipping(place: Path, to: Path) -> Iterator[None]:
    """Let a name lead to itself and to somewhere else, in turn, as fast as a thread can."""
    stop = Event()
    aside = place.with_name(f".{place.name}.aside")

    def flip() -> None:
        while not stop.is_set():
            place.rename(aside)
            place.symlink_to(to)
            place.unlink()
            aside.rename(place)

    flipper = Thread(target=flip)
    flipper.start()
    try:
        yield
    finally:
        stop.set()
        flipper.join()
