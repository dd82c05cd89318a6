"""What is done while calls fail and processes die: each in one thread, the same way each time."""

import asyncio
from collections.abc import Coroutine
from itertools import count
from pathlib import Path
from typing import Any

import torch

from ckptmerge.domain.recipe import Recipe
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.formats.detect import open_checkpoint
from ckptmerge.formats.manifest import read_manifest
from ckptmerge.merging.stream import merge
from ckptmerge.storage.memory_blobs import MemoryBlobStore
from ckptmerge.storage.records import StudyRecord, TaskRecord
from ckptmerge.storage.store import Store
from ckptmerge.workflow.cancel import GOING
from ckptmerge.workflow.conduct import Conductor
from ckptmerge.workflow.desk import Desk
from ckptmerge.workflow.stored import require
from service.dependencies import State
from service.settings import Settings
from tests.torture.arrivals import arrive, opened_app
from tests.torture.journal import Journal
from tests.torture.one_thread import Asking, OneThreadLoop, RefusedAnswerError
from tests.unit.workflow.conducted import World, loss, propose

SHARD = 60_000
"""Bytes of a merge's files: it has several."""

CLIENTS = 3
"""At once: what one of them syncs takes to the disk what others have begun."""

RUN_LENGTH = 25
"""Checkpoints of a run; the next one goes to another run."""


def start(settings: Settings, journal: Journal) -> None:
    """Start, on an empty folder or on what is there, and stop."""
    with opened_app(settings):
        journal.say(started=True)


def take_in(settings: Settings, journal: Journal) -> None:
    """Take the files of a checkpoint, one of them in parts, and register it."""
    with opened_app(settings) as app:
        in_one_thread(arrive(Asking(app), 1, journal, in_parts=True))


def insist(settings: Settings, journal: Journal) -> None:
    """Take a checkpoint in while a disk fails: whatever is refused is sent once more.

    The journal has the refusals too, and says where the requests begin and end.
    """
    with opened_app(settings) as app:
        journal.say(begun=True)
        try:
            in_one_thread(arrive(Asking(app), 1, journal, in_parts=True))
        except RefusedAnswerError as error:
            answer = error.answer
            journal.say(refused=error.request, status=answer.status, problem=answer.problem)
            in_one_thread(arrive(Asking(app), 1, journal, in_parts=True))
        journal.say(ended=True)


def keep_arriving(settings: Settings, journal: Journal) -> None:
    """Take checkpoints from several clients at once, until somebody ends this process."""

    async def client(asking: Asking, number: int) -> None:
        for step in count():
            run = f"load-{number}-{step // RUN_LENGTH}"
            await arrive(asking, 1000 * number + step, journal, in_parts=step % 2 == 0, run=run)

    async def clients(asking: Asking) -> None:
        await asyncio.gather(*(client(asking, number) for number in range(CLIENTS)))

    with opened_app(settings) as app:
        asyncio.run(clients(Asking(app)))


def hand_in(settings: Settings, journal: Journal) -> None:
    """Take a merge from a worker, up to its being on record; nobody sees it yet."""
    with opened_app(settings) as app:
        in_one_thread(_finish_study(Asking(app), app.state.service, journal, once=True))


def publish(settings: Settings, journal: Journal) -> None:
    """Take a merge and its scores from a worker, decide the study, and show the champion."""
    with opened_app(settings) as app:
        in_one_thread(_finish_study(Asking(app), app.state.service, journal))


def write_merge(parents: Path, out: Path) -> None:
    """Write a merge of two checkpoints as a worker does, which is killed."""
    torch.set_num_threads(1)
    folders = sorted(parents.iterdir())
    contents = tuple(read_manifest(folder).content for folder in folders)
    recipe = Recipe(contents, MergeWeights.of(0.4, 0.6), shard_size=SHARD)
    sources = [open_checkpoint(folder) for folder in folders]
    try:
        merge(sources, recipe, out, side_files=folders[-1])
    finally:
        for source in sources:
            source.close()


def in_one_thread(work: Coroutine[Any, Any, None]) -> None:
    """Do it to its end."""
    with asyncio.Runner(loop_factory=OneThreadLoop) as runner:
        runner.run(work)


class _KnownWorld(World):
    """The world of a service that was there before; what its worker makes stays with the worker."""

    def __init__(self, store: Store) -> None:
        self.store = store  # type: ignore[assignment]
        self.loss, self.beyond = loss, {}

    def __post_init__(self) -> None:
        """Make nothing."""


class _KnownWorld(World):
    """The world of a service that was there before; what its worker makes stays with the worker."""

    def __init__(self, store: Store) -> None:
        self.store = store  # type: ignore[assignment]
        self.loss, self.beyond = loss, {}

    def __post_init__(self) -> None:
        """Make nothing."""


async def _finish_study(
    asking: Asking, state: State, journal: Journal, *, once: bool = False
) -> None:
    """Move the study on and do its tasks; until it is over, or once."""
    world = _KnownWorld(state.store)
    conductor = Conductor(
        Desk(state.store, state.blobs, state.now, state.new_id), propose, lambda: 1
    )
    while (study := _newest(state.store)).state in GOING:
        moved = conductor.advance(study.id)
        wanted = {"worker": "w", "device": "cpu", "wait": 0.0}
        answer = await asking.json("POST", "/v1/leases", wanted)
        assert moved or answer.status == 201, "nothing moves any more"
        if answer.status == 201:
            await _do(asking, world, answer.json())
            journal.say(outcome=answer.json()["id"])
        if once:
            conductor.advance(study.id)
            return
    best = (await asking.send("GET", "/v1/runs/run/best")).json()
    journal.say(artifact=best["artifact"], digest=best["digest"])


def _newest(store: Store) -> StudyRecord:
    with store.read() as snapshot:
        return snapshot.find(StudyRecord)[-1]


async def _do(asking: Asking, world: World, lease: dict[str, Any]) -> None:
    """Do a lease, and hand in what came of it, as a worker on another machine would."""
    with world.store.read() as snapshot:
        task = require(snapshot, TaskRecord, lease["id"], "lease").task
    world.blobs = MemoryBlobStore()
    made = world.work(task)
    for digest in world.blobs:
        with world.blobs.open(digest) as reader:
            content = reader.read(0, reader.size)
        await asking.send("PUT", f"/v1/blobs/{digest}", content)
    body = {
        "fence": lease["fence"], "status": made.status, "reason": made.reason,
        "scores": made.scores and str(made.scores),
        "repeated": made.repeated and str(made.repeated),
        "files": [
            {"name": file.name, "size": file.size, "digest": str(file.digest)}
            for file in made.files
        ] or None,
    }  # fmt: skip
    await asking.json("POST", f"/v1/leases/{lease['id']}/outcome", body)
