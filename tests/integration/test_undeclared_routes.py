"""Routes that do not say for whom they are: the service does not start, and they answer nobody."""

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from ckptmerge.domain.token import Scope
from service.gate.auth import Access, needs, public
from service.gate.middleware import guard
from service.settings import Settings
from service.telemetry import Metrics
from tests.integration.access_place import OURS


@pytest.fixture
def bare() -> FastAPI:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    guard(app, Settings(), Metrics(), Access(None, now=lambda: 0.0))
    return app


def test_a_route_that_does_not_say_for_whom_it_is_keeps_the_service_from_starting(
    bare: FastAPI,
) -> None:
    bare.get("/said", dependencies=[needs(Scope.READ)])(lambda: None)
    bare.get("/forgotten")(lambda: None)
    with pytest.raises(RuntimeError, match="/forgotten must say"), TestClient(bare):
        pass


def test_a_route_that_says_it_twice_does_so_too(bare: FastAPI) -> None:
    bare.get("/both", dependencies=[needs(Scope.ADMIN), public()])(lambda: None)
    with pytest.raises(RuntimeError, match="/both must say"), TestClient(bare):
        pass


def test_a_route_that_the_gate_did_not_decide_about_answers_nobody(bare: FastAPI) -> None:
    bare.get("/x", dependencies=[public()])(lambda: "in")
    with TestClient(bare, base_url=OURS, raise_server_exceptions=False) as client:
        assert client.get("/x").json() == "in"
        bare.get("/late", dependencies=[needs(Scope.ADMIN)])(lambda: "in")
        assert client.get("/late").status_code == 500
