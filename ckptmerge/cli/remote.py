"""Verbs that speak to a service: push, best, pull, study."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ckptmerge.cli import render

if TYPE_CHECKING:
    from ckptmerge.client.client import Client
    from ckptmerge.wire.studies import StudyResource, TrialResource

Url = Annotated[
    str, typer.Option("--url", envvar="CKPTMERGE_URL", help="Where the service is.")
]  # fmt: skip
Run = Annotated[str, typer.Argument(metavar="RUN", help="Name of the run.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

LOCAL = "http://127.0.0.1:8117"
"""Where `ckptmerge serve` listens unless told otherwise."""

TOKEN = "CKPTMERGE_TOKEN"  # noqa: S105 - the name of the variable
"""No option takes the token: other users of the machine can read a process's arguments."""

study = typer.Typer(help="Look at the searches of a service.", no_args_is_help=True)


def push(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="Checkpoint folder or .safetensors file.")
    ],
    *,
    run: Annotated[str, typer.Option(help="Name of the run.")],
    step: Annotated[
        int | None, typer.Option(min=0, help="Training step; found in CKPT by default.")
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=0, help="Tokens trained on so far.")] = None,
    next_attempt: Annotated[
        bool, typer.Option("--next-attempt", help="The run was rolled back and goes on from here.")
    ] = False,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Upload a checkpoint and register it with a run; the same again changes nothing."""
    from ckptmerge.client.push import checkpoint_files

    size = sum(file.stat().st_size for file in checkpoint_files(checkpoint).values())
    with _client(url) as client, render.bars() as progress:
        progress.stage("sending", size)
        known = client.push(
            checkpoint, run=run, step=step, tokens=tokens,
            attempt="next" if next_attempt else None, on_bytes=progress.advance,
        )  # fmt: skip
    if json:
        render.print_json(known.model_dump(mode="json"))
        return
    render.out.print(f"step {known.step} of run {known.run} is {known.id}  ({known.digest})")
    if known.missing:
        render.out.print(f"it cannot be merged yet: {', '.join(known.missing)} missing")


def best(run: Run, url: Url = LOCAL, json: Json = False) -> None:
    """Show the best weights of RUN, what they gain, and how sure that is."""
    with _client(url) as client:
        answer = client.best(run).answer
    if json:
        render.print_json(answer.model_dump(mode="json"))
        return
    render.show_best(answer)


def pull(
    run: Run,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder.")],
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Download the best weights of RUN to --out, every byte verified; a cut one continues."""
    with _client(url) as client, render.bars() as progress:
        found = client.best(run)
        progress.stage("receiving", found.size)
        folder = found.download(out, on_bytes=progress.advance)
    answer = found.answer
    if json:
        render.print_json({"out": str(folder), "best": answer.model_dump(mode="json")})
        return
    kind = "the promoted merge" if answer.promoted else f"the {answer.kind}, not promoted,"
    render.out.print(f"written to {folder}: {kind} of step {answer.step}  ({answer.digest})")


@study.command("list")
def list_studies(
    run: Annotated[str | None, typer.Option(help="Only studies of this run.")] = None,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """List studies, newest first."""
    with _client(url) as client:
        found = list(client.studies(run))
    if json:
        render.print_json([item.model_dump(mode="json") for item in found])
        return
    render.out.print(_study_table(found))


@study.command()
def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="Id of the study.")],
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Show a study, its trials, and what it came to."""
    with _client(url) as client:
        found, trials = client.study(name), list(client.trials(name))
    if json:
        answer = found.model_dump(mode="json")
        render.print_json(answer | {"trials": [trial.model_dump(mode="json") for trial in trials]})
        return
    render.out.print(_study_table([found]))
    render.out.print(_trial_table(found, trials))
    if found.verdict is not None:
        render.out.print(found.verdict.reason)


def _client(url: str) -> "Client":
    from ckptmerge.client.client import Client

    return Client(url, os.environ.get(TOKEN) or None)


def _study_table(studies: "list[StudyResource]") -> Table:
    table = Table("study", "run", "state", "steps", "space", "trials", "promoted")
    for item in studies:
        promoted = "" if item.verdict is None else "yes" if item.verdict.promoted else "no"
        table.add_row(
            item.id, item.run, item.state, f"{item.steps[0]} to {item.steps[-1]}", item.space,
            f"{item.observed} of {item.trials}", promoted,
        )  # fmt: skip
    return table


def _trial_table(study: "StudyResource", trials: "list[TrialResource]") -> Table:
    table = Table("trial", "weights", "search bits per byte", "state")
    for trial in trials:
        weights = trial.name or " ".join(f"{weight:+.4f}" for weight in trial.weights)
        value = "" if trial.value is None else f"{trial.value:.4f}"
        mark = " (winner)" if trial.trial == study.winner else ""
        table.add_row(f"{trial.trial}{mark}", weights, value, trial.reason or trial.state)
    return table
