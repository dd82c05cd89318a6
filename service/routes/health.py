"""Whether the service lives, whether it can work, and its metrics."""

from collections.abc import Callable, Mapping

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ckptmerge.domain.token import Scope
from ckptmerge.wire.resource import shown
from service.gate.auth import needs, public
from service.interface import refusals
from service.problems import NOT_READY, FieldError, problem_response
from service.telemetry import Metrics


class Alive(BaseModel):
    """The process answers."""

    model_config = shown({"status": "alive"})

    status: str = "alive"


class Readiness(BaseModel):
    """The service can do its work."""

    model_config = shown(
        {
            "ready": True,
            "checks": {"database": True, "studies": True},
            "workers": {"working": 2, "quarantined": 0},
        }
    )

    ready: bool = True
    checks: dict[str, bool]
    """By name: whether that part works."""
    workers: dict[str, int] = {}
    """How many were heard of lately, by whether they are given work. None at all is no failure."""


def health_router(
    ready: Callable[[], Mapping[str, bool]],
    metrics: Metrics,
    *,
    workers: Callable[[], Mapping[str, int]] = dict,
) -> APIRouter:
    """Make the routes that an orchestrator and a Prometheus server ask.

    Args:
        ready: Looks at the parts that every request needs, such as the database and the disk, and
            says by name whether they work; may take as long as they do, in a thread.
        metrics: What ``GET /metrics`` shows.
        workers: Counts workers, by whether they are given work.
    """
    router = APIRouter(tags=["health"])

    @router.get(
        "/healthz",
        operation_id="is_alive",
        dependencies=[public()],
        summary="Does the process answer?",
    )
    async def alive() -> Alive:
        return Alive()

    @router.get(
        "/readyz",
        operation_id="is_ready",
        dependencies=[public()],
        summary="Can the service work?",
        response_model=Readiness,
        responses=refusals({NOT_READY: "not working: disk; the service's log says why"}),
    )
    def readiness(request: Request) -> Readiness | Response:
        checks = dict(ready())
        failing = [name for name, works in checks.items() if not works]
        if not failing:
            return Readiness(checks=checks, workers=dict(workers()))
        return problem_response(
            NOT_READY,
            f"not working: {', '.join(failing)}; the service's log says why",
            request_id=getattr(request.state, "request_id", "none"),
            errors=[FieldError(pointer=f"/checks/{name}", detail="fails") for name in failing],
        )

    @router.get(
        "/metrics",
        operation_id="get_metrics",
        dependencies=[needs(Scope.READ)],
        summary="Metrics in Prometheus's text format",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def shown() -> Response:
        return Response(metrics.render(), media_type=metrics.media_type)

    return router
