"""Posteriors: what a study's surrogate believes, computed when somebody asks."""

import asyncio
from collections import OrderedDict
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query

from ckptmerge.domain.token import Scope
from ckptmerge.errors import InvalidInputError, InvalidWeightsError, MissingError, RefusedError
from ckptmerge.proposal.belief import PosteriorRequest
from ckptmerge.wire.posterior import PosteriorResource
from ckptmerge.workflow.believe import (
    Believer,
    Question,
    posterior_request,
    posterior_resource,
    question,
    read_candidate,
)
from ckptmerge.workflow.stored import StoredStudy, load_study
from service.dependencies import Service, State
from service.gate.auth import needs
from service.interface import refusals

KEPT = 64
"""Answers that are remembered: some tens of kB each, for studies that people look at together."""

_REFUSALS = refusals(
    {
        MissingError: "there is no study 's_01JZ'; check the name, and whether this is the service "
        "you mean",
        RefusedError: "5 observations show too little of how a loss over 8 checkpoints bends; ask "
        "again when there are 10",
        InvalidInputError: "a candidate weighs 3 checkpoints, the window has 2",
        InvalidWeightsError: "merge weights must sum to 1, these sum to 1.1: [0.4, 0.7]",
    }
)


def posterior_router(believe: Believer) -> APIRouter:
    """Make the route of posteriors.

    Args:
        believe: Computes one; called by one request at a time, since the studies that go on wait
            for the same process.
    """
    router = APIRouter(prefix="/v1/studies", tags=["studies"])
    beliefs = _Beliefs(believe)

    @router.head(
        "/{study}/posterior",
        operation_id="head_posterior",
        dependencies=[needs(Scope.READ)],
        responses=_REFUSALS,
    )
    @router.get(
        "/{study}/posterior",
        operation_id="get_posterior",
        dependencies=[needs(Scope.READ)],
        responses=_REFUSALS,
    )
    async def get_posterior(
        study: Annotated[str, Path(examples=["s_01JZ"])],
        service: Service,
        weights: Annotated[
            list[str] | None,
            Query(
                max_length=16,
                description="Merge weights to predict, oldest checkpoint first; may be repeated.",
                examples=[["0.4,0.6"]],
            ),
        ] = None,
    ) -> PosteriorResource:
        """Say what the surrogate believes: every trial, a line to draw, and the next candidate."""
        candidates = tuple(map(read_candidate, weights or ()))
        stored = await service.read(lambda snapshot: load_study(snapshot, study))
        request = posterior_request(stored.study, candidates)
        return await beliefs.of(service, question(stored, candidates), stored, request)

    return router


class _Beliefs:
    """Posteriors as they were computed, the least recently asked for forgotten first."""

    def __init__(self, believe: Believer) -> None:
        self._believe = believe
        self._known: OrderedDict[Question, PosteriorResource] = OrderedDict()
        self._computing = asyncio.Lock()

    async def of(
        self, service: State, asked: Question, stored: StoredStudy, request: PosteriorRequest
    ) -> PosteriorResource:
        """Return the answer to a question, computed where it is not known."""
        if asked not in self._known:
            async with self._computing:
                # Whoever waited may find that the one before has asked the same.
                if asked not in self._known:
                    found = await service.off_loop(partial(self._believe, request))
                    self._known[asked] = posterior_resource(stored, found)
                    while len(self._known) > KEPT:
                        self._known.popitem(last=False)
        self._known.move_to_end(asked)
        return self._known[asked]
