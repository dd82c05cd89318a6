"""Addresses of PostgreSQL databases: what a good one is, and what of it anybody may read."""

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
_SECRETS = ("password", "sslpassword")
"""Parameters of libpq that hold what nobody else may know."""


def parsed(url: str) -> URL:
    """Take an address apart, such as ``postgresql://user@host:5432/database?sslmode=verify-full``.

    Raises:
        ValueError: it is none; the message does not repeat it, for it may hold a password.
    """
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        found = None
    if found is None or found.drivername not in _SCHEMES or not found.database:
        raise ValueError(
            "give the address of a PostgreSQL database, such as postgresql://user@host/database; "
            "in a password, signs other than letters and digits are written as %XX"
        ) from None
    return found.set(drivername="postgresql+psycopg")


def has_secret(url: str) -> bool:
    """Say whether an address holds a password."""
    found = parsed(url)
    return found.password is not None or any(name in found.query for name in _SECRETS)


def without_secrets(url: str) -> str:
    """Write an address so that anybody may read it."""
    found = parsed(url).set(drivername="postgresql")
    shown = found.update_query_dict({n: "***" for n in _SECRETS if n in found.query})
    return shown.render_as_string(hide_password=True)
