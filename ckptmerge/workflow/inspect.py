"""Say what a checkpoint holds, and how far two lie apart."""

from collections import Counter
from pathlib import Path

import torch

from ckptmerge.domain.checkpoint import MERGEABLE, require_one_model
from ckptmerge.formats.detect import open_checkpoint
from ckptmerge.formats.manifest import read_manifest
from ckptmerge.formats.step import step_and_tokens
from ckptmerge.workflow.register import missing_side_files


def summary(path: Path) -> dict[str, object]:
    """Verify every byte of a checkpoint and describe it.

    Raises:
        CheckpointFormatError: it is damaged, or not a safetensors checkpoint.
    """
    manifest = read_manifest(path, digests=True)
    step, tokens = step_and_tokens(path)
    return {
        "checkpoint": str(path),
        "step": step,
        "tokens": tokens,
        "parameters": manifest.parameters,
        "bytes": manifest.bytes,
        "tensors": len(manifest.tensors),
        "dtypes": dict(Counter(entry.spec.dtype for entry in manifest.tensors)),
        "digest": str(manifest.digest),
        "content": str(manifest.content),
        "files": [file.name for file in manifest.files],
        "missing": list(missing_side_files(path)),
    }


def distance(one: Path, other: Path) -> dict[str, object]:
    """Measure how far two checkpoints of one model lie apart.

    Cosine similarity and relative distance ``|a - b| / |a|`` are over the matrices alone: the
    vectors of normalisation layers sit near 1 in every model and would hide the difference.

    Raises:
        IncompatibleCheckpointsError: they are not of one model.
    """
    with open_checkpoint(one) as a, open_checkpoint(other) as b:
        signatures = [tuple(sorted(source.specs.values())) for source in (a, b)]
        require_one_model([str(one), str(other)], signatures)
        dots = torch.zeros(3, dtype=torch.float64)  # a·a, a·b, b·b
        for name, spec in a.specs.items():
            if spec.dtype in MERGEABLE and len(spec.shape) >= 2:
                x, y = a.read(name).double().flatten(), b.read(name).double().flatten()
                dots += torch.stack([x @ x, x @ y, y @ y])
    aa, ab, bb = dots.tolist()
    return {
        "cosine": ab / (aa * bb) ** 0.5 if aa and bb else None,
        "relative_distance": max(aa - 2 * ab + bb, 0.0) ** 0.5 / aa**0.5 if aa else None,
    }
