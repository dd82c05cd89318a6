"""The demo's story: serve, train, watch studies being decided, download, check, say what it is."""

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ckptmerge.cli import render
from ckptmerge.errors import InvalidInputError, OutputExistsError

if TYPE_CHECKING:
    from service.demo.processes import Serving

MARKER = ".ckptmerge-demo"
"""Marks a folder that the demo made and may make again."""

RUN = "demo"

CHECKPOINTS = 12

WINDOW = {"size": 8, "every": 4, "minimum": 4}
"""Studies after 4, 8 and 12 checkpoints, over the newest eight."""

BOUNDS = {"constant": (0.0, 1.0), "cosine": (-0.3, 1.5)}
"""Bounds of a weight, by schedule: after annealing, extrapolation is all that is left to find."""

BUDGET = 18

DOCUMENTS = 160
"""Held-out documents a domain: thirty-four or more in each split."""


def demo(
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for everything.")
    ] = Path("demo"),
    schedule: Annotated[
        Literal["constant", "cosine"], typer.Option(help="Learning-rate schedule of the run.")
    ] = "constant",
    steps: Annotated[int, typer.Option(help="Training steps; a checkpoint every twelfth.")] = 600,
    seed: Annotated[int, typer.Option(help="Seed of the training run and of the search.")] = 0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Go on serving afterwards, until Ctrl-C.")
    ] = False,
    plan: Annotated[str, typer.Option(hidden=True, help="Another, smaller model.")] = "demo",
) -> None:
    """Serve here, train a small model beside it, and watch its checkpoints merged and certified."""
    from ckptmerge.client.client import Client
    from service.demo.follow import follow
    from service.demo.judge import judge_run
    from service.demo.processes import Serving, Training
    from service.demo.tell import say_generated, say_where, say_worth

    if steps < CHECKPOINTS:
        raise InvalidInputError(f"{steps} steps leave no room for {CHECKPOINTS} checkpoints")
    _prepare(out)
    _write_settings(out, schedule=schedule, seed=seed)
    with _ended_by_sigterm(), Serving(out) as serving, Client(serving.url) as client:
        render.out.print(f"serving on {serving.url}, one worker; the log is {serving.log}")
        every = steps // CHECKPOINTS
        render.out.print(
            f"training in a process of its own: {every * CHECKPOINTS} steps, learning rate "
            f"{schedule}, on text that this Python installation carries; a checkpoint every "
            f"{every} is POSTed to the service while training goes on"
        )
        with Training(
            out, serving.url, RUN, plan=plan, schedule=schedule, every=every, count=CHECKPOINTS,
            seed=seed, documents=DOCUMENTS,
        ) as training:  # fmt: skip
            _make_ready_to_judge()
            studies = follow(client, RUN, serving=serving, training=training, count=CHECKPOINTS)
        best = client.best(RUN)
        render.out.print()
        render.show_best(best.answer)
        champion = best.download(out / "champion")
        judge_run(client, studies, best.answer, champion, held_out=training.held_out)
        say_worth(best.answer, training.checkpoints, training.held_out, schedule=schedule)
        say_generated(training.checkpoints[-1], champion)
        say_where(best.answer, champion, training, serving)
        if keep:
            _serve_on(serving)


def _prepare(out: Path) -> None:
    if out.exists() and not (out / MARKER).is_file():
        raise OutputExistsError(f"{out} exists and was not made by the demo; choose another --out")
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / MARKER).touch()


def _write_settings(out: Path, *, schedule: str, seed: int) -> None:
    """Write the service's settings where a reader may look at them and take them along."""
    import yaml

    lower, upper = BOUNDS[schedule]
    settings = {
        "workers": 1,
        "study": {"budget": BUDGET, "seed": seed, "lower": lower, "upper": upper},
        "window": WINDOW,
        "limits": {"reserve": 0},
    }
    (out / "service.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def _make_ready_to_judge() -> None:
    """Import what the end needs: it takes seconds, and training takes longer to begin."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)  # kernels this small gain nothing from a second thread
    _ = AutoModelForCausalLM, AutoTokenizer


def _serve_on(serving: "Serving") -> None:
    """Serve until Ctrl-C."""
    render.out.print(f"\nserving on: the dashboard is {serving.url}/ ; Ctrl-C ends it")
    try:
        while True:
            serving.mind()
            time.sleep(1.0)
    except KeyboardInterrupt:
        render.out.print("ended; nothing is left running")


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as an error would, so that no process it started is left."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
