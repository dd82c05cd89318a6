"""Processes of a group, for tests that kill them and look for what is left."""

import os
from pathlib import Path


def processes_of(group: int, command: str) -> list[int]:
    """Return the ids of a group's processes whose command line holds ``command``."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if command in line and os.getpgid(int(entry.name)) == group:
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
