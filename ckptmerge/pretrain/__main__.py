"""``python -m ckptmerge.pretrain --out DIR``: run the job, one line a checkpoint."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import get_args

from ckptmerge.client.client import Client
from ckptmerge.errors import CkptmergeError
from ckptmerge.pretrain.job import (
    DEMO,
    FIXTURE,
    Schedule,
    TrainingPlan,
    pretrain,
    require_no_checkpoints,
)
from ckptmerge.pretrain.text import HELD_OUT_DOCUMENTS, read_corpus, write_held_out
from ckptmerge.trainer.callback import CheckpointMergeCallback

PLANS = {"demo": DEMO, "fixture": FIXTURE}

HELD_OUT = "held-out.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, write checkpoints and ``held-out.jsonl``; return 0 when done and 1 when refused.

    With ``--url`` the run is made at a service there, judged on ``held-out.jsonl``, and its
    checkpoints are sent while training goes on.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        _run(options, _plan(options))
    except CkptmergeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _plan(options: argparse.Namespace) -> TrainingPlan:
    plan = PLANS[options.plan]
    return replace(
        plan,
        schedule=options.schedule,
        seed=options.seed,
        steps=options.steps or plan.steps,
        every=options.every or plan.every,
    )


def _run(options: argparse.Namespace, plan: TrainingPlan) -> None:
    require_no_checkpoints(options.out)
    corpus = read_corpus(held_out_documents=options.held_out_documents)
    options.out.mkdir(parents=True, exist_ok=True)
    write_held_out(corpus, options.out / HELD_OUT)
    loss = float("nan")

    def keep(_step: int, latest: float) -> None:
        nonlocal loss
        loss = latest

    with _sending(options, count=plan.steps // plan.every) as saved:

        def report(step: int, folder: Path) -> None:
            saved(folder, step)
            _say(f"step {step} of {plan.steps}: training loss {loss:.3f} nats a token, {folder}")

        pretrain(
            corpus, plan, options.out, threads=options.threads, on_step=keep, on_checkpoint=report
        )


@contextmanager
def _sending(options: argparse.Namespace, *, count: int) -> Iterator[Callable[[Path, int], None]]:
    """Yield what is called with each of ``count`` checkpoints and its step; send all to the end."""
    if options.url is None:
        yield lambda _folder, _step: None
        return
    with Client(options.url) as client:
        client.put_held_out_set(options.run, options.out / HELD_OUT)
        client.create_run(options.run, held_out=options.run)
    sent, seconds = 0, 0.0
    # As many may wait as there will be: this job removes none, so keeping them costs no room.
    with CheckpointMergeCallback(options.url, run=options.run, queue=count) as callback:

        def saved(folder: Path, step: int) -> None:
            nonlocal sent, seconds
            begin = perf_counter()
            callback.saved(folder, step)
            sent, seconds = sent + 1, seconds + perf_counter() - begin

        yield saved
        _say(f"training waited {seconds:.3f} s for the sending of {sent} checkpoints")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ckptmerge.pretrain",
        description="Train a small model on this installation's own text and write checkpoints.",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help=f"folder for step-00050 … and {HELD_OUT}"
    )
    parser.add_argument("--plan", choices=PLANS, default="demo")
    parser.add_argument("--schedule", choices=get_args(Schedule), default="constant")
    parser.add_argument("--steps", type=int, help="training steps; the plan's own by default")
    parser.add_argument("--every", type=int, help="steps between two checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--held-out-documents", type=int, default=HELD_OUT_DOCUMENTS, help="a domain"
    )
    parser.add_argument("--url", help="service that takes the checkpoints while training goes on")
    parser.add_argument("--run", default="pretrain", help="name of the run there")
    return parser


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()  # a pipe would hold the lines back until the end


if __name__ == "__main__":
    sys.exit(main())
