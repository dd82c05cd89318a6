"""`ckptmerge heldout`: see how a held-out set is split, or write the splits out."""

from pathlib import Path
from typing import Annotated

import typer

from ckptmerge.cli import render
from ckptmerge.domain.observation import Split
from ckptmerge.errors import OutputExistsError

app = typer.Typer(help="Look at and export the splits of a held-out set.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="Held-out documents, .jsonl or .txt.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
PARTS = (Split.SEARCH, Split.CERTIFY, Split.AUDIT)


@app.command()
def split(file: File, json: Json = False) -> None:
    """Count the documents of each domain and split; nothing is written."""
    from ckptmerge.workflow.evaluate import split_counts

    digest, counts = split_counts(file)
    if json:
        render.print_json({"held_out": str(digest), "splits": counts})
        return
    render.out.print(f"held-out set {digest}")
    for part, domains in counts.items():
        for domain, count in domains.items():
            render.out.print(
                f"  {part:<8} {domain:<16} {count['documents']:>7} documents "
                f"{count['units']:>7} independent units"
            )


@app.command()
def export(
    file: File,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder.")],
    json: Json = False,
) -> None:
    """Write search.jsonl, certify.jsonl and audit.jsonl to --out, and log the look."""
    from ckptmerge.workflow.evaluate import export_splits

    if out.exists():
        raise OutputExistsError(f"{out} exists; name a folder that does not, or remove it first")
    written = export_splits(file, out)
    if json:
        render.print_json({"written": [str(path) for path in written]})
        return
    for path in written:
        render.out.print(str(path))
