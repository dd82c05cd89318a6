"""What all JSON of the service has in common."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ckptmerge.wire import examples

Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]

RunName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,95}$")]

FileName = Annotated[
    str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$")
]
"""A plain name in a checkpoint's folder: no separators, not hidden, and as long as it looks."""


def shown(*worked: Mapping[str, Any], one_of: Sequence[str] = ()) -> ConfigDict:
    """Return the configuration of a resource that the documentation shows by examples.

    Args:
        worked: The examples.
        one_of: Optional fields of which exactly one must be given.
    """
    schema: dict[str, Any] = {"examples": [dict(example) for example in worked]}
    if one_of:
        schema["oneOf"] = [
            {"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in one_of
        ]
    return ConfigDict(json_schema_extra=schema)


class Strict(BaseModel):
    """A form in which a number is no text and no truth value: Python would read ``false`` as 0."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _read_whole_numbers(cls, fields: object) -> object:
        """Read 34.0 as 34: JSON has one kind of number, and to its schemas both are integers."""
        if not isinstance(fields, Mapping):
            return fields
        return {name: _whole(value) for name, value in cast("Mapping[str, object]", fields).items()}


class Resource(Strict):
    """Base of what comes in and goes out: no field too many, and numbers strict JSON can carry."""


def _whole(value: object) -> object:
    if isinstance(value, list):
        return [_whole(item) for item in cast("list[object]", value)]
    return int(value) if type(value) is float and value.is_integer() else value


class FileRef(Resource):
    """A file by its digest."""

    name: FileName
    size: Annotated[int, Field(ge=0)]
    digest: Sha256


class File(FileRef):
    """A file that can be had at ``href``."""

    model_config = shown(examples.FILE)

    href: str
    path: str | None = None
    """Where a process of the service's machine may read it."""
