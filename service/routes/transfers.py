"""What uploads and downloads of bytes may be refused and answered, for their documentation."""

from typing import Any

from ckptmerge.errors import MissingError, OutOfSpaceError, TooLargeError, TruncatedFileError
from service.interface import Details, Responses, refusals

_TAG = "b2116fb3584d45afa8323a8cd080c4118ac13713e6640b76d81e4a4428543d0e"

BYTES: dict[str, Any] = {
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
}

UPLOAD: Details = {
    408: "no more of the body came in 30 s; send it again",
    411: "say how long the body is (Content-Length)",
    TooLargeError: "a body of 1649267441664 bytes is too large; at most 1099511627776 are taken",
    TruncatedFileError: "1,048,576 of 2,353,960,720 announced bytes came; send them again",
    OutOfSpaceError: "2,353,960,720 bytes and the reserve of 1,073,741,824 do not fit into "
    "1,500,000,000 free bytes of blobs; remove checkpoints, or lower the reserve",
}
"""What is refused of a body that is stored as it comes."""


_OTHER_BYTES = f'the file is "{_TAG}" and none of "0000"; ask without If-Match'

CONDITIONS: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "header", "description": said, "schema": {"type": "string"}}
        for name, said in (
            ("If-Match", "ETag that the file must have; anything else is refused with 412."),
            ("If-None-Match", "ETag that the client has; the answer is 304 where it is this."),
        )
    ]
}
"""Headers that a download looks at (RFC 9110, section 13)."""

RANGES: dict[str, Any] = {
    "parameters": [
        *CONDITIONS["parameters"],
        *(
            {"name": name, "in": "header", "description": said, "schema": {"type": "string"}}
            for name, said in (
                ("Range", "Bytes to send, such as bytes=1000-; several ranges are ignored."),
                ("If-Range", "ETag for which the range holds; for another all bytes are sent."),
            )
        ),
    ]
}
"""The same and those of ranges, which are for GET (section 14.2)."""


def sent(missing: str) -> Responses:
    """Document the answers of a download that knows ranges and conditions.

    Args:
        missing: What is said where there is no such file.
    """
    return {
        **described(missing),
        200: {"description": "The whole file.", **BYTES},
        206: {"description": "The range that was asked for.", **BYTES},
        **refusals({416: "the file has 1000 bytes, and bytes=1000- lies outside; ask for less"}),
    }


def described(missing: str) -> Responses:
    """Document the answers of a download that is asked for by HEAD, without its bytes."""
    return {
        200: {"description": "The file is there; the headers are those of GET."},
        304: {"description": "The client has these bytes already."},
        **refusals({MissingError: missing, 412: _OTHER_BYTES}),
    }
