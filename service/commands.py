"""The service's commands, found by `ckptmerge` through its entry points; cheap to import."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

EX_CONFIG = 78
"""Exit code of a service that will not start like this (sysexits.h)."""


def serve(
    *,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of database and blobs.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes to start.")] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Documents that judge runs which name no others.")
    ] = None,
    source_root: Annotated[
        list[Path] | None, typer.Option(help="Folder beneath which sources may be read.")
    ] = None,
    watch: Annotated[
        list[Path] | None, typer.Option(help="Folder whose settling checkpoints are registered.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Run that watched checkpoints belong to.")] = None,
    ready_file: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Take checkpoints, find and certify the best merge of them, and serve it."""
    from service.serve import run_service
    from service.settings import ConfigurationError, load_settings, require_safe_bind
    from service.telemetry import configure_logging

    configure_logging(sys.stderr)
    given = {
        "data": data, "host": host, "port": port, "workers": workers, "held_out": held_out,
        "source_roots": tuple(source_root) if source_root else None,
        "watch": tuple(watch) if watch else None, "run": run,
    }  # fmt: skip
    try:
        settings = load_settings(environ=os.environ, config=config, given=given)
        require_safe_bind(settings)
        run_service(settings, on_ready=lambda url: _say_ready(url, ready_file))
    except ConfigurationError as error:
        typer.echo(f"ckptmerge: {error}", err=True)
        raise typer.Exit(EX_CONFIG) from error


def worker(
    *,
    url: Annotated[str, typer.Option(envvar="CKPTMERGE_URL", help="Address of the service.")] = (
        "http://127.0.0.1:8117"
    ),
    device: Annotated[str, typer.Option(help="Where models run: cpu, cuda:0.")] = "cpu",
    name: Annotated[str | None, typer.Option(help="What the service calls this worker.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for fetched files.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads for torch; its default.")] = None,
    with_parent: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Score and write candidates for a service, on one device, until stopped."""
    from service.telemetry import configure_logging
    from service.worker import work

    configure_logging(sys.stderr)
    # What a lease has laid out on the disk is removed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        work(url, device=device, name=name, cache=cache, threads=threads, with_parent=with_parent)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _say_ready(url: str, ready_file: Path | None) -> None:
    typer.echo(f"serving on {url}", err=True)
    if ready_file is not None:
        partial = ready_file.with_name(f".{ready_file.name}.partial")
        partial.write_text(url, encoding="utf-8")
        partial.rename(ready_file)
