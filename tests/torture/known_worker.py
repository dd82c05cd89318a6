"""A real worker whose models are a line: it writes real merges, and knows their loss at once.

All weights of a checkpoint are its step, so those of a merge are the sum of weight times step.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import numpy as np
import structlog
import torch
from safetensors.numpy import load_file, save

from ckptmerge.client.session import Session
from ckptmerge.domain.checkpoint import FileEntry
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Split
from ckptmerge.domain.recipe import Recipe
from ckptmerge.domain.task import TaskKind
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.formats.detect import open_checkpoint
from ckptmerge.merging.stream import merge
from ckptmerge.storage.blobs import put
from ckptmerge.storage.folder import FolderBlobStore
from ckptmerge.storage.records import TaskRecord
from ckptmerge.storage.sqlite import SqliteStore
from ckptmerge.wire.leases import LeaseResource
from ckptmerge.workflow.admit import admit
from ckptmerge.workflow.carry_out import Product
from service.data_folder import BLOBS, DATABASE
from service.worker import Worker
from tests.unit.workflow.conducted import World, loss, scores

OLD, NEW = 100, 200
"""Steps of the window."""


def search(data: Path, *, floats: int) -> None:
    """Make a data folder whose study waits for nothing but its merge to be written."""
    data.mkdir(exist_ok=True)
    store = SqliteStore(data / DATABASE)
    blobs = FolderBlobStore(data / BLOBS, reserve=0)
    world = World(store=store, blobs=blobs)  # type: ignore[arg-type]
    put(blobs, b"h")  # the world's held-out file
    for step in (OLD, NEW):
        content = {
            "model.safetensors": save({"w": np.full(floats, step, np.float32)}),
            "config.json": b"{}",
            "tokenizer.json": b"{}",
        }
        files = [FileEntry(n, len(data), put(blobs, data)) for n, data in content.items()]
        admit(
            store, blobs, run="run", step=step, tokens=None, files=files, now=0.0,
            new_id=world.new_id,
        )  # fmt: skip
    while not any(record.kind == TaskKind.MATERIALISE for record in world.all(TaskRecord)):
        if not world.conductor.advance(world.studies()[-1].id):
            record = world.lease()
            assert record is not None, "nothing moves any more"
            world.finish(record, world.work(record.task))
    blobs.close()
    store.close()


def work(url: str, scratch: Path) -> None:
    """Do the leases of a service until this process is ended."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    torch.set_num_threads(1)
    tempfile.tempdir = str(scratch)
    with Session(url) as session:
        worker = Worker(session, name=f"w-{scratch.name}", device="cpu", cache=scratch / "cache")
        worker._bench = _KnownBench()  # type: ignore[assignment]
        worker.run(Event())


class _KnownBench:
    """Does leases without a model."""

    def carry_out(
        self, lease: LeaseResource, *, checkpoints: Sequence[Path], held_out: Path, out: Path
    ) -> Product:
        """Do what the lease asks for."""
        del held_out  # the losses are known
        if lease.kind == "materialise":
            return _written(lease, checkpoints, out)
        if lease.weights is not None:
            weights = MergeWeights(tuple(lease.weights))
        else:
            weights = _weights_of(checkpoints[0])
        assert lease.held_out is not None
        found = scores(loss(weights), Split(lease.held_out.split))
        return Product(scores=found, repeated=found if lease.repeat else None)


def _written(lease: LeaseResource, checkpoints: Sequence[Path], out: Path) -> Product:
    contents = tuple(Digest.parse(checkpoint.content) for checkpoint in lease.checkpoints)
    recipe = Recipe(contents, MergeWeights(tuple(lease.weights or ())), lease.dtype)
    sources = [open_checkpoint(folder) for folder in checkpoints]
    try:
        artifact = merge(sources, recipe, out, side_files=checkpoints[-1])
    finally:
        for source in sources:
            source.close()
    return Product(folder=out, files=artifact.manifest.files)


def _weights_of(folder: Path) -> MergeWeights:
    value = float(load_file(folder / "model.safetensors")["w"][0])
    newer = (value - OLD) / (NEW - OLD)
    return MergeWeights.of(1 - newer, newer)
