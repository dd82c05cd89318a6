"""Take a study from its first candidate to its verdict, one step at a time.

The verbs are those of the job in one process; what they need from workers goes over the desk.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from ckptmerge.domain.baselines import NEWEST, midpoint
from ckptmerge.domain.observation import Split
from ckptmerge.domain.study import Study, StudyState
from ckptmerge.domain.task import Order, TaskKind, TaskState
from ckptmerge.domain.trial import Trial
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.errors import (
    CkptmergeError,
    DiskFailedError,
    OutOfSpaceError,
    ProposerError,
    RefusedError,
)
from ckptmerge.evaluation.barrier import require_no_barrier
from ckptmerge.evaluation.scores import DocumentScores
from ckptmerge.proposal.request import Proposal, ProposalRequest
from ckptmerge.storage.blobs import read
from ckptmerge.storage.records import StudyRecord, TaskRecord
from ckptmerge.workflow.ask import Proposer, Stop, ask, design_within
from ckptmerge.workflow.conclude import conclude
from ckptmerge.workflow.desk import Desk, WaitingError
from ckptmerge.workflow.stored import StoredStudy, load_study, require, untold
from ckptmerge.workflow.tasks import add_task, cancel_tasks
from ckptmerge.workflow.tell import kernel_noise, tell


@dataclass(frozen=True)
class Conductor:
    """Moves studies on; call ``advance`` from one thread at a time."""

    desk: Desk
    propose: Proposer
    width: Callable[[], int]
    """How many candidates may be out at once: as many as there are workers, at least one."""

    def advance(self, key: str) -> bool:
        """Take a study one step further; return whether anything changed.

        A study that cannot go on is ended with its reason.

        Raises:
            MissingError: there is no such study.
            OutOfSpaceError: the disk is full; the study stands where it stood.
            DiskFailedError: the disk failed; the study stands where it stood.
        """
        with self.desk.store.read() as snapshot:
            stored = load_study(snapshot, key)
        try:
            if self._announce(stored):
                return True
            if stored.study.state is StudyState.SEARCHING:
                return self._tell(stored) or self._search(stored)
            if stored.study.state is StudyState.FROZEN:
                return self._conclude(stored)
        except WaitingError:
            return True  # more was asked of workers, who must hear of it, or somebody ended it
        except (OutOfSpaceError, DiskFailedError):
            raise  # the disk's fault, and no study's: it goes on once the disk does
        except CkptmergeError as error:
            self._end(stored, str(error))
            return True
        return False

    def _announce(self, stored: StoredStudy) -> bool:
        """Say which tasks were given up since the last time, and what is known of why."""
        failed = [r for r in stored.tasks if r.state == TaskState.FAILED and not r.announced]
        if not failed:
            return False
        with self.desk.store.write() as unit:
            self.desk.require_going_on(unit, stored)
            for record in failed:
                task = record.task
                unit.update(replace(record, announced=True))
                self.desk.emit(
                    unit, stored, "task-failed", task=task.name, trial=task.trial,
                    workers=list(task.tried), code=task.code, reason=task.reason, log=task.log,
                )  # fmt: skip
        return True

    def _conclude(self, stored: StoredStudy) -> bool:
        """Take a frozen study on towards its verdict, once all that was asked for is there."""
        if not all(record.task.over for record in stored.tasks):
            return False
        conclude(self.desk, stored)
        return True

    def _tell(self, stored: StoredStudy) -> bool:
        """Reduce scores that came in to observations; how noisy they are the newest's say."""
        newest = next((t for t in stored.tasks if t.baseline == NEWEST), None)
        outcome = None if newest is None else newest.task.outcome
        waiting = untold(stored)
        if not waiting or newest is None or outcome is None or outcome.repeated is None:
            return False
        variance = kernel_noise(
            self.desk.scores(newest),
            DocumentScores.from_bytes(read(self.desk.blobs, outcome.repeated)),
            stored.study.spec.objective,
        )
        study = stored.study
        for record in waiting:
            study = tell(study, record.task.trial or 0, self.desk.scores(record), variance=variance)
        told = [
            replace(record, observation=study.trials[record.task.trial or 0].observation)
            for record in waiting
        ]
        with self.desk.store.write() as unit:
            self.desk.require_going_on(unit, stored)
            for record in told:
                unit.update(record)
                value = record.observation.value if record.observation else None
                self.desk.emit(unit, stored, "trial-observed", trial=record.task.trial, value=value)
        self._preflight(stored, study, told)
        return True

    def _preflight(self, stored: StoredStudy, study: Study, told: list[TaskRecord]) -> None:
        """Look for a barrier when the last of both ends and their midpoint has been scored.

        Raises:
            BarrierError: the checkpoints do not merge.
        """
        size = len(study.window)
        roles = {
            "newest": MergeWeights.vertex(size, -1),
            "oldest": MergeWeights.vertex(size, 0),
            "midpoint": midpoint(size),
        }
        records = {r.task.order.weights: r for r in (*stored.tasks, *told) if r.observation}
        if not all(weights in records for weights in roles.values()):
            return
        if not any(record.task.order.weights in roles.values() for record in told):
            return
        require_no_barrier(
            **{role: self.desk.scores(records[weights]) for role, weights in roles.items()},
            objective=study.spec.objective,
        )

    def _search(self, stored: StoredStudy) -> bool:
        """Queue the next candidate, or freeze the winner."""
        study = stored.study
        lost = next((t for t in study.trials if t.name == NEWEST and t.reason is not None), None)
        if lost is not None:
            raise RefusedError(f"the newest checkpoint could not be scored: {lost.reason}")
        known = {trial.name for trial in study.trials}
        if design_within(len(study.window), study.spec.budget).keys() <= known:
            # There is no proposing from a design that is still out.
            designing = any(trial.name is not None for trial in study.pending)
            if designing or len(study.pending) >= max(self.width(), 1):
                return False
        step = ask(study, self._proposed)
        if isinstance(step, Stop) and study.pending:
            return False
        if isinstance(step, Stop):
            self._freeze(stored, step)
        else:
            self._queue(stored, step[1])
        return True

    def _proposed(self, request: ProposalRequest) -> Proposal:
        """Ask the proposer; whatever goes wrong in it must not keep the study from ending.

        Raises:
            ProposerError: it failed.
        """
        try:
            return self.propose(request)
        except (CkptmergeError, OSError):  # the latter is the disk's or the system's fault
            raise
        except Exception as error:
            raise ProposerError(
                f"the proposer failed ({type(error).__name__}: {error}); this is a bug: report it"
            ) from error

    def _queue(self, stored: StoredStudy, trial: Trial) -> None:
        with self.desk.store.write() as unit:
            self.desk.require_going_on(unit, stored)
            add_task(
                unit,
                key=self.desk.new_id("l"),
                study=stored.record.id,
                kind=TaskKind.EVALUATE,
                name=f"trial-{trial.index}",
                order=Order(weights=trial.weights, split=Split.SEARCH, repeat=trial.name == NEWEST),
                trial=trial.index,
                baseline=trial.name,
                now=self.desk.now(),
            )
            self.desk.emit(unit, stored, "trial-proposed", trial=trial.index, name=trial.name)

    def _freeze(self, stored: StoredStudy, stop: Stop) -> None:
        frozen = stored.study.freeze(stop.winner, stop.reason)
        record = replace(
            stored.record, state=frozen.state, winner=frozen.winner, stopped=frozen.stopped
        )
        with self.desk.store.write() as unit:
            self.desk.require_going_on(unit, stored)
            unit.update(record)
            self.desk.emit(unit, stored, "study-frozen", winner=stop.winner, reason=stop.reason)

    def _end(self, stored: StoredStudy, reason: str) -> None:
        """End a study that cannot go on; the best stays as it is."""
        with self.desk.store.write() as unit:
            record = require(unit, StudyRecord, stored.record.id, "study")
            if record.state is not stored.record.state:
                return  # somebody has ended it meanwhile, for a reason of their own
            unit.update(replace(record, state=StudyState.REFUSED, stopped=reason))
            cancel_tasks(unit, record.id)
            self.desk.emit(unit, stored, "study-refused", artifact=None, reason=reason)
