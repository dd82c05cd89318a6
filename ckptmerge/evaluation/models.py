"""A checkpoint as a live model, and merged weights as the parameters of that model.

Models are built by transformers from config.json; code that a checkpoint brings is never run.
Scoring always goes through ``from_pretrained``'s own loading: it renames keys (GPT-NeoX), ties
heads and keeps rotary tables in float32, which ``load_state_dict`` on a converted model does not.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ckptmerge.errors import CkptmergeError, ModelLoadError
from ckptmerge.evaluation.plausible import require_plausible
from ckptmerge.evaluation.tokens import CONTEXT_CAP


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model in evaluation mode."""

    module: Any  # a transformers PreTrainedModel, whose base is not typed
    ignored: frozenset[str]
    """Tensors in the files that this model does not use."""

    @property
    def vocabulary(self) -> int:
        """How many token ids the model's input embedding knows."""
        return int(self.module.get_input_embeddings().weight.shape[0])

    @property
    def context(self) -> int:
        """Longest passage to score by default, in tokens."""
        own = getattr(self.module.config, "max_position_embeddings", CONTEXT_CAP)
        return min(int(own), CONTEXT_CAP)


def load_model(
    folder: Path, *, device: torch.device, dtype: torch.dtype = torch.float32
) -> LoadedModel:
    """Load a Hugging Face-layout checkpoint as transformers loads it.

    Raises:
        ModelLoadError: config.json is missing or not known to transformers, or the files do not
            hold every parameter of the model.
    """
    from transformers import AutoModelForCausalLM

    if not (folder / "config.json").is_file():
        raise ModelLoadError(
            f"{folder} holds no config.json, so nobody can know which model its weights are; "
            "put the run's config.json beside the weights"
        )
    try:
        with _quiet_transformers():
            require_plausible(folder)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=dtype, local_files_only=True, trust_remote_code=False,
                use_safetensors=True,  # else it would look for a pickle beside them
                output_loading_info=True,
            )  # fmt: skip
    except CkptmergeError:
        raise
    except Exception as error:
        # What transformers raises on a configuration that makes no sense is of any kind.
        raise ModelLoadError(
            f"transformers cannot build the model in {folder}: {type(error).__name__}: {error}"
        ) from error
    module, info = loaded
    _require_complete(folder, info)
    return LoadedModel(module.to(device).eval(), frozenset(info["unexpected_keys"]))


def _require_complete(folder: Path, info: Mapping[str, Any]) -> None:
    absent = sorted(info["missing_keys"]) + [str(key) for key in sorted(info["mismatched_keys"])]
    if absent:
        raise ModelLoadError(
            f"{folder} does not hold all of its model: {', '.join(absent[:20])}; transformers "
            "would fill these with random numbers, so the checkpoint is not scored"
        )


class BoundModel:
    """A model whose parameters are a window's live tensors: forming a candidate changes the model.

    ``tensors`` (by the names the checkpoint files use) must hold the same values as the model when
    this is built. Where every tensor is found again as a parameter, the parameters become views of
    the tensors and a candidate costs nothing to load. Where transformers converts tensors while
    loading (it fuses some mixture-of-experts weights), the model is rebuilt for each candidate.
    """

    def __init__(self, model: LoadedModel, tensors: Mapping[str, Tensor]) -> None:
        self._model = model
        self._tensors = {name: t for name, t in tensors.items() if name not in model.ignored}
        self.shared = _share(model.module, self._tensors)
        """Whether the parameters are views of the tensors."""

    @property
    def module(self) -> nn.Module:
        """The model that holds whatever candidate the tensors hold now."""
        if self.shared:
            return self._model.module
        return self._rebuilt()

    def _rebuilt(self) -> nn.Module:
        old = self._model.module
        parameter = next(old.parameters())
        with _quiet_transformers():
            module = type(old).from_pretrained(
                None, config=old.config, dtype=parameter.dtype,
                state_dict={name: tensor.clone() for name, tensor in self._tensors.items()},
            )  # fmt: skip
        return module.to(parameter.device).eval()


def _share(module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Make the module's parameters views of ``tensors``; do nothing unless all of them can be."""
    slots = dict(module.named_parameters()) | dict(module.named_buffers())
    aliases = dict(module.named_parameters(remove_duplicate=False))
    plan: dict[str, Tensor] = {}
    for name in sorted(tensors, key=lambda name: name not in slots):
        slot = _slot_of(name, tensors[name], slots, plan)
        if slot is None and name in aliases and torch.equal(aliases[name], tensors[name]):
            continue  # a tied tensor that the files store twice
        if slot is None:
            return False
        plan[slot] = tensors[name]
    if any(name not in plan for name, _ in module.named_parameters()):
        return False
    for slot, tensor in plan.items():
        slots[slot].data = tensor
    return True


def _slot_of(
    name: str, tensor: Tensor, slots: Mapping[str, Tensor], taken: Mapping[str, Tensor]
) -> str | None:
    """Find the parameter that a file's tensor became: the same name, else the same values."""
    names = [name] if name in slots else [slot for slot in slots if slot not in taken]
    for slot in names:
        target = slots[slot]
        if (
            target.shape == tensor.shape
            and target.dtype == tensor.dtype
            and torch.equal(target, tensor)
        ):
            return slot
    return None


def round_parameters(module: nn.Module, *, through: torch.dtype) -> None:
    """Round parameters to another dtype's values, in place, keeping their own dtype."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(through).to(parameter.dtype)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Hold back transformers' load report and bars; what matters in it becomes an error above."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
