"""Whom a client believes behind an https address, and what it says about the others."""

import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import uvicorn
from fastapi import FastAPI

from ckptmerge.client.session import Patience, Session
from ckptmerge.client.trust import CA, Trusted, own_certificate, pinned
from ckptmerge.errors import InvalidInputError, ServiceError
from tests.integration.authority import Authority, Signed


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def signed(authority) -> Signed:
    return authority.sign("localhost")


@pytest.fixture(scope="module")
def port(signed) -> Iterator[int]:
    """Port of a server whose certificate is for ``localhost``, and not for its address."""
    app = FastAPI()
    app.get("/v1/x")(lambda: {"a": 1})
    config = uvicorn.Config(
        app, log_level="critical", lifespan="off",
        ssl_certfile=signed.chain, ssl_keyfile=signed.key,
    )  # fmt: skip
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def asked(url: str, ca: Trusted | None = None) -> object:
    """Ask once; a pause before another try fails."""
    patience = Patience(attempts=3)
    with Session(url, ca=ca, patience=patience, sleep=pytest.fail) as session:
        return session.json("GET", "/v1/x")


def test_a_certificate_of_an_unknown_authority_is_refused_at_once_with_what_to_do(port) -> None:
    url = f"https://localhost:{port}"
    with pytest.raises(ServiceError, match=rf"{url} shows is not trusted \(.*cert.*\).*{CA}") as no:
        asked(url)
    assert no.value.status is None
    assert "cannot reach" not in str(no.value)


def test_a_file_of_authorities_lets_in_whom_they_signed(authority, port) -> None:
    assert asked(f"https://localhost:{port}", authority.certificate) == {"a": 1}
    assert asked(f"https://localhost:{port}", str(authority.certificate)) == {"a": 1}


def test_the_environment_may_name_that_file(authority, port, monkeypatch) -> None:
    monkeypatch.setenv(CA, str(authority.certificate))
    assert asked(f"https://localhost:{port}") == {"a": 1}


def test_what_is_given_counts_more_than_what_the_environment_names(
    authority, port, monkeypatch, tmp_path
) -> None:
    other = Authority(tmp_path, "other").certificate
    monkeypatch.setenv(CA, str(authority.certificate))
    with pytest.raises(ServiceError, match="not trusted"):
        asked(f"https://localhost:{port}", other)


def test_a_certificate_for_another_name_is_refused(authority, port) -> None:
    with pytest.raises(ServiceError, match=r"mismatch.* a name that the certificate holds"):
        asked(f"https://127.0.0.1:{port}", authority.certificate)


def test_who_is_pinned_may_be_called_by_any_name(signed, port) -> None:
    trust = pinned(own_certificate(signed.chain.read_text()))
    assert asked(f"https://127.0.0.1:{port}", trust) == {"a": 1}


def test_nobody_else_is_believed_where_one_is_pinned(authority, port) -> None:
    """Not even whom the same authority has signed."""
    other = authority.sign("other.example")
    for chain in (other.chain.read_text(), authority.sign("localhost.example").chain.read_text()):
        with pytest.raises(ServiceError, match="not trusted"):
            asked(f"https://127.0.0.1:{port}", pinned(own_certificate(chain)))


def test_of_a_chain_the_first_certificate_is_the_servers_own(signed, authority) -> None:
    key = signed.key.read_text()
    whole = signed.chain.read_text()
    own = own_certificate(f"{key}{whole}")
    assert whole == own + authority.certificate.read_text()
    with pytest.raises(InvalidInputError, match="no certificate"):
        own_certificate(key)


@pytest.mark.parametrize(
    "content", [None, b"", b"no certificate"], ids=["missing", "empty", "text"]
)
def test_a_file_that_holds_no_authority_is_refused_and_named(tmp_path: Path, content) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidInputError, match=rf"ca\.pem cannot be used.*{CA}"):
        Session("https://localhost:1", ca=file)
