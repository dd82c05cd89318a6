"""Verbs that put something in the place of a run's best, and take it away again."""

from typing import Annotated

import typer

from ckptmerge.cli import render
from ckptmerge.cli.remote import LOCAL, Json, Run, Url, connect


def pin(
    run: Run,
    revision: Annotated[
        str, typer.Argument(metavar="REV", help="step-N, or the id of a checkpoint or artifact.")
    ],
    *,
    reason: Annotated[str, typer.Option(help="Why; shown with the best and kept on record.")],
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Make REV the best of RUN by hand; nothing is promoted until it is unpinned."""
    with connect(url) as client:
        answer = client.pin(run, revision, reason=reason)
    if json:
        render.print_json(answer.model_dump(mode="json"))
        return
    render.out.print(f"the best of {run} is {answer.artifact or revision}, step {answer.step}")
    render.out.print(f"{answer.reason}; `ckptmerge unpin {run}` undoes it")


def unpin(run: Run, url: Url = LOCAL, json: Json = False) -> None:
    """Let go of what was pinned: what was promoted last is the best of RUN again."""
    with connect(url) as client:
        client.unpin(run)
    if json:
        render.print_json({"run": run, "pinned": None})
        return
    render.out.print(f"nothing is pinned as the best of {run} any more")
