"""What all JSON of the service has in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]

RunName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,95}$")]

FileName = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9_][\w.\-]*$")]
"""A plain name in a checkpoint's folder: no separators, not hidden."""


class Resource(BaseModel):
    """Base of what comes in and goes out: no field too many, and numbers strict JSON can carry."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FileRef(Resource):
    """A file by its digest."""

    name: FileName
    size: Annotated[int, Field(ge=0)]
    digest: Sha256


class File(FileRef):
    """A file that can be had at ``href``."""

    href: str
    path: str | None = None
    """Where a process of the service's machine may read it."""
