"""Whom to believe behind an https address."""

import os
import re
import ssl
from pathlib import Path
from typing import Literal

from ckptmerge.errors import InvalidInputError

CA = "CKPTMERGE_CA"
"""Environment variable that names a file of authorities, in place of those the system knows."""

Trusted = str | Path | ssl.SSLContext
"""A PEM file of authorities, or what `pinned` returns."""

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def believing(trusted: Trusted | None) -> ssl.SSLContext | Literal[True]:
    """Return what a connection checks certificates with; True is whatever the system believes.

    Args:
        trusted: Nobody else is believed. None is the file that ``CKPTMERGE_CA`` names, or else
            the system's authorities.

    Raises:
        InvalidInputError: the file cannot be read, or holds no certificate.
    """
    trusted = trusted or os.environ.get(CA) or None
    if trusted is None:
        return True
    if isinstance(trusted, ssl.SSLContext):
        return trusted
    try:
        return ssl.create_default_context(cafile=trusted)
    except OSError as error:  # ssl.SSLError is one
        raise InvalidInputError(
            f"{trusted} cannot be used as a file of authorities ({error.strerror or error}); "
            f"name a PEM file of certificates, as {CA} or as `ca`"
        ) from error


def own_certificate(chain: str) -> str:
    """Return the first certificate of a PEM chain: the server's own (RFC 8446, section 4.4.2).

    Raises:
        InvalidInputError: there is none.
    """
    found = _CERTIFICATE.search(chain)
    if found is None:
        raise InvalidInputError("there is no certificate in the chain; give it in PEM form")
    return f"{found[0]}\n"


def pinned(certificate: str) -> ssl.SSLContext:
    """Believe whoever holds the key of this one certificate, by whatever name it is called.

    A name tells apart the many whom an authority has signed. Here nobody but the one is believed
    at all, so a service can be called by an address that its certificate does not hold.

    Args:
        certificate: The service's own, in PEM form.
    """
    context = ssl.create_default_context(cadata=certificate)
    context.check_hostname = False
    # Without this an end is looked for in the authority that signed it, whom we do not believe.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    return context
