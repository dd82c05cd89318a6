"""Differential fuzzing: whatever our gate takes, the safetensors library takes and reads alike.

Valid files are damaged: their bytes, and their JSON with its structure kept, which random bytes
hardly ever do. Of what both take, every name, dtype, shape and byte is compared. The damage comes
from a seeded generator and not from hypothesis, which makes a hundredth of the files a second; the
property tests are its part.
"""

import json
import random
import re
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, deserialize

from ckptmerge.domain.checkpoint import BITS, TensorSpec
from ckptmerge.errors import CheckpointFormatError
from ckptmerge.formats.header import encode_header, parse_header

Reader = Callable[[bytes], Mapping[str, tuple[str, list[int], bytes]] | None]
"""Returns each tensor's dtype, shape and bytes; None where the file is refused."""

_KEPT = 20
"""Files of a kind that are kept to be looked at."""

_LETTERS = "ab.-_:/0Z"
_TOKENS = [
    b"0", b"-0", b"1", b"9" * 20, b"9" * 21, b"18446744073709551616", b"true", b"null", b"{", b"}",
    b"[", b"]", b",", b":", b'"', b'"a"', b"\\", b"\\u0061", b"\\ud800", b" ", b"\t", b"\n", b"\0",
    b"\xff", b"\xc0\xaf", b"\xef\xbb\xbf", b"1.0", b"1e1", b"1E400", b"NaN", b'"b":{},', b"F64",
    b"F4", b"F8_E4M3", b"__metadata__", b'"__metadata__":{},', b"/", b"..", b"[]", b"{}",
]  # fmt: skip
_NUMBER = re.compile(rb"\d+")
_NUMBERS = [b"-0", b"0.0", b"0e0", b"00", b"01", b"+1", b"0x1", b"1_0", b"true", b"null", b'"0"']
"""What one reader takes for a whole number and another does not."""

_VALUES: list[Any] = [
    0, 1, -1, 2, 8, 2**31, 2**48, 2**63, 2**64 - 1, 2**64, True, None, 0.0, 1.5, "", "F32", "BOOL",
    [], [0], [1, 1], [0, 8], [8, 0], [2**32, 2**32], {}, {"k": "v"}, {"k": 1},
]  # fmt: skip


def damaged(rng: random.Random) -> bytes:
    """Make a file that was valid, until its bytes or its fields were changed."""
    specs = _specs(rng)
    data = rng.randbytes(sum(spec.bytes for spec in specs))
    text = encode_header(specs, rng.choice([{}, {"format": "pt"}]))[8:]
    if rng.random() < 0.5:
        text = _with_fields_changed(rng, text)
    if rng.random() < 0.5:
        text = _with_bytes_changed(rng, text)
    if rng.random() < 0.1:
        data = rng.choice([data[:-1], b"", data + b"\0", data + bytes(8)])
    length = len(text) + (rng.choice([-1, 1, 8, 2**40]) if rng.random() < 0.1 else 0)
    return struct.pack("<Q", max(length, 0)) + text + data


def _specs(rng: random.Random) -> list[TensorSpec]:
    names = {"".join(rng.choices(_LETTERS, k=rng.randint(1, 6))) for _ in range(rng.randint(1, 4))}
    return [
        TensorSpec(
            name, rng.choice(sorted(BITS)), tuple(rng.choices(range(4), k=rng.randint(0, 3)))
        )
        for name in sorted(names)
    ]


def _with_fields_changed(rng: random.Random, text: bytes) -> bytes:
    header: dict[str, Any] = json.loads(text)
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(sorted(header))
        field = header[name]
        match rng.randint(0, 5):
            case 0:
                header[rng.choice(["a", "", "../x", "\0", "\u00e9", "b" * 600])] = field
            case 1:
                header[name] = rng.choice(_VALUES)
            case 2 if isinstance(field, dict):
                key = rng.choice(["dtype", "shape", "data_offsets", "extra"])
                header[name] = {**field, key: rng.choice(_VALUES)}
            case 3 if isinstance(field, dict) and isinstance(field.get("shape"), list):
                header[name] = {**field, "shape": [*field["shape"], rng.randint(0, 2)]}
            case _:
                header = dict(rng.sample(sorted(header.items(), key=str), len(header)))
    return json.dumps(header, separators=(",", ":"), ensure_ascii=rng.random() < 0.5).encode()


def _with_bytes_changed(rng: random.Random, text: bytes) -> bytes:
    numbers = list(_NUMBER.finditer(text))
    if numbers and rng.random() < 0.3:
        place = rng.choice(numbers)
        return text[: place.start()] + rng.choice(_NUMBERS) + text[place.end() :]
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(text))
        token = rng.choice(_TOKENS) if rng.random() < 0.8 else rng.randbytes(rng.randint(0, 2))
        text = text[:at] + token + text[at + rng.randint(0, 3) :]
    return text


def ours(content: bytes) -> Mapping[str, tuple[str, list[int], bytes]] | None:
    """Read a file behind our gate."""
    try:
        header = parse_header(content, len(content))
    except CheckpointFormatError:
        return None
    return {
        entry.spec.name: (
            entry.spec.dtype,
            list(entry.spec.shape),
            content[entry.offset : entry.offset + entry.spec.bytes],
        )
        for entry in header.tensors
    }


def trusting(content: bytes) -> Mapping[str, tuple[str, list[int], bytes]] | None:
    """Read a file as one does who checks nothing; for the control."""
    try:
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        header.pop("__metadata__", None)
        return {
            name: (field["dtype"], list(field["shape"]), content[start:][slice(*offsets)])
            for name, field in header.items()
            if (offsets := field["data_offsets"])
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def theirs(content: bytes) -> Mapping[str, tuple[str, list[int], bytes]] | None:
    """Read a file as the safetensors library does."""
    try:
        return {
            name: (found["dtype"], list(found["shape"]), bytes(found["data"]))
            for name, found in deserialize(content)
        }
    except SafetensorError:
        return None


def fuzz(seconds: float, found: Path, *, rng: random.Random, gate: Reader = ours) -> Counter[str]:
    """Fuzz for so long, and count what became of the files.

    Args:
        seconds: On the clock of the machine.
        found: Folder for files on which the two disagree, to become rows of the corpus.
        rng: What the damage comes from.
        gate: What stands before the library.

    Returns:
        How many were ``tried``, ``refused`` by the gate, ``taken`` by both alike, ``let through``
        by the gate alone, read ``otherwise`` and ``crashed`` on, by those words.
    """
    counted: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        content = damaged(rng)
        what = _compared(content, gate)
        counted["tried"] += 1
        counted[what] += 1
        if what not in {"refused", "taken"} and counted[what] <= _KEPT:
            (found / f"{what.replace(' ', '-')}-{counted[what]}.safetensors").write_bytes(content)
    return counted


def _compared(content: bytes, gate: Reader) -> str:
    try:
        mine = gate(content)
    except Exception:  # noqa: BLE001 - whatever the gate raises but a refusal is a finding
        return "crashed"
    if mine is None:
        return "refused"
    library = theirs(content)
    if library is None:
        return "let through"
    return "taken" if library == mine else "otherwise"
