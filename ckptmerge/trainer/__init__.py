"""Callbacks for training jobs: each saved checkpoint finds its way, and training never waits.

Importing this package is cheap, and no callback but that of transformers loads torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptmerge.trainer.callback import CheckpointMergeCallback

__all__ = ["CheckpointMergeCallback"]


def __getattr__(name: str) -> object:
    """Load a public name from where it lives, when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("ckptmerge.trainer.callback"), name)
