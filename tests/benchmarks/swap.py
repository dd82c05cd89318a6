"""Forming a candidate in memory: against the evaluation that it is for, and against memcpy."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from ckptmerge.domain.observation import Split
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.evaluation.documents import Document, load_held_out
from ckptmerge.evaluation.tokens import Passage, TokenizedSet, load_tokenizer, tokenize
from ckptmerge.formats.manifest import read_manifest
from ckptmerge.workflow.assess import WindowEvaluator
from tests.benchmarks.neighbours import LlamaLayout, neighbours
from tests.benchmarks.table import Row, median, seconds, verdict
from tests.benchmarks.trained import trained_run

PART = "swap"
WINDOW = 8
SHARE = 0.05
"""Target: of an evaluation's time."""

LAYOUT = LlamaLayout(hidden=768, intermediate=2048, layers=12, vocabulary=32_000, tied=True)
"""0.11 billion parameters: 219 MB in bfloat16."""

DOCUMENTS, LENGTH = 16, 512
"""A search split is larger, which makes the share smaller: what is shown is an upper bound."""

SWAPS, PASSES, COPIES = 9, 2, 5


def rows(layout: LlamaLayout = LAYOUT) -> Iterator[Row]:
    """Measure, and yield the rows."""
    print("swap: on the demo's run", flush=True)
    run = trained_run()
    folders = run.checkpoints[-WINDOW:]
    evaluator = WindowEvaluator(folders, device=torch.device("cpu"))
    documents = tokenize(
        load_held_out(run.held_out).split(Split.SEARCH),
        tokenizer=load_tokenizer(folders[-1]),
        vocabulary=evaluator.vocabulary,
        context=evaluator.context,
    )
    yield from _rows("the demo's model", folders, evaluator, documents)
    print("swap: on a model of a hundred million parameters", flush=True)
    with neighbours(layout, WINDOW, room=3_000_000_000) as folders:
        evaluator = WindowEvaluator(folders, device=torch.device("cpu"))
        yield from _rows(
            "a random Llama in bfloat16", folders, evaluator, _random_documents(layout.vocabulary)
        )


def _rows(
    name: str, folders: Sequence[Path], evaluator: WindowEvaluator, documents: TokenizedSet
) -> Iterator[Row]:
    """Time swaps and passes on one window: on one thread, and on as many as the product uses."""
    given = torch.get_num_threads()
    for threads in sorted({1, given}):
        torch.set_num_threads(threads)
        yield from _rows_on(threads, name, folders, evaluator, documents)
    torch.set_num_threads(given)


def _rows_on(
    threads: int,
    name: str,
    folders: Sequence[Path],
    evaluator: WindowEvaluator,
    documents: TokenizedSet,
) -> Iterator[Row]:
    """Yield the share of a pass that a swap takes, and the speed of its bytes."""
    uniform = MergeWeights.uniform(WINDOW)
    evaluator.score(uniform, documents.head(2))  # the first pass of a process pays for warming up
    swaps = [_timed(lambda: evaluator.form(uniform)) for _ in range(SWAPS)]
    passes = [_timed(lambda: evaluator.score(uniform, documents)) for _ in range(PASSES)]
    share = median(swaps) / (median(passes) - median(swaps))
    manifest = read_manifest(folders[-1], digests=False)
    millions, workers = manifest.parameters / 1e6, f"{threads} thread{'s' * (threads > 1)}"
    yield Row(
        part=PART,
        what=f"forming a candidate of {WINDOW}: {name}, {millions:.2f}M parameters, {workers}",
        ours=seconds(swaps),
        against=f"one pass over {sum(documents.tokens):,} tokens: {seconds(passes)}",
        ratio=f"{share:.2%}",
        target=f"<= {SHARE:.0%}",
        met=verdict(share <= SHARE),
    )
    # A candidate reads every checkpoint once and writes one model in float32.
    moved = WINDOW * manifest.bytes + 4 * manifest.parameters
    speed, copying = moved / median(swaps) / 1e9, _copy_speed(moved // 2) / 1e9
    yield Row(
        part=PART,
        what=f"bytes read and written while forming it: {name}, {workers} (more is better)",
        ours=f"{speed:.1f} GB/s",
        against=f"memcpy of as many bytes {copying:.1f} GB/s",
        ratio=f"{speed / copying:.2f}",
    )


def _random_documents(vocabulary: int) -> TokenizedSet:
    """Make documents of random tokens; how long a pass takes does not depend on which."""
    drawn = np.random.default_rng(0).integers(vocabulary, size=(DOCUMENTS, LENGTH))
    ids = [tuple(row) for row in drawn.tolist()]
    return TokenizedSet(
        documents=tuple(Document(ids=each) for each in ids),
        passages=tuple(Passage(index, each) for index, each in enumerate(ids)),
        bytes=(4 * (LENGTH - 1),) * DOCUMENTS,
        tokens=(LENGTH - 1,) * DOCUMENTS,
    )


def _copy_speed(size: int) -> float:
    """Return bytes read and written a second by a plain copy of ``size`` bytes in memory."""
    source = torch.ones(size, dtype=torch.uint8)
    target = torch.zeros_like(source)
    return 2 * size / median([_timed(lambda: target.copy_(source)) for _ in range(COPIES)])


def _timed(run: Callable[[], object]) -> float:
    begin = perf_counter()
    run()
    return perf_counter() - begin
