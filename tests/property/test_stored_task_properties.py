"""The state machine of tasks again, with the task in a real store that is opened again at times."""

from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis.stateful import rule, run_state_machine_as_test

from ckptmerge.domain.task import Task
from ckptmerge.storage.records import TaskRecord
from ckptmerge.storage.store import Store
from tests.property.test_task_properties import Leases

STEPS = settings(
    max_examples=8, stateful_step_count=25, deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip


class StoredLeases(Leases):
    """Leases whose task is read before each look at it, and written after each change."""

    def __init__(self, open_again: Callable[[], Store]) -> None:
        self._open_again = open_again
        self._store = open_again()
        self._known: Task | None = None
        with self._store.write() as unit:
            unit.delete(TaskRecord, "l")
        super().__init__()

    @property
    def task(self) -> Task:
        """The task as the store has it; the same object for as long as it is equal."""
        with self._store.read() as snapshot:
            record = snapshot.get(TaskRecord, "l")
        assert record is not None
        assert record.state == record.task.state
        if record.task != self._known:
            self._known = record.task
        return self._known

    @task.setter
    def task(self, task: Task) -> None:
        record = TaskRecord(
            id=task.id, study=task.study, state=task.state, kind=task.kind, task=task, created=0.0
        )
        with self._store.write() as unit:
            known = unit.get(TaskRecord, task.id)
            assert known is None or known.task == self._known, "somebody else has written"
            _ = unit.insert(record) if known is None else unit.update(record)
        self._known = task

    @rule()
    def restart(self) -> None:
        """Open the records again, as a service does that was started again."""
        before = self._known
        self._store.close()
        self._store = self._open_again()
        assert self.task is before

    def teardown(self) -> None:
        """Let go of the connections."""
        self._store.close()


def test_a_task_in_a_store_keeps_the_rules_of_leases(stores: Callable[[], Store]) -> None:
    run_state_machine_as_test(lambda: StoredLeases(stores), settings=STEPS)
