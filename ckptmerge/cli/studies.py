"""Verbs about the studies of a service: list, show, watch, open, cancel."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.table import Table

from ckptmerge.cli import render
from ckptmerge.cli.remote import LOCAL, Json, Run, Url, connect
from ckptmerge.config.study import StudySpec
from ckptmerge.domain.space import SpaceKind
from ckptmerge.errors import InvalidInputError, MissingError, ServiceError

if TYPE_CHECKING:
    from ckptmerge.client.client import Client
    from ckptmerge.wire.studies import StudyResource, TrialResource

INTERRUPTED = 130
"""Exit code of what Ctrl-C ended: 128 and the signal's number, as shells have it."""

app = typer.Typer(
    help="Look into the searches of a service, open and end them.", no_args_is_help=True
)

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the study.")]


@app.command("list")
def list_studies(
    run: Annotated[str | None, typer.Option(help="Only studies of this run.")] = None,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """List studies, newest first."""
    with connect(url) as client:
        found = list(client.studies(run))
    if json:
        render.print_json([item.model_dump(mode="json") for item in found])
        return
    render.out.print(_study_table(found))


@app.command()
def show(
    name: Id,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Show a study, its trials, and what it came to."""
    with connect(url) as client:
        found, trials = client.study(name), list(client.trials(name))
    if json:
        answer = found.model_dump(mode="json")
        render.print_json(answer | {"trials": [trial.model_dump(mode="json") for trial in trials]})
        return
    render.out.print(_study_table([found]))
    render.out.print(_trial_table(found, trials))
    if found.verdict is not None:
        render.out.print(found.verdict.reason)


@app.command()
def watch(
    name: Annotated[
        str, typer.Argument(metavar="ID|RUN", help="Id of the study, or a run for its newest.")
    ],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 1.0,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Show trials as they are measured and then the verdict; Ctrl-C leaves the study as it is."""
    with connect(url) as client:
        begun = _study(client, name)
        if not json:
            render.out.print(_study_table([begun]))
        try:
            trials = list(_told(client, begun, every, quiet=json))
        except KeyboardInterrupt:
            render.err.print(f"no longer watching; study {begun.id} goes on")
            raise typer.Exit(INTERRUPTED) from None
        ended = client.study(begun.id)
    if json:
        shown = [trial.model_dump(mode="json") for trial in trials]
        render.print_json(ended.model_dump(mode="json") | {"trials": shown})
        return
    reason = ended.stopped if ended.verdict is None else ended.verdict.reason
    render.out.print(f"{ended.state}: {reason}")


@app.command("open")
def open_study(
    run: Run,
    *,
    steps: Annotated[
        str | None, typer.Option(metavar="N,N,…", help="Steps of the checkpoints, oldest first.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="Or so many of the newest checkpoints.")
    ] = None,
    space: Annotated[SpaceKind | None, typer.Option(help="Which weights to search.")] = None,
    budget: Annotated[
        int | None, typer.Option(help="Forward passes over the search split.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes every random choice.")] = None,
    lower: Annotated[float | None, typer.Option(help="Smallest weight; may be negative.")] = None,
    upper: Annotated[float | None, typer.Option(help="Largest weight.")] = None,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Open a study of RUN over chosen checkpoints; what is not said is as the run says."""
    said = {"space": space, "budget": budget, "seed": seed, "lower": lower, "upper": upper}
    with connect(url) as client:
        opened = client.open_study(
            run,
            steps=None if steps is None else _numbers(steps),
            window=window,
            study=_spec({key: value for key, value in said.items() if value is not None}),
        )
    if json:
        render.print_json(opened.model_dump(mode="json"))
        return
    render.out.print(_study_table([opened]))
    render.out.print(f"`ckptmerge study watch {opened.id}` follows it")


@app.command()
def cancel(name: Id, url: Url = LOCAL, json: Json = False) -> None:
    """End a study before its verdict; the best stays as it is."""
    with connect(url) as client:
        ended = client.cancel_study(name)
    if json:
        render.print_json(ended.model_dump(mode="json"))
        return
    render.out.print(f"study {ended.id} of run {ended.run} is {ended.state}")


def _study(client: "Client", name: str) -> "StudyResource":
    """Find a study by its id, or else the newest of the run of that name.

    Raises:
        MissingError: there is neither.
    """
    try:
        return client.study(name)
    except ServiceError as error:
        if error.status != 404:
            raise
    found = next(client.studies(name), None)
    if found is None:
        raise MissingError(f"there is no study {name!r}, and no run of this name that has one")
    return found


def _told(
    client: "Client", study: "StudyResource", every: float, *, quiet: bool
) -> "Iterator[TrialResource]":
    """Yield a study's trials as they end, and say what came of each."""
    for trial in client.watch(study.id, every=every):
        if not quiet:
            value = "" if trial.value is None else f"  {trial.value:.4f} bits per byte"
            render.out.print(f"trial {trial.trial}  {_weights(trial)}{value}  {_state(trial)}")
        yield trial


def _numbers(steps: str) -> list[int]:
    """Read the steps of a window.

    Raises:
        BadParameter: they are no integers.
    """
    try:
        return [int(step) for step in steps.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{steps!r}: give integers such as 100,200,300") from error


def _spec(said: dict[str, object]) -> StudySpec | None:
    """Return how to search, where anything was said about it.

    Raises:
        InvalidInputError: a value is out of its range.
    """
    try:
        return StudySpec.model_validate(said) if said else None
    except ValidationError as error:
        wrong = "; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())
        raise InvalidInputError(wrong) from error


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
        value = "" if trial.value is None else f"{trial.value:.4f}"
        mark = " (winner)" if trial.trial == study.winner else ""
        table.add_row(f"{trial.trial}{mark}", _weights(trial), value, _state(trial))
    return table


def _weights(trial: "TrialResource") -> str:
    return trial.name or " ".join(f"{weight:+.4f}" for weight in trial.weights)


def _state(trial: "TrialResource") -> str:
    return trial.reason or trial.state
