"""The job: train a small model on a corpus, and write a checkpoint every so many steps."""

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from ckptmerge.errors import InvalidInputError, OutputExistsError
from ckptmerge.pretrain.model import ModelShape, build_model
from ckptmerge.pretrain.text import Corpus
from ckptmerge.pretrain.tokenizer import END_OF_TEXT_ID, train_tokenizer

Schedule = Literal["constant", "cosine"]

FINAL_RATE = 0.1
"""Share of the learning rate that the cosine schedule ends with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """Everything that, with a corpus, decides which checkpoints a run writes.

    Raises:
        InvalidInputError: the steps are no multiple of ``every``, or a number that must be
            positive is not.
    """

    shape: ModelShape
    steps: int
    every: int
    """Steps between two checkpoints; the last step writes one."""
    learning_rate: float
    """Its peak, reached after the warm-up."""
    warmup: int = 50
    """Steps over which the learning rate rises linearly."""
    batch: int = 16
    """Sequences a step, each as long as the model's context."""
    schedule: Schedule = "constant"
    """What follows the warm-up: no change, or a cosine down to a tenth."""
    weight_decay: float = 0.1
    """On matrices alone; norms are left free."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    seed: int = 0
    """Decides the initial weights and the order of the text."""

    def __post_init__(self) -> None:
        if min(self.steps, self.every, self.batch, self.learning_rate) <= 0:
            raise InvalidInputError(
                "steps, every, batch and learning_rate of a training plan must be positive"
            )
        if self.steps % self.every:
            raise InvalidInputError(
                f"{self.steps} steps with a checkpoint every {self.every} would end between two "
                f"checkpoints; take {self.steps // self.every * self.every or self.every} steps"
            )

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""
        if step < self.warmup:
            return self.learning_rate * step / self.warmup
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        share = FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * share


DEMO = TrainingPlan(
    shape=ModelShape(hidden=96, layers=4, heads=4, vocabulary=1024, context=128),
    steps=600,
    every=50,
    learning_rate=3e-3,
)
"""0.54 million parameters and twelve checkpoints, in about a minute and a half on one thread."""

FIXTURE = TrainingPlan(
    shape=ModelShape(hidden=64, layers=3, heads=4, vocabulary=512, context=64),
    steps=300,
    every=30,
    learning_rate=4e-3,
)
"""0.18 million parameters and ten checkpoints: the smallest run whose checkpoints gain by merging
as those of large runs do."""


def pretrain(
    corpus: Corpus,
    plan: TrainingPlan,
    out: Path,
    *,
    threads: int = 1,
    on_step: Callable[[int, float], None] | None = None,
    on_checkpoint: Callable[[int, Path], None] | None = None,
) -> tuple[Path, ...]:
    """Train as planned; return the checkpoint folders ``out/step-00050`` …, oldest first.

    Each is a Hugging Face model folder with its tokenizer, and appears complete or not at all. One
    plan, corpus, machine and number of threads give the same bytes every time.

    Args:
        corpus: what to train on; its held-out documents are not looked at.
        plan: model, optimiser, schedule and seed.
        out: folder for the checkpoints, made where it is missing.
        threads: threads for torch while the job runs.
        on_step: called after each step with its number and training loss in nats a token.
        on_checkpoint: called after each checkpoint with its step and folder.

    Raises:
        OutputExistsError: ``out`` holds checkpoints already.
        InvalidInputError: a domain's text is shorter than one sequence.
    """
    require_no_checkpoints(out)
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with _threads(threads), _no_progress_bars():
        texts = [text for domain in corpus.train.values() for text in domain]
        tokenizer = train_tokenizer(texts, vocabulary=plan.shape.vocabulary)
        domains = _tokens_by_domain(corpus, tokenizer, at_least=plan.shape.context)
        model = build_model(plan.shape, seed=plan.seed)
        for step, loss in _train(model, plan, domains):
            if on_step is not None:
                on_step(step, loss)
            if step % plan.every == 0:
                folder = out / f"step-{step:05d}"
                _write_checkpoint(model, tokenizer, folder, _trainer_state(plan, step))
                written.append(folder)
                if on_checkpoint is not None:
                    on_checkpoint(step, folder)
    return tuple(written)


def require_no_checkpoints(out: Path) -> None:
    """Check that no run has written to ``out``, before any time is spent on another.

    Raises:
        OutputExistsError: it holds checkpoints.
    """
    if next(out.glob("step-*"), None) is not None:
        raise OutputExistsError(
            f"{out} already holds checkpoints of a run; name another folder or remove it"
        )


def _train(
    model: LlamaForCausalLM, plan: TrainingPlan, domains: Sequence[Tensor]
) -> Iterator[tuple[int, float]]:
    """Train in place; yield each step and its loss in nats a token."""
    generator = torch.Generator().manual_seed(plan.seed)
    optimizer = _optimizer(model, plan)
    model.train()
    for step in range(1, plan.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        batch = _draw(domains, plan, generator)
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
        optimizer.step()
        yield step, loss.item()


def _optimizer(model: LlamaForCausalLM, plan: TrainingPlan) -> Optimizer:
    parameters = list(model.parameters())
    return AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": plan.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=plan.learning_rate,
        betas=(0.9, 0.95),
    )


def _draw(domains: Sequence[Tensor], plan: TrainingPlan, generator: torch.Generator) -> Tensor:
    """Draw int64 [batch, context]: each row from a uniformly drawn domain, at a uniform place."""
    context = plan.shape.context
    rows = []
    for domain in torch.randint(len(domains), (plan.batch,), generator=generator).tolist():
        tokens = domains[domain]
        start = int(torch.randint(len(tokens) - context + 1, (), generator=generator))
        rows.append(tokens[start : start + context])
    return torch.stack(rows)


def _tokens_by_domain(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, *, at_least: int
) -> list[Tensor]:
    """Encode each domain's texts as one int64 stream, with the end of text after each."""
    streams = []
    for domain, texts in corpus.train.items():
        stream = torch.tensor(list(_stream(tokenizer, texts)))
        if len(stream) < at_least:
            raise InvalidInputError(
                f"the training text of domain {domain!r} is {len(stream)} tokens long, "
                f"but one sequence takes {at_least}; train on more text"
            )
        streams.append(stream)
    return streams


def _stream(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> Iterator[int]:
    for encoding in tokenizer.backend_tokenizer.encode_batch(list(texts)):
        yield from encoding.ids
        yield END_OF_TEXT_ID


def _trainer_state(plan: TrainingPlan, step: int) -> dict[str, int]:
    """What ``trainer_state.json`` says, under the names that transformers' Trainer uses."""
    return {
        "global_step": step,
        "num_input_tokens_seen": step * plan.batch * plan.shape.context,
    }


def _write_checkpoint(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    state: dict[str, int],
) -> None:
    """Write a checkpoint under a hidden name, to disk, and only then give it its name."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / "trainer_state.json").write_text(json.dumps(state) + "\n", encoding="utf-8")
        for path in (*partial.iterdir(), partial):
            _flush(path)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _flush(folder.parent)


def _flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Run torch on so many threads, and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep ``save_pretrained`` from drawing one bar a checkpoint; callers report progress."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
