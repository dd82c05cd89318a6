"""How a worker hands in what came of a lease, and what it says of a failure."""

from pathlib import Path
from threading import Event

import pytest
import torch

from ckptmerge.errors import ModelLoadError, ServiceError
from ckptmerge.wire.leases import LeaseResource, Outcome
from service.worker import Worker

LEASE = LeaseResource(
    id="l", fence=1, expires_in=60.0, kind="evaluate", study="s", trial=0, checkpoints=[],
    weights=None, dtype="keep", context=None, held_out=None,
)  # fmt: skip


class Scripted:
    """A session that is answered as the test says; it keeps what was handed in."""

    def __init__(self, *answers: ServiceError | None) -> None:
        self.answers = list(answers)
        self.outcomes: list[Outcome] = []

    def json(self, _method: str, _path: str, body: Outcome) -> None:
        self.outcomes.append(body)
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer


def handed_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, *answers: ServiceError | None
) -> list[Outcome]:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(Worker, "_product", failing)
    monkeypatch.setattr(Event, "wait", lambda *_: False)
    session = Scripted(*answers)
    worker = Worker(session, name="w", device="cpu", cache=tmp_path)  # type: ignore[arg-type]
    worker._do(LEASE, Event())
    return session.outcomes


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "cuda-oom"),
        (MemoryError(), "oom"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "oom"),
        (ZeroDivisionError("what"), "error"),
        (ModelLoadError("no such architecture"), "error"),
    ],
)
def test_a_failure_has_a_code(monkeypatch, tmp_path, error, code) -> None:
    monkeypatch.setattr(Worker, "_kept", _kept)
    [outcome] = handed_in(monkeypatch, tmp_path, error, None)
    assert (outcome.status, outcome.code) == ("failed", code)
    assert (outcome.log is None) == isinstance(error, ModelLoadError)
    if outcome.log is not None:
        assert outcome.log.startswith("Traceback")


def test_an_outcome_is_kept_until_a_service_that_is_away_is_back(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(Worker, "_kept", _kept)
    away = [ServiceError("not reached"), ServiceError("starting", status=503)]
    outcomes = handed_in(monkeypatch, tmp_path, MemoryError(), *away, None)
    assert len(outcomes) == 3
    assert len(set(map(str, outcomes))) == 1


def test_an_outcome_that_is_refused_is_let_go(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(Worker, "_kept", _kept)
    lost = ServiceError("lease lost", status=409)
    assert len(handed_in(monkeypatch, tmp_path, MemoryError(), lost)) == 1


class _kept:  # noqa: N801 - stands in for a method
    """Keeps no lease."""

    def __init__(self, _lease: LeaseResource) -> None: ...

    def __enter__(self) -> Event:
        return Event()

    def __exit__(self, *_: object) -> None: ...
