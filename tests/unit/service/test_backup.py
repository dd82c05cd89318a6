"""A backup is whole and verified, or it is not there; what is restored is what was backed up."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ckptmerge.domain.digest import Digest
from ckptmerge.errors import (
    DigestMismatchError,
    InvalidInputError,
    MissingError,
    OutputExistsError,
    RefusedError,
)
from ckptmerge.storage.records import BlobRecord, EventRecord, RunRecord
from service.data_folder import DATABASE
from service.operation import backup as module
from service.operation.backup import back_up
from service.operation.manifest import MANIFEST, read_manifest
from service.operation.restore import restore
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

LATER = NOW + 3600


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return judged_folder(tmp_path / "data")


@pytest.fixture
def world(data: Path):
    """The folder's stores, open as a service has them while it is backed up."""
    with stores_in(data) as opened:
        yield opened


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def test_what_is_restored_is_what_was_backed_up(world, data: Path, out: Path, tmp_path) -> None:
    """Taken while the service has its stores open; what comes later is not in it."""
    upload(world, b"before")
    expected = bytes_in(data)
    back_up(data, out, now=NOW)
    late = upload(world, b"after")
    restore(out, tmp_path / "again")
    assert bytes_in(tmp_path / "again") == expected
    assert late.hex not in expected
    with world.store.read() as snapshot:
        (run,) = snapshot.find(RunRecord)
    assert records_in(tmp_path / "again")["runs"] == [run]
    assert run.best is not None


def test_a_change_that_is_not_committed_is_not_in_the_backup(world, data, out, tmp_path) -> None:
    with world.store.write() as unit:
        unit.delete(RunRecord, "run")
        back_up(data, out, now=NOW)
    restore(out, tmp_path / "again")
    assert [run.name for run in records_in(tmp_path / "again")["runs"]] == ["run"]


def test_the_manifest_counts_and_names_every_file(data: Path, out: Path) -> None:
    taken = back_up(data, out, now=NOW).manifest
    assert read_manifest(out) == taken
    assert taken.created == "2027-01-15T08:00:00+00:00"
    assert {blob.hex: blob.size for blob in taken.blobs} == {
        name: len(content) for name, content in bytes_in(data).items()
    }
    assert (taken.blob_count, taken.blob_bytes) == (
        len(taken.blobs),
        sum(blob.size for blob in taken.blobs),
    )
    database = (out / taken.database_name).read_bytes()
    assert taken.database.digest == str(Digest.of_bytes(database))


def test_files_are_linked_where_that_is_possible(world, data: Path, out: Path) -> None:
    digest = upload(world, b"shared")
    taken = back_up(data, out, now=NOW)
    assert (taken.linked, taken.copied) == (taken.manifest.blob_count, 0)
    assert place(out, digest).samefile(place(data, digest))


def test_files_are_copied_to_another_disk(world, data: Path, out: Path, monkeypatch) -> None:
    digest = upload(world, b"copied")
    real = Path.hardlink_to

    def no_links(self: Path, target: Path) -> None:
        if Path(target).is_relative_to(data):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(self, target)

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    taken = back_up(data, out, now=NOW)
    assert (taken.linked, taken.copied) == (0, taken.manifest.blob_count)
    assert not place(out, digest).samefile(place(data, digest))
    assert bytes_in(out) == bytes_in(data)
    flip(place(data, digest))
    with pytest.raises(RefusedError, match=digest.hex):
        back_up(data, out.with_name("second"), now=NOW)


def test_what_is_restored_shares_nothing_with_the_backup(world, data, out, tmp_path) -> None:
    digest = upload(world, b"shared")
    back_up(data, out, now=NOW)
    restore(out, tmp_path / "again")
    assert not place(tmp_path / "again", digest).samefile(place(out, digest))


def test_the_next_backup_brings_only_what_is_new(world, data: Path, out: Path, tmp_path) -> None:
    gone = upload(world, b"gone")
    first = back_up(data, out, now=NOW)
    with world.store.write() as unit:
        unit.delete(BlobRecord, gone.hex)
        world.blobs.delete(gone)
    upload(world, b"new")
    second = back_up(data, out, now=LATER)
    assert (second.linked, second.copied, second.removed) == (1, 0, 1)
    assert second.present == first.manifest.blob_count - 1
    assert bytes_in(out) == bytes_in(data)
    assert len(list(out.glob("records-*.sqlite"))) == 1
    restore(out, tmp_path / "again")
    assert bytes_in(tmp_path / "again") == bytes_in(data)


def test_what_retention_takes_meanwhile_is_no_damage(world, data, out, monkeypatch) -> None:
    """One blob goes before its turn, another one after it; neither is in the backup."""
    going, taken_already = (upload(world, text) for text in (b"going", b"taken"))
    copies = []
    real = module.copy_database

    def remove(digest: Digest) -> None:
        with world.store.write() as unit:
            unit.delete(BlobRecord, digest.hex)
            world.blobs.delete(digest)

    def copy_and_collect(source: Path, copy: Path) -> None:
        if copies:
            remove(taken_already)
        real(source, copy)
        if not copies:
            remove(going)
        copies.append(copy)

    monkeypatch.setattr(module, "copy_database", copy_and_collect)
    taken = back_up(data, out, now=NOW)
    assert len(copies) == 2
    assert {blob.hex for blob in taken.manifest.blobs} == set(bytes_in(data))
    assert bytes_in(out) == bytes_in(data)


