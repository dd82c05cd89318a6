"""Where a service is and how it knows us, checked before anything is sent."""

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
