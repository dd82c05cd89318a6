"""Who may do what: every operation of the interface document, asked for by everybody who may not.

The operations, and the scopes of which each asks for one, are those of the document.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ckptmerge.domain.token import Scope, widened
from tests.integration.access_world import BODY, AccessWorld, Asked, access_world, operations
from tests.integration.whole_service import whole_app

LARGEST = 64 * 2**10
"""Bytes that may be taken of the body of somebody who may not."""

STRANGERS = (None, "garbage", "mistyped", "forged", "expired", "revoked")
"""A forged token has the id of an admin's, and another secret."""

PUBLIC = {"is_alive", "is_ready"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AccessWorld]:
    with capture_logs(), access_world(tmp_path_factory.mktemp("data")) as made:
        yield made


def named(parameters: tuple[str, str, dict[str, Any]]) -> str:
    return parameters[2]["operationId"]


def every_operation() -> list[tuple[str, str, dict[str, Any]]]:
    """Read the document of a service that asks for a token."""
    return operations(whole_app(Path("unused")))


def scopes_of(operation: dict[str, Any]) -> set[Scope]:
    return {Scope(scope) for asked in operation["security"] for scope in asked["token"]}


def asked(
    world: AccessWorld, method: str, path: str, who: str | None, *, size: int = BODY
) -> Asked:
    place = path.format(**world.values())
    token = None if who is None else world.tokens[who]
    # The stream of events has no end otherwise.
    return world.ask(method, place, token, query="follow=false", size=size)


def assert_refused(world: AccessWorld, answer: Asked, before: str, who: object) -> None:
    assert answer.taken <= LARGEST, who
    assert world.holdings() == before, f"{who} has changed something"
    assert "x-request-id" in answer.headers


@pytest.mark.parametrize("operation", every_operation(), ids=named)
def test_nobody_without_a_good_token_is_let_in(
    world: AccessWorld, operation: tuple[str, str, dict[str, Any]]
) -> None:
    method, path, described = operation
    before = world.holdings()
    for who in STRANGERS:
        answer = asked(world, method, path, who)
        if described["operationId"] in PUBLIC:
            assert answer.status in {200, 503}, who
            continue
        assert (answer.status, who) == (401, who)
        challenge = answer.headers["www-authenticate"]
        assert challenge.startswith('Bearer realm="ckptmerge"')
        assert ('error="invalid_token"' in challenge) == (who is not None)
        assert_refused(world, answer, before, who)


@pytest.mark.parametrize("operation", every_operation(), ids=named)
def test_a_token_opens_what_its_scopes_say_and_nothing_else(
    world: AccessWorld, operation: tuple[str, str, dict[str, Any]]
) -> None:
    method, path, described = operation
    needed = scopes_of(described)
    assert bool(needed) == (described["operationId"] not in PUBLIC)
    wrong = [s for s in Scope if s is not Scope.ADMIN and not widened([s]) & needed and needed]
    before = world.holdings()
    for scope in wrong:
        answer = asked(world, method, path, scope)
        assert (answer.status, answer.kind) == (403, "insufficient-scope"), scope
        challenge = answer.headers["www-authenticate"]
        assert 'error="insufficient_scope"' in challenge
        assert any(f'scope="{one}"' in challenge for one in needed)
        assert_refused(world, answer, before, scope)
    assert (Scope.READ in needed) == (needed != set() and not wrong), "every token reads"


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/problems/missing"])
def test_pages_are_for_everybody_with_a_token(world: AccessWorld, path: str) -> None:
    for who in STRANGERS:
        assert asked(world, "GET", path, who).status == 401
    for scope in Scope:
        assert asked(world, "GET", path, scope).status in {200, 303}


@pytest.mark.parametrize("path", ["/nowhere", "/v1/tokens/", "/v1//tokens", "/V1/tokens"])
def test_what_is_not_there_is_told_to_nobody_without_a_token(world: AccessWorld, path: str) -> None:
    assert asked(world, "GET", path, None).status == 401
    assert asked(world, "GET", path, Scope.READ).status in {307, 404}


def test_a_method_that_a_path_does_not_take_is_refused_to_those_with_a_token(
    world: AccessWorld,
) -> None:
    assert asked(world, "PUT", "/v1/tokens", None).status == 401
    assert asked(world, "PUT", "/v1/tokens", Scope.READ).status == 405


@pytest.fixture(scope="module")
def other_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AccessWorld]:
    """One of its own for those who are let in, and change it."""
    with capture_logs(), access_world(tmp_path_factory.mktemp("data")) as made:
        yield made


@pytest.mark.parametrize("operation", every_operation(), ids=named)
def test_those_who_may_are_let_in(
    other_world: AccessWorld, operation: tuple[str, str, dict[str, Any]]
) -> None:
    """Without this the tests above would hold of a service that lets nobody in."""
    method, path, described = operation
    for who in (*(scopes_of(described) or {Scope.READ}), Scope.ADMIN, "settings"):
        answer = asked(other_world, method, path, who, size=1000)
        assert answer.status not in {401, 403, 429}, who
