"""Passwords, tokens and keys that are written out in a sync file, where `${NAME}` should stand."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from resumable_sync._plain import Place

__all__ = ["literal_secrets"]

# Names that mean a secret wherever they stand; the last word decides: a key_file is none.
_SECRET = re.compile(
    r"(?i)(?:pass(?:word|wd|phrase)|pwd|secret|credentials?|authorization|shared_?access_?signature"
    r"|(?:api|private|access|account|shared|secret|auth|session|sas)[_-]?(?:key|token))$"
)
# And those that do so only in what is sent; elsewhere a token is the name of a field.
_SENT = re.compile(r"(?i)(?:(?<!page_)(?<!next_)(?<!page)(?<!next)token|cookie|signature|^(?:auth|key|pass|sig))$")
_SENDING = {"params", "headers", "cookies", "query", "auth", "storage_options"}
_CONNECTION_STRING = re.compile(r"(?i)(?:conn(?:ection)?_?str(?:ing)?|dsn)$")
_OF_CLOUDS = {"anon", "browser", "cache", "cloud", "google_default"}
"""What gcsfs takes for a token, and is none."""

_REFERENCE = re.compile(r"\$\{[^}]*\}")
_PAIR = re.compile(r"([\w.-]+)\s*=\s*([^\s;&#]+)")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_DATABASE_USER = re.compile(r"([^:/]*):([^@]*)@")
"""As SQLAlchemy reads it: what was not percent-encoded in a password belongs to it all the same."""


def literal_secrets(data: Any, place: Place = (), *, sent: bool = False) -> Iterator[Place]:
    """Give the places of passwords, tokens and keys that are written out.

    Args:
        data: Plain data.
        place: Where they stand.
        sent: Whether they stand among what is sent to a server, such as headers.

    Yields:
        Keys and indexes that lead to one.
    """
    if isinstance(data, Mapping):
        for key, value in data.items():
            here = (*place, key)
            if isinstance(value, Mapping | list):
                yield from literal_secrets(value, here, sent=sent or key in _SENDING)
            elif _is_literal(str(key), value, sent=sent):
                yield here
    elif isinstance(data, list):
        for index, value in enumerate(data):
            here = (*place, index)
            # The second of user and password.
            name = "password" if index and place and place[-1] == "auth" else ""
            if isinstance(value, Mapping | list):
                yield from literal_secrets(value, here, sent=sent)
            elif _is_literal(name, value, sent=sent):
                yield here


def _is_literal(key: str, value: Any, *, sent: bool) -> bool:
    if isinstance(value, bool | float) or value is None:
        return False
    text = str(value)
    rest = _REFERENCE.sub("", text)
    if _CONNECTION_STRING.search(key) and _holds_pair(rest):
        return True
    if _means_secret(key, sent=sent) and rest not in _OF_CLOUDS:
        # Beside a reference stands how it is sent, as in `Bearer ${TOKEN}`.
        return bool(rest.strip()) if rest == text else _holds_pair(rest)
    return any(_in_url(link) for link in rest.split("::"))


def _means_secret(name: str, *, sent: bool) -> bool:
    return bool(_SECRET.search(name) or (sent and _SENT.search(name)))


def _holds_pair(text: str) -> bool:
    return any(_means_secret(name, sent=True) for name, _ in _PAIR.findall(text))


def _in_url(link: str) -> bool:
    found = _URL.match(link)
    if found is None:
        return False
    scheme, rest = found[1].lower(), found[2]
    if scheme.startswith(("http", "redis")):
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        user, colon, password = authority.rpartition("@")[0].partition(":")
        # Who gives a web server one word alone gives a token.
        if password or (user and not colon and scheme.startswith("http")):
            return True
    else:
        database = _DATABASE_USER.match(rest)
        if database is not None and database[2]:
            return True
    return _holds_pair(rest.partition("?")[2])
