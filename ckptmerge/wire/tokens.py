"""Access tokens and the audit log as JSON."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ckptmerge.wire.resource import Resource, Sha256, shown

ScopeName = Literal["read", "checkpoint:write", "trial", "admin"]

_ID = "k_01KWEV3080DC39WDAZ6DYQDC32"
_NAME = "olmo-1b's training job"

_TOKEN = {
    "id": _ID,
    "name": _NAME,
    "scopes": ["checkpoint:write"],
    "state": "good",
    "created": "2026-07-01T10:00:00.000Z",
    "expires": "2026-07-31T10:00:00.000Z",
    "revoked": None,
    "used": "2026-07-02T08:00:00.000Z",
}
_CREATED = {**_TOKEN, "used": None, "token": "ckm_01KWEV3080DC39WDAZ6DYQDC32_…", "first": False}

_ENTRY = {
    "number": 2,
    "at": "2026-07-02T08:13:00.000Z",
    "who": _ID,
    "request": "9f2c6a3e5d0b4c1f8a7e6d5c4b3a2f10",
    "action": "pin-best",
    "object": "runs/olmo-1b/best",
    "detail": {"subject": "c_01KWESC2E0AETY51TYGTZTXYMA", "reason": "the merge is slow to load"},
    "previous": "sha256:df16c1c51be8437dd9b3608a3acac00ab25f1395a91265780f3793926b9c47fe",
    "digest": "sha256:848557fc1c03b2877cc08205c08a0867256e83ef35fa7057517c207170ce4626",
}


class NewToken(Resource):
    """A token to make."""

    model_config = shown(
        {"name": _NAME, "scopes": ["checkpoint:write"], "expires_in": 2_592_000},
        {"name": "the dashboard", "scopes": ["read"]},
    )

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """Who or what it is for."""
    scopes: Annotated[list[ScopeName], Field(min_length=1, max_length=4)]
    """What it allows; each allows reading as well, and admin everything."""
    expires_in: Annotated[int, Field(ge=1, le=315_576_000)] | None = None
    """Seconds until it ends by itself; never where left out."""


class TokenResource(Resource):
    """A token that was given out; its secret is known to whoever holds it alone."""

    model_config = shown(_TOKEN)

    id: str
    name: str
    scopes: list[ScopeName]
    state: Literal["good", "expired", "revoked"]
    created: str
    expires: str | None
    revoked: str | None
    used: str | None
    """When it was last used, to the hour."""


class CreatedToken(TokenResource):
    """A new token, shown this once."""

    model_config = shown(_CREATED)

    token: str
    """Send it as ``Authorization: Bearer …``."""
    first: bool
    """Whether the service was open to everybody until now: from now on it asks for a token."""


class TokenPage(Resource):
    """Tokens, oldest first."""

    model_config = shown({"items": [_TOKEN], "next": None})

    items: list[TokenResource]
    next: str | None


class AuditEntry(Resource):
    """Something that somebody changed."""

    model_config = shown(_ENTRY)

    number: int
    at: str
    who: str
    """Id of a token, ``settings`` for the token of the settings, or ``anonymous``."""
    request: str
    """Id of the request, as it stands in the service's log."""
    action: str
    object: str
    """What was changed, by its address beneath ``/v1``."""
    detail: dict[str, Any]
    previous: Sha256
    """Digest of the entry before."""
    digest: Sha256
    """Of all of this and the digest before: an entry that is changed later no longer has it."""


class AuditPage(Resource):
    """Entries of the audit log, oldest first."""

    model_config = shown({"items": [_ENTRY], "next": None})

    items: list[AuditEntry]
    next: str | None
