"""The data folder and the port: whether a service could start on them."""

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rich.filesize import decimal

from service.data_folder import DATABASE, LOCK
from service.operation.filesystem import MOUNTS, mount_of
from service.operation.findings import Finding, Verdict
from service.settings import Settings

ROOM = 16 * 10**9
"""Bytes that should be free beside the reserve: a model of seven billion parameters in bfloat16."""

_AHEAD = 60.0
"""Seconds that a file may be younger than now: file systems and clocks are not that exact."""


def look_at_data(settings: Settings, now: float) -> Iterator[Finding]:
    """Look at the data folder, its disk, and the address to listen on.

    Args:
        settings: What the service would run with.
        now: Seconds since 1970.
    """
    yield look_at_folder(settings.data)
    yield look_at_file_system(settings.data)
    free = shutil.disk_usage(_standing(settings.data)).free
    yield look_at_space(free, settings.limits.reserve)
    yield look_at_last_write(settings.data, now)
    yield look_at_port(settings)


def look_at_folder(data: Path) -> Finding:
    """Look whether the data folder can be used, or made."""
    standing = _standing(data)
    if not standing.is_dir():
        remedy = "name a folder"
        return Finding("data folder", Verdict.FAIL, f"{standing} is no folder", remedy)
    if not os.access(standing, os.R_OK | os.W_OK | os.X_OK):
        remedy = "give this user the folder, or choose another one with --data"
        return Finding(
            "data folder", Verdict.FAIL, f"{standing} cannot be written by this user", remedy
        )
    there = "is there" if standing == data.absolute() else f"will be made in {standing}"
    return Finding("data folder", Verdict.OK, f"{data} {there}")


def look_at_file_system(data: Path, *, mounts: Path = MOUNTS) -> Finding:
    """Look whether the data folder lies on a disk of this machine."""
    mount = mount_of(data, mounts=mounts)
    if mount is None:
        remedy = "see for yourself that it is a local disk"
        return Finding("file system", Verdict.WARN, "this system does not say", remedy)
    if not mount.is_local:
        return Finding(
            "file system", Verdict.WARN, f"{mount.kind} at {mount.point} is not a local disk",
            "put the data folder on one: SQLite's locks and write-ahead log are not safe here",
        )  # fmt: skip
    if not mount.outlives_power:
        remedy = "fine for a trial; put data that you want to keep on a disk"
        return Finding("file system", Verdict.WARN, f"{mount.kind}: lives in memory", remedy)
    return Finding("file system", Verdict.OK, f"{mount.kind} at {mount.point}")


def look_at_space(free: int, reserve: int) -> Finding:
    """Look whether there is room for uploads beside what is left free, in bytes."""
    said = f"{decimal(free)} free, {decimal(reserve)} of them kept in reserve"
    if free <= reserve:
        remedy = "free some space, or every upload is refused with 507"
        return Finding("free space", Verdict.FAIL, said, remedy)
    if free < reserve + ROOM:
        remedy = "enough for small models only; a run's retention rules keep it that way"
        return Finding("free space", Verdict.WARN, said, remedy)
    return Finding("free space", Verdict.OK, said)


def look_at_last_write(data: Path, now: float) -> Finding:
    """Look whether the clock has gone back since the service last wrote."""
    written = 0.0
    for name in (DATABASE, f"{DATABASE}-wal"):
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            written = max(written, (data / name).stat().st_mtime)
    if written > now + _AHEAD:
        return Finding(
            "last write", Verdict.FAIL, f"lies {written - now:.0f} s in the future",
            "set the clock: leases and times of grace would last as much longer",
        )  # fmt: skip
    return Finding("last write", Verdict.OK, "none yet" if not written else "lies in the past")


def look_at_port(settings: Settings) -> Finding:
    """Look whether the address can be listened on, by doing so for a moment."""
    where = f"{settings.host} port {settings.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and (holder := _holder(settings.data)):
            remedy = "nothing, if that is the service you mean"
            said = f"{where} is taken; process {holder} serves this data folder"
            return Finding("port", Verdict.WARN, said, remedy)
        remedy = "stop what listens there, or choose another one with --port"
        return Finding("port", Verdict.FAIL, f"{where}: {error.strerror}", remedy)
    return Finding("port", Verdict.OK, f"{where} is free")


def _holder(data: Path) -> int | None:
    """Return the process that serves a data folder, without touching its lock."""
    try:
        process = int((data / LOCK).read_text("ascii"))
        os.kill(process, 0)
    except (OSError, ValueError):
        return None
    return process


def _standing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return place
