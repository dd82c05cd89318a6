"""The doorkeeper: lets a request in, or says why not, by its head alone.

The answers are those of RFC 6750, section 3: 401 without a good token, 403 where a good one does
not allow this.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import Scope

from service.gate.auth import Access, Doors, Ended, Identity, Needs
from service.gate.throttle import Throttle
from service.problems import INSUFFICIENT_SCOPE, Kind, kind_of_status

_UNAUTHORIZED = kind_of_status(401)

_REALM = 'Bearer realm="ckptmerge"'


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request does not get past the gate."""

    kind: Kind
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Admission:
    """Who was let in, and to what."""

    identity: Identity
    needs: Needs | None
    """What the route asks for; None where there is none, and the router will say so."""


class Doorkeeper:
    """Decides who is let in to which route.

    Args:
        access: Knows the tokens.
        doors: Know what routes ask for.
        throttle: Counts wrong tokens.
    """

    def __init__(self, access: Access, doors: Doors, throttle: Throttle) -> None:
        self._access = access
        self._doors = doors
        self._throttle = throttle

    def look(self) -> None:
        """Look at all routes.

        Raises:
            RuntimeError: one does not say what it asks for.
        """
        self._doors.look()

    def answer(self, scope: Scope, headers: Headers) -> Admission | Refusal:
        """Let a request in, or say why not.

        A token that was given out is looked at however often its address was wrong: nobody guesses
        it. The one of the settings, which a person may have chosen, is not looked at meanwhile.
        """
        needed = self._doors.needs(scope)
        if needed is not None and not needed.scopes:
            return Admission(Identity("", frozenset()), needed)
        identity = self._identity(scope, headers)
        if isinstance(identity, Refusal):
            return identity
        if needed is not None and not needed.met_by(identity.allowed):
            return _insufficient(needed)
        self._access.note(identity)
        return Admission(identity, needed)

    def still(self, admission: Admission) -> Refusal | None:
        """Say whether somebody who was let in may go on."""
        public = admission.needs is not None and not admission.needs.scopes
        if public or self._access.still(admission.identity):
            return None
        return _unauthorized("the token has come to its end meanwhile; ask for another", wrong=True)

    def _identity(self, scope: Scope, headers: Headers) -> Identity | Refusal:
        token = _bearer(headers)
        held = None if token is None else self._access.holder(token)
        if isinstance(held, Identity):
            return held
        anybody = self._access.anybody()
        if anybody is not None:
            return anybody
        if "authorization" not in headers:
            return _unauthorized(
                "this service asks for a token: send `Authorization: Bearer …`, or set "
                "CKPTMERGE_TOKEN where ckptmerge runs"
            )
        if isinstance(held, Ended):  # its secret was right, so nothing was guessed
            return _unauthorized(
                f"the token is {held.how}; ask whoever runs this service for another", wrong=True
            )
        return self._chosen(token, _address(scope))

    def _chosen(self, token: str | None, address: str) -> Identity | Refusal:
        """Take the token of the settings, from where nobody was wrong too often."""
        wait = self._throttle.wait(address)
        if wait:
            return Refusal(
                kind_of_status(429),
                f"too many wrong tokens came from {address}; mend the one that is wrong, and try "
                f"again in {wait} s",
                {"Retry-After": str(wait)},
            )
        chosen = None if token is None else self._access.chosen(token)
        if chosen is not None:
            return chosen
        self._throttle.count(address)
        return _unauthorized(
            "the token is not this service's; use the one that you were given, or that the "
            "service was started with",
            wrong=True,
        )


def _bearer(headers: Headers) -> str | None:
    """Return the token of a request that has exactly one."""
    given = headers.getlist("authorization")
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" else None


def _address(scope: Scope) -> str:
    """Return where a request comes from; behind a proxy the server has put in who asked it."""
    return (scope.get("client") or ("unknown",))[0]


def _unauthorized(detail: str, *, wrong: bool = False) -> Refusal:
    challenge = _REALM + (', error="invalid_token"' if wrong else "")
    return Refusal(_UNAUTHORIZED, detail, {"WWW-Authenticate": challenge})


def _insufficient(needed: Needs) -> Refusal:
    challenge = f'{_REALM}, error="insufficient_scope", scope="{needed.scopes[0]}"'
    return Refusal(
        INSUFFICIENT_SCOPE,
        f"this takes a token with the scope {' or '.join(needed.scopes)}, or admin, and this one "
        "does not have it; ask whoever runs this service for one",
        {"WWW-Authenticate": challenge},
    )
