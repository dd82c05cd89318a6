"""6. Write a merge: stream it into safetensors, reproducible from its recipe."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ckptmerge.domain.artifact import Artifact
from ckptmerge.domain.recipe import OutputDtype, Recipe
from ckptmerge.domain.weights import MergeWeights, Weights
from ckptmerge.domain.window import Window
from ckptmerge.errors import InvalidInputError, OutputExistsError
from ckptmerge.formats.detect import open_checkpoint
from ckptmerge.merging.stream import merge as stream_merge
from ckptmerge.workflow.progress import Progress, Silent
from ckptmerge.workflow.register import register_in_order


def materialise(
    window: Window,
    weights: Weights,
    out: Path,
    *,
    dtype: OutputDtype = "keep",
    extra_files: Mapping[str, bytes] | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Artifact:
    """Write the merge of a window into the new folder ``out``, with the newest's side files.

    The bytes depend on the recipe alone. Either the whole folder appears, or nothing does.

    Raises:
        OutputExistsError: something stands at ``out`` already.
        OutOfSpaceError: the disk cannot hold the merge.
        NonFiniteTensorError: the merge is not finite (a number left the output dtype's range).
    """
    recipe = Recipe(
        parents=tuple(checkpoint.manifest.content for checkpoint in window),
        weights=weights,
        dtype=dtype,
    )
    sources = [open_checkpoint(Path(checkpoint.label)) for checkpoint in window]
    try:
        return stream_merge(
            sources,
            recipe,
            out,
            side_files=Path(window.newest.label),
            extra_files={} if extra_files is None else extra_files,
            on_bytes=on_bytes,
        )
    finally:
        for source in sources:
            source.close()


def merge(
    checkpoints: Sequence[str | Path],
    weights: Sequence[float] | Weights,
    out: str | Path,
    *,
    dtype: OutputDtype = "keep",
    progress: Progress | None = None,
) -> Artifact:
    """Merge checkpoints by hand: one weight a checkpoint, in the order the checkpoints are named.

    Raises:
        InvalidWeightsError: the weights do not sum to 1, or there are not as many as checkpoints.
        CheckpointFormatError: a checkpoint is damaged or not safetensors.
        IncompatibleCheckpointsError: the checkpoints are not of one model.
        OutputExistsError: something stands at ``out`` already.
    """
    progress = Silent() if progress is None else progress
    paths = [Path(checkpoint) for checkpoint in checkpoints]
    if Path(out).exists():
        raise OutputExistsError(f"{out} exists; name a folder that does not, or remove it first")
    given = MergeWeights.of(*weights) if isinstance(weights, Sequence) else weights
    if len(given) != len(paths):
        raise InvalidInputError(f"{len(given)} weights for {len(paths)} checkpoints; give one each")
    progress.stage("verifying checkpoints", sum(map(weight_bytes, paths)))
    window = Window(register_in_order(paths, identify=False, on_bytes=progress.advance))
    progress.stage("merging", window.newest.manifest.bytes)
    return materialise(
        window, _in_order(given, paths, window), Path(out), dtype=dtype, on_bytes=progress.advance
    )


def weight_bytes(path: Path) -> int:
    """Return the size of a checkpoint's weight files, 0 where there are none."""
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return sum(file.stat().st_size for file in files)


def _in_order(given: Weights, paths: Sequence[Path], window: Window) -> Weights:
    """Move hand-given weights to the window's order, which is that of training."""
    order = [str(path) for path in paths]
    if not isinstance(given, MergeWeights) or order == [c.label for c in window]:
        return given
    return MergeWeights(tuple(given.values[order.index(c.label)] for c in window))
