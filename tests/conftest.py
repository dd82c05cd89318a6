"""What every test runs under, and the really trained runs that many of them are about.

torch and transformers are imported where they are used: most tests need neither, and both take
seconds.
"""

import hashlib
import os
import platform
import shutil
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ckptmerge.pretrain.job import TrainingPlan
    from ckptmerge.pretrain.text import Corpus
    from ckptmerge.storage.store import Store
    from tests.integration.postgres_server import PostgresServer

# torch reads this when it is imported, and processes that tests start inherit it: on a shared
# machine two threads are slower than one.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks a model hub for anything

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("ci")

CACHE = Path(__file__).parents[1] / ".cache"
HELD_OUT_DOCUMENTS = 200
"""A domain: about fifty of forty files in the certify split, in a second a model for all."""
TRAIN_BYTES = 500_000
"""A domain: the short run does not read more than that."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what is skipped where REQUIRE_ALL is set, as in CI; GPU tests alone may be skipped."""
    report = yield
    if report.skipped and os.environ.get("REQUIRE_ALL") and "gpu" not in item.keywords:
        report.outcome = "failed"
        report.longrepr = f"skipped, and REQUIRE_ALL is set: {call.excinfo}"
    return report


@dataclass(frozen=True)
class TrainedRun:
    """A run of the smallest model that behaves like a large one, oldest checkpoint first."""

    checkpoints: tuple[Path, ...]
    """Hugging Face folders in float32."""
    bf16: tuple[Path, ...]
    """The same checkpoints in bfloat16."""
    held_out: Path
    """Documents that the run never saw, as ``.jsonl`` with domains and groups."""


@pytest.fixture(scope="session")
def postgres_server() -> "Iterator[PostgresServer]":
    """A PostgreSQL server of this session's own."""
    from tests.integration.postgres_server import NoServerError, postgres_running

    with ExitStack() as stack:
        try:
            server = stack.enter_context(postgres_running())
        except NoServerError as reason:
            pytest.skip(str(reason))
        yield server


@pytest.fixture
def postgres_url(postgres_server: "PostgresServer") -> str:
    """The address of a new, empty database."""
    return postgres_server.create_database()


@pytest.fixture(params=("memory", "sqlite", "postgres"))
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> "Iterator[Callable[[], Store]]":
    """Every kind of store: each call opens the same records again, as a restarted service does."""
    from tests.integration.stores import opener

    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    with opener(request.param, tmp_path, url) as open_again:
        yield open_again


@pytest.fixture(scope="session")
def trained_run() -> TrainedRun:
    """A run at a constant learning rate: its last checkpoints gain by merging."""
    return _trained("constant")


@pytest.fixture(scope="session")
def cosine_run() -> TrainedRun:
    """The same run with its learning rate annealed: merging gains nothing."""
    return _trained("cosine", schedule="cosine")


@pytest.fixture(scope="session")
def other_run() -> TrainedRun:
    """A run from other initial weights: same shapes, but it does not merge with the first."""
    return _trained("other", seed=1)


@cache
def _corpus() -> "Corpus":
    """The text of the trained runs, read when the first of them is not on disk yet."""
    from ckptmerge.pretrain.text import read_corpus

    return read_corpus(train_bytes=TRAIN_BYTES, held_out_documents=HELD_OUT_DOCUMENTS)


def _trained(name: str, **changes: Any) -> TrainedRun:
    """Train, or take what an earlier session or another worker trained from the same sources."""
    from ckptmerge.pretrain.job import FIXTURE, pretrain
    from ckptmerge.pretrain.text import write_held_out

    plan = replace(FIXTURE, **changes)
    CACHE.mkdir(exist_ok=True)
    folder = CACHE / f"run-{name}-{_key(plan)}"
    with FileLock(CACHE / f"run-{name}.lock"):
        if not folder.exists():
            # A session killed in the middle leaves a partial folder, which is never read.
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            for checkpoint in pretrain(_corpus(), plan, partial / "f32"):
                _convert(checkpoint, partial / "bf16" / checkpoint.name)
            write_held_out(_corpus(), partial / "held-out.jsonl")
            partial.rename(folder)
    return TrainedRun(
        checkpoints=tuple(sorted((folder / "f32").iterdir())),
        bf16=tuple(sorted((folder / "bf16").iterdir())),
        held_out=folder / "held-out.jsonl",
    )


def _convert(checkpoint: Path, out: Path) -> None:
    """Save a checkpoint in bfloat16, with all that lies beside its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    shutil.copytree(checkpoint, out)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
    model.save_pretrained(out)


def _key(plan: "TrainingPlan") -> str:
    """Hash all that decides a run's bytes: sources, plan, versions, and this file."""
    import ckptmerge.pretrain

    sources = sorted(Path(ckptmerge.pretrain.__path__[0]).glob("*.py"))
    parts = [path.read_bytes() for path in (*sources, Path(__file__))]
    versions = {name: version(name) for name in ("numpy", "tokenizers", "torch", "transformers")}
    parts.append(repr((plan, platform.python_version(), versions)).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
