"""The header `Link`. The client library's reading of it takes every character for a delimiter, and one `rel` for all.

References:
    RFC 8288, Web Linking, section 3 and appendix B.2.
"""

import re
from urllib.parse import urljoin, urlsplit

__all__ = ["LinkHeaderError", "next_link"]

_TARGET = re.compile(r"[ \t,]*<([^>]*)>[ \t]*")
_PARAMETER = re.compile(
    r';[ \t]*([^\s=;,"<>]*)[ \t]*(?:=[ \t]*(?:"((?:[^"\\]|\\.)*+)"|([^";,]*)))?[ \t]*',
    re.DOTALL,
)
_NEXT = "next"


class LinkHeaderError(Exception):
    """A header that is none as the standard has it."""


def next_link(header: str, url: str) -> str | None:
    """Give the target of the first link to the next page; None if there is no such link.

    Args:
        header: The header, with all its lines, and commas between them.
        url: What was asked for: a link may say of something else what is next to it.

    Raises:
        LinkHeaderError: If it cannot be read: a link that is passed over would be taken for the end.
    """
    found = None
    at = 0
    while header[at:].strip(" \t,"):
        begin = _TARGET.match(header, at)
        if begin is None:
            raise LinkHeaderError
        at = begin.end()
        parameters: dict[str, str] = {}
        while part := _PARAMETER.match(header, at):
            at = part.end()
            value = part[3] if part[2] is None else re.sub(r"\\(.)", r"\1", part[2])
            # Of several with one name the first counts.
            parameters.setdefault(part[1].lower(), (value or "").strip())
        if header[at : at + 1] not in ("", ","):
            raise LinkHeaderError
        if found is None and _is_next(parameters.get("rel", "")) and _is_of(url, parameters.get("anchor")):
            found = begin[1].strip()
    return found


def _is_next(relations: str) -> bool:
    # Some write single quotes, which are no quotes there.
    return _NEXT in relations.strip("'").lower().split()


def _is_of(url: str, anchor: str | None) -> bool:
    if anchor is None:
        return True
    try:
        there = urlsplit(urljoin(url, anchor))
    except ValueError:
        return False
    # An API behind a proxy has another name for itself, and another order of its parameters.
    return not there.fragment and there.path == urlsplit(url).path
