"""What the service costs: a real `ckptmerge serve` on SQLite and a folder, over HTTP on loopback.

The benchmark and the service share the machine, as a trainer or worker beside a service does.
"""

from collections.abc import Iterator

from ckptmerge.client.client import Client
from tests.benchmarks import leasing, searching, transfers
from tests.benchmarks.pausing_worker import WINDOW
from tests.benchmarks.served import served
from tests.benchmarks.studies import Studies
from tests.benchmarks.table import Row
from tests.benchmarks.trained import trained_run


def rows() -> Iterator[Row]:
    """Measure, and yield the rows."""
    run = trained_run()
    with served(run.held_out) as service:
        yield from transfers.rows(service)
    with served(run.held_out) as service, Client(service.url) as client:
        studies = Studies(client, run.checkpoints[-WINDOW:])
        yield from searching.rows(service, studies, run.held_out)
        # Last: some of its workers wait until the service ends.
        yield from leasing.rows(service, studies, run.held_out)
