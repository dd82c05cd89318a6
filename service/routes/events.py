"""Events: what happened, as it happens."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from sse_starlette import EventSourceResponse, ServerSentEvent

from ckptmerge.domain.token import Scope
from ckptmerge.storage.records import EventRecord
from ckptmerge.wire import examples
from ckptmerge.wire.resource import RunName
from ckptmerge.wire.studies import EventResource
from ckptmerge.workflow.answers import event_resource
from service.dependencies import Service, State
from service.gate.auth import needs

router = APIRouter(prefix="/v1/events", tags=["events"])

_EVENT = {
    "type": "object",
    "description": "One event of the stream.",
    "properties": {
        "id": {"type": "string", "description": "What Last-Event-ID takes."},
        "event": {"type": "string", "description": "Its kind."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": EventResource.model_json_schema(),
        },
    },
}
_SENT = {
    "id": examples.EVENT["id"],
    "event": examples.EVENT["kind"],
    "data": json.dumps(examples.EVENT),
}

PAUSE = 0.5
"""Seconds between looks for new events."""

_FAREWELL = 10 * PAUSE
"""Seconds in which a stream ends by itself as the service does; cut off, it would be half one."""


@router.get(
    "",
    operation_id="follow_events",
    dependencies=[needs(Scope.READ)],
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": {"schema": _EVENT, "example": _SENT}}}},
)
async def follow_events(
    service: Service,
    run: RunName | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
    follow: Annotated[bool, Query(description="Go on waiting for new ones.")] = True,
) -> EventSourceResponse:
    """Send every event, or those after ``Last-Event-ID``, and then new ones as they happen."""
    events = _events(service, run, last_event_id, follow=follow)
    return EventSourceResponse(events, shutdown_grace_period=_FAREWELL)


async def _events(
    service: State, run: str | None, after: str | None, *, follow: bool
) -> AsyncIterator[ServerSentEvent]:
    equal: dict[str, Any] = {} if run is None else {"run": run}
    while True:
        seen = after
        found = await service.read(
            lambda snapshot, seen=seen: snapshot.find(EventRecord, after=seen, limit=1000, **equal)
        )
        for record in found:
            after = record.id
            resource = event_resource(record)
            yield ServerSentEvent(data=resource.model_dump_json(), event=record.kind, id=record.id)
        if not found and (service.draining or not follow):
            return
        if not found:
            await asyncio.sleep(PAUSE)
