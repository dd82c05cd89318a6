"""`ckptmerge demo`: a real run, merged and certified on this machine, in front of your eyes."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from ckptmerge.cli import render
from ckptmerge.domain.baselines import NEWEST
from ckptmerge.errors import CkptmergeError, OutputExistsError
from ckptmerge.wire.best import Best

MARKER = ".ckptmerge-demo"
"""Marks a folder that the demo made and may make again."""

WINDOW = 8
"""Checkpoints searched: the last ones of the run."""

BOUNDS = {"constant": (0.0, 1.0), "cosine": (-0.3, 1.5)}
"""Bounds of a weight, by schedule: after annealing, extrapolation is all that is left to find."""

BUDGET = 24

DOCUMENTS = 300
"""Held-out documents a domain: sixty or more in each split."""

PROMPT = "The following function returns"


class DemoFailedError(CkptmergeError):
    """The demo found that something it says does not hold."""


def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for everything.")
    ] = Path("demo"),
    schedule: Annotated[
        Literal["constant", "cosine"], typer.Option(help="Learning-rate schedule of the run.")
    ] = "constant",
    steps: Annotated[int, typer.Option(help="Training steps; a checkpoint every twelfth.")] = 600,
    seed: Annotated[int, typer.Option(help="Seed of the training run and of the search.")] = 0,
) -> None:
    """Train a small model here, merge its last eight checkpoints, and certify the merge."""
    _prepare(out)
    run = _train(out, schedule=schedule, steps=steps, seed=seed)
    best, merged = _optimize(run, out / "merged", seed=seed)
    render.out.print()
    render.show_best(best)
    if merged is not None:
        _say_worth(run, best)
        _say_generated(run.checkpoints[-1], merged)
    _verify(best, run, merged)
    _say_where(run, merged)


@dataclass(frozen=True)
class _Run:
    """What the training job left."""

    checkpoints: tuple[Path, ...]
    held_out: Path
    schedule: str


def _prepare(out: Path) -> None:
    if out.exists() and not (out / MARKER).is_file():
        raise OutputExistsError(f"{out} exists and was not made by the demo; choose another --out")
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / MARKER).touch()


def _train(out: Path, *, schedule: Literal["constant", "cosine"], steps: int, seed: int) -> _Run:
    from ckptmerge.pretrain.job import DEMO, pretrain
    from ckptmerge.pretrain.text import read_corpus, write_held_out

    render.out.print("reading the text that this Python installation carries")
    corpus = read_corpus(held_out_documents=DOCUMENTS)
    held_out = out / "held-out.jsonl"
    write_held_out(corpus, held_out)
    every = max(1, steps // 12)
    plan = replace(DEMO, schedule=schedule, steps=12 * every, every=every, seed=seed)
    render.out.print(
        f"training {plan.shape.parameters / 1e6:.2f} million parameters for {plan.steps} steps, "
        f"learning rate {schedule}; a checkpoint every {plan.every}"
    )
    with render.bars() as bars:
        bars.stage("training", plan.steps)
        checkpoints = pretrain(corpus, plan, out / "run", on_step=lambda _s, _l: bars.advance(1))
    return _Run(checkpoints, held_out, schedule)


def _optimize(run: _Run, merged: Path, *, seed: int) -> tuple[Best, Path | None]:
    import torch

    from ckptmerge.workflow.local import optimize

    # Kernels this small gain little from a second thread, and wait for it on a busy machine.
    torch.set_num_threads(1)
    lower, upper = BOUNDS[run.schedule]
    with render.bars() as bars:
        study = optimize(
            run.checkpoints[-WINDOW:], held_out=run.held_out, run="demo", seed=seed, budget=BUDGET,
            lower=lower, upper=upper, scratch=merged.parent, progress=bars,
        )  # fmt: skip
        if not study.promoted:
            return study.best(), None
        return study.best(study.publish(merged)), merged


def _say_worth(run: _Run, best: Best) -> None:
    from ckptmerge.domain.observation import Split
    from ckptmerge.formats.step import step_and_tokens
    from ckptmerge.scaling.worth import worth_in_steps
    from ckptmerge.workflow.evaluate import evaluate

    late = run.checkpoints[len(run.checkpoints) // 2 - 1 :]  # all that the slope is read from
    steps = [step_and_tokens(folder)[0] or 0 for folder in late]
    losses: list[float] = []
    with render.bars() as bars:
        bars.stage("reading the loss curve", len(late))
        for folder in late:
            losses.append(evaluate(folder, run.held_out, split=Split.AUDIT).interval.mean)
            bars.advance(1)
    worth = worth_in_steps(steps, losses, merged=_said(best))
    if worth.steps is None:
        render.out.print("worth: the run no longer improves, so no number of its steps would do")
    elif not worth.bound:
        render.out.print("worth: no steps; the run's own loss curve ends at least as low")
    else:
        render.out.print(
            f"worth: at least {worth.steps:.0f} more {run.schedule}-rate steps of this run "
            f"({worth.steps / steps[-1]:.0%} of its {steps[-1]}); the loss curve ends before it "
            "reaches the merge, so this is a bound from its slope"
        )
    render.out.print(
        "Annealing the learning rate would collect much of the same gain by itself: after a decay "
        "the merge is worth far fewer steps, often none."
    )


def _say_generated(newest: Path, merged: Path) -> None:
    for name, folder in (("newest", newest), ("merged", merged)):
        render.out.print(f"{name}: {_generate(folder)!r}")


def _generate(folder: Path) -> str:
    import torch

    from ckptmerge.evaluation.models import load_model
    from ckptmerge.evaluation.tokens import load_tokenizer

    tokenizer = load_tokenizer(folder)
    ids = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    module = load_model(folder, device=torch.device("cpu")).module
    with torch.inference_mode():
        for _ in range(24):
            following = module(input_ids=ids).logits[:, -1].argmax(dim=-1, keepdim=True)
            ids = torch.cat([ids, following], dim=1)
    return str(tokenizer.decode(ids[0].tolist()))


def _verify(best: Best, run: _Run, merged: Path | None) -> None:
    """Check everything that was just said, from the files alone.

    Raises:
        DemoFailedError: something does not hold.
    """
    from ckptmerge.domain.observation import Split
    from ckptmerge.formats.manifest import read_manifest
    from ckptmerge.workflow.evaluate import evaluate

    if best.promoted != (merged is not None):
        raise DemoFailedError("a merge was promoted and not written, or written and not promoted")
    folder = run.checkpoints[-1] if merged is None else merged
    digest = str(read_manifest(folder).digest)
    if digest != best.digest:
        raise DemoFailedError(f"{folder} has digest {digest}, promised was {best.digest}")
    again = evaluate(folder, run.held_out, split=Split.AUDIT).interval.mean
    if abs(again - _said(best)) > 1e-4:
        raise DemoFailedError(f"{folder} scores {again:.5f}, said was {_said(best):.5f}")
    _require_confirmed(best)


def _said(best: Best) -> float:
    """Return the score that was reported, in bits per byte.

    Raises:
        DemoFailedError: none was.
    """
    if best.score is None:
        raise DemoFailedError("the study was decided without a score of what is best")
    return best.score.mean


def _require_confirmed(best: Best) -> None:
    """Check that the audit split does not contradict what the certify split decided.

    The two are independent; where a small gain was certified, the audit alone may be too small to
    show it again. That is said, not hidden.

    Raises:
        DemoFailedError: on the audit split the merge is no better than the newest checkpoint.
    """
    for gain in best.gains:
        if gain.against == NEWEST and gain.mean <= 0:
            raise DemoFailedError(
                f"certified as better than the newest checkpoint, but {gain.mean:+.4f} bits per "
                "byte on the audit split"
            )
        if gain.against == NEWEST and (gain.low is None or gain.low <= 0):
            render.out.print(
                "The gain is small: the certify split showed it, the audit split alone would not "
                "(its interval holds zero)."
            )


def _say_where(run: _Run, merged: Path | None) -> None:
    render.out.print("\nLook at:")
    places: list[tuple[Path, str]] = [
        (run.checkpoints[-1].parent, "the run's checkpoints"),
        (run.held_out, "documents that training never saw"),
    ]
    if merged is not None:
        places.append((merged, "the merge, for any from_pretrained"))
        places.append((merged / "recipe.json", "its weights, certificate and scores"))
    for path, what in places:
        render.out.print(f"  {path}  {what}")
    again = (
        f"ckptmerge evaluate {places[0][0]}/{run.checkpoints[-1].name} --held-out {run.held_out}"
    )
    render.out.print(f"Try: .venv/bin/{again}")
