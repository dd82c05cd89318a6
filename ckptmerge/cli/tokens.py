"""Verbs about a service's access tokens: create, list, revoke."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ckptmerge.cli import render
from ckptmerge.cli.remote import LOCAL, Json, Url, connect
from ckptmerge.domain.token import Scope
from ckptmerge.errors import OutputExistsError

if TYPE_CHECKING:
    from ckptmerge.wire.tokens import TokenResource

app = typer.Typer(help="Say who may do what with a service.", no_args_is_help=True)

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who or what it is for.")],
    *,
    scope: Annotated[
        list[Scope], typer.Option(help="What it allows; again for more. Each allows reading.")
    ],
    expires: Annotated[
        str | None, typer.Option(metavar="30d", help="When it ends: s, m, h, d or w from now.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="New file for the token, which nobody else may read."),
    ] = None,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Make a token, and show it this once."""
    seconds = None if expires is None else _seconds(expires)
    with connect(url) as client, _private(out) as written:
        made = client.create_token(name, scopes=scope, expires_in=seconds)
        if written is not None:
            os.write(written, f"{made.token}\n".encode())
    shown = made.model_dump(mode="json")
    if out is not None:
        shown["token"] = None
    if json:
        render.print_json(shown | ({} if out is None else {"out": str(out)}))
        return
    render.out.print(_table([made]))
    if out is None:
        render.out.out(made.token, highlight=False)
        render.err.print("this is shown once; keep it as you keep a password")
    else:
        render.out.print(f"written to {out}; CKPTMERGE_TOKEN takes it: $(cat {out})")
    if made.first:
        render.err.print("from now on this service asks for a token; so far it was open")


@app.command("list")
def list_tokens(url: Url = LOCAL, json: Json = False) -> None:
    """List every token that was given out, without its secret."""
    with connect(url) as client:
        found = list(client.tokens())
    if json:
        render.print_json([item.model_dump(mode="json") for item in found])
        return
    render.out.print(_table(found))


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="Id of the token, such as k_01J….")],
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """End a token, and every request that is made with it, at once."""
    with connect(url) as client:
        ended = client.revoke_token(token)
    if json:
        render.print_json(ended.model_dump(mode="json"))
        return
    render.out.print(f"token {ended.id} ({ended.name}) is {ended.state}", markup=False)


@contextmanager
def _private(path: Path | None) -> Iterator[int | None]:
    """Open a new file for this user alone, before there is anything to write; else it is lost.

    Raises:
        OutputExistsError: there is a file.
    """
    if path is None:
        yield None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise OutputExistsError(f"{path} exists; name a new file for the token") from error
    try:
        yield descriptor
    except BaseException:
        path.unlink()
        raise
    finally:
        os.close(descriptor)


def _seconds(text: str) -> int:
    """Read a time such as 30d.

    Raises:
        BadParameter: it is none.
    """
    match = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    if match is None or not int(match[1]):
        raise typer.BadParameter(f"{text!r}: give a number and s, m, h, d or w, such as 30d")
    return int(match[1]) * _SECONDS[match[2]]


def _table(tokens: "list[TokenResource]") -> Table:
    table = Table("id", "name", "scopes", "state", "expires", "last used")
    for item in tokens:
        table.add_row(
            item.id, item.name, " ".join(item.scopes), item.state, item.expires or "never",
            item.used or "not yet",
        )  # fmt: skip
    return table
