"""``python -m ckptmerge.pretrain --out DIR``: run the job, one line a checkpoint."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from ckptmerge.errors import CkptmergeError
from ckptmerge.pretrain.job import DEMO, FIXTURE, Schedule, pretrain, require_no_checkpoints
from ckptmerge.pretrain.text import read_corpus, write_held_out

PLANS = {"demo": DEMO, "fixture": FIXTURE}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, write checkpoints and ``held-out.jsonl``; return 0 when done and 1 when refused."""
    options = _parser().parse_args(arguments)
    plan = replace(PLANS[options.plan], schedule=options.schedule, seed=options.seed)
    loss = float("nan")

    def keep(_step: int, latest: float) -> None:
        nonlocal loss
        loss = latest

    def report(step: int, folder: Path) -> None:
        _say(f"step {step} of {plan.steps}: training loss {loss:.3f} nats a token, {folder}")

    try:
        require_no_checkpoints(options.out)
        corpus = read_corpus()
        options.out.mkdir(parents=True, exist_ok=True)
        write_held_out(corpus, options.out / "held-out.jsonl")
        pretrain(
            corpus,
            plan,
            options.out,
            threads=options.threads,
            on_step=keep,
            on_checkpoint=report,
        )
    except CkptmergeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ckptmerge.pretrain",
        description="Train a small model on this installation's own text and write checkpoints.",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for step-00050 … and held-out.jsonl"
    )
    parser.add_argument("--plan", choices=PLANS, default="demo")
    parser.add_argument("--schedule", choices=get_args(Schedule), default="constant")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()  # a pipe would hold the lines back until the end


if __name__ == "__main__":
    sys.exit(main())
