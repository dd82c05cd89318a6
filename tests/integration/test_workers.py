"""The service's own workers: replaced when they die, with nothing left of the dead."""

import errno
import os
import time
from pathlib import Path

import pytest

from service import engine
from service.engine import Workers

LEAVES_SOMETHING = (
    "import sys, tempfile, time; print('its last words', file=sys.stderr, flush=True); "
    "open(tempfile.mkdtemp(prefix='left-') + '/merge', 'w'); time.sleep(60)"
)


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workers:
    monkeypatch.setattr(engine, "_WORKER", LEAVES_SOMETHING)
    monkeypatch.setattr(engine, "_PERIOD", 0.02)
    return Workers(tmp_path)


def left(folder: Path, count: int) -> set[Path]:
    """Wait until workers have written so many files, and return those."""
    deadline = time.monotonic() + 20
    while len(found := set(folder.glob(".workers-*/*/left-*/merge"))) != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def test_what_a_killed_worker_was_writing_is_gone_when_the_next_one_starts(
    tmp_path: Path, workers: Workers
) -> None:
    with workers:
        died: list[tuple[str, int, str]] = []
        workers.start(
            ["cpu", "cpu"], "http://127.0.0.1:9", on_death=lambda *death: died.append(death)
        )
        before = left(tmp_path, 2)
        names = dict(workers._names)
        workers._processes[0].kill()
        workers._processes[0].wait()
        while workers._processes[0].poll() is not None:
            time.sleep(0.01)
        after = left(tmp_path, 2)
        assert len(before & after) == 1, "the other worker's is its own"
        assert died == [(names[0], -9, "its last words\n")]
        assert workers._names[0] not in names.values(), "it must not be taken for the dead one"
    assert list(tmp_path.iterdir()) == []


def test_what_the_workers_of_a_killed_service_left_is_gone_when_the_next_one_starts(
    tmp_path: Path, workers: Workers
) -> None:
    workers.start(["cpu"], "http://127.0.0.1:9", on_death=pytest.fail)
    old = left(tmp_path, 1)
    workers._stopping.set()
    workers._minder.join()
    workers._processes[0].kill()
    workers._processes[0].communicate()
    os.close(workers._folder._descriptor)  # as the kernel does for who is killed
    with Workers(tmp_path):
        assert not any(path.exists() for path in old)


def test_workers_of_a_service_with_tls_are_given_its_certificate_to_know_it_by(
    workers: Workers,
) -> None:
    with workers:
        workers.start(
            ["cpu"], "https://127.0.0.1:9", certificate="of its own", on_death=pytest.fail
        )
        option = workers._command.index("--certificate")
        assert Path(workers._command[option + 1]).read_text() == "of its own"


def test_a_dead_worker_is_replaced_as_soon_as_the_disk_has_room(
    tmp_path: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = Path.mkdir, []

    def full(path: Path, *args: object, **kwargs: object) -> None:
        if path.parent == workers._folder.path and len(refused) < 3:
            refused.append(path)
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, *args, **kwargs)

    with workers:
        workers.start(["cpu"], "http://127.0.0.1:9", on_death=lambda *_death: None)
        before = left(tmp_path, 1)
        monkeypatch.setattr(Path, "mkdir", full)
        workers._processes[0].kill()
        deadline = time.monotonic() + 20
        while len(refused) < 3 or workers._processes[0].poll() is not None:
            assert time.monotonic() < deadline, refused
            time.sleep(0.01)
        assert left(tmp_path, 1) != before
