"""JSON from strangers, measured before a parser builds anything of it.

A few megabytes of text can ask a parser for a recursion without end, or for hundreds of megabytes
of small objects. Without its strings a text is an outline, of which both can be read in one pass.
"""

from dataclasses import dataclass

_DETAILS = bytes(set(range(256)) - set(b'"{}[]:,'))
_ONE_KIND = bytes.maketrans(b"[]", b"{}")


@dataclass(frozen=True, slots=True)
class Outline:
    """How much there is in a JSON text."""

    members: int
    """Names with a value, over all objects."""
    containers: int
    """Objects and arrays."""
    commas: int
    """Values that follow another one, over all objects and arrays."""
    nested: bool
    """Whether it nests deeper than asked about, or is not closed."""


def outline(text: bytes, *, levels: int) -> Outline:
    """Measure a JSON text, valid or not.

    Args:
        text: The text, in UTF-8.
        levels: How deep it may nest.
    """
    bare = _without_strings(text)
    brackets = bare.translate(_ONE_KIND, delete=b":,")
    containers = brackets.count(b"{")
    # Each pass removes the innermost pairs: as many passes as levels.
    for _ in range(levels):
        before, brackets = brackets, brackets.replace(b"{}", b"")
        if len(brackets) == len(before):
            break
    return Outline(bare.count(b":"), containers, bare.count(b","), nested=bool(brackets))


def _without_strings(text: bytes) -> bytes:
    """Return the brackets, colons and commas that stand outside of strings.

    In a few passes over the whole text, for a million strings must not become a million objects
    here either. A string that never ends runs to the end of the text.
    """
    quoted = text.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, delete=_DETAILS)
    # What is inside of a string is told by counting quotes, and two that are neighbours count none.
    return b"".join(quoted.replace(b'""', b"").split(b'"')[::2])
