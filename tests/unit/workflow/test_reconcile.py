"""Before a service takes requests: rows without bytes, bytes without rows, and what that ends."""

from dataclasses import replace

from ckptmerge.domain.digest import Digest
from ckptmerge.domain.study import StudyState
from ckptmerge.storage.blobs import put
from ckptmerge.storage.records import (
    ArtifactRecord,
    BlobRecord,
    CheckpointRecord,
    EventRecord,
    HeldOutRecord,
    Pin,
    RunRecord,
    WindowPolicy,
)
from ckptmerge.workflow.admit import complete
from ckptmerge.workflow.best import best_of
from ckptmerge.workflow.blob_records import put_on_record
from ckptmerge.workflow.reconcile import Reconciled, reconcile
from tests.unit.workflow.conducted import DOCUMENTS, World


class Machine(World):
    """A world that can be started anew, and whose disk forgets."""

    def __post_init__(self) -> None:
        super().__post_init__()
        with self.store.write() as unit:
            held_out = unit.find(HeldOutRecord)[0]
            unit.update(replace(held_out, file=replace(held_out.file, size=1)))
        put(self.blobs, b"h")

    def start(self, now: float = 7.0) -> Reconciled:
        return reconcile(self.store, self.blobs, now=now, new_id=self.new_id)

    def change(self, record) -> None:
        with self.store.write() as unit:
            unit.update(record)

    def lose(self, record: CheckpointRecord | ArtifactRecord, name: str) -> Digest:
        digest = next(f.digest for f in record.manifest.files if f.name == name)
        self.blobs.delete(digest)
        return digest

    def at(self, step: int) -> CheckpointRecord:
        return next(c for c in self.all(CheckpointRecord) if c.step == step)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.all(EventRecord)]

    @property
    def run(self) -> RunRecord:
        return self.all(RunRecord)[0]


def machine(*steps: int) -> Machine:
    """A run that opens no studies."""
    world = Machine()
    world.change(replace(world.run, window=WindowPolicy(size=2, minimum=64)))
    for step in steps:
        world.arrive(step)
    world.start()
    return world


def judged() -> Machine:
    """A run whose first study has promoted a merge."""
    world = Machine()
    world.arrive(10)
    world.arrive(20)
    assert world.conclude().state is StudyState.DECIDED
    world.start()
    return world


def test_where_everything_is_in_line_nothing_changes() -> None:
    world = judged()
    before = [world.all(kind) for kind in (RunRecord, CheckpointRecord, ArtifactRecord, BlobRecord)]
    assert world.start(now=8.0) == Reconciled(lost=(), damaged=(), unrecorded=0)
    assert before == [
        world.all(kind) for kind in (RunRecord, CheckpointRecord, ArtifactRecord, BlobRecord)
    ]


def test_bytes_without_a_row_get_one_and_their_time_of_grace() -> None:
    world = machine(10)
    digest = put(world.blobs, b"killed before the row")
    assert world.start(now=8.0) == Reconciled(lost=(), damaged=(), unrecorded=1)
    assert BlobRecord(hex=digest.hex, size=21, created=8.0) in world.all(BlobRecord)


def test_a_row_without_bytes_is_dropped_and_told_of() -> None:
    world = machine(10)
    digest = put(world.blobs, b"gone")
    with world.store.write() as unit:
        put_on_record(unit, world.blobs, digest, now=1.0)
    world.blobs.delete(digest)
    assert world.start().lost == (digest,)
    assert digest.hex not in {row.hex for row in world.all(BlobRecord)}
    assert world.start().lost == ()


def test_a_checkpoint_that_lost_a_file_says_which_and_enters_no_window() -> None:
    world = machine(10, 20, 30)
    digest = world.lose(world.at(20), "model.safetensors")
    found = world.start()
    assert (found.lost, found.damaged) == ((digest,), (world.at(20).id,))
    assert world.at(20).missing == ("lost: model.safetensors",)
    assert world.at(20).removed is None
    assert "checkpoint-lost" in world.kinds()
    world.change(replace(world.run, window=WindowPolicy(size=4, every=1, minimum=2)))
    world.arrive(40)
    steps = {c.id: c.step for c in world.all(CheckpointRecord)}
    assert [steps[key] for key in world.studies()[0].checkpoints] == [10, 30, 40]


def test_what_was_lost_is_said_once() -> None:
    world = machine(10, 20)
    world.lose(world.at(20), "model.safetensors")
    assert world.start().damaged == (world.at(20).id,)
    assert world.start().damaged == ()
    assert world.kinds().count("checkpoint-lost") == 1


