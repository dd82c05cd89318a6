"""What the merge is worth, what it writes, and where to look."""

from collections.abc import Sequence
from pathlib import Path

from ckptmerge.cli import render
from ckptmerge.wire.best import Best
from service.demo.judge import said
from service.demo.processes import Serving, Training

PROMPT = "The following function returns"


def say_worth(best: Best, checkpoints: Sequence[Path], held_out: Path, *, schedule: str) -> None:
    """Say how many further steps of training the merge replaces, from the run's own loss curve."""
    from ckptmerge.domain.observation import Split
    from ckptmerge.formats.step import step_and_tokens
    from ckptmerge.scaling.worth import worth_in_steps
    from ckptmerge.workflow.evaluate import evaluate

    if best.kind != "merge":
        return
    late = checkpoints[len(checkpoints) // 2 - 1 :: 2]  # all that the slope is read from
    steps = [step_and_tokens(folder)[0] or 0 for folder in late]
    losses: list[float] = []
    with render.bars() as bars:
        bars.stage("reading the loss curve", len(late))
        for folder in late:
            losses.append(evaluate(folder, held_out, split=Split.AUDIT).interval.mean)
            bars.advance(1)
    worth = worth_in_steps(steps, losses, merged=said(best))
    if worth.steps is None:
        render.out.print("worth: the run no longer improves, so no number of its steps would do")
    elif not worth.bound:
        render.out.print("worth: no steps; the run's own loss curve ends at least as low")
    else:
        render.out.print(
            f"worth: at least {worth.steps:.0f} more {schedule}-rate steps of this run "
            f"({worth.steps / steps[-1]:.0%} of its {steps[-1]}); the loss curve ends before it "
            "reaches the merge, so this is a bound from its slope"
        )
    render.out.print(
        "Annealing the learning rate would collect much of the same gain by itself: after a decay "
        "the merge is worth far fewer steps, often none."
    )


def say_generated(newest: Path, champion: Path) -> None:
    """Let both models go on with the same words."""
    for name, folder in (("newest", newest), ("champion", champion)):
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


def say_where(best: Best, champion: Path, training: Training, serving: Serving) -> None:
    """Say what lies where."""
    what = "the merge" if best.kind == "merge" else "the best checkpoint"
    places: list[tuple[Path, str]] = [
        (champion, f"{what}, downloaded and verified, for any from_pretrained"),
        (champion / "recipe.json", "its weights, certificate and scores"),
        (training.folder, "the run's checkpoints"),
        (training.held_out, "documents that training never saw"),
        (
            serving.data,
            "the service's records and bytes; `ckptmerge serve --data` opens them again",
        ),
    ]
    render.out.print("\nLook at:")
    for path, meaning in places:
        render.out.print(f"  {path}  {meaning}")
    render.out.print(f"Try: .venv/bin/ckptmerge evaluate {champion} --held-out {training.held_out}")
