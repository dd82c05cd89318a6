"""The really trained run that the benchmarks search on: trained once, then kept in ``.cache``."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import ckptmerge.pretrain
from ckptmerge.pretrain.job import DEMO, pretrain
from ckptmerge.pretrain.text import read_corpus, write_held_out

CACHE = Path(__file__).parents[2] / ".cache"


@dataclass(frozen=True)
class TrainedRun:
    """What the demo trains: 0.54 million parameters, a constant learning rate, real text."""

    checkpoints: tuple[Path, ...]
    """Twelve Hugging Face folders in float32, oldest first."""
    held_out: Path
    """Documents that the run never saw."""


def trained_run() -> TrainedRun:
    """Train the demo's run, or take the one that an earlier benchmark trained the same way."""
    folder = CACHE / f"benchmark-run-{_key()}"
    if not folder.exists():
        print("training the demo's run (about 100 s on one quiet thread, once)", flush=True)
        # A benchmark killed in the middle leaves a partial folder, which is never read.
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        corpus = read_corpus()
        pretrain(corpus, DEMO, partial / "run")
        write_held_out(corpus, partial / "held-out.jsonl")
        partial.rename(folder)
    return TrainedRun(tuple(sorted((folder / "run").iterdir())), folder / "held-out.jsonl")


def _key() -> str:
    """Hash what decides the run: its plan, the code that trains it, and the libraries below."""
    return hashlib.sha256(b"\0".join(_parts())).hexdigest()[:16]


def _parts() -> Iterator[bytes]:
    yield repr(DEMO).encode()
    for source in sorted(Path(ckptmerge.pretrain.__path__[0]).glob("*.py")):
        yield source.read_bytes()
    for library in ("numpy", "tokenizers", "torch", "transformers"):
        yield version(library).encode()
