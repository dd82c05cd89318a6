"""Scrub finds a flipped byte, says what needs it, and moves it aside only when asked to."""

from itertools import count
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from ckptmerge.cli.main import run
from ckptmerge.domain.digest import Digest
from ckptmerge.errors import MissingError
from ckptmerge.storage.records import BlobRecord, CheckpointRecord
from ckptmerge.workflow.admit import admit
from ckptmerge.workflow.reconcile import reconcile
from service.data_folder import DATABASE, DataFolder
from service.operation import scrub as module
from service.operation.scrub import QUARANTINE, scrub
from service.settings import ConfigurationError
from tests.integration.whole_service import TOKEN, whole_app
from tests.unit.service.kept import (
    NOW,
    bytes_in,
    flip,
    judged_folder,
    place,
    records_in,
    stores_in,
    upload,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return judged_folder(tmp_path / "data")


@pytest.fixture
def weights(data: Path) -> Digest:
    """The first checkpoint's own bytes."""
    (first, _) = records_in(data)["checkpoints"]
    return next(f.digest for f in first.manifest.files if f.name == "model.safetensors")


def test_what_is_right_is_read_whole_and_found_right(data: Path) -> None:
    found = scrub(data)
    assert found.wrong == ()
    assert found.blobs == len(records_in(data)["blobs"])
    assert found.bytes == sum(map(len, bytes_in(data).values()))


def test_a_flipped_byte_is_found_beside_a_running_service(data: Path, weights: Digest) -> None:
    flip(place(data, weights))
    with DataFolder(data), stores_in(data):
        (wrong,) = scrub(data).wrong
    assert (wrong.digest, wrong.what, wrong.moved_to) == (str(weights), "damaged", None)
    (holder,) = wrong.needed_by
    assert holder.startswith("model.safetensors of checkpoint c_")
    assert holder.endswith("(run run, step 100)")
    assert place(data, weights).exists()


def test_a_short_file_is_found_and_one_that_is_gone(data: Path, weights: Digest) -> None:
    (merge,) = (a for a in records_in(data)["artifacts"] if a.promoted)
    written = next(f.digest for f in merge.manifest.files if f.name.endswith(".safetensors"))
    place(data, weights).write_bytes(b"")
    place(data, written).unlink()
    found = {wrong.digest: wrong for wrong in scrub(data).wrong}
    assert {digest: wrong.what for digest, wrong in found.items()} == {
        str(weights): "damaged", str(written): "missing",
    }  # fmt: skip
    assert f"{merge.id} (run run)" in found[str(written)].needed_by[0]


def test_what_nothing_names_is_counted_and_not_wrong(data: Path) -> None:
    before = scrub(data)
    with stores_in(data) as stores:
        upload(stores, b"early", lasting=False)
    place(data, Digest.of_bytes(b"stray")).parent.mkdir(exist_ok=True)
    place(data, Digest.of_bytes(b"stray")).write_bytes(b"stray")
    found = scrub(data)
    assert found.wrong == ()
    assert found.unreferenced == before.unreferenced + 2
    assert found.unreferenced_bytes == before.unreferenced_bytes + 10


def test_what_retention_takes_meanwhile_is_not_missing(data: Path, monkeypatch) -> None:
    with stores_in(data) as stores:
        going = upload(stores, b"going")
        real = module._what_is_wrong

        def remove_and_look(folder: Path, name: str) -> str | None:
            if name == going.hex:
                with stores.store.write() as unit:
                    unit.delete(BlobRecord, name)
                    stores.blobs.delete(going)
            return real(folder, name)

        monkeypatch.setattr(module, "_what_is_wrong", remove_and_look)
        assert scrub(data).wrong == ()


def test_repair_moves_aside_and_the_next_start_says_what_is_lost(
    data: Path, weights: Digest
) -> None:
    sound = place(data, weights).read_bytes()
    flip(place(data, weights))
    damaged = place(data, weights).read_bytes()
    (wrong,) = scrub(data, repair=True).wrong
    assert wrong.moved_to == str(data / QUARANTINE / weights.hex)
    assert Path(wrong.moved_to).read_bytes() == damaged
    assert not place(data, weights).exists()
    ids = (f"x_{number}" for number in count())
    with stores_in(data) as stores:
        found = reconcile(stores.store, stores.blobs, now=NOW, new_id=lambda _: next(ids))
        assert found.lost == (weights,)
        first = _checkpoint(stores)
        assert first.missing == ("lost: model.safetensors",)
        # The trainer sends it again.
        upload(stores, sound, lasting=False)
        admit(
            stores.store, stores.blobs, run="run", step=100, tokens=None,
            files=list(first.manifest.files), now=NOW, new_id=lambda _: next(ids),
        )  # fmt: skip
        assert _checkpoint(stores).missing == ()
    assert scrub(data).wrong == ()


def test_what_was_moved_aside_is_not_served_until_it_is_sent_again(
    data: Path, weights: Digest
) -> None:
    sound = place(data, weights).read_bytes()
    flip(place(data, weights))
    scrub(data, repair=True)
    with stores_in(data) as stores:
        reconcile(stores.store, stores.blobs, now=NOW, new_id=lambda kind: f"{kind}_new")
        app = whole_app(data, stores.store, stores.blobs)
        http = TestClient(
            app, base_url="http://127.0.0.1:8117", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        file = f"/v1/checkpoints/{_checkpoint(stores).id}/files/model.safetensors"
        for address in (f"/v1/blobs/{weights}", file):
            assert http.get(address).status_code == 404
            assert http.head(address).status_code == 404
        assert http.put(f"/v1/blobs/{weights}", content=sound).status_code == 201
        for address in (f"/v1/blobs/{weights}", file):
            assert http.get(address).content == sound
        app.state.service.writer.shutdown()
        app.state.service.readers.shutdown()


def _checkpoint(stores) -> CheckpointRecord:
    with stores.store.read() as snapshot:
        return snapshot.find(CheckpointRecord)[0]


def test_what_was_moved_aside_before_is_kept(data: Path, weights: Digest) -> None:
    sound = place(data, weights).read_bytes()
    for _ in range(2):
        place(data, weights).write_bytes(sound)
        flip(place(data, weights))
        scrub(data, repair=True)
    assert len(list((data / QUARANTINE).iterdir())) == 2


def test_nothing_is_repaired_while_a_service_runs(data: Path, weights: Digest) -> None:
    flip(place(data, weights))
    with DataFolder(data), pytest.raises(ConfigurationError, match="already served"):
        scrub(data, repair=True)
    assert place(data, weights).exists()
    assert not (data / QUARANTINE).exists()


def test_a_folder_without_a_database_is_not_made_one(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"ckptmerge\.sqlite"):
        scrub(tmp_path / "nothing", repair=True)
    assert not (tmp_path / "nothing").exists()


def test_a_damaged_database_is_said_to_be_damaged(data: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("os.nice", lambda _: 0)
    content = bytearray((data / DATABASE).read_bytes())
    content[4096:12288] = bytes(8192)
    (data / DATABASE).write_bytes(content)
    assert run(["scrub", "--data", str(data)]) == 1
    assert "cannot copy the database" in capsys.readouterr().err


def test_the_command_ends_with_one_where_something_is_wrong(
    data: Path, weights: Digest, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("os.nice", lambda _: 0)  # the other tests' process too, otherwise
    assert run(["scrub", "--data", str(data)]) == 0
    assert ": 0 wrong" in capsys.readouterr().out
    flip(place(data, weights))
    assert run(["scrub", "--data", str(data)]) == 1
    assert f"damaged {weights}" in capsys.readouterr().out
