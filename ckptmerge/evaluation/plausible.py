"""Whether a configuration can be that of the weights beside it, before its model is built.

A config.json is a few numbers, and a model is built of them before its weights are looked at: ten
terabytes are asked for, or a thousand million layers made one after the other. On torch's meta
device a model has shapes and takes no memory.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ckptmerge.errors import ModelLoadError
from ckptmerge.formats.manifest import read_manifest

_REPEATED = re.compile(r"layer|expert|block", re.IGNORECASE)
"""Parts of which a model has many, each with tensors of its own or a share of one."""

_TIED = 2
"""How many times the numbers of its files a model may have: a tied head is counted twice."""

_SLACK = 2**28
"""Numbers beyond that, such as the causal masks that GPT-2 keeps beside its weights."""


def require_plausible(folder: Path) -> None:
    """Check that the model of ``folder/config.json`` is about as large as its weights.

    Raises:
        ModelLoadError: it is far larger.
        CheckpointFormatError: there are no weights to compare it with.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    specs = [entry.spec for entry in read_manifest(folder, digests=False).tensors]
    config: Any = AutoConfig.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False
    )
    most = max(len(specs), *(max(spec.shape, default=0) for spec in specs))
    for name, count in _counts(config.to_dict()):
        if count > most:
            raise ModelLoadError(
                f"{folder}: config.json asks for {name} = {count:,}, which {len(specs):,} tensors "
                "cannot be; put the run's own config.json beside the weights"
            )
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    asked = sum(math.prod(part.shape) for part in (*model.parameters(), *model.buffers()))
    there = sum(spec.elements for spec in specs)
    if asked > _TIED * there + _SLACK:
        raise ModelLoadError(
            f"{folder}: config.json describes a model of {asked:,} numbers, and the files hold "
            f"{there:,}; put the run's own config.json beside the weights"
        )


def _counts(config: object, name: str = "") -> Iterator[tuple[str, int]]:
    """Yield the numbers of a configuration that say how often something is repeated."""
    if isinstance(config, dict):
        for key, value in config.items():
            yield from _counts(value, str(key))
    elif isinstance(config, int) and _REPEATED.search(name):
        yield name, config
