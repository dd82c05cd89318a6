"""Who asks, and what they may do: tokens known from memory, and the scope that each route asks for.

A route says what it asks for where it is declared, by ``dependencies=[needs(Scope.READ)]``. The
gate looks that up, and decides by it, before a byte of the body is read; the route looks again
whether the gate has decided about this very route. One that says nothing keeps the service from
starting.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from fastapi import Depends, Request
from fastapi.params import Depends as Declared
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.routing import BaseRoute, Match
from starlette.types import Scope as Asked

from ckptmerge.domain.audit_log import ANONYMOUS, SETTINGS
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.token import SECRET_BYTES, Grant, Scope, key_of, widened, write_token
from ckptmerge.storage.records import TokenRecord

_HOUR = 3600.0


# --------------------------------------------------------------------------- what is asked for


@dataclass(frozen=True, slots=True)
class Needs:
    """What a route asks for: any one of these scopes, or nothing where there are none."""

    scopes: tuple[Scope, ...]

    def met_by(self, allowed: frozenset[Scope]) -> bool:
        """Say whether this is enough."""
        return not self.scopes or bool(allowed.intersection(self.scopes) or Scope.ADMIN in allowed)

    async def __call__(self, request: Request) -> None:
        """Make sure that the gate has decided by what this very route asks for."""
        if request.scope.get("state", {}).get("needs") != self:
            raise RuntimeError(f"{request.scope['path']} was reached past the gate, or by mistake")


def needs(scope: Scope, *others: Scope) -> Declared:
    """Declare that a route is for whoever has one of these scopes; the first is the least."""
    return Depends(Needs((scope, *others)))


def public() -> Declared:
    """Declare that a route is for everybody, also without a token."""
    return Depends(Needs(()))


def declared(routes: Iterable[BaseRoute]) -> Iterator[tuple[RouteContext, Needs]]:
    """Yield every route with what it asks for.

    Raises:
        RuntimeError: a route does not say, or says it more than once.
    """
    for context in iter_route_contexts(list(routes)):
        said = [
            depends.dependency
            for depends in getattr(context, "dependencies", ())
            if isinstance(depends.dependency, Needs)
        ]
        if len(said) != 1:
            raise RuntimeError(
                f"the route {context.path} must say once for whom it is; "
                "declare it with dependencies=[needs(Scope.…)]"
            )
        yield context, said[0]


class Doors:
    """What each route asks for, found by method and path as the router finds the route.

    Args:
        routes: Of the application; they are looked at when the first request comes, or the service
            starts, and must all be there by then.
    """

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes = routes
        self._known: list[tuple[RouteContext, Needs]] = []

    def look(self) -> None:
        """Look at the routes.

        Raises:
            RuntimeError: one does not say what it asks for.
        """
        self._known = self._known or list(declared(self._routes))

    def needs(self, asked: Asked) -> Needs | None:
        """Return what the route of a request asks for; None where there is no such route."""
        self.look()
        for context, needed in self._known:
            if context.matches(asked)[0] is Match.FULL:
                return needed
        return None


# --------------------------------------------------------------------------- who asks


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, and what they may do."""

    who: str
    """As it stands in the audit log."""
    allowed: frozenset[Scope]
    key: str | None = None
    """Id of the token that was brought, where it was one that ends."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A token that was good once."""

    how: str
    """``expired`` or ``revoked``."""


class Access:
    """The tokens that are good, and who brings one.

    Everything is looked up in memory: what was given out or revoked here counts from the next
    request on, and ends requests that are going on. Safe from several threads, for tables are
    replaced and never changed.

    Args:
        token: The token of the settings, which is an admin's; None where there is none.
        now: Seconds since 1970.
    """

    def __init__(self, token: str | None, *, now: Callable[[], float]) -> None:
        self._token = None if token is None else _hash(token)
        self._now = now
        self._grants: Mapping[str, Grant] = {}
        self._lent: dict[str, tuple[str, Grant]] = {}
        self._used: dict[str, float] = {}
        self._unwritten: dict[str, float] = {}
        self._noting = Lock()

    @property
    def asks(self) -> bool:
        """Whether a token is asked for: there is one, or was; the last to end opens nothing."""
        return self._token is not None or bool(self._grants)

    def know(self, records: Iterable[TokenRecord]) -> None:
        """Take over all tokens that were ever given out."""
        known = list(records)
        self._grants = {record.id: record.grant for record in known}
        with self._noting:
            written = {record.id: record.used for record in known if record.used is not None}
            self._used = {**written, **self._used}

    def lend(self, who: str, scope: Scope, *, key: str, random: Callable[[int], bytes]) -> str:
        """Make a token for a part of the service itself: on no record, and good until the end.

        Args:
            who: Which part.
            scope: What it may do.
            key: Id of the token.
            random: Returns so many random bytes.
        """
        text = write_token(key, random(SECRET_BYTES))
        self._lent[key] = who, Grant(hash=Digest.of_bytes(text.encode()), scopes=(scope,))
        return text

    def anybody(self) -> Identity | None:
        """Return who asks without a good token; None where a token is asked for."""
        return None if self.asks else Identity(ANONYMOUS, frozenset(Scope))

    def holder(self, text: str) -> Identity | Ended | None:
        """Return whose token this is, of those that were given out; None where it is none.

        Nobody guesses these: they are looked up however often somebody was wrong.
        """
        key = key_of(text)
        if key is None:
            return None
        who, grant = self._lent.get(key) or (key, self._grants.get(key))
        if grant is None or not grant.opened_by(text):
            return None
        now = self._now()
        if grant.ended(now) is not None:
            return Ended("revoked" if grant.revoked is not None else "expired")
        return Identity(who, widened(grant.scopes), key)

    def chosen(self, text: str) -> Identity | None:
        """Return who brings the token of the settings; a person may have chosen it."""
        if self._token is None or not hmac.compare_digest(_hash(text), self._token):
            return None
        return Identity(SETTINGS, frozenset(Scope))

    def still(self, identity: Identity) -> bool:
        """Say whether who was let in would be let in again: nothing goes on without a token."""
        if identity.key is None:
            return identity.who != ANONYMOUS or not self.asks
        grant = self._grants.get(identity.key)
        return identity.key in self._lent or (
            grant is not None and grant.ended(self._now()) is None
        )

    def note(self, identity: Identity) -> None:
        """Remember that a token was used, to the hour: reading must not write each time."""
        key, hour = identity.key, self._now() // _HOUR * _HOUR
        if key is not None and key in self._grants and self._used.get(key) != hour:
            with self._noting:
                self._used[key] = self._unwritten[key] = hour

    def take_used(self) -> Mapping[str, float]:
        """Return when tokens were last used, by id, where that was not returned before."""
        with self._noting:
            used, self._unwritten = self._unwritten, {}
        return used


def _hash(token: str) -> bytes:
    """Give tokens one length, so that comparing them takes one time."""
    return hashlib.sha256(token.encode("latin-1", "replace")).digest()


def scopes_of(routes: Iterable[BaseRoute]) -> Mapping[tuple[str, str], Sequence[str]]:
    """Return the scopes that each operation asks for, by path and method, for its documentation."""
    found: dict[tuple[str, str], Sequence[str]] = {}
    for context, needed in declared(routes):
        for method in context.methods or ():
            found[context.path_format or "", method.lower()] = needed.scopes
    return found
