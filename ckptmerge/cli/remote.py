"""Verbs that speak to a service: push, best, pull."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ckptmerge.cli import render

if TYPE_CHECKING:
    from ckptmerge.client.client import Client

Url = Annotated[
    str, typer.Option("--url", envvar="CKPTMERGE_URL", help="Where the service is.")
]  # fmt: skip
Run = Annotated[str, typer.Argument(metavar="RUN", help="Name of the run.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

LOCAL = "http://127.0.0.1:8117"
"""Where `ckptmerge serve` listens unless told otherwise."""

TOKEN = "CKPTMERGE_TOKEN"  # noqa: S105 - the name of the variable
"""No option takes the token: other users of the machine can read a process's arguments."""


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
    supersede: Annotated[
        bool, typer.Option("--supersede", help="Take the place of wrong bytes at this step.")
    ] = False,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Upload a checkpoint and register it with a run; the same again changes nothing."""
    from ckptmerge.client.push import checkpoint_files

    size = sum(file.stat().st_size for file in checkpoint_files(checkpoint).values())
    with connect(url) as client, render.bars() as progress:
        progress.stage("sending", size)
        known = client.push(
            checkpoint, run=run, step=step, tokens=tokens,
            attempt="next" if next_attempt else None, supersede=supersede,
            on_bytes=progress.advance,
        )  # fmt: skip
    if json:
        render.print_json(known.model_dump(mode="json"))
        return
    render.out.print(f"step {known.step} of run {known.run} is {known.id}  ({known.digest})")
    if known.missing:
        render.out.print(f"it cannot be merged yet: {', '.join(known.missing)} missing")


def best(run: Run, url: Url = LOCAL, json: Json = False) -> None:
    """Show the best weights of RUN, what they gain, and how sure that is."""
    with connect(url) as client:
        answer = client.best(run).answer
    if json:
        render.print_json(answer.model_dump(mode="json"))
        return
    render.show_best(answer)


def pull(
    revision: Annotated[
        str,
        typer.Argument(
            metavar="RUN[@REV]",
            help="REV is main (the best, as without it), step-N, or the id of a promoted merge.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder.")],
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Download weights of RUN to --out, every byte verified; a cut one continues."""
    run, at, name = revision.partition("@")
    with connect(url) as client, render.bars() as progress:
        found = client.revision(run, name if at else "main")
        progress.stage("receiving", found.size)
        folder = found.download(out, on_bytes=progress.advance)
    answer = found.answer.model_dump(mode="json")
    if json:
        render.print_json({"out": str(folder), found.kind: answer})
        return
    render.out.print(f"written to {folder}: {_what(found.kind, answer)}  ({answer['digest']})")


def connect(url: str) -> "Client":
    """Return a client of the service at ``url``, with the token of the environment."""
    from ckptmerge.client.client import Client

    return Client(url, os.environ.get(TOKEN) or None)


def _what(kind: str, answer: dict[str, Any]) -> str:
    """Say what was downloaded."""
    if kind == "artifact":
        return f"merge {answer['id']} of study {answer['study']}"
    if kind == "checkpoint":
        return f"the checkpoint of step {answer['step']}, attempt {answer['attempt']}"
    if answer["promoted"]:
        return f"the promoted merge of step {answer['step']}"
    return f"the {answer['kind']}, not promoted, of step {answer['step']}"
