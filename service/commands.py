"""The service's commands, found by `ckptmerge` through its entry points; cheap to import."""

import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Data = Annotated[Path, typer.Option(help="Folder of a service's database and blobs.")]

_NICE = 19
"""Reading everything again must not slow down what a service and its workers do meanwhile."""

EX_CONFIG = 78
"""Exit code of a service that will not start like this (sysexits.h)."""


def serve(
    *,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of database and blobs.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Worker processes to start; one a device by default.")
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="Where workers run models: cpu, or cuda:0 …")
    ] = None,
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
    from service.settings import (
        ENVIRONMENT,
        ConfigurationError,
        load_settings,
        require_safe_bind,
    )
    from service.telemetry import configure_logging

    configure_logging(sys.stderr)
    given = {
        "data": data, "host": host, "port": port, "workers": workers, "held_out": held_out,
        "devices": tuple(device) if device else None,
        "source_roots": tuple(source_root) if source_root else None,
        "watch": tuple(watch) if watch else None, "run": run,
    }  # fmt: skip
    try:
        settings = load_settings(environ=os.environ, config=config, given=given)
        # Workers and the proposer inherit the environment, and have no business with it.
        for secret in ("DATABASE", "TOKEN"):
            os.environ.pop(f"{ENVIRONMENT}{secret}", None)
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
    readable_log: Annotated[bool, typer.Option(hidden=True)] = False,
    certificate: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Score and write candidates for a service, on one device, until stopped."""
    from service.telemetry import configure_logging
    from service.worker import work

    # Whose stderr is passed on by the service does not see the terminal at its end.
    configure_logging(sys.stderr, readable=True if readable_log else None)
    # What a lease has laid out on the disk is removed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        work(
            url, device=device, name=name, cache=cache, threads=threads, with_parent=with_parent,
            certificate=certificate,
        )  # fmt: skip
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def check_config(
    *,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings.")] = None,
    json: Json = False,
) -> None:
    """Say everything that is wrong with the settings, or show them as `serve` would use them."""
    import yaml

    from ckptmerge.cli import render
    from service.settings import ConfigurationError, load_settings, require_safe_bind

    try:
        settings = load_settings(environ=os.environ, config=config)
        require_safe_bind(settings)
    except ConfigurationError as error:
        if json:
            render.print_json({"problems": error.problems})
        for problem in error.problems:
            typer.echo(f"ckptmerge: {problem}", err=True)
        raise typer.Exit(EX_CONFIG) from error
    effective = settings.model_dump(mode="json")
    if json:
        render.print_json({"problems": [], "settings": effective})
    else:
        typer.echo(yaml.safe_dump(effective, sort_keys=False), nl=False)


def doctor(
    *,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of database and blobs.")] = None,
    json: Json = False,
) -> None:
    """Look whether a service would run well here; nothing is changed. Exit 1 where it would not."""
    from ckptmerge.cli import render
    from service.operation.doctor import examine
    from service.operation.findings import Verdict

    findings = list(examine(environ=os.environ, config=config, data=data, now=_now()))
    if json:
        render.print_json([asdict(finding) for finding in findings])
    else:
        for found in findings:
            typer.echo(f"{found.verdict:<5} {found.name}: {found.said}")
            if found.remedy is not None:
                typer.echo(f"      -> {found.remedy}")
    if any(found.verdict is Verdict.FAIL for found in findings):
        raise typer.Exit(1)


def backup(
    *,
    data: Data,
    out: Annotated[Path, typer.Option(help="New folder, or an earlier backup of this service.")],
    json: Json = False,
) -> None:
    """Back up the data folder of a service, also while it runs: all of it, verified, or nothing."""
    from ckptmerge.cli import render
    from service.operation.backup import back_up

    done = back_up(data, out, now=_now())
    held = done.manifest
    if json:
        render.print_json(
            {
                "created": held.created, "database": held.database.digest,
                "blobs": held.blob_count, "bytes": held.blob_bytes, "linked": done.linked,
                "copied": done.copied, "present": done.present, "removed": done.removed,
            }
        )  # fmt: skip
        return
    typer.echo(
        f"{out} holds the moment {held.created}: {held.blob_count} files, {held.blob_bytes:,} "
        f"bytes ({done.linked} linked, {done.copied} copied, {done.present} were there)"
    )


def restore(
    *,
    backup: Annotated[Path, typer.Argument(metavar="BACKUP", help="What `backup` has written.")],
    data: Annotated[Path, typer.Option(help="New data folder.")],
    json: Json = False,
) -> None:
    """Make a new data folder out of a backup; refused, with a list, where a byte is not right."""
    from ckptmerge.cli import render
    from service.operation.restore import restore as restore_from

    done = restore_from(backup, data)
    if json:
        render.print_json(asdict(done))
        return
    typer.echo(
        f"{data} holds the moment {done.created} again: {done.blobs} files, {done.bytes:,} bytes"
    )


def scrub(
    *,
    data: Data,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move damaged files aside; the service must not run.")
    ] = False,
    json: Json = False,
) -> None:
    """Read every stored file again, also while a service runs; exit 1 where one is not right.

    Where its records are in PostgreSQL, CKPTMERGE_DATABASE says in which database.
    """
    from ckptmerge.cli import render
    from service.database import VARIABLE
    from service.operation.scrub import scrub as read_again

    os.nice(_NICE)
    found = read_again(data, repair=repair, database=os.environ.get(VARIABLE) or None)
    if json:
        render.print_json(asdict(found))
    else:
        for wrong in found.wrong:
            typer.echo(f"{wrong.what} {wrong.digest}")
            for holder in wrong.needed_by:
                typer.echo(f"      needed for {holder}")
            if wrong.moved_to is not None:
                typer.echo(f"      moved to {wrong.moved_to}")
        typer.echo(
            f"{found.blobs} files read, {found.bytes:,} bytes: {len(found.wrong)} wrong; "
            f"{found.unreferenced} that nothing names yet ({found.unreferenced_bytes:,} bytes)"
        )
        if found.audit_broken_at is not None:
            typer.echo(
                f"entry {found.audit_broken_at} of the audit log is not as it was written, or the "
                "one before it is gone: somebody has changed the database"
            )
    if not found.clean:
        raise typer.Exit(1)


def _now() -> float:
    return time.time()  # noqa: TID251 - the shell supplies the time


def _say_ready(url: str, ready_file: Path | None) -> None:
    typer.echo(f"serving on {url}", err=True)
    if ready_file is not None:
        partial = ready_file.with_name(f".{ready_file.name}.partial")
        partial.write_text(url, encoding="utf-8")
        partial.rename(ready_file)
