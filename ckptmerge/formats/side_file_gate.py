"""The gate of side files: text of a bounded size, and configuration that names no code to run.

transformers builds a model from config.json and runs code that this names, from the checkpoint's
folder or from a model hub, where it is trusted to. It is never trusted here; but keys that name
code have done so all the same (CVE-2026-4372, CVE-2026-5241), so no file that has one is kept.
"""

import json
import re
from pathlib import Path
from typing import NoReturn

from ckptmerge.errors import CheckpointFormatError
from ckptmerge.formats.json_text import outline
from ckptmerge.formats.side_files import list_side_files

SIDE_FILE_LIMIT = 64 * 2**20
"""Bytes of one side file; the largest tokenizers take about half of that."""

CONFIGURATION_LIMIT = 8 * 2**20
"""Bytes of a file that is read as configuration; that of a tokenizer lists added tokens."""

_CONFIGURATION = frozenset(
    {
        "config.json", "generation_config.json", "tokenizer_config.json",
        "special_tokens_map.json", "added_tokens.json",
    }
)  # fmt: skip
_DEPTH_LIMIT = 32
_MEMBERS_LIMIT = 500_000
_NAMES_CODE = frozenset({"auto_map", "custom_generate", "model_file", "trust_remote_code"})
_NAMES_KERNEL = re.compile(r"_?(?:attn|experts)_implementation(?:_internal)?")
_PLAIN = re.compile(r"[A-Za-z0-9_|]*")


def check_side_files(folder: Path) -> None:
    """Check every side file of a folder.

    Raises:
        CheckpointFormatError: one of them breaks a rule of the gate; the message names it.
    """
    for name in list_side_files(folder):
        check_side_file(folder / name, name)


def check_side_file(path: Path, name: str) -> None:
    """Check the file at ``path``, which is to be the side file ``name``.

    Raises:
        CheckpointFormatError: it is too large, or it is JSON by its name and not by its content,
            or names code.
    """
    limit = CONFIGURATION_LIMIT if name in _CONFIGURATION else SIDE_FILE_LIMIT
    size = path.stat().st_size
    if size > limit:
        _refuse(name, f"it takes {size:,} bytes; at most {limit:,} are accepted")
    if not name.endswith(".json"):
        return
    content = path.read_bytes()
    _check_text(content, name)
    if name in _CONFIGURATION:
        _check_configuration(content, name)


def _check_text(content: bytes, name: str) -> None:
    """Refuse what no parser of JSON should be given."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        _refuse(name, f"it is not UTF-8: {error.reason} at byte {error.start}")
    found = outline(content, levels=_DEPTH_LIMIT)
    if found.nested:
        _refuse(name, f"it nests more than {_DEPTH_LIMIT} levels deep, or is not closed")
    # A tokenizer has as many names as it knows tokens; nobody here makes objects of them.
    if name in _CONFIGURATION and max(found.members, found.containers) > _MEMBERS_LIMIT:
        _refuse(name, f"it holds {found.members:,} names; at most {_MEMBERS_LIMIT:,} are accepted")


def _check_configuration(content: bytes, name: str) -> None:
    try:
        configuration = json.loads(content)
    except ValueError as error:
        _refuse(name, f"it is not JSON: {error}")
    if not isinstance(configuration, dict):
        _refuse(name, "it is not a JSON object")
    _check_names(configuration, name)


def _check_names(value: object, name: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _NAMES_CODE and item not in (None, False):
                _refuse(name, f"{key!r} names code to run, which is never done here; take it out")
            if _NAMES_KERNEL.fullmatch(key):
                _check_plain(key, item, name)
            _check_names(item, name)
    elif isinstance(value, list):
        for item in value:
            _check_names(item, name)


def _check_plain(key: str, value: object, name: str) -> None:
    """Refuse a kernel that would be fetched from a model hub: it has a place, not just a name."""
    for item in value.values() if isinstance(value, dict) else [value]:
        if item is not None and not (isinstance(item, str) and _PLAIN.fullmatch(item)):
            _refuse(name, f"{key!r} names code to fetch, {str(item)[:80]!r}; take it out")


def _refuse(name: str, what: str) -> NoReturn:
    raise CheckpointFormatError(f"{name} is not an acceptable side file: {what}")
