"""What kind of file system a folder lies on, as the kernel's mount table says."""

import re
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
"""Of Linux; see proc_pid_mountinfo(5)."""

_ELSEWHERE = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "afs", "ceph", "glusterfs", "lustre",
    "gpfs", "beegfs", "ocfs2", "gfs2", "fuse", "fuseblk",
})  # fmt: skip
"""Where another machine, or a process of this one, stands between us and the disk: locks and the
shared memory of a write-ahead log are not what SQLite needs (sqlite.org/wal.html, section 2.3)."""

_FLEETING = frozenset({"tmpfs", "ramfs"})

_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """A mounted file system."""

    point: Path
    kind: str
    """Such as ``ext4`` or ``nfs4``."""

    @property
    def is_local(self) -> bool:
        """Whether its files lie on a disk of this machine, handled by its kernel."""
        return self.kind not in _ELSEWHERE and not self.kind.startswith("fuse.")

    @property
    def outlives_power(self) -> bool:
        """Whether its files are there after a restart of the machine."""
        return self.kind not in _FLEETING


def mount_of(folder: Path, *, mounts: Path = MOUNTS) -> Mount | None:
    """Return the file system of a folder, or of the one in which it would be made.

    None where this system does not say.
    """
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    place = folder.resolve()
    # Of mounts on one point the last one is seen, and it stands last in the table.
    over = [mount for mount in map(_parsed, lines) if place.is_relative_to(mount.point)]
    return max(reversed(over), key=lambda mount: len(mount.point.parts), default=None)


def _parsed(line: str) -> Mount:
    before, _, after = line.partition(" - ")
    point = _ESCAPED.sub(lambda found: chr(int(found[1], 8)), before.split(" ")[4])
    return Mount(Path(point), after.split(" ")[0])
