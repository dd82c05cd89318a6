"""Every test is counted once, and the count outlives the process."""

from pathlib import Path

import pytest

from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Split
from ckptmerge.errors import InvalidInputError
from ckptmerge.workflow.looks import LookLog

SET, ONE, TWO, RIVAL = (Digest.of_bytes(name) for name in (b"set", b"one", b"two", b"rival"))


def log(path: Path, held_out: Digest = SET) -> LookLog:
    return LookLog(path, held_out=held_out, clock=lambda: "2026-11-21T00:00:00Z")


def test_tests_are_numbered_by_run_across_processes(tmp_path: Path) -> None:
    path = tmp_path / "looks.jsonl"
    assert log(path).test("a", subject=ONE, rivals=[RIVAL]) == 1
    assert log(path).test("a", subject=TWO, rivals=[RIVAL]) == 2
    assert log(path).test("b", subject=ONE, rivals=[RIVAL]) == 1
    assert log(path).run("a").era.tests == 2


def test_the_same_test_again_spends_nothing(tmp_path: Path) -> None:
    looks = log(tmp_path / "looks.jsonl")
    assert [looks.test("a", subject=ONE, rivals=[RIVAL]) for _ in range(3)] == [1, 1, 1]
    assert looks.test("a", subject=ONE, rivals=[RIVAL, TWO]) == 2, "other rivals, another test"


def test_another_held_out_set_begins_another_era(tmp_path: Path) -> None:
    path = tmp_path / "looks.jsonl"
    log(path).test("a", subject=ONE, rivals=[])
    assert log(path, held_out=TWO).run("a").era.tests == 0


def test_looks_are_logged_with_their_time(tmp_path: Path) -> None:
    path = tmp_path / "looks.jsonl"
    log(path).look(Split.AUDIT, subject=ONE)
    line = path.read_text()
    assert '"at": "2026-11-21T00:00:00Z"' in line
    assert '"split": "audit"' in line


def test_a_spoilt_log_stops_the_tests_instead_of_starting_over(tmp_path: Path) -> None:
    path = tmp_path / "looks.jsonl"
    path.write_text("{not json\n")
    with pytest.raises(InvalidInputError, match="log of looks"):
        log(path).run("a")


def test_a_log_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="--looks"):
        log(tmp_path / "missing" / "looks.jsonl").look(Split.AUDIT, subject=ONE)


def test_the_log_stands_beside_the_held_out_file(tmp_path: Path) -> None:
    LookLog.for_set(SET, tmp_path / "held-out.jsonl").look(Split.AUDIT, subject=ONE)
    assert (tmp_path / "held-out.jsonl.looks.jsonl").is_file()
