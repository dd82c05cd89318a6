"""Where a service is and how it knows us, checked before anything is sent."""

import ipaddress
import re

from httpx2 import URL, InvalidURL

from ckptmerge.errors import InvalidInputError

OWN_MACHINE = ("localhost", "127.0.0.1", "[::1]")
"""Hosts that no proxy can reach for us."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750, section 2.1."""

_EXAMPLE = "give it as http://127.0.0.1:8117"


def service_url(text: str) -> URL:
    """Read a service's address.

    Raises:
        InvalidInputError: it is no http or https address, or holds a password.
    """
    try:
        url = URL(text)
    except InvalidURL as error:
        raise InvalidInputError(f"{text!r} is no address of a service: {error}; {_EXAMPLE}") from (
            error
        )
    if url.userinfo:  # not shown: it is a secret
        raise InvalidInputError(
            f"the address of the service at {url.host} holds a user name or password; "
            "hand a token over on its own"
        )
    if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
        raise InvalidInputError(f"{text!r} is no address of a service; {_EXAMPLE}")
    return url


def address_here(host: str, port: int, *, tls: bool) -> str:
    """Return where a service that listens on ``host`` is reached from its own machine.

    One that listens on every address (``0.0.0.0``, ``::``) is reached over the loopback of the
    same family: a socket of the one family does not hear the other.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        named = host
    else:
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
        named = host if address.version == 4 else f"[{host}]"
    return f"{'https' if tls else 'http'}://{named}:{port}"


def bearer_token(text: str | None) -> str | None:
    """Read a token; None stays None.

    Raises:
        InvalidInputError: it cannot be sent in a header. The message does not show it.
    """
    if text is not None and not _TOKEN.fullmatch(text):
        raise InvalidInputError(
            "the token is empty or holds signs that no token has (a line end, a space?); "
            "copy it again"
        )
    return text


def same_origin(one: URL, other: URL) -> bool:
    """Whether two addresses are of one server (RFC 6454): only then may both see the token."""
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)
