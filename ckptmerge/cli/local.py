"""Verbs that need no server: optimize, merge, evaluate, inspect."""

from pathlib import Path
from typing import Annotated

import typer

from ckptmerge.cli import render
from ckptmerge.config.study import StudySpec, load_study_spec
from ckptmerge.domain.recipe import OutputDtype
from ckptmerge.domain.space import SpaceKind
from ckptmerge.errors import InvalidInputError, InvalidWeightsError, OutputExistsError

Checkpoints = Annotated[
    list[Path], typer.Argument(metavar="CKPT...", help="Checkpoint folders or .safetensors files.")
]
HeldOut = Annotated[
    Path, typer.Option("--held-out", metavar="FILE", help="Held-out documents, .jsonl or .txt.")
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder for the merge.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Device = Annotated[str, typer.Option(help="Where models are scored: cpu or cuda:0.")]
Tokenizer = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Tokenizer, where the checkpoints bring none.")
]
Context = Annotated[
    int | None,
    typer.Option(min=2, help="Longest passage scored, in tokens; the model's by default."),
]


def optimize(
    checkpoints: Checkpoints,
    *,
    held_out: HeldOut,
    out: Out,
    space: Annotated[SpaceKind | None, typer.Option(help="Which weights to search.")] = None,
    budget: Annotated[
        int | None, typer.Option(help="Forward passes over the search split.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes every random choice.")] = None,
    lower: Annotated[float | None, typer.Option(help="Smallest weight; may be negative.")] = None,
    upper: Annotated[float | None, typer.Option(help="Largest weight.")] = None,
    dtype: Annotated[OutputDtype | None, typer.Option(help="Dtype of the merge.")] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Study file; flags override it.")
    ] = None,
    context: Context = None,
    tokenizer: Tokenizer = None,
    run: Annotated[str | None, typer.Option(help="Run name under which tests are counted.")] = None,
    looks: Annotated[Path | None, typer.Option(metavar="FILE", help="Log of looks.")] = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Search the best merge of CKPT..., certify it on unseen documents, and write it to --out.

    Nothing is written unless the merge is shown better; the exit code is 0 either way.
    """
    from ckptmerge.workflow import local

    _require_free(out)
    flags = {
        "space": space, "budget": budget, "seed": seed, "lower": lower, "upper": upper,
        "dtype": dtype, "context": context,
    }  # fmt: skip
    given = {name: value for name, value in flags.items() if value is not None}
    spec = StudySpec() if config is None else load_study_spec(config)
    spec = StudySpec.model_validate(spec.model_dump() | given)
    out.parent.mkdir(parents=True, exist_ok=True)
    with render.bars() as progress:
        study = local.optimize(
            checkpoints,
            held_out=held_out,
            space=spec.space, budget=spec.budget, seed=spec.seed, lower=spec.lower,
            upper=spec.upper, dtype=spec.dtype, objective=spec.objective.objective(),
            context=spec.context, tokenizer=tokenizer, device=device, run=run, looks=looks,
            scratch=out.parent, progress=progress,
        )  # fmt: skip
    best = study.best(study.publish(out) if study.promoted else None)
    if json:
        render.print_json(best.model_dump(mode="json"))
        return
    render.show_best(best)
    render.out.print(
        f"written to {out}" if study.promoted
        else "nothing was written: the newest checkpoint stands"
    )  # fmt: skip


def merge(
    checkpoints: Checkpoints,
    weights: Annotated[str, typer.Option(help="One number a checkpoint, as 0.4,0.6; sum 1.")],
    out: Out,
    dtype: Annotated[OutputDtype, typer.Option(help="Dtype of the merge.")] = "keep",
    json: Json = False,
) -> None:
    """Merge CKPT... with the given weights into --out, streamed."""
    from ckptmerge.workflow import materialise

    numbers = _numbers(weights)
    with render.bars() as progress:
        artifact = materialise.merge(checkpoints, numbers, out, dtype=dtype, progress=progress)
    files = [
        {"name": f.name, "size": f.size, "digest": str(f.digest)} for f in artifact.manifest.files
    ]
    if json:
        answer = {"out": str(out), "digest": str(artifact.digest),
                  "recipe": artifact.recipe.as_json(), "files": files}  # fmt: skip
        render.print_json(answer)
        return
    render.out.print(f"written to {out}  ({artifact.digest})")
    for file in files:
        render.out.print(f"  {file['name']}  {file['size']:,} bytes  {file['digest']}")


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint folder.")],
    *,
    held_out: HeldOut,
    split: Annotated[
        str, typer.Option(help="all, search, certify or audit; the last two are logged as looks.")
    ] = "all",
    context: Context = None,
    tokenizer: Tokenizer = None,
    looks: Annotated[Path | None, typer.Option(metavar="FILE", help="Log of looks.")] = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Score a checkpoint on held-out documents, in bits per byte with an interval."""
    from ckptmerge.domain.observation import Split
    from ckptmerge.wire.best import Score
    from ckptmerge.workflow.evaluate import evaluate as evaluate_files

    if split not in set(Split):
        raise typer.BadParameter(f"--split is one of {', '.join(Split)}, not {split}")
    with render.bars() as progress:
        score = evaluate_files(
            checkpoint, held_out, split=Split(split), context=context, tokenizer=tokenizer,
            looks=looks, device=device, progress=progress,
        )  # fmt: skip
    answer = Score.of(score)
    if json:
        render.print_json({"checkpoint": str(checkpoint), "score": answer.model_dump(mode="json")})
        return
    title = f"bits per byte, {answer.documents} documents ({split})"
    render.out.print(render.score_table({str(checkpoint): answer}, title))


def inspect(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="Folder or .safetensors file.")
    ],
    compare: Annotated[
        Path | None, typer.Option(metavar="CKPT", help="Another checkpoint.")
    ] = None,
    json: Json = False,
) -> None:
    """Verify a checkpoint and say what it holds; with --compare, how far two lie apart."""
    from ckptmerge.workflow.inspect import distance, summary

    answer: dict[str, object] = summary(checkpoint)
    if compare is not None:
        answer["compare"] = {"checkpoint": str(compare), **distance(checkpoint, compare)}
    if json:
        render.print_json(answer)
        return
    for name, value in answer.items():
        render.out.print(f"{name:<12} {value}")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InvalidWeightsError(
            f"--weights {text!r}: give numbers separated by commas, as 0.4,0.6"
        ) from error


def _require_free(out: Path) -> None:
    if out.exists():
        raise OutputExistsError(f"{out} exists; name a folder that does not, or remove it first")
    if out.parent.is_file():
        raise InvalidInputError(f"{out.parent} is a file, so {out} cannot be made")
