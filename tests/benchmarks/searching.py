"""The whole loop between two evaluations: hand in, tell, fit, ask, queue, wake, lease, fetch.

A real worker does everything but the evaluation, which is a pause of a stated length, answered with
the scores of a loss that is known. The proposer is the service's own, a process beside it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from ckptmerge.domain.observation import Objective
from ckptmerge.domain.space import SearchSpace
from ckptmerge.domain.weights import MergeWeights
from ckptmerge.evaluation.paired import bits_per_byte, replicates
from ckptmerge.proposal.request import ObservedPoint, ProposalRequest
from ckptmerge.workflow.open_studies import LOWER, UPPER
from ckptmerge.workflow.proposer_process import ProposerProcess
from ckptmerge.workflow.tell import KERNEL_NOISE_FLOOR
from tests.benchmarks.known_loss import KnownLoss
from tests.benchmarks.latency import latencies, timed
from tests.benchmarks.pausing_worker import (
    DESIGN,
    WINDOW,
    Bench,
    Call,
    Evaluation,
    Searched,
    search,
)
from tests.benchmarks.served import Served
from tests.benchmarks.studies import Studies
from tests.benchmarks.table import Row, median, verdict

PART = "service"
IMMEDIATE, HANDFUL = 8, 5
"""Studies of a worker that answers at once, and candidates that one really takes its time over."""

SHARE = 0.10
"""Target: of a worker's time that it does not evaluate, at ``EVALUATION`` seconds."""

EVALUATION, SHORT = 10.0, 1.0


@dataclass(frozen=True)
class Turn:
    """What a worker did from the end of one evaluation to the beginning of the next; seconds."""

    searched: bool
    """Whether the next candidate had to be proposed; else it was one of the initial design."""
    evaluating: float
    """Of the next candidate."""
    whole: float
    uploading: float
    """Of the scores."""
    outcome: float
    """Until it was acknowledged."""
    proposing: float
    """From then until the next candidate was leased."""

    @property
    def fetching(self) -> float:
        """The rest: describing scores, laying files out, looking whether they are right."""
        return self.whole - self.uploading - self.outcome - self.proposing


def rows(service: Served, studies: Studies, held_out: Path) -> Iterator[Row]:
    """Measure, and yield the rows."""
    print("service: candidates proposed for a worker that answers at once", flush=True)

    def searched(design: float, searched: float, budget: int = 24) -> Searched:
        with studies.study(WINDOW, budget) as number:
            loss = KnownLoss(held_out, WINDOW, seed=number)
            return search(service.url, Bench(loss, design, searched))

    yield from _proposals([searched(0.0, 0.0) for _ in range(IMMEDIATE)])
    print(f"service: a study of {SHORT:g} s evaluations", flush=True)
    short = _turns(searched(SHORT, SHORT))
    print(f"service: {HANDFUL} evaluations of {EVALUATION:g} s", flush=True)
    long = _turns(searched(0.0, EVALUATION, budget=DESIGN + HANDFUL))
    yield from _shares(short, long)


def _turns(searched: Searched) -> list[Turn]:
    """Split the time between evaluations by what the worker asked for then."""
    return [_turn(before, after, searched.calls) for before, after in pairwise(searched.done)]


def _turn(before: Evaluation, after: Evaluation, calls: Sequence[Call]) -> Turn:
    between = [call for call in calls if before.end <= call.begin <= after.begin]
    outcome, lease = (
        next(call for call in between if call.what.endswith(end)) for end in ("/outcome", "/leases")
    )
    return Turn(
        searched=after.trial >= DESIGN,
        evaluating=after.end - after.begin,
        whole=after.begin - before.end,
        uploading=sum(
            call.end - call.begin for call in between if call.what.startswith("PUT /v1/b")
        ),
        outcome=outcome.end - outcome.begin,
        proposing=lease.end - outcome.end,
    )


def _proposals(searches: Sequence[Searched]) -> Iterator[Row]:
    """Hold the loop against the proposer alone, and say where the rest goes."""
    turns = [turn for each in searches for turn in _turns(each)]
    searched = [turn.proposing for turn in turns if turn.searched]
    alone = _alone(searches)
    yield Row(
        part=PART,
        what=f"from an outcome to the lease of the next candidate of {WINDOW}, proposed from "
        f"{DESIGN} observations or more",
        ours=latencies(searched),
        against=f"the proposer alone {latencies(alone)}",
        ratio=f"{median(searched) / median(alone):.2f} (p50)",
    )
    designed = [turn.proposing for turn in turns if not turn.searched]
    yield Row(
        part=PART,
        what="the same where the next candidate is of the initial design",
        ours=latencies(designed),
    )
    for what, name in (
        ("its scores uploaded", "uploading"),
        ("its outcome acknowledged", "outcome"),
        ("the rest on the worker: files laid out and looked at, scores described", "fetching"),
    ):
        yield Row(
            part=PART,
            what=f"beside a candidate's lease: {what}",
            ours=latencies([getattr(turn, name) for turn in turns]),
        )


def _alone(searches: Sequence[Searched]) -> list[float]:
    """Time a proposer of our own on the very requests that the service's was asked.

    Raises:
        RuntimeError: it answers something else, so they were other requests.
    """
    taken: list[float] = []
    with ProposerProcess() as proposer:
        for each in searches:
            points = [_point(each.loss, evaluation.weights) for evaluation in each.done]
            proposer.propose(_request(points[:DESIGN]))  # the first one of a process warms it up
            for number in range(DESIGN, len(points)):
                request = _request(points[:number])
                answer = timed(taken, partial(proposer.propose, request))
                if answer.weights != points[number].weights:
                    raise RuntimeError(f"candidate {number} was proposed from something else")
    return taken


def _point(loss: KnownLoss, weights: MergeWeights) -> ObservedPoint:
    scores, objective = loss.scores(weights), Objective()
    return ObservedPoint(
        weights,
        bits_per_byte(scores, objective),
        KERNEL_NOISE_FLOOR,
        replicates(scores, objective),
    )


def _request(points: Sequence[ObservedPoint]) -> ProposalRequest:
    space = SearchSpace.simplex(WINDOW, LOWER, UPPER)
    return ProposalRequest(space, tuple(points), pending=(), seed=0, index=len(points))


def _shares(short: Sequence[Turn], long: Sequence[Turn]) -> Iterator[Row]:
    """Say how much of a worker's time is not spent evaluating."""
    lost = sum(turn.whole for turn in short)
    for what, share, aimed in (
        (
            f"measured over {HANDFUL} searched candidates of {EVALUATION:g} s",
            _share([turn for turn in long if turn.searched]),
            True,
        ),
        (f"measured over a whole study of {len(short) + 1} evaluations of {SHORT:g} s",
         _share(short), False),
        (f"the same study at {EVALUATION:g} s, extrapolated",
         lost / (lost + EVALUATION * len(short)), True),
    ):  # fmt: skip
        yield Row(
            part=PART,
            what=f"share of a worker's time not spent evaluating: {what}",
            ours=f"{share:.1%}",
            target=f"<= {SHARE:.0%}" if aimed else "",
            met=verdict(share <= SHARE) if aimed else "",
        )


def _share(turns: Sequence[Turn]) -> float:
    lost = sum(turn.whole for turn in turns)
    return lost / (lost + sum(turn.evaluating for turn in turns))
