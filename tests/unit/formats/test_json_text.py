"""An outline counts what a parser would build, and knows a text's depth before recursing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptmerge.formats.json_text import Outline, outline

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)


def inner_of(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def depth(value: object) -> int:
    return max(map(depth, inner_of(value)), default=0) + isinstance(value, dict | list)


def containers(value: object) -> int:
    return sum(map(containers, inner_of(value))) + isinstance(value, dict | list)


def commas(value: object) -> int:
    return sum(map(commas, inner_of(value))) + max(len(inner_of(value)) - 1, 0)


def members(value: object) -> int:
    return sum(map(members, inner_of(value))) + (len(value) if isinstance(value, dict) else 0)


@given(value=JSON, ascii_only=st.booleans(), levels=st.integers(0, 5))
def test_an_outline_tells_depth_and_names_of_every_text(
    value: object, ascii_only: bool, levels: int
) -> None:
    found = outline(json.dumps(value, ensure_ascii=ascii_only).encode(), levels=levels)
    assert found.members == members(value)
    assert (found.containers, found.commas) == (containers(value), commas(value))
    assert found.nested == (depth(value) > levels)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rb'{"a\\":{"b":1}}', Outline(2, 2, 0, nested=True)),
        (rb'{"a\":{\"b":1}', Outline(1, 1, 0, nested=False)),
        (rb'{"\\\"{[":1}', Outline(1, 1, 0, nested=False)),
        (b'["a:",":b","",":"]', Outline(0, 1, 3, nested=False)),
        (b'{"a":"{{{{', Outline(1, 1, 0, nested=True)),
        (b"}{", Outline(0, 1, 0, nested=True)),
        (b"[" * 1_000_000, Outline(0, 1_000_000, 0, nested=True)),
    ],
    ids=lambda value: str(value)[:30],
)
def test_quotes_within_strings_end_none_of_them(text: bytes, expected: Outline) -> None:
    assert outline(text, levels=1) == expected
