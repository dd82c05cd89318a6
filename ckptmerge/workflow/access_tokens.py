"""Give out tokens, end them, and note that they are used; all but the last on the audit log."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ckptmerge.domain.audit_log import ANONYMOUS, Actor
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.token import SECRET_BYTES, Grant, Scope, write_token
from ckptmerge.errors import InvalidInputError, NameTakenError, RefusedError
from ckptmerge.storage.records import TokenRecord
from ckptmerge.storage.store import Snapshot, Unit
from ckptmerge.wire.tokens import TokenResource
from ckptmerge.workflow.answers import timestamp
from ckptmerge.workflow.audit_log import record_act
from ckptmerge.workflow.stored import every, require


@dataclass(frozen=True)
class GivenToken:
    """A token that was given out just now."""

    record: TokenRecord
    text: str
    """The token itself, which is kept nowhere."""


def create_token(
    unit: Unit,
    actor: Actor,
    *,
    name: str,
    scopes: Sequence[Scope],
    expires: float | None,
    now: float,
    new_id: Callable[[str], str],
    random: Callable[[int], bytes],
) -> GivenToken:
    """Give out a token.

    Names of tokens that are good are unique, so a request whose answer was lost, and that is sent
    again, is refused rather than leave behind a token that nobody has.

    Args:
        unit: Where tokens are kept.
        actor: Who gives it out.
        name: Who or what it is for.
        scopes: What it allows.
        expires: When it ends by itself, in seconds since 1970.
        now: Seconds since 1970.
        new_id: Makes an id.
        random: Returns so many random bytes.

    Raises:
        NameTakenError: a token of this name is good.
        InvalidInputError: it is the first one and not an admin's: nobody could make another.
        RefusedError: it would be the first one, but somebody else has made one meanwhile.
    """
    if actor.who == ANONYMOUS:
        _require_to_be_first(unit, scopes)
    taken = [t for t in every(unit, TokenRecord) if t.name == name and t.grant.ended(now) is None]
    if taken:
        raise NameTakenError(
            f"{taken[0].id} goes by the name {name!r} already; revoke it, or choose another name. "
            "If the answer that held its secret was lost, revoke it: the secret is kept nowhere"
        )
    key = new_id("k")
    text = write_token(key, random(SECRET_BYTES))
    allowed = tuple(scope for scope in Scope if scope in scopes)
    grant = Grant(hash=Digest.of_bytes(text.encode()), scopes=allowed, expires=expires)
    record = unit.insert(TokenRecord(id=key, name=name, grant=grant, created=now))
    detail = {"name": name, "scopes": [str(scope) for scope in allowed], "expires": expires}
    record_act(unit, actor, "create-token", f"tokens/{key}", now=now, **detail)
    return GivenToken(record, text)


def revoke_token(unit: Unit, actor: Actor, key: str, *, now: float) -> TokenRecord:
    """End a token; one that has ended stays as it is.

    Raises:
        MissingError: there is no such token.
    """
    record = require(unit, TokenRecord, key, "token")
    grant = record.grant.revoke(now)
    if grant == record.grant:
        return record
    record_act(unit, actor, "revoke-token", f"tokens/{key}", now=now, name=record.name)
    return unit.update(replace(record, grant=grant))


def note_use(unit: Unit, used: Mapping[str, float]) -> None:
    """Note when tokens were last used, by their ids."""
    for key, at in used.items():
        record = unit.get(TokenRecord, key)
        if record is not None and (record.used is None or record.used < at):
            unit.update(replace(record, used=at))


def all_tokens(snapshot: Snapshot) -> list[TokenRecord]:
    """Return every token that was ever given out."""
    return list(every(snapshot, TokenRecord))


def token_resource(record: TokenRecord, *, now: float) -> TokenResource:
    """Describe a token."""
    grant = record.grant
    return TokenResource(
        id=record.id,
        name=record.name,
        scopes=[scope.value for scope in grant.scopes],
        state=_state(grant, now),
        created=timestamp(record.created),
        expires=None if grant.expires is None else timestamp(grant.expires),
        revoked=None if grant.revoked is None else timestamp(grant.revoked),
        used=None if record.used is None else timestamp(record.used),
    )


def _require_to_be_first(unit: Unit, scopes: Sequence[Scope]) -> None:
    if unit.count(TokenRecord):
        raise RefusedError(
            "somebody has made a token meanwhile, and this service asks for one from now on; "
            "send it as `Authorization: Bearer …`"
        )
    if Scope.ADMIN not in scopes:
        raise InvalidInputError(
            "the first token of a service must have the scope admin: from then on every request "
            "needs a token, and only an admin's can make others"
        )


def _state(grant: Grant, now: float) -> Literal["good", "expired", "revoked"]:
    ended = grant.ended(now)
    if ended is None:
        return "good"
    return "revoked" if ended == grant.revoked else "expired"
