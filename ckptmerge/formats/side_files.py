"""Side files: what belongs to a model beside its weights, and never code."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from ckptmerge.domain.recipe import OutputDtype
from ckptmerge.errors import CheckpointFormatError

CONFIG = "config.json"

_ALLOWED = re.compile(
    r"config\.json|generation_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|tokenizer[A-Za-z0-9_.-]*\.json|tokenizer\.model|merges\.txt"
    r"|vocab[A-Za-z0-9_.-]*\.(?:json|txt|bpe)|[A-Za-z0-9_-][A-Za-z0-9_.-]*\.jinja"
    r"|LICENSE|README\.md"
)

_CONFIG_DTYPES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}


def is_side_file(name: str) -> bool:
    """Whether a base name is on the allow-list: configuration, tokenizer, licence; never code."""
    return _ALLOWED.fullmatch(name) is not None and not name.endswith(".safetensors.index.json")


def list_side_files(folder: Path) -> tuple[str, ...]:
    """Return the names of a folder's side files, sorted; a single weight file has none."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(e.name for e in folder.iterdir() if is_side_file(e.name) and e.is_file()))


def read_side_files(folder: Path, dtype: OutputDtype = "keep") -> Mapping[str, bytes]:
    """Read the side files for a model whose weights take ``dtype``.

    Raises:
        CheckpointFormatError: config.json has to change and cannot be read.
    """
    files = {name: (folder / name).read_bytes() for name in list_side_files(folder)}
    if CONFIG in files and dtype != "keep":
        files[CONFIG] = config_with_dtype(files[CONFIG], dtype)
    return files


def config_with_dtype(raw: bytes, dtype: OutputDtype) -> bytes:
    """Return a config.json whose ``dtype`` (``torch_dtype`` before transformers 5) is ``dtype``.

    Parts of a composed model (``text_config``) are changed with it. A configuration that names no
    dtype stays as it is: transformers then takes the weights' own.

    Raises:
        CheckpointFormatError: ``raw`` is not a JSON object.
    """
    if dtype == "keep":
        return raw
    try:
        config = json.loads(raw)
    except ValueError as error:
        raise CheckpointFormatError(f"{CONFIG} is not JSON: {error}; repair it") from error
    if not isinstance(config, dict):
        raise CheckpointFormatError(f"{CONFIG} is not a JSON object; repair it")
    changed = _with_dtype(config, _CONFIG_DTYPES[dtype])
    return (json.dumps(changed, indent=2, ensure_ascii=False) + "\n").encode()


def _with_dtype(config: Mapping[str, object], dtype: str) -> dict[str, object]:
    changed: dict[str, object] = {}
    for key, value in config.items():
        if key in {"dtype", "torch_dtype"} and isinstance(value, str):
            changed[key] = dtype
        elif key.endswith("_config") and key != "quantization_config" and isinstance(value, dict):
            changed[key] = _with_dtype(value, dtype)
        else:
            changed[key] = value
    return changed
