"""The rival: mergekit's linear merge, run as its users run it, in an environment of its own.

mergekit is LGPL-3.0. It is never imported by the product or by its tests: here it is a command.
"""

import json
import os
import subprocess
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.process import Measured, run_measured

ENVIRONMENT = Path(__file__).parents[2] / ".venv-mergekit"

VERSION = "0.1.5"
"""Of mergekit; with accelerate 1.15.0 and peft 0.21.2 it merges beside transformers 5.23."""

_OWN_PINS = (f"mergekit=={VERSION}", "accelerate==1.15.0", "peft==0.21.2")

_SHARED = ("torch", "numpy", "safetensors", "transformers", "tokenizers", "pydantic")
"""Libraries that both programs use, in the versions that we run: the comparison is of programs."""


class NotInstalledError(Exception):
    """mergekit could not be installed here; the message says why."""


@dataclass(frozen=True, slots=True)
class Mergekit:
    """An installed mergekit."""

    command: Path

    def merge(
        self, checkpoints: Sequence[Path], weights: Sequence[float], out: Path, *, dtype: str
    ) -> Measured:
        """Merge linearly into bfloat16, computing in ``dtype`` (``float32`` or ``bfloat16``)."""
        recipe = out.with_name(f"{out.name}.yaml")
        recipe.write_text(_recipe(checkpoints, weights, dtype=dtype))  # JSON is YAML
        return run_measured(
            [self.command, recipe, out, "--no-copy-tokenizer", "--no-write-model-card", "--quiet"],
            environment={"HF_HUB_OFFLINE": "1"},
        )


def installed_mergekit() -> Mergekit:
    """Return mergekit, installing it first where ``.venv-mergekit`` is missing.

    Raises:
        NotInstalledError: pip could not install it.
    """
    command = ENVIRONMENT / "bin" / "mergekit-yaml"
    if not command.is_file():
        print(f"installing mergekit {VERSION} into {ENVIRONMENT.name}", flush=True)
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        shared = [f"{name}=={version(name).partition('+')[0]}" for name in _SHARED]
        # torch goes first and alone: its pin then takes the wheel at hand, not a CUDA build.
        _install(shared[:1])
        _install([*_OWN_PINS, *shared])
    return Mergekit(command)


def _install(packages: Sequence[str]) -> None:
    done = subprocess.run(
        [ENVIRONMENT / "bin" / "pip", "install", "--quiet", *packages],
        check=False,  # the error says what pip said
        capture_output=True,
        text=True,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"pip exited with {done.returncode}"]
        raise NotInstalledError(said[-1])


def _recipe(checkpoints: Sequence[Path], weights: Sequence[float], *, dtype: str) -> str:
    models = [
        {"model": str(checkpoint), "parameters": {"weight": weight}}
        for checkpoint, weight in zip(checkpoints, weights, strict=True)
    ]
    return json.dumps(
        {"merge_method": "linear", "models": models, "dtype": dtype, "out_dtype": "bfloat16"}
    )
