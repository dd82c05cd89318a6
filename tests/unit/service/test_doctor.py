"""The doctor says what would go wrong, and what to do; it changes nothing."""

import json
import os
import socket
import sys
from pathlib import Path

import pytest

from ckptmerge.cli.main import run
from service.data_folder import DATABASE, LOCK
from service.operation.filesystem import mount_of
from service.operation.findings import Finding, Verdict
from service.operation.look_at_data import (
    ROOM,
    look_at_file_system,
    look_at_folder,
    look_at_last_write,
    look_at_port,
    look_at_space,
)
from service.operation.look_at_inputs import look_at_held_out, look_at_readable, look_at_tls
from service.operation.look_at_machine import look_at_clock, look_at_torch
from service.settings import Settings

NOW = 1_800_000_000.0

MOUNTS = r"""
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 21 0:40 / /mnt rw - tmpfs tmpfs rw
31 30 0:41 / /mnt/nfs rw - nfs4 server:/export rw
32 30 0:42 / /mnt/share rw shared:1 - cifs //server/share rw
33 30 0:43 / /mnt/plan rw - 9p host rw
34 30 0:44 / /mnt/ssh rw - fuse.sshfs me@host: rw
35 30 254:1 / /mnt/with\040space rw - xfs /dev/vdb rw
36 31 254:2 / /mnt/nfs/local rw - ext4 /dev/vdc rw
37 36 0:45 / /mnt/nfs/local rw - nfs server:/over rw
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTS.lstrip())
    return path


def verdicts(findings) -> list[Verdict]:
    return [found.verdict for found in findings]


@pytest.mark.parametrize(
    ("folder", "kind", "verdict"),
    [
        ("/data", "ext4", "ok"),
        ("/mnt/data", "tmpfs", "warn"),
        ("/mnt/nfs/data", "nfs4", "warn"),
        ("/mnt/nfsdata", "tmpfs", "warn"),
        ("/mnt/share", "cifs", "warn"),
        ("/mnt/plan/a/b", "9p", "warn"),
        ("/mnt/ssh/data", "fuse.sshfs", "warn"),
        ("/mnt/with space/data", "xfs", "ok"),
        ("/mnt/nfs/local/data", "nfs", "warn"),
    ],
)
def test_a_file_system_of_another_machine_is_warned_of(
    mounts: Path, folder: str, kind: str, verdict: str
) -> None:
    mount = mount_of(Path(folder), mounts=mounts)
    assert mount is not None
    assert mount.kind == kind
    found = look_at_file_system(Path(folder), mounts=mounts)
    assert found.verdict == verdict
    assert kind in found.said


def test_where_nobody_says_what_file_system_it_is_that_is_said(tmp_path: Path) -> None:
    found = look_at_file_system(tmp_path, mounts=tmp_path / "nothing")
    assert (found.verdict, found.said) == ("warn", "this system does not say")


def test_this_machine_says_what_file_system_it_is(tmp_path: Path) -> None:
    if sys.platform == "linux":
        assert mount_of(tmp_path) is not None


@pytest.mark.parametrize(
    ("free", "verdict"),
    [(0, "fail"), (100, "fail"), (101, "warn"), (ROOM + 99, "warn"), (ROOM + 100, "ok")],
)
def test_room_is_needed_beside_the_reserve(free: int, verdict: str) -> None:
    assert look_at_space(free, 100).verdict == verdict


def test_a_clock_that_cannot_be_right_fails(tmp_path: Path) -> None:
    assert look_at_clock(NOW).verdict == "ok"
    assert look_at_clock(0.0).verdict == "fail"
    assert look_at_last_write(tmp_path, NOW).said == "none yet"
    (tmp_path / DATABASE).touch()
    os.utime(tmp_path / DATABASE, (NOW, NOW))
    assert look_at_last_write(tmp_path, NOW + 1).verdict == "ok"
    assert look_at_last_write(tmp_path, NOW - 3600).verdict == "fail"


def test_a_data_folder_is_there_or_can_be_made(tmp_path: Path) -> None:
    assert look_at_folder(tmp_path).verdict == "ok"
    assert look_at_folder(tmp_path / "new" / "er").verdict == "ok"
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    assert look_at_folder(tmp_path / "file").verdict == "fail"
    assert look_at_folder(tmp_path / "file" / "beneath").verdict == "fail"


def test_a_folder_that_may_not_be_written_fails(tmp_path: Path, monkeypatch) -> None:
    # Root may write everything, so what the kernel would answer others is answered here.
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
    assert look_at_folder(tmp_path).verdict == "fail"
    assert look_at_readable("source root", tmp_path).verdict == "ok"


def test_a_taken_port_fails_unless_this_folder_is_served(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(data=tmp_path, port=taken.getsockname()[1])
        assert look_at_port(settings).verdict == "fail"
        (tmp_path / LOCK).write_text(f"{os.getpid()}\n")
        assert look_at_port(settings).verdict == "warn"
    (tmp_path / LOCK).unlink()
    assert look_at_port(settings).verdict == "ok"
    assert look_at_port(Settings(data=tmp_path, host="203.0.113.7")).verdict == "fail"


def lines(count: int, domain: str) -> str:
    return "".join(
        json.dumps({"text": f"document {n} of {domain}", "domain": domain}) + "\n"
        for n in range(count)
    )


def test_a_held_out_set_is_judged_by_its_units(tmp_path: Path) -> None:
    assert look_at_held_out(None).verdict == "ok"
    path = tmp_path / "held-out.jsonl"
    assert look_at_held_out(path).verdict == "fail"
    path.write_text(lines(2, "code"))
    assert look_at_held_out(path).verdict == "fail"
    path.write_text(lines(400, "code") + lines(40, "prose"))
    few = look_at_held_out(path)
    assert few.verdict == "warn"
    assert "of prose:" in (few.remedy or "")
    assert "code" in few.said
    path.write_text(lines(400, "code"))
    assert look_at_held_out(path).verdict == "ok"


def test_folders_and_certificates_must_be_there(tmp_path: Path) -> None:
    assert look_at_readable("watched folder", tmp_path / "nothing").verdict == "fail"
    assert look_at_tls(tmp_path / "c.pem", tmp_path / "k.pem").verdict == "fail"
    for name in ("c.pem", "k.pem"):
        (tmp_path / name).write_text("no certificate")
    assert look_at_tls(tmp_path / "c.pem", tmp_path / "k.pem").verdict == "fail"


@pytest.mark.parametrize(
    ("devices", "cuda", "wanted", "verdict"),
    [
        ([], None, ["cpu"], "ok"),
        (["H100"], "13", ["cpu"], "ok"),
        (["H100", "H100"], "13", ["cuda:0", "cuda:1", "cuda"], "ok"),
        ([], "13", ["cpu"], "warn"),
        (["H100"], "13", ["cuda:0", "cuda:1"], "fail"),
        ([], None, ["cuda"], "fail"),
    ],
)
def test_workers_must_find_their_devices(
    devices: list[str], cuda: str | None, wanted: list[str], verdict: str
) -> None:
    answer = json.dumps({"version": "2", "cuda": cuda, "devices": devices})
    command = [sys.executable, "-c", f"print({answer!r})"]
    assert verdicts(look_at_torch(wanted, command=command)) == ["ok", verdict]


def test_without_torch_no_worker_runs() -> None:
    (found,) = look_at_torch(["cpu"], command=[sys.executable, "-c", "import no_such_torch"])
    assert found.verdict == "fail"
    assert "no_such_torch" in found.said


@pytest.fixture
def no_torch(monkeypatch) -> None:
    """Spare the seconds that asking torch takes."""
    monkeypatch.setattr("service.operation.doctor.look_at_torch", lambda _: iter(()))


@pytest.mark.usefixtures("no_torch")
def test_the_command_ends_with_one_where_something_fails(tmp_path: Path, capsys) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("port: 0\nlimits: {reserve: 0}\ndata: data\n")
    assert run(["doctor", "--config", str(config), "--json"]) == 0
    found = [Finding(**each) for each in json.loads(capsys.readouterr().out)]
    assert {each.name for each in found} >= {"python", "sqlite", "data folder", "port", "access"}
    assert all(each.remedy for each in found if each.verdict != "ok")
    config.write_text("port: 0\nlimits: {reserve: 0}\ndata: data\nsource_roots: [nowhere]\n")
    assert run(["doctor", "--config", str(config)]) == 1
    said = capsys.readouterr().out
    assert "fail  source root" in said
    assert "-> make it" in said
    assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("no_torch")
def test_settings_that_are_wrong_are_findings_too(tmp_path: Path, capsys) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("port: 70000\nworkers: -1\n")
    assert run(["doctor", "--config", str(config), "--json"]) == 1
    found = [
        each["said"] for each in json.loads(capsys.readouterr().out) if each["name"] == "settings"
    ]
    assert [said.split(":")[0] for said in found] == ["port", "workers"]
    config.write_text("host: 192.168.1.2\nport: 0\n")
    assert run(["doctor", "--config", str(config)]) == 1
    assert "needs a token" in capsys.readouterr().out
