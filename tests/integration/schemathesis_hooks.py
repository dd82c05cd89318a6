"""What schemathesis has to be told of the service beyond its OpenAPI document."""

from typing import Any

import schemathesis
from schemathesis import Case, HookContext, SerializationContext


@schemathesis.serializer("application/x-ndjson", "application/partial-upload")
def _as_it_is(_context: SerializationContext, value: Any) -> bytes:
    """Send documents and bytes as they are; schemathesis has no serialiser for these types."""
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.hook
def before_call(_context: HookContext, case: Case, _arguments: dict[str, Any]) -> None:
    """Ask for what ends: work that is there now, and the events that have happened."""
    match case.operation.definition.raw["operationId"]:
        case "create_lease" if isinstance(case.body, dict):
            if _is_a_wait(case.body.get("wait")):
                case.body["wait"] = 0
        case "follow_events" if case.query.get("follow", True) in (True, "true"):
            case.query["follow"] = "false"
        case _:
            pass


def _is_a_wait(value: object) -> bool:
    """Say whether the service would wait; anything else must be refused, and is sent as it is."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value <= 30
