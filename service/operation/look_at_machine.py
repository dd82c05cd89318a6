"""The machine itself: programs, clock and devices."""

import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from ckptmerge.errors import InvalidInputError
from ckptmerge.storage.sqlite import sqlite_driver
from service.operation.findings import Finding, Verdict

EARLIEST = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""No clock that is right says less: this program is younger."""

_PATIENCE = 120.0
"""Seconds. Importing torch from a cold disk takes tens of them."""

_ASK_TORCH = """
import json, torch
names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "devices": names}))
"""


# In a process of its own: importing torch takes seconds and half a gigabyte.
ASK_TORCH = (sys.executable, "-c", _ASK_TORCH)
"""Prints version, CUDA version and names of devices as JSON."""


def look_at_machine(now: float) -> Iterator[Finding]:
    """Look at Python, SQLite and the clock.

    Args:
        now: Seconds since 1970, as this machine's clock says.
    """
    yield Finding("python", Verdict.OK, f"Python {platform.python_version()}")
    yield _sqlite()
    yield look_at_clock(now)


def _sqlite() -> Finding:
    try:
        version = sqlite_driver().sqlite_version
    except InvalidInputError as error:
        return Finding("sqlite", Verdict.FAIL, str(error), "pip install pysqlite3")
    return Finding("sqlite", Verdict.OK, f"SQLite {version}")


def look_at_clock(now: float) -> Finding:
    """Look whether the clock can be right; leases and grace are measured by it."""
    said = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    if now < EARLIEST:
        remedy = "set the clock, or let NTP do it, before the service starts"
        return Finding("clock", Verdict.FAIL, f"{said} is long past", remedy)
    return Finding("clock", Verdict.OK, said)


def look_at_torch(
    wanted: Sequence[str], *, command: Sequence[str] = ASK_TORCH
) -> Iterator[Finding]:
    """Ask a child process which torch it has, and whether workers find their devices.

    Args:
        wanted: Devices that workers are to run on.
        command: What to ask.
    """
    try:
        asked = subprocess.run(  # noqa: S603 - our own command
            command, capture_output=True, text=True, timeout=_PATIENCE, check=True
        )
        found = json.loads(asked.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = getattr(error, "stderr", None) or str(error)
        last = str(said).strip().splitlines()[-1:]
        remedy = "install torch into this environment; without it no worker runs"
        yield Finding("torch", Verdict.FAIL, f"cannot be imported: {''.join(last)}", remedy)
        return
    yield Finding("torch", Verdict.OK, f"torch {found['version']}, CUDA {found['cuda'] or 'none'}")
    yield _devices(wanted, found["devices"], cuda=found["cuda"])


def _devices(wanted: Sequence[str], names: Sequence[str], *, cuda: str | None) -> Finding:
    there = {f"cuda:{number}": name for number, name in enumerate(names)}
    # Of other kinds of device this torch was not asked; a worker that lacks its device says so.
    missing = [
        device for device in dict.fromkeys(wanted)
        if device.startswith("cuda") and device not in there and not (device == "cuda" and there)
    ]  # fmt: skip
    said = ", ".join(["cpu", *(f"{device} ({name})" for device, name in there.items())])
    if missing:
        remedy = "look at nvidia-smi and the driver, or name other devices"
        shown = f"workers are to run on {', '.join(missing)}; there is {said}"
        return Finding("devices", Verdict.FAIL, shown, remedy)
    if cuda is not None and not names:
        remedy = "look at nvidia-smi and the driver, if there should be one"
        shown = f"this torch is built for CUDA {cuda}, and sees no GPU"
        return Finding("devices", Verdict.WARN, shown, remedy)
    return Finding("devices", Verdict.OK, said)
