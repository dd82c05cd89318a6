"""One line of JSON, read strictly: what is missing, unknown, repeated or mistyped is refused.

Floats are written in their shortest form that reads back to the same float64.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ckptmerge.errors import InvalidInputError


def one_line(**fields: object) -> str:
    """Write JSON without a line break; Python writes floats in their shortest exact form."""
    return json.dumps(fields, allow_nan=False, separators=(",", ":"))


def parsed(text: str) -> object:
    """Parse JSON, refusing what its standard leaves open: repeated keys and non-finite numbers.

    Raises:
        InvalidInputError: it is none.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"not one line of JSON: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, refusing a key that stands twice."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidInputError(f"a key stands twice in {[key for key, _ in pairs]}")
    return fields


def _refuse_constant(name: str) -> float:
    """Refuse NaN and infinities, which are no JSON."""
    raise InvalidInputError(f"numbers must be finite, not {name}")


def fields_of(value: object, name: str, keys: Sequence[str]) -> Mapping[str, Any]:
    """Return an object that has exactly these keys."""
    if not isinstance(value, dict) or set(value) != set(keys):
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise InvalidInputError(f"{name}: expected the keys {sorted(keys)}, found {found}")
    return value


def list_of(value: object, name: str) -> list[Any]:
    """Return a list."""
    if not isinstance(value, list):
        raise InvalidInputError(f"{name}: expected a list, found {type(value).__name__}")
    return value


def floats_of(value: object, name: str) -> tuple[float, ...]:
    """Return a list of numbers as a tuple."""
    return tuple(float_of(item, name) for item in list_of(value, name))


def float_of(value: object, name: str) -> float:
    """Return a number; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInputError(f"{name}: expected a number, found {value!r}")
    return float(value)


def integer_of(value: object, name: str) -> int:
    """Return an integer; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInputError(f"{name}: expected an integer, found {value!r}")
    return value


def optional_text_of(value: object, name: str) -> str | None:
    """Return a text or None."""
    if value is not None and not isinstance(value, str):
        raise InvalidInputError(f"{name}: expected a text or null, found {value!r}")
    return value
