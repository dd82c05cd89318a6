"""Score one checkpoint, and look at the splits of a held-out set."""

from collections import Counter
from pathlib import Path

import torch

from ckptmerge.domain.certificate import Score
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Objective, Split
from ckptmerge.evaluation.documents import HeldOutSet, load_held_out, write_documents
from ckptmerge.evaluation.loss import document_losses
from ckptmerge.evaluation.models import load_model
from ckptmerge.evaluation.paired import score
from ckptmerge.evaluation.tokens import load_tokenizer, tokenize
from ckptmerge.formats.manifest import read_manifest
from ckptmerge.workflow.looks import LookLog
from ckptmerge.workflow.materialise import weight_bytes
from ckptmerge.workflow.progress import Progress, Silent

PARTS = (Split.SEARCH, Split.CERTIFY, Split.AUDIT)


def evaluate(
    checkpoint: Path,
    held_out: Path,
    *,
    split: Split = Split.ALL,
    objective: Objective | None = None,
    context: int | None = None,
    tokenizer: Path | None = None,
    looks: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Score:
    """Score a checkpoint's own bytes on a held-out set, in bits per byte.

    Reading the certify or the audit split is logged: numbers seen there can no longer surprise.

    Raises:
        CheckpointFormatError: the checkpoint is damaged or not safetensors.
        HeldOutSetError: the documents cannot judge this model.
    """
    progress = Silent() if progress is None else progress
    documents = load_held_out(held_out)
    progress.stage("verifying checkpoint", weight_bytes(checkpoint))
    manifest = read_manifest(checkpoint, digests=True, on_bytes=progress.advance)
    model = load_model(checkpoint, device=torch.device(device))
    tokenized = tokenize(
        documents.split(split),
        tokenizer=load_tokenizer(checkpoint if tokenizer is None else tokenizer),
        vocabulary=model.vocabulary,
        context=model.context if context is None else context,
    )
    if split in (Split.CERTIFY, Split.AUDIT):
        log = LookLog.for_set(documents.digest, held_out, named=looks)
        log.look(split, subject=manifest.digest)
    progress.stage("scoring", len(tokenized.passages))
    losses = document_losses(
        model.module, tokenized, device=torch.device(device), vocabulary=model.vocabulary,
        on_passages=progress.advance,
    )  # fmt: skip
    return score(losses, Objective() if objective is None else objective, split, seed=0)


def split_counts(held_out: Path) -> tuple[Digest, dict[str, dict[str, dict[str, int]]]]:
    """Count documents and independent units by split and domain; no split is read for scoring."""
    documents = load_held_out(held_out)
    return documents.digest, {str(part): _counts(documents.split(part)) for part in PARTS}


def export_splits(held_out: Path, out: Path) -> tuple[Path, ...]:
    """Write each split as a ``.jsonl`` file into the new folder ``out``, and log the look."""
    documents = load_held_out(held_out)
    log = LookLog.for_set(documents.digest, held_out)
    for part in (Split.CERTIFY, Split.AUDIT):
        log.look(part, subject=documents.digest)
    out.mkdir(parents=True)
    written = tuple(out / f"{part}.jsonl" for part in PARTS)
    for part, path in zip(PARTS, written, strict=True):
        write_documents(documents.split(part).documents, path)
    return written


def _counts(documents: HeldOutSet) -> dict[str, dict[str, int]]:
    held = Counter(document.domain for document in documents.documents)
    units = Counter(domain for domain, _ in {(d.domain, d.unit) for d in documents.documents})
    return {d: {"documents": held[d], "units": units[d]} for d in sorted(held)}
