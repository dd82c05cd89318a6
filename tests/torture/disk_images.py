"""A file system of its own in a file, and that file as it would be if power were lost right now.

What a process writes lies in the cache of the file system above the loop device, until it is synced
or the kernel gets to it; the file beneath has what has reached the disk. So a copy of that file,
mounted, is the disk after a power cut: the journal is replayed, and what was only cached is gone.
It is a cut between two writes of the device, and not within one.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.torture.finding import CannotTryError, require_program, require_root

MEGABYTES = 256

_TRIES = 50
"""Of a copy: one is taken again where the device was written to meanwhile."""


class DiskImage:
    """A mounted ext4 file system in a file."""

    def __init__(self, image: Path, device: str, folder: Path) -> None:
        self._image = image
        self._statistics = Path("/sys/block") / Path(device).name / "stat"
        self.folder = folder
        """Where it is mounted."""

    def cut(self, copy: Path) -> None:
        """Copy what the disk has at one moment.

        Raises:
            CannotTryError: the disk is never left alone for as long as a copy takes.
        """
        for _ in range(_TRIES):
            before = self._written()
            _run("cp", "--sparse=always", self._image, copy)
            if before is not None and before == self._written():
                return
            time.sleep(0.01)
        raise CannotTryError("the disk was written to during every copy; is anything else there?")

    def _written(self) -> tuple[int, int] | None:
        """Count writes and sectors written; None while a write is under way.

        See Documentation/admin-guide/iostats.rst of the kernel.
        """
        fields = [int(field) for field in self._statistics.read_text().split()]
        return (fields[4], fields[6]) if fields[8] == 0 else None


@contextmanager
def disk_image(scratch: Path) -> Iterator[DiskImage]:
    """Make a disk, mount it, and take it down at the end however that comes."""
    require_root()
    image = scratch / "disk.img"
    with image.open("wb") as file:
        file.truncate(MEGABYTES * 2**20)
    _run(require_program("mkfs.ext4"), "-q", "-F", image)
    with mounted(image, scratch / "disk") as device:
        yield DiskImage(image, device, scratch / "disk")
    image.unlink()


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[str]:
    """Mount an image, which replays its journal; yields its device.

    Raises:
        CannotTryError: this machine has no loop devices, or may not mount them.
    """
    folder.mkdir(exist_ok=True)
    device = _run("losetup", "--find", "--show", image)
    try:
        _run("mount", "-t", "ext4", device, folder)
        try:
            yield device
        finally:
            _unmount(folder)
    finally:
        _run("losetup", "--detach", device)


@contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[None]:
    """Mount a disk in memory that is soon full."""
    require_root()
    folder.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder)
    try:
        yield
    finally:
        _unmount(folder)


def _unmount(folder: Path) -> None:
    for _ in range(_TRIES):
        if subprocess.run(["umount", folder], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)  # a process that was killed may still let go of it
    _run("umount", "--lazy", folder)


def _run(program: str, *arguments: str | Path) -> str:
    command = [require_program(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotTryError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()
