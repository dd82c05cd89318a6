"""Access tokens: given out, listed and ended by admins."""

import secrets
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from ckptmerge.domain.token import Scope
from ckptmerge.errors import InvalidInputError, MissingError, NameTakenError, RefusedError
from ckptmerge.storage.records import TokenRecord
from ckptmerge.storage.store import Snapshot, Unit
from ckptmerge.wire.tokens import CreatedToken, NewToken, TokenPage, TokenResource
from ckptmerge.workflow.access_tokens import (
    GivenToken,
    all_tokens,
    create_token,
    revoke_token,
    token_resource,
)
from service.dependencies import By, Service
from service.gate.auth import Access, needs
from service.interface import refusals

Limit = Annotated[int, Query(ge=1, le=1000)]

_TAKEN = (
    "k_01JZ goes by the name 'the dashboard' already; revoke it, or choose another name. If the "
    "answer that held its secret was lost, revoke it: the secret is kept nowhere"
)
_FIRST = (
    "the first token of a service must have the scope admin: from then on every request needs a "
    "token, and only an admin's can make others"
)
_NOT_FIRST = (
    "somebody has made a token meanwhile, and this service asks for one from now on; send it as "
    "`Authorization: Bearer …`"
)
_MISSING = "there is no token 'k_01JZ'; check the name, and whether this is the service you mean"


def token_router(access: Access) -> APIRouter:
    """Make the routes that give out and end tokens.

    Args:
        access: Knows the tokens that are good; told of every change before it is answered.
    """
    router = APIRouter(prefix="/v1/tokens", tags=["access"])
    admins = [needs(Scope.ADMIN)]

    @router.post(
        "",
        status_code=201,
        operation_id="create_token",
        dependencies=admins,
        responses=refusals(
            {NameTakenError: _TAKEN, InvalidInputError: _FIRST, RefusedError: _NOT_FIRST}
        ),
    )
    async def create(new: NewToken, service: Service, by: By, response: Response) -> CreatedToken:
        """Give out a token; its secret is in this answer and nowhere else.

        The first token of a service that was open until then closes it: every request needs one
        from then on, and one must stay known with the scope ``admin``.
        """
        now = service.now()

        def change(unit: Unit) -> tuple[GivenToken, list[TokenRecord]]:
            given = create_token(
                unit,
                by,
                name=new.name,
                scopes=[Scope(name) for name in new.scopes],
                expires=None if new.expires_in is None else now + new.expires_in,
                now=now,
                new_id=service.new_id,
                random=secrets.token_bytes,
            )
            return given, all_tokens(unit)

        given, tokens = await service.write(change)
        first = not access.asks
        access.know(tokens)
        response.headers["Cache-Control"] = "no-store"
        known = token_resource(given.record, now=now).model_dump()
        return CreatedToken(**known, token=given.text, first=first)

    @router.get("", operation_id="list_tokens", dependencies=admins)
    async def show(service: Service, after: str | None = None, limit: Limit = 100) -> TokenPage:
        """List every token that was ever given out, those that have ended too."""

        def look(snapshot: Snapshot) -> TokenPage:
            found = snapshot.find(TokenRecord, after=after, limit=limit + 1)
            items = [token_resource(record, now=service.now()) for record in found[:limit]]
            return TokenPage(items=items, next=items[-1].id if len(found) > limit else None)

        return await service.read(look)

    @router.delete(
        "/{token}",
        operation_id="revoke_token",
        dependencies=admins,
        responses=refusals({MissingError: _MISSING}),
    )
    async def revoke(
        token: Annotated[str, Path(examples=["k_01JZ"])], service: Service, by: By
    ) -> TokenResource:
        """End a token, and every request that is made with it; again changes nothing."""
        now = service.now()

        def change(unit: Unit) -> tuple[TokenRecord, list[TokenRecord]]:
            return revoke_token(unit, by, token, now=now), all_tokens(unit)

        record, tokens = await service.write(change)
        access.know(tokens)
        return token_resource(record, now=now)

    return router
