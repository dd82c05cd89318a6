"""The client of a running service: requests, verified transfers, and `Client`.

Importing this package is cheap: the HTTP library is loaded when a name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptmerge.client.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> object:
    """Load a public name from where it lives, when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("ckptmerge.client.client"), name)
