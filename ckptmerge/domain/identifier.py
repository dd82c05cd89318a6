"""Identifiers: a letter that says of what, then time and chance.

The form is that of ULIDs (48 bits of milliseconds, 80 random bits, Crockford's base 32), so ids
sort as they were made and two services never make the same.
"""

from collections.abc import Callable

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_id(kind: str, *, now: float, random: Callable[[int], bytes]) -> str:
    """Return an id such as ``c_01J…``.

    Args:
        kind: The letter.
        now: Seconds since 1970.
        random: Returns so many random bytes.
    """
    number = (int(now * 1000) << 80) | int.from_bytes(random(10), "big")
    digits = [_DIGITS[(number >> shift) & 31] for shift in range(125, -1, -5)]
    return f"{kind}_{''.join(digits)}"
