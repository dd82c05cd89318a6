"""The callback for transformers' Trainer, and for what is built on it (TRL, Axolotl)."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ckptmerge.trainer.callback import CheckpointMergeCallback


class TransformersCheckpointMergeCallback(TrainerCallback):
    """Sends what a ``Trainer`` saves to a service; takes what `CheckpointMergeCallback` takes.

    Checkpoints must be safetensors, as transformers 5 saves them.
    """

    def __init__(self, url: str, *, run: str, **options: Any) -> None:
        self._callback = CheckpointMergeCallback(url, run=run, **options)

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - transformers hands it over by position
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Send the checkpoint that has just been written."""
        if not state.is_world_process_zero or args.output_dir is None:
            return
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        # Transformers counts tokens only where it is asked to; 0 then means that nobody knows.
        self._callback.saved(folder, state.global_step, state.num_input_tokens_seen or None)

    def on_train_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Wait for what is still to be sent."""
        self._callback.close()
