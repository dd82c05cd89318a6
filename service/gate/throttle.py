"""How often an address may be wrong: so many times a minute, and then not for a while."""

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable

REMEMBERED = 10_000
"""Addresses; whoever commands more of them is not to be stopped here, nor to fill the memory."""

_MINUTE = 60.0


class Throttle:
    """A bucket of tries for each address, filled evenly (a token bucket, kept as one number).

    Args:
        per_minute: Tries that a full bucket holds, and that come back in a minute.
        clock: Seconds, on a clock that only goes forward.
    """

    def __init__(self, per_minute: int, *, clock: Callable[[], float]) -> None:
        self._each = _MINUTE / per_minute
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """When the bucket of an address is full again; the least recently wrong first."""

    def wait(self, address: str) -> int:
        """Return the whole seconds until the address may try again; 0 where it may now."""
        lacking = self._full_at.get(_network(address), 0.0) - self._clock()
        return max(0, math.ceil(lacking - _MINUTE + self._each))

    def count(self, address: str) -> None:
        """Count a try that was wrong."""
        network = _network(address)
        began = max(self._full_at.pop(network, 0.0), self._clock())
        self._full_at[network] = began + self._each
        if len(self._full_at) > REMEMBERED:
            self._full_at.popitem(last=False)


def _network(address: str) -> str:
    """Return what one subscriber has: an IPv4 address, or the /64 network of an IPv6 one."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv6Address):
        mapped = known.ipv4_mapped
        return str(mapped or ipaddress.IPv6Address(int(known) >> 64 << 64))
    return str(known)
