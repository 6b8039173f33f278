"""What tells one source from another: the text of its query, its parameters, its columns."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.engine import Dialect

from resumable_sync.connectors._statements import is_mysql

__all__ = ["listed_columns", "params_digest", "query_identity"]

_ESCAPED = r"(?<!\w)[eE]'(?:[^'\\]|''|\\.)*'"  # of PostgreSQL
_QUOTES = _ESCAPED + r"|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|(?P<dollar>\$\w*\$).*?(?P=dollar)"
_QUOTES_MYSQL = r"'(?:[^'\\]|''|\\.)*'|\"(?:[^\"\\]|\"\"|\\.)*\"|`[^`]*`"
# What MySQL executes in spite of /* stays.
_GAP = r"(?P<gap>(?:\s|/\*(?![!+]).*?\*/|--{after}[^\n]*)+)"
_TIGHT = r" ?(?P<tight>[(),;=<>!+*/|%-]) ?"
_PLAIN = [re.compile(f"(?s){_QUOTES}|{rest}") for rest in (_GAP.format(after=""), _TIGHT)]
_MYSQL = [re.compile(f"(?s){_QUOTES_MYSQL}|{rest}") for rest in (_GAP.format(after=r"(?=\s)"), _TIGHT)]


def query_identity(text: str, dialect: Dialect) -> str:
    """Give a query's text without what never matters: white space and comments outside of quotes, a last semicolon.

    The result is for comparing, not for sending.
    """
    gaps, tight = _MYSQL if is_mysql(dialect) else _PLAIN
    spaced = gaps.sub(lambda found: " " if found["gap"] else found[0], text).strip()
    return tight.sub(lambda found: found["tight"] or found[0], spaced).rstrip("; ")


def params_digest(params: Mapping[str, Any]) -> str:
    """Give a digest of parameters, whose values may be secret."""
    text = repr(sorted((name, repr(value)) for name, value in params.items()))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def listed_columns(names: Iterable[str]) -> str:
    """Give names of columns as a fingerprint lists them."""
    return json.dumps(list(names))
