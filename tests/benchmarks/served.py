"""A real `ckptmerge serve` beside a benchmark: where it is, and how much memory it holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.trained import CACHE
from tests.e2e.running import RunningService

_NEW_PEAK = "5"
"""Written to /proc/PID/clear_refs, makes the present memory the peak (proc(5))."""


class Served:
    """A running service and its process."""

    def __init__(self, service: RunningService, folder: Path) -> None:
        self.url = service.url
        self.folder = folder
        """On the service's disk, for whatever is to be compared with it."""
        (self.process,) = service.processes("serve --data")

    def begin_peak(self) -> int:
        """Forget how much memory the process ever held; return the bytes that it holds now."""
        Path(f"/proc/{self.process}/clear_refs").write_text(_NEW_PEAK)
        return self._memory("VmRSS")

    def peak(self) -> int:
        """Return the most memory in bytes that it has held since."""
        return self._memory("VmHWM")

    def _memory(self, field: str) -> int:
        for line in Path(f"/proc/{self.process}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise LookupError(f"no {field} in the status of process {self.process}")


@contextmanager
def served(held_out: Path) -> Iterator[Served]:
    """Run a service without workers on SQLite and a folder; remove both at the end."""
    # Beside the repository: /tmp may be memory, and then no disk would be measured.
    CACHE.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="benchmark-", dir=CACHE) as holder:
        folder = Path(holder) / "service"
        folder.mkdir()
        with RunningService(folder, held_out, workers=0) as service:
            yield Served(service, Path(holder))
