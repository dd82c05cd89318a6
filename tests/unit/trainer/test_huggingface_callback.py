"""Transformers' trainer is listened to through its own callbacks."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ckptmerge.trainer import huggingface


class Recorder:
    """Stands where the callback that sends would be."""

    def __init__(self, url: str, *, run: str, queue: int) -> None:
        self.made = (url, run, queue)
        self.heard: list[tuple[object, ...]] = []

    def saved(self, path: Path, step: int, tokens: int | None) -> None:
        self.heard.append((path, step, tokens))

    def close(self) -> None:
        self.heard.append(("closed",))


def test_what_a_trainer_saves_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "CheckpointMergeCallback", Recorder)
    callback = huggingface.TransformersCheckpointMergeCallback("http://host", run="r", queue=2)
    recorder = cast(Any, callback)._callback
    arguments = cast(Any, SimpleNamespace(output_dir=str(tmp_path)))

    def state(step: int, tokens: int, first: bool = True) -> Any:
        return SimpleNamespace(
            global_step=step, num_input_tokens_seen=tokens, is_world_process_zero=first
        )

    callback.on_save(arguments, state(10, 4096), cast(Any, None))
    callback.on_save(arguments, state(20, 0), cast(Any, None))
    callback.on_save(arguments, state(20, 0, first=False), cast(Any, None))
    callback.on_train_end(arguments, state(20, 0), cast(Any, None))
    assert recorder.made == ("http://host", "r", 2)
    assert recorder.heard == [
        (tmp_path / "checkpoint-10", 10, 4096), (tmp_path / "checkpoint-20", 20, None), ("closed",),
    ]  # fmt: skip
