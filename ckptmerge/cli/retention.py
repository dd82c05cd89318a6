"""The verb that says what a run's retention would remove, and removes it."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal
from rich.table import Table

from ckptmerge.cli import render
from ckptmerge.cli.remote import LOCAL, Json, Run, Url, connect

if TYPE_CHECKING:
    from ckptmerge.wire.retention import RetentionResource


def retention(
    run: Run,
    apply: Annotated[
        bool, typer.Option("--apply", help="Remove it now; without this nothing is removed.")
    ] = False,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Show what the retention of RUN removes and what holds the rest; --apply does it now."""
    with connect(url) as client:
        answer = client.apply_retention(run) if apply else client.retention(run)
    if json:
        render.print_json(answer.model_dump(mode="json"))
        return
    render.out.print(_table(answer))
    what = "was removed" if answer.applied else "would be removed"
    render.out.print(
        f"{len(answer.goes)} of {len(answer.goes) + len(answer.stays)} {what}: "
        f"{decimal(answer.bytes)} that nothing else needs, deleted {answer.grace / 3600:g} hours "
        "after they came at the earliest"
    )


def _table(answer: "RetentionResource") -> Table:
    table = Table("step", "id", "size", "", "why")
    verb = "removed" if answer.applied else "goes"
    marked = [(verb, item) for item in answer.goes] + [("stays", item) for item in answer.stays]
    for mark, item in sorted(marked, key=lambda pair: (pair[1].step, pair[1].kind)):
        table.add_row(str(item.step), item.id, decimal(item.bytes), mark, item.reason)
    return table
