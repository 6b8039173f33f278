"""JSON bodies: parsed within limits, and looked into by dotted paths."""

import json
import zlib
from collections.abc import Iterable
from typing import Any

__all__ = [
    "MAX_NESTING",
    "MISSING",
    "BodyTooLargeError",
    "BrokenBodyError",
    "NotReadableError",
    "collected",
    "look_up",
    "parsed",
]

MAX_NESTING = 64
"""Most levels of arrays and objects in a body: as many as a record may have that becomes a dead letter."""

MISSING: Any = object()
"""What `look_up` gives where there is nothing."""

_EITHER_HEADER = 47  # zlib: of gzip or of zlib, whichever is there


class BodyTooLargeError(Exception):
    """A body has more bytes than allowed."""


class BrokenBodyError(Exception):
    """A body did not arrive as it was sent; the next one may."""


class NotReadableError(Exception):
    """A body cannot be what an API means to send, and asking again gives the same."""


def collected(chunks: Iterable[bytes], encoding: str, limit: int) -> bytes:
    """Give a whole body, decompressed.

    Args:
        chunks: What comes from the connection.
        encoding: The content encoding: `""`, `"identity"`, `"gzip"`, `"x-gzip"` or `"deflate"`.
        limit: Most bytes of the body after it was decompressed; no more are ever kept.

    Raises:
        BodyTooLargeError: If it has more.
        NotReadableError: If it has another encoding.
        BrokenBodyError: If what was compressed is damaged or cut off.
    """
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        msg = "has a content encoding that was not asked for; only gzip and deflate are understood"
        raise NotReadableError(msg)
    decoder = None if encoding in ("", "identity") else zlib.decompressobj(_EITHER_HEADER)
    parts, size = [], 0
    try:
        for chunk in chunks:
            part = chunk if decoder is None else decoder.decompress(chunk, limit - size + 1)
            size += len(part)
            if size > limit:
                raise BodyTooLargeError
            parts.append(part)
    except zlib.error:
        decoder = zlib.decompressobj()  # one that has not come to its end
    if decoder is not None and not decoder.eof:
        msg = "has a compressed body that is damaged or cut off"
        raise BrokenBodyError(msg)
    return b"".join(parts)


def parsed(body: bytes) -> Any:
    """Give the value of a JSON body.

    Raises:
        BrokenBodyError: If it is no JSON: most often it was cut off, or a proxy says something.
        NotReadableError: If it is nested too deep.
    """
    try:
        document = json.loads(body)
    except ValueError:
        msg = "has a body that is not JSON"
        raise BrokenBodyError(msg) from None
    except RecursionError:
        document = None
        too_deep = True
    else:
        too_deep = _is_too_deep(document)
    if too_deep:
        msg = f"has a body that is nested more than {MAX_NESTING} deep"
        raise NotReadableError(msg)
    return document


def _is_too_deep(document: Any) -> bool:
    # Level by level: records are flat and many, so that this costs little beside the parsing.
    level = [document]
    for _ in range(MAX_NESTING + 1):
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True


def look_up(document: Any, path: str) -> Any:
    """Give what stands at a dotted path, such as `"data.items"` or `"pages.0.next"`; `MISSING` if nothing does.

    A name that holds dots itself (`"@odata.nextLink"`) is found too. The empty path is the whole.
    """
    if not path:
        return document
    if isinstance(document, dict) and path in document:
        return document[path]
    name, _, rest = path.partition(".")
    if isinstance(document, dict) and name in document:
        return look_up(document[name], rest)
    if isinstance(document, list) and name.isdecimal() and int(name) < len(document):
        return look_up(document[int(name)], rest)
    return MISSING