def test_the_same_bytes_sent_again_heal_a_checkpoint() -> None:
    world = machine(10, 20)
    before = world.at(20)
    world.lose(before, "model.safetensors")
    world.start()
    assert world.arrive(20).new
    assert world.at(20) == before
    assert not world.arrive(20).new


def test_a_checkpoint_is_healed_though_its_bytes_were_put_back_before() -> None:
    """The client uploads first and registers then; the mark must not outlive the registration."""
    world = machine(10, 20)
    before = world.at(20)
    content = world.blobs.open(before.manifest.files[1].digest).read(0, 10_000)
    world.lose(before, "model.safetensors")
    world.start()
    put(world.blobs, content)
    assert world.at(20).missing
    assert world.arrive(20).record == before


def test_a_side_file_that_comes_back_completes_what_had_lost_it() -> None:
    world = machine(10)
    config = next(f for f in world.at(10).manifest.files if f.name == "config.json")
    world.change(replace(world.run, files=(config,)))
    world.lose(world.at(10), "config.json")
    world.start()
    assert world.run.files == ()
    assert "run-files-lost" in world.kinds()
    with world.store.write() as unit:
        assert complete(unit, world.blobs, world.run, now=0.0, new_id=world.new_id) == []
    put(world.blobs, b"{}")
    with world.store.write() as unit:
        healed = complete(unit, world.blobs, world.run, now=0.0, new_id=world.new_id)
    assert [record.missing for record in healed] == [()]


def test_after_a_loss_the_next_checkpoints_are_counted_as_before() -> None:
    world = machine(10, 20, 30, 40)
    world.change(replace(world.run, considered=4, window=WindowPolicy(size=2, every=2, minimum=2)))
    world.lose(world.at(10), "model.safetensors")
    world.start()
    world.arrive(50)
    assert world.studies() == []
    world.arrive(60)
    assert len(world.studies()) == 1


def test_a_merge_that_lost_its_bytes_is_removed_and_no_longer_the_best() -> None:
    world = judged()
    assert world.run.best is not None
    merge = next(a for a in world.all(ArtifactRecord) if a.id == world.run.best)
    world.lose(merge, "model.safetensors")
    world.start(now=8.0)
    assert next(a for a in world.all(ArtifactRecord) if a.id == merge.id).removed == 8.0
    assert (world.run.best, world.run.promotion) == (None, None)
    assert {"artifact-lost", "best-lost"} <= set(world.kinds())
    with world.store.read() as snapshot:
        best = best_of(snapshot, snapshot.find(RunRecord)[0])
    assert best is not None
    assert (best.kind, best.step, best.promoted) == ("checkpoint", 20, False)


def test_a_pin_on_what_was_lost_is_let_go() -> None:
    world = machine(10, 20)
    world.change(replace(world.run, pin=Pin(subject=world.at(10).id, reason="safer", at=0.0)))
    world.lose(world.at(10), "model.safetensors")
    world.start()
    assert world.run.pin is None
    assert "best-lost" in world.kinds()


def test_what_was_given_up_is_not_lost() -> None:
    world = machine(10, 20)
    world.change(replace(world.at(10), removed=3.0))
    world.lose(world.at(10), "model.safetensors")
    found = world.start()
    assert found.damaged == ()
    assert world.at(10).missing == ()


def test_a_study_that_needs_what_was_lost_is_cancelled_and_another_goes_on() -> None:
    world = Machine()
    world.arrive(10)
    world.arrive(20)
    assert world.studies()[0].state is StudyState.SEARCHING
    world.start()
    assert world.studies()[0].state is StudyState.SEARCHING
    world.lose(world.at(10), "model.safetensors")
    world.start()
    assert world.studies()[0].state is StudyState.CANCELLED
    assert "files that it needs were lost" in (world.studies()[0].stopped or "")
    assert world.lease() is None
    for step in (30, 40):
        world.arrive(step)
    assert world.conclude().state is StudyState.DECIDED


def test_lost_documents_are_told_of_and_end_the_study_on_them() -> None:
    world = Machine()
    world.arrive(10)
    world.arrive(20)
    world.blobs.delete(Digest.of_bytes(b"h"))
    assert world.start().damaged == ("default",)
    assert world.studies()[0].state is StudyState.CANCELLED
    assert world.all(HeldOutRecord)[0].digest == DOCUMENTS.digest
