"""What a service answers, read into the resource that it should be."""

from typing import TypeVar

from pydantic import ValidationError

from ckptmerge.errors import ServiceError
from ckptmerge.wire.resource import Resource

Answer = TypeVar("Answer", bound=Resource)


def read_answer(kind: type[Answer], content: object) -> Answer:
    """Read JSON that came from a service.

    Raises:
        ServiceError: it has another form, so the service is of another version.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "/".join(map(str, first["loc"]))
        raise ServiceError(
            f"the service's {kind.__name__} cannot be read ({place}: {first['msg']}); "
            "install the same version of ckptmerge here and there"
        ) from error
