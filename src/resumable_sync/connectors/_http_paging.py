"""The ways in which JSON APIs page: what each request asks for, what its answer means, and the cursors.

A place is where a request goes: for each kind of paging a value of its own, made from a cursor and never stored itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs

from resumable_sync._errors import ConfigurationError, CursorError
from resumable_sync._model import Cursor
from resumable_sync.connectors._http_address import Pairs
from resumable_sync.connectors._http_body import MISSING, look_up
from resumable_sync.connectors._http_errors import HTTPResponseError

__all__ = ["Answer", "Ask", "Delivery", "Paging", "key_of", "unknown_cursor"]


@attrs.frozen(kw_only=True)
class Ask:
    """What a request asks for, beyond what all requests of a connector do.

    Attributes:
        query: Parameters of this page.
        link: Path and query of the page in place of the connector's own, as `taken_out` gives it.
    """

    query: Pairs = ()
    link: str | None = None


@attrs.frozen(kw_only=True)
class Answer:
    """What an API answered.

    Attributes:
        records: Those of the page.
        document: The whole body.
        link: Gives path and query of another page from its URL, as `taken_out` does; refuses other hosts.
        next_link: Gives the URL in the header `Link` with `rel="next"`, None if there is none; refuses a header that
            cannot be read.
        token: Gives a token that it names as it is; refuses one with a credential of the connector in it.
    """

    records: list[Any]
    document: Any
    link: Callable[[str], str]
    next_link: Callable[[], str | None]
    token: Callable[[str], str]


@attrs.frozen(kw_only=True)
class Delivery:
    """What is new in an answer, and where to go on.

    Attributes:
        records: Those that were not delivered yet.
        cursor: Gives the cursor after the first 1, 2, ... of them.
        following: The place of the next request, or None at the end.
        whole: Whether they are all records of the page.
    """

    records: list[Any]
    cursor: Callable[[int], Cursor]
    following: Any
    whole: bool = True


class Paging(Protocol):
    """One way of paging; a value.

    Attributes:
        counts: Whether places are counted, so that the next one is known before the answer.
        may_wrap: Whether an API may begin with the first page again behind the last one.
        past_end: Statuses that say that there is no page at a place behind the first.
    """

    counts: bool = False
    may_wrap: bool = False
    past_end: tuple[int, ...]

    def identity(self) -> Mapping[str, str]:
        """Give the parts of the fingerprint: what the meaning of a cursor depends on."""

    def parameters(self) -> Sequence[str]:
        """Give the names of the query parameters that it sets."""

    def start(self, cursor: Cursor | None) -> Any:
        """Give the place of the first request after a cursor; None if that is the end.

        Raises:
            CursorError: If the cursor is none of its own.
        """

    def ask(self, place: Any, batch_size: int) -> Ask:
        """Give what to ask for at a place."""

    def deliver(self, place: Any, answer: Answer, batch_size: int) -> Delivery:
        """Give what an answer brings."""

    def mark(self, place: Any) -> Cursor:
        """Give what a place is known by, to notice one that comes again."""

    def ahead(self, place: Any, length: int) -> Any:  # noqa: ARG002 - what one that counts needs
        """Give the place behind a page of that length, without its answer; asked only of one that `counts`."""
        return None

    def may_be_gone(self, place: Any) -> bool:
        """Whether the API may refuse a place because it no longer knows it."""

    def anew(self, place: Any) -> Any:
        """Give a place to go on from when the API no longer knows this one; None if there is none."""


def unknown_cursor(cursor: Cursor, form: str) -> CursorError:
    """Give the error for a cursor of somebody else."""
    return CursorError(
        f"HTTPConnector cannot interpret the stored cursor (a {type(cursor).__name__}); with this paging it writes "
        f"{form}. The job belongs to another connector or paging: use the one it was begun with, or start over with "
        "reset_job(job_id)"
    )


def key_of(record: Any, key: Pairs, what: str) -> list[str | int]:
    """Give the values of a record's key.

    Args:
        record: The record.
        key: Parameters and paths.
        what: What asks for it, for the message: `"KeysetPaging.key"`.

    Raises:
        HTTPResponseError: If one of them is missing, or neither text nor a whole number.
    """
    values = []
    for _, path in key:
        value = look_up(record, path)
        if type(value) not in (str, int):
            found = "nothing" if value is MISSING else f"a {type(value).__name__}"
            raise HTTPResponseError(
                f"a record has {found} at {path!r}, where {what} looks; name a field that holds text or a whole number "
                "in every record"
            )
        values.append(value)
    return values


def check_name(_instance: Any, attribute: Any, value: Any) -> None:
    """Validate the name of a query parameter."""
    if not isinstance(value, str) or not value:
        _refuse(attribute, value, "the name of a query parameter")


def check_bool(_instance: Any, attribute: Any, value: Any) -> None:
    """Validate a bool."""
    if type(value) is not bool:
        _refuse(attribute, value, "True or False")


def check_number(_instance: Any, attribute: Any, value: Any) -> None:
    """Validate a whole number."""
    if type(value) is not int:
        _refuse(attribute, value, "a whole number")


def check_needed_path(instance: Any, attribute: Any, value: Any) -> None:
    """Validate a dotted path."""
    check_path(instance, attribute, "" if value is None else value)


def check_optional_name(instance: Any, attribute: Any, value: Any) -> None:
    """Validate the name of a query parameter, or None."""
    if value is not None:
        check_name(instance, attribute, value)


def check_path(_instance: Any, attribute: Any, value: Any) -> None:
    """Validate a dotted path, or None."""
    if value is not None and (not isinstance(value, str) or not value):
        _refuse(attribute, value, "a dotted path, such as 'meta.next'")


def check_page_size(_instance: Any, attribute: Any, value: Any) -> None:
    """Validate a number of records, or None."""
    if value is not None and (type(value) is not int or value < 1):
        _refuse(attribute, value, "a whole number of at least 1")


def check_statuses(_instance: Any, attribute: Any, value: Any) -> None:
    """Validate statuses of answers."""
    errors = range(400, 500)
    if not all(type(status) is int and status in errors for status in value):
        _refuse(attribute, value, "statuses from 400 to 499, such as (404,)")


def as_key(value: Mapping[str, str]) -> Pairs:
    """Convert a key, parameters and paths, to a value that cannot be changed."""
    given: Any = value  # what is no mapping is refused when it is validated
    key: Pairs = tuple(given.items()) if isinstance(given, Mapping) else given
    return key


def as_optional_key(value: Mapping[str, str] | None) -> Pairs | None:
    """Convert a key or None."""
    return None if value is None else as_key(value)


def check_key(_instance: Any, attribute: Any, value: Any) -> None:
    """Validate a key, converted."""
    pairs = isinstance(value, tuple) and value and all(isinstance(pair, tuple) for pair in value)
    if not pairs or not all(isinstance(text, str) and text for pair in value for text in pair):
        _refuse(attribute, value, "a mapping of query parameter to dotted path, such as {'since_id': 'id'}")


def check_optional_key(instance: Any, attribute: Any, value: Any) -> None:
    """Validate a key, converted, or None."""
    if value is not None:
        check_key(instance, attribute, value)


def as_statuses(value: Any) -> Any:
    """Convert statuses to a value that cannot be changed."""
    return tuple(value) if isinstance(value, list | tuple | set | frozenset | Iterator) else (value,)


def _refuse(attribute: Any, value: Any, allowed: str) -> None:
    found = type(value).__name__
    raise ConfigurationError(
        f"{attribute.name}={value!r} is not possible for a paging; give {allowed} (this is a {found})",
        (attribute.name,),
    )
