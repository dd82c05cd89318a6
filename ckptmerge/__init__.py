"""Find, certify and write the best merge of a pretraining run's checkpoints.

Importing this package is cheap: torch is loaded when a name that needs it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptmerge.client.client import Client
    from ckptmerge.domain.weights import MergeWeights
    from ckptmerge.formats.detect import open_checkpoint
    from ckptmerge.trainer.callback import CheckpointMergeCallback
    from ckptmerge.workflow.local import optimize
    from ckptmerge.workflow.materialise import merge

__all__ = [
    "CheckpointMergeCallback", "Client", "MergeWeights", "merge", "open_checkpoint", "optimize",
]  # fmt: skip

_HOME = {
    "CheckpointMergeCallback": "ckptmerge.trainer.callback",
    "Client": "ckptmerge.client.client",
    "MergeWeights": "ckptmerge.domain.weights",
    "merge": "ckptmerge.workflow.materialise",
    "open_checkpoint": "ckptmerge.formats.detect",
    "optimize": "ckptmerge.workflow.local",
}


def __getattr__(name: str) -> object:
    """Load a public name from where it lives, when it is first asked for (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
