"""Hostile files at every door, against the library, in folders that move, and as text."""

import json
import logging
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from tests.e2e.running import RunningService
from tests.torture import header_fuzz, traversal, watched_folders
from tests.torture.corpus import corpus
from tests.torture.doors import Doors, Knock
from tests.torture.finding import Finding, Scale
from tests.torture.hostile_file import Place
from tests.torture.hostile_texts import good_documents

AREA = "hostile files"
SECONDS = 1.0
"""Of the service's processor for one file: time on the clock is the machine's affair."""
GROWTH = 200 * 10**6
SHOWN = 5


_BATCHES = 12
"""Of nine races each, in which a careless reader must lose one."""


def torture(scale: Scale, scratch: Path) -> Iterator[Finding]:
    """Hand in what nobody should."""
    with _quiet():
        yield _gate_alone(scratch)
        with _service(scratch) as service:
            yield from _at_every_door(scale, Doors(service, scratch))
            yield from _as_text(scale, service, scratch)
        yield from _against_the_library(scale, scratch)
        yield from _in_moving_folders(scale, scratch)


def _gate_alone(scratch: Path) -> Finding:
    files = [file for file in corpus() if file.place is Place.WEIGHTS]
    folders = [scratch / "alone" / str(number) for number in range(len(files))]
    for file, folder in zip(files, folders, strict=True):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(file.make())
    command = [sys.executable, "-m", "tests.torture.gate_in_little_memory", *map(str, folders)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    came = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = [
        file.name
        for file, what in zip(files, came, strict=False)
        if what["refused"] != (file.refusal is not None)
    ]
    slowest = max((what["seconds"] for what in came), default=0.0)
    return Finding(
        area=AREA,
        promise=f"{len(files)} weight files through the gate in 1 GiB of address space: 0 wrongly "
        f"taken, refused or crashed on, each within {SECONDS:.0f} s of processor",
        figure=f"{len(wrong) + len(files) - len(came)} {wrong[:SHOWN]}, the slowest "
        f"{slowest:.2f} s, peak {max((what['peak'] for what in came), default=0) / 1e6:.0f} MB",
        held=not wrong and len(came) == len(files) and slowest <= SECONDS,
    )


def _at_every_door(scale: Scale, doors: Doors) -> Iterator[Finding]:
    files = corpus()
    knocks: list[Knock] = []
    for number, file in enumerate(files):
        knocks += doors.knock(file, only=number if scale is Scale.SHORT else None)
    wrong = [failure for knock in knocks if (failure := knock.failed)]
    slow = max(knocks, key=lambda knock: knock.seconds)
    fat = max(knocks, key=lambda knock: knock.grown)
    each = scale.pick(short=1, full=4)
    yield Finding(
        area=AREA,
        promise=f"{len(files)} files, {sum(f.refusal is None for f in files)} of them legal, each "
        f"at up to {each} doors: 0 answers other than documented, 0 of 5xx",
        figure=f"{len(wrong)} of {len(knocks)} {wrong[:SHOWN]}",
        held=not wrong,
    )
    yield Finding(
        area=AREA,
        promise=f"each takes the service at most {SECONDS:.0f} s of processor and "
        f"{GROWTH // 10**6} MB",
        figure=f"at most {slow.seconds:.2f} s ({slow.file.name}), {fat.grown / 1e6:.0f} MB "
        f"({fat.file.name})",
        held=slow.seconds <= SECONDS and fat.grown <= GROWTH,
    )
    well = doors.takes_a_good_checkpoint()
    yield Finding(
        area=AREA,
        promise="the service is ready afterwards and takes a good checkpoint",
        figure="it does" if well else "it does not",
        held=well,
    )


def _as_text(scale: Scale, service: RunningService, scratch: Path) -> Iterator[Finding]:
    outside = scratch / "beyond"
    outside.mkdir()
    document = json.loads(traversal.fetch(service.url, "/openapi.json"))
    every = scale.pick(short=500, full=25)
    requests = list(traversal.requests_of(document, scratch / "sources", every=every))
    log = scratch / "traversal.log"
    with traversal.tracing(service.process, log):
        statuses, failed = traversal.send(service.url, iter(requests))
    named = traversal.named(log)
    count = len(traversal.payloads(scratch))
    yield Finding(
        area=AREA,
        promise=f"{count} payloads over {len({r.where for r in requests})} strings of the "
        "interface: 0 become part of a path that the system is asked for, 0 answers of 5xx",
        figure=f"{len(named)} of {len(requests):,} {named[:SHOWN]}, {len(failed)} {failed[:SHOWN]}"
        f", answers {dict(sorted(statuses.items()))}",
        held=not named and not failed and statuses[0] == 0,
    )
    seen = traversal.control(outside, scratch / "control.log")
    yield Finding(
        area=AREA,
        promise="control: a process that opens a payload is seen to",
        figure=f"{len(seen)} seen",
        held=bool(seen),
    )


def _against_the_library(scale: Scale, scratch: Path) -> Iterator[Finding]:
    kept = scratch / "disagreements"
    kept.mkdir()
    seconds = scale.pick(short=5, full=150)
    found = header_fuzz.fuzz(seconds, kept, rng=_dice())
    bad = {what: found[what] for what in ("let through", "otherwise", "crashed")}
    yield Finding(
        area=AREA,
        promise=f"{seconds} s of damaged headers: 0 taken that safetensors refuses, 0 read "
        "otherwise than it does, 0 crashes",
        figure=f"{bad} of {found['tried']:,}, {found['taken']:,} of them taken by both",
        held=not any(bad.values()) and found["taken"] > 0,
    )
    lax = header_fuzz.fuzz(2, kept, rng=_dice(), gate=header_fuzz.trusting)
    yield Finding(
        area=AREA,
        promise="control: a reader that checks nothing is found out",
        figure=f"{lax['let through']:,} let through of {lax['tried']:,}",
        held=lax["let through"] > 0,
    )


def _in_moving_folders(scale: Scale, scratch: Path) -> Iterator[Finding]:
    folders = {name: scratch / "moving" / name for name in ("slow", "strange", "flipped", "naive")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    writers = scale.pick(short=10, full=200)
    early, never = watched_folders.half_written(folders["slow"], writers, rng=_dice())
    yield Finding(
        area=AREA,
        promise=f"{writers} slow writers, some of which die: 0 checkpoints taken half-written, "
        "0 whole ones left",
        figure=f"{early} taken half-written, {never} left",
        held=early == never == 0,
    )
    tried, taken = watched_folders.strange_and_taken(
        folders["strange"], scratch / "elsewhere" / "strange"
    )
    yield Finding(
        area=AREA,
        promise=f"{tried} links, pipes, sockets and hidden names in a watched folder: 0 taken, "
        "none waited for",
        figure=f"{len(taken)} {taken[:SHOWN]}",
        held=not taken,
    )
    cases = scale.pick(short=3, full=20)
    outside, inside = watched_folders.canaries_through(folders["flipped"], cases)
    yield Finding(
        area=AREA,
        promise=f"{3 * cases} races of names that flip to links: 0 files from outside the root in "
        "the store",
        figure=f"{outside} from outside, {inside} from inside",
        held=outside == 0 < inside,
    )
    fooled, batch = 0, 0
    while not fooled and batch < _BATCHES:  # a race is only ever lost by chance
        batch += 1
        fooled, _ = watched_folders.canaries_through(
            folders["naive"] / str(batch), 3, watched_folders.looks_then_opens
        )
    yield Finding(
        area=AREA,
        promise="control: who looks for links first and opens afterwards takes files from outside",
        figure=f"{fooled} races lost of {9 * batch}",
        held=fooled > 0,
    )


def _dice() -> random.Random:
    return random.Random(0)  # noqa: S311 - the same each time


@contextmanager
def _service(scratch: Path) -> Iterator[RunningService]:
    (scratch / "sources").mkdir()
    documents = scratch / "held-out.jsonl"
    documents.write_bytes(good_documents())
    sources = {"CKPTMERGE_SOURCE_ROOTS": str(scratch / "sources")}
    with RunningService(scratch, documents, workers=0, environ=sources) as service:
        yield service


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what watchers say of every folder that they do not take."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)
