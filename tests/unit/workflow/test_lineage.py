"""Where a run's best weights came from: nodes, edges, and the tests behind them."""

from dataclasses import replace

import pytest

from ckptmerge.storage.records import AlphaRecord, ArtifactRecord, CheckpointRecord, Pin, RunRecord
from ckptmerge.wire.lineage import Lineage
from ckptmerge.workflow.lineage import artifact_resource, lineage_of_artifact, lineage_of_run
from tests.unit.workflow.conducted import DOCUMENTS, OPTIMUM, World


@pytest.fixture
def world() -> World:
    """A run that promoted a merge, and then a better one."""
    made = World(loss=lambda w: 2.0 + 0.5 * (w.values[-1] - OPTIMUM) ** 2 - 0.2 * (len(w) > 2))
    for step in (100, 200, 300, 400):
        made.arrive(step)
        if step in {200, 400}:
            made.conclude()
    return made


def of_run(world: World) -> Lineage:
    with world.store.read() as snapshot:
        return lineage_of_run(snapshot, snapshot.get(RunRecord, "run"))


def of_merge(world: World, key: str) -> Lineage:
    with world.store.read() as snapshot:
        return lineage_of_artifact(snapshot, snapshot.get(ArtifactRecord, key))


def merges(world: World) -> list[ArtifactRecord]:
    return [record for record in world.all(ArtifactRecord) if record.promoted]


def edges(drawn: Lineage, kind: str) -> list[tuple[str, str, float | None]]:
    return [(e.source, e.target, e.weight) for e in drawn.edges if e.kind == kind]


def test_every_merge_hangs_on_its_parents_by_their_weights(world) -> None:
    first, second = merges(world)
    studies = {study.id: study for study in world.studies()}
    assert edges(of_run(world), "parent") == [
        (parent, merge.id, weight)
        for merge in (first, second)
        for parent, weight in zip(
            studies[merge.study].checkpoints, merge.weights.values, strict=True
        )
    ]


def test_what_came_later_superseded_what_was_best(world) -> None:
    first, second = merges(world)
    assert edges(of_run(world), "superseded") == [(second.id, first.id, None)]
    assert [node.id for node in of_run(world).nodes if node.best] == [second.id]


def test_nodes_come_after_their_parents_and_once(world) -> None:
    drawn = of_run(world)
    order = [node.id for node in drawn.nodes]
    assert len(order) == len(set(order)) == 6
    for source, target, _ in edges(drawn, "parent"):
        assert order.index(source) < order.index(target)


def test_a_checkpoint_is_known_by_its_tensors_and_a_merge_by_its_decision(world) -> None:
    nodes = {node.id: node for node in of_run(world).nodes}
    for record in world.all(CheckpointRecord):
        node = nodes[record.id]
        assert (node.kind, node.step, node.attempt) == ("checkpoint", record.step, 1)
        assert node.content == str(record.manifest.content)
        assert node.decision is None
    first = merges(world)[0]
    decision = nodes[first.id].decision
    assert (nodes[first.id].step, nodes[first.id].digest) == (200, str(first.manifest.digest))
    assert (decision.study, decision.era) == (first.study, 1)
    assert decision.held_out == str(DOCUMENTS.digest)
    assert decision.tests[-1].passed


def test_tests_are_named_by_the_record_that_they_spent_their_alpha_with(world) -> None:
    made = {record.number: record.id for record in world.all(AlphaRecord)}
    for node in of_run(world).nodes:
        for test in node.decision.tests if node.decision else ():
            assert test.id == made[test.test]


def test_a_merge_shows_its_neighbours_without_their_parents(world) -> None:
    first, second = merges(world)
    drawn = of_merge(world, first.id)
    assert {target for _, target, _ in edges(drawn, "parent")} == {first.id}
    assert edges(drawn, "superseded") == [(second.id, first.id, None)]
    assert second.id in {node.id for node in drawn.nodes}
    newer = of_merge(world, second.id)
    assert {target for _, target, _ in edges(newer, "parent")} == {second.id}


def test_what_is_pinned_is_in_the_picture_without_a_decision(world) -> None:
    world.arrive(500)
    pinned = world.all(CheckpointRecord)[-1]
    with world.store.write() as unit:
        pin = Pin(subject=pinned.id, reason="why not", at=0.0)
        unit.update(replace(unit.get(RunRecord, "run"), pin=pin))
    node = of_run(world).nodes[-1]
    assert (node.id, node.best, node.decision) == (pinned.id, True, None)


def test_a_run_that_promoted_nothing_has_an_empty_picture() -> None:
    world = World()
    world.arrive(100)
    assert (of_run(world).nodes, of_run(world).edges) == ([], [])


def test_a_merge_is_described_by_weights_recipe_and_place(world) -> None:
    first, second = merges(world)
    with world.store.read() as snapshot:
        old, new = (artifact_resource(snapshot, merge) for merge in (first, second))
    assert (old.best, new.best) == (False, True)
    assert [w.weight for w in old.weights] == list(first.weights.values)
    assert [w.step for w in old.weights] == [100, 200]
    contents = [str(c.manifest.content) for c in world.all(CheckpointRecord)[:2]]
    assert old.recipe["parents"] == contents
    assert old.files[0].href == f"/v1/artifacts/{first.id}/files/model.safetensors"
