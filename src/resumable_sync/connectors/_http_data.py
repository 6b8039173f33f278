"""Arguments of the HTTP connector: checked, and made from plain data."""

from collections.abc import Mapping
from typing import Any, get_args

import attrs

from resumable_sync._errors import ConfigurationError
from resumable_sync._plain import suggestion
from resumable_sync.connectors._http_answer import Empty
from resumable_sync.connectors._http_chained import LinkPaging, TokenPaging
from resumable_sync.connectors._http_counted import OffsetPaging, PagePaging
from resumable_sync.connectors._http_keyset import KeysetPaging
from resumable_sync.connectors._http_paging import Paging

__all__ = ["checked_empty", "checked_paging", "checked_path", "paging_from"]

_PAGINGS: dict[str, Any] = {
    "offset": OffsetPaging,
    "page": PagePaging,
    "token": TokenPaging,
    "link": LinkPaging,
    "keyset": KeysetPaging,
}


def paging_from(data: Any) -> Paging:
    """Give the paging that plain data describe.

    Raises:
        ConfigurationError: If they describe none; its `place` begins with `"paging"`.
    """
    if not isinstance(data, str | Mapping):
        msg = f"is a {type(data).__name__}; give one of {_listed(_PAGINGS)}, or a table with a type and its fields"
        raise ConfigurationError(f"paging {msg}", ("paging",))
    fields = {"type": data} if isinstance(data, str) else dict(data)
    kind = fields.pop("type", None)
    named = ("paging",) if isinstance(data, str) else ("paging", "type")
    if not isinstance(kind, str) or kind not in _PAGINGS:
        meant = suggestion(kind, _PAGINGS)
        found = repr(kind) if isinstance(kind, str) or kind is None else f"a {type(kind).__name__}"
        msg = f"paging is of type {found}, which there is none of{meant}; give one of {_listed(_PAGINGS)}"
        raise ConfigurationError(msg, named if kind is not None else ("paging",))
    known = attrs.fields_dict(_PAGINGS[kind])
    for name in fields:
        if name not in known:
            msg = f"the paging {kind!r} has no {name!r}{suggestion(name, known)}; its fields are {_listed(known)}"
            raise ConfigurationError(msg, ("paging", name))
    for name, field in known.items():
        if field.default is attrs.NOTHING and name not in fields:
            msg = f"the paging {kind!r} needs {name!r}; its fields are {_listed(known)}"
            raise ConfigurationError(msg, ("paging",))
    try:
        made: Paging = _PAGINGS[kind](**fields)
    except ConfigurationError as error:
        # What combines several fields names none of them alone.
        raise ConfigurationError(str(error), ("paging", *error.place)) from None
    return made


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, names))


def checked_path(name: str, path: Any) -> str:
    """Give a dotted path if it is one.

    Raises:
        ConfigurationError: If it is none.
    """
    if not isinstance(path, str):
        msg = f"{name}={path!r} is not possible; give a dotted path, such as 'data.items'"
        raise ConfigurationError(msg)
    return path


def checked_empty(empty: Any) -> Empty:
    """Give what stands for no records if it is one of what can.

    Raises:
        ConfigurationError: If it is not.
    """
    for known in get_args(Empty):
        if empty == known:
            found: Empty = known
            return found
    msg = f"empty={empty!r} is not possible; give 'list', 'null' or 'missing'"
    raise ConfigurationError(msg)


def checked_paging(given: Any, concurrency: Any) -> Paging:
    """Give a paging if it is one, and can be that of so many requests at once.

    Raises:
        ConfigurationError: If it cannot.
    """
    if not any(isinstance(given, kind) for kind in _PAGINGS.values()):
        names = ", ".join(kind.__name__ for kind in _PAGINGS.values())
        msg = f"paging is a {type(given).__name__}; give one of {names}, or subclass RequestConnector"
        raise ConfigurationError(msg)
    paging: Paging = given
    if type(concurrency) is not int or concurrency < 1:
        msg = f"concurrency={concurrency!r} is not possible; give a whole number of at least 1"
        raise ConfigurationError(msg)
    if concurrency > 1 and not paging.counts:
        msg = (
            f"concurrency={concurrency} is not possible with {type(paging).__name__}, whose every page says where the "
            "next one begins; leave it out, or page by OffsetPaging or PagePaging if the API can"
        )
        raise ConfigurationError(msg)
    return paging