def test_what_nothing_names_may_go_and_is_kept_while_it_is_there(world, data, out) -> None:
    there, gone = (upload(world, text, lasting=False) for text in (b"there", b"gone"))
    world.blobs.delete(gone)
    held = {blob.hex for blob in back_up(data, out, now=NOW).manifest.blobs}
    assert there.hex in held
    assert gone.hex not in held


@pytest.mark.parametrize("harm", ["missing", "flipped"])
def test_a_damaged_folder_is_not_backed_up(world, data: Path, out: Path, harm: str) -> None:
    digests = [upload(world, text) for text in (b"one", b"two")]
    for digest in digests:
        place(data, digest).unlink() if harm == "missing" else flip(place(data, digest))
    with pytest.raises(RefusedError, match="2 files are wrong") as refused:
        back_up(data, out, now=NOW)
    assert all(digest.hex in str(refused.value) for digest in digests)
    assert not list(out.parent.glob("*backup*"))


def test_a_damaged_backup_is_not_restored_and_says_all_that_is_wrong(
    world, data: Path, out: Path, tmp_path: Path
) -> None:
    flipped, missing, short, sound = (upload(world, text * 9) for text in (b"f", b"m", b"s", b"o"))
    database = out / back_up(data, out, now=NOW).manifest.database_name
    flip(place(out, flipped))
    flip(database)
    place(out, missing).unlink()
    place(out, short).unlink()
    place(out, short).write_bytes(b"s" * 8)
    with pytest.raises(DigestMismatchError, match="4 of") as refused:
        restore(out, tmp_path / "again")
    told = str(refused.value)
    assert f"{flipped}: other bytes" in told
    assert f"{missing}: missing" in told
    assert f"{short}: bytes are missing" in told
    assert f"{database.name}: not the bytes" in told
    assert str(sound) not in told
    assert not list(tmp_path.glob("*again*"))


def test_a_data_folder_is_never_restored_over(data: Path, out: Path) -> None:
    back_up(data, out, now=NOW)
    before = bytes_in(data)
    with pytest.raises(OutputExistsError, match="exists"):
        restore(out, data)
    assert bytes_in(data) == before


def test_only_a_backup_of_the_same_service_is_written_over(data, out, tmp_path) -> None:
    back_up(data, out, now=NOW)
    with stores_in(judged_folder(tmp_path / "other")) as other, other.store.write() as unit:
        unit.delete(EventRecord, unit.find(EventRecord)[0].id)
    with pytest.raises(OutputExistsError, match="another service"):
        back_up(tmp_path / "other", out, now=LATER)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat").write_bytes(b"meow")
    with pytest.raises(OutputExistsError, match="no backup"):
        back_up(data, tmp_path / "photos", now=NOW)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat"]


def test_what_is_no_data_folder_or_no_backup_is_missing(out: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"ckptmerge\.sqlite"):
        back_up(tmp_path / "nothing", out, now=NOW)
    with pytest.raises(MissingError, match="no backup"):
        restore(tmp_path / "nothing", tmp_path / "again")
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_of_a_later_format_is_refused(data: Path, out: Path, tmp_path: Path) -> None:
    back_up(data, out, now=NOW)
    text = (out / MANIFEST).read_text()
    (out / MANIFEST).write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(InvalidInputError, match="format 2"):
        restore(out, tmp_path / "again")


KILLED = """
import os, signal, sys
from pathlib import Path
from service.operation import backup
real, left = getattr(backup, sys.argv[3]), int(sys.argv[4])
def kill_in_the_end(*arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
setattr(backup, sys.argv[3], kill_in_the_end)
backup.back_up(Path(sys.argv[1]), Path(sys.argv[2]), now=2e9)
"""


def kill_a_backup(data: Path, out: Path, function: str, calls: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, data, out, function, str(calls)],
        check=False, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert ran.returncode == -signal.SIGKILL


@pytest.mark.parametrize("moment", [("hash_of", 2), ("write_manifest", 0)])
def test_a_killed_backup_is_none(data: Path, out: Path, tmp_path, moment) -> None:
    kill_a_backup(data, out, *moment)
    assert not out.exists()
    assert list(tmp_path.glob(".backup.partial-*"))
    back_up(data, out, now=NOW)
    assert not list(tmp_path.glob(".backup.partial-*"))
    restore(out, tmp_path / "again")
    assert bytes_in(tmp_path / "again") == bytes_in(data)


@pytest.mark.parametrize("moment", [("records_of", 1), ("hash_of", 0), ("write_manifest", 0)])
def test_a_killed_backup_leaves_the_earlier_one(world, data, out, tmp_path, moment) -> None:
    first = back_up(data, out, now=NOW).manifest
    before = bytes_in(data)
    upload(world, b"new")
    kill_a_backup(data, out, *moment)
    assert read_manifest(out) == first
    restore(out, tmp_path / "again")
    assert bytes_in(tmp_path / "again") == before
    back_up(data, out, now=LATER)
    assert sorted(path.name for path in out.iterdir() if path.name[0] == ".") == []
    assert sorted(path.name.split("-")[0] for path in out.iterdir()) == [
        "blobs", "manifest.json", "records",
    ]  # fmt: skip


def test_the_data_folder_is_left_as_it_was(data: Path, out: Path) -> None:
    before = sorted(path for path in data.rglob("*") if DATABASE not in path.name)
    back_up(data, out, now=NOW)
    assert sorted(path for path in data.rglob("*") if DATABASE not in path.name) == before
