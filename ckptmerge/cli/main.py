"""The command tree, and how errors become exit codes.

0: done (also when nothing was promoted); 1: refused, with the reason; 2: misused.
"""

import json
import sys
from importlib.metadata import entry_points

import typer

from ckptmerge.cli import held_out, local, pin, remote, retention, studies, tokens
from ckptmerge.errors import CkptmergeError, InvalidWeightsError

app = typer.Typer(
    name="ckptmerge",
    help="Find, certify and write the best merge of a pretraining run's checkpoints.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(local.optimize)
app.command()(local.merge)
app.command()(local.evaluate)
app.command()(local.inspect)
app.add_typer(held_out.app, name="heldout")
app.command()(remote.push)
app.command()(remote.best)
app.command()(remote.pull)
app.command()(pin.pin)
app.command()(pin.unpin)
app.command()(retention.retention)
app.add_typer(studies.app, name="study")
app.add_typer(tokens.app, name="token")
for _command in sorted(entry_points(group="ckptmerge.commands"), key=lambda point: point.name):
    app.command(_command.name)(_command.load())


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; refusals are printed, never raised."""
    try:
        app(arguments)
    except CkptmergeError as error:
        _report(error, as_json="--json" in arguments)
        return 2 if isinstance(error, InvalidWeightsError) else 1
    except SystemExit as leave:  # Typer exits by itself: done, misused (2) or interrupted
        return leave.code if isinstance(leave.code, int) else 0
    return 0


def _report(error: CkptmergeError, *, as_json: bool) -> None:
    kind = type(error).__name__.removesuffix("Error")
    if as_json:
        problem = {"type": kind, "title": type(error).__doc__ or kind, "detail": str(error)}
        typer.echo(json.dumps({"problem": problem}, indent=2))
    else:
        typer.echo(f"ckptmerge: {error}", err=True)
