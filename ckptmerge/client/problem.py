"""What a service says when it does not do as asked, as an error of ours (RFC 9457)."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from httpx2 import Response

from ckptmerge.errors import ServiceError

PROBLEM = "application/problem+json"


def error_of(response: Response) -> ServiceError:
    """Turn an answer that is not a success, and has been read, into an error."""
    status, asked = response.status_code, f"{response.request.method} {response.request.url}"
    problem = _problem(response)
    if problem is None:
        return ServiceError(
            f"{asked} was answered with {status} {response.reason_phrase}, and not in the way a "
            "ckptmerge service answers; check the address and what stands before the service",
            status=status,
        )
    said = str(problem.get("detail") or problem.get("title") or response.reason_phrase)
    identity = problem.get("request_id")
    context = f"{asked}, status {status}" + (f", request {identity}" if identity else "")
    return ServiceError(f"{said} ({context})", status=status, kind=_kind(problem.get("type")))


def retry_after(response: Response) -> float | None:
    """Return how many seconds a service asks to be left alone (RFC 9110, section 10.2.3).

    A date is read against the answer's own ``Date``: the two clocks need not agree.
    """
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    until, since = _date(value), _date(response.headers.get("Date", ""))
    return max(0.0, (until - since).total_seconds()) if until and since else None


def _problem(response: Response) -> dict[str, Any] | None:
    """Return the answer's problem; a HEAD has none to show, and its status must do."""
    if response.headers.get("Content-Type", "").partition(";")[0].strip() != PROBLEM:
        return None
    if response.request.method == "HEAD":
        return {}
    try:
        problem = response.json()
    except ValueError:
        return None
    return problem if isinstance(problem, dict) else None


def _kind(link: object) -> str | None:
    if not isinstance(link, str) or link == "about:blank":
        return None
    return link.rstrip("/").rpartition("/")[2] or None


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
