"""What a connector reads, as the text that a job keeps, and what changed from one such text to another.

The text of a mapping is a JSON object with a digest for each part, so that a difference can be named by its part while
no query, path or parameter is kept. Only names of columns stay readable: a run goes on with those that it began with.

    {"columns": ["id", "name"], "key": "6a1f...", "query": "09bc..."}
    {"columns": {"read": ["id", "name"], "seen": ["id", "name", "extra"]}, ...}     a column came, with consent
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from typing_extensions import override

from resumable_sync._errors import ConfigurationError

__all__ = [
    "COMPARED",
    "Change",
    "carried_on",
    "changes",
    "fingerprint_text",
    "is_verification",
    "named_columns",
    "pinned_columns",
]

COLUMNS = "columns"
"""The part that lists names of columns."""

COMPARED = "compared"
"""The part that shows a job to be a verification: by which key and columns it compares."""

CURSOR_PARTS = frozenset({"key", "paging"})
"""The parts without which a cursor means nothing."""

MAX_COLUMNS = 16_384
"""Characters of a list of columns that is kept readable; a longer one is kept as a digest."""

_MOST_NAMES = 20


@attrs.frozen(kw_only=True)
class Change:
    """A part of a fingerprint that changed.

    Attributes:
        part: Its name.
        detail: What changed in it, where that may be said; else empty.
        impossible: Whether a cursor of before means nothing, or the shape of records cannot stay the same: not even
            consent makes a resume possible.
    """

    part: str
    detail: str = ""
    impossible: bool = False

    @override
    def __str__(self) -> str:
        return f"{self.part} ({self.detail})" if self.detail else self.part


def fingerprint_text(fingerprint: str | Mapping[str, str] | None) -> str | None:
    """Give a fingerprint as the text that a job keeps.

    Raises:
        ConfigurationError: If it is something else.
    """
    if fingerprint is None or isinstance(fingerprint, str):
        return fingerprint
    given: object = fingerprint
    if not isinstance(given, Mapping):
        msg = f"the connector's fingerprint is {given!r}; give a str, a mapping of str to str, or None"
        raise ConfigurationError(msg)
    for name, part in given.items():
        if not isinstance(name, str) or not isinstance(part, str):
            # The value may be a parameter of a query: only its type is told.
            msg = f"part {name!r} of the connector's fingerprint is a {type(part).__name__}; give a str for each str"
            raise ConfigurationError(msg)
    return _text({name: _kept(name, part) for name, part in fingerprint.items()})


def changes(stored: str | None, current: str | None, *, ordered: bool = True) -> tuple[Change, ...]:
    """Say in which parts two fingerprint texts differ; a missing fingerprint differs from nothing.

    Args:
        stored: Of the checkpoint.
        current: Of the connector.
        ordered: Whether another order of the same columns is a change.
    """
    if stored is None or current is None or stored == current:
        return ()
    old, new = _parts(stored), _parts(current)
    found = []
    for name in sorted({*old, *new}):
        before, now = old.get(name), new.get(name)
        if name == "paging" and before == _digest("stream"):
            before = _digest("keyset")  # older jobs name the paging, not the kind of its cursors, which is the same
        if name == COLUMNS:
            found.append(_changed_columns(before, now, ordered=ordered))
        elif before != now:
            found.append(Change(part=name, impossible=name in CURSOR_PARTS and None not in (before, now)))
    return tuple(change for change in found if change is not None)


def is_verification(text: str | None) -> bool:
    """Whether a job of this fingerprint text compares two sides instead of syncing them."""
    return text is not None and COMPARED in _parts(text)


def pinned_columns(stored: str | None, current: str | None) -> tuple[str, ...] | None:
    """Give the columns that the run began with, where the source has others by now, or another order; else None."""
    if stored is None or current is None:
        return None
    read = _read(_parts(stored).get(COLUMNS))
    now = _read(_parts(current).get(COLUMNS))
    return None if read is None or now is None or read == now or not set(read) <= set(now) else read


def named_columns(text: str | None) -> tuple[str, ...] | None:
    """Give the columns that a fingerprint text holds by name; None if it holds none."""
    return None if text is None else _read(_parts(text).get(COLUMNS))


def carried_on(stored: str | None, current: str | None, pinned: Sequence[str] | None) -> str | None:
    """Give the text that a job keeps when its run goes on: what is read now, by the columns it began with."""
    if current is None:
        return stored
    if pinned is None:
        return current
    parts = _parts(current)
    seen = _read(parts[COLUMNS]) or ()
    read = list(pinned)
    parts[COLUMNS] = read if set(seen) == set(read) else {"read": read, "seen": list(seen)}
    return _text(parts)


def _text(parts: Mapping[str, object]) -> str:
    return json.dumps(parts, sort_keys=True, separators=(",", ":"))


def _parts(text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        parsed = None
    return parsed if isinstance(parsed, dict) else {"fingerprint": text}


def _kept(name: str, part: str) -> object:
    names = _listed(part) if name == COLUMNS else None
    if names is None:
        return _digest(part)
    return list(names) if len(part) <= MAX_COLUMNS else _digest(", ".join(names))


def _listed(part: str) -> tuple[str, ...] | None:
    try:
        parsed = json.loads(part)
    except (ValueError, RecursionError):
        return None
    return _names(parsed)


def _names(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return None
    return tuple(value)


def _read(value: object) -> tuple[str, ...] | None:
    """Give the columns that are read, where a text holds them by name."""
    return _names(value.get("read") if isinstance(value, dict) else value)


def _digest(part: str) -> str:
    return hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _changed_columns(before: object, now: object, *, ordered: bool) -> Change | None:
    if before is None or now is None or before == now:
        return None  # jobs of before there was such a part go on
    read, current = _read(before), _read(now)
    if read is None or current is None:
        # One of them is a digest: the list was too long, or the job is older than lists.
        same = _column_digest(before) == _column_digest(now)
        return None if same else Change(part=COLUMNS)
    known = {*read, *((_names(before.get("seen")) or ()) if isinstance(before, dict) else ())}
    added = [name for name in current if name not in known]
    gone = [name for name in read if name not in current]
    if added or gone:
        told = [f"{what} {_shown(names)}" for what, names in (("added", added), ("gone", gone)) if names]
        return Change(part=COLUMNS, detail="; ".join(told), impossible=bool(gone))
    moved = ordered and tuple(name for name in current if name in read) != read
    return Change(part=COLUMNS, detail="in another order") if moved else None


def _column_digest(value: object) -> object:
    names = _read(value)
    return value if names is None else _digest(", ".join(names))


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(map(repr, names[:_MOST_NAMES])) + more
