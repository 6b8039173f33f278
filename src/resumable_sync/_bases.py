"""Bases for connectors: one for each of the three ways in which sources page.

    class Orders(OffsetConnector[dict[str, Any]]):
        def fetch(self, offset: int, limit: int) -> list[dict[str, Any]]:
            return api.get("/orders", params={"offset": offset, "limit": limit}).json()

They know when a source is exhausted (an empty page or a missing token, never a short page or a count), cut pages that
are longer than asked, and notice a source that goes round in circles.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic

from typing_extensions import TypeVar, override

from resumable_sync._cursor import encode_cursor
from resumable_sync._cycle import CycleWatch
from resumable_sync._errors import ConfigurationError, CursorError
from resumable_sync._model import Cursor, Page, RecordT
from resumable_sync._offset_part import offset_part, offset_places
from resumable_sync._protocols import Connector
from resumable_sync._split import ConnectorPart

__all__ = ["KeysetConnector", "OffsetConnector", "TokenConnector"]

KeyT = TypeVar("KeyT", default=Any)
TokenT = TypeVar("TokenT", default=Any)


class _PagingConnector(Connector[RecordT]):
    """What the three bases share.

    Attributes:
        fingerprint: Identity of what is read; None: not checked. Set it in the class or in `__init__`.
        column_names: The column names where records are tuples.
    """

    fingerprint: str | Mapping[str, str] | None = None
    column_names: Sequence[str] | None = None

    @override
    def count(self) -> int | None:
        """Say how many records there are; override it where the source can tell cheaply."""
        return None

    def _page(self, records: Sequence[RecordT], cursor: Cursor) -> Page[RecordT]:
        return Page(records, cursor, self.column_names)

    def _checked(self, records: Any) -> Sequence[RecordT]:
        sliceable = hasattr(records, "__len__") and hasattr(records, "__getitem__")
        if not sliceable or isinstance(records, str | bytes | Mapping):
            msg = (
                f"{type(self).__name__}.fetch gave a {type(records).__name__} for the records of a page; "
                "give a list of them (list(...) makes one of a generator)"
            )
            raise ConfigurationError(msg)
        found: Sequence[RecordT] = records
        return found

    def _unknown(self, cursor: Cursor, form: str) -> CursorError:
        name = type(self).__name__
        return CursorError(
            f"{name} cannot interpret the stored cursor (a {type(cursor).__name__}); it writes {form}. The job belongs "
            "to another connector: use the one it was begun with, or start over with reset_job(job_id)"
        )


class OffsetConnector(_PagingConnector[RecordT]):
    """Reads a source that is asked for "`limit` records from `offset` on". Override `fetch`.

    The source must keep its order and its records while it is read: one that is inserted or removed before the offset
    moves all others, and records are skipped or repeated. Where there is a unique key, prefer `KeysetConnector`.

    The cursor is the number of records delivered: `[200]`.

    Examples:
        >>> class Letters(OffsetConnector[str]):
        ...     def fetch(self, offset, limit):
        ...         return list("abc")[offset : offset + limit]
        >>> for page in Letters().read([1], 1):
        ...     print(page.records, page.cursor)
        ['b'] [2]
        ['c'] [3]
    """

    @abstractmethod
    def fetch(self, offset: int, limit: int) -> Sequence[RecordT]:
        """Give the records from `offset` on.

        Args:
            offset: How many records to pass over, from 0.
            limit: How many to give, at least 1. Fewer is fine, none means the end; more are cut off.
        """

    @override
    def read(self, cursor: Cursor | None, batch_size: int) -> Iterator[Page[RecordT]]:
        offset = self._offset(cursor)
        while True:
            records = self._checked(self.fetch(offset, batch_size))
            if len(records) == 0:
                return
            if len(records) > batch_size:
                records = records[:batch_size]
            offset += len(records)
            yield self._page(records, [offset])
            del records  # the next page shall not find this one still in memory

    def cursor_at(self, offset: int) -> Cursor | None:
        """Give the cursor after the first `offset` records; None for offset 0, or if there are fewer records."""
        return [offset] if offset > 0 and len(self._checked(self.fetch(offset - 1, 1))) > 0 else None

    def split(self, parts: int) -> Sequence[ConnectorPart[RecordT]]:
        """Give ranges of offsets with equal numbers of records; the last one ends where the source does.

        Raises:
            ConfigurationError: If `count` does not say how many records there are.
        """
        records = self.count()
        if records is None:
            msg = f"{type(self).__name__} cannot be split, since its count() does not say how many records there are;"
            raise ConfigurationError(f"{msg} override count(), or read it in one piece with run_full_sync")
        return [self.part(place) for place in offset_places(records, parts)]

    def part(self, place: Cursor) -> ConnectorPart[RecordT]:
        """Give the part from one offset to another one: `[100, 200]`, or `[300, None]` for the last one."""
        return offset_part(self, place)

    def _offset(self, cursor: Cursor | None) -> int:
        if cursor is None:
            return 0
        if type(cursor) is list and len(cursor) == 1 and type(cursor[0]) is int and cursor[0] >= 0:
            return cursor[0]
        raise self._unknown(cursor, "[offset], such as [200]")


class KeysetConnector(_PagingConnector[RecordT], Generic[RecordT, KeyT]):
    """Reads a source that is asked for "`limit` records after the key `after`". Override `fetch` and `key_of`.

    The source gives the records ordered by a key that is unique and never None; only the source compares keys. A page
    costs the same at any depth, and records that come and go elsewhere move nothing.

    The cursor is the key of the last record delivered: `[4711]`.

    Examples:
        >>> class Squares(KeysetConnector[dict[str, int], int]):
        ...     def fetch(self, after, limit):
        ...         return [{"id": n, "square": n * n} for n in (3, 5, 8) if after is None or n > after][:limit]
        ...
        ...     def key_of(self, record):
        ...         return record["id"]
        >>> for page in Squares().read([3], 1):
        ...     print(page.records, page.cursor)
        [{'id': 5, 'square': 25}] [5]
        [{'id': 8, 'square': 64}] [8]
    """

    @abstractmethod
    def fetch(self, after: KeyT | None, limit: int) -> Sequence[RecordT]:
        """Give the records that follow the key `after`.

        Args:
            after: The key of the last record delivered, or None for the beginning.
            limit: How many to give, at least 1. Fewer is fine, none means the end; more are cut off.
        """

    @abstractmethod
    def key_of(self, record: RecordT) -> KeyT:
        """Give the key of a record: unique, not None, of the types of the cursor codec."""

    @override
    def read(self, cursor: Cursor | None, batch_size: int) -> Iterator[Page[RecordT]]:
        after = self._after(cursor)
        watch = CycleWatch(encode_cursor(cursor), f"{type(self).__name__}.key_of", "key")
        while True:
            records = self._checked(self.fetch(after, batch_size))
            if len(records) == 0:
                return
            if len(records) > batch_size:
                records = records[:batch_size]
            after = self.key_of(records[len(records) - 1])
            if after is None:
                name = type(self).__name__
                msg = f"{name}.key_of gave None, which means the beginning; order by a key that is never None"
                raise CursorError(msg)
            watch.step(encode_cursor([after]))
            yield self._page(records, [after])
            del records

    def _after(self, cursor: Cursor | None) -> KeyT | None:
        if cursor is None:
            return None
        if type(cursor) is list and len(cursor) == 1 and cursor[0] is not None:
            after: KeyT = cursor[0]
            return after
        raise self._unknown(cursor, "[key], such as [4711]")


class TokenConnector(_PagingConnector[RecordT], Generic[RecordT, TokenT]):
    """Reads a source whose every page names the next one by a token. Override `fetch`.

    An empty page that has a next token is passed over. A page that is longer than the batch size is delivered in parts;
    a resume in its middle fetches it again and passes over what was delivered, so a token must stay valid, and give
    the same records, as long as the job may be resumed.

    The cursor is `["token", token]` (deliver from the page of that token on), `["token", token, 40]` (the same, without
    its first 40 records) or `["end"]`.

    Examples:
        >>> class Letters(TokenConnector[str, str]):
        ...     def fetch(self, token, limit):
        ...         return {None: (["a", "b"], "more"), "more": (["c"], None)}[token]
        >>> for page in Letters().read(None, 1):
        ...     print(page.records, page.cursor)
        ['a'] ['token', None, 1]
        ['b'] ['token', 'more']
        ['c'] ['end']
    """

    @abstractmethod
    def fetch(self, token: TokenT | None, limit: int) -> tuple[Sequence[RecordT], TokenT | None]:
        """Give a page and the token of the next one.

        Args:
            token: The token that the page before gave, or None for the first page.
            limit: How many records to give, at least 1. A source that chooses its page size itself may ignore it.

        Returns:
            The records, possibly none, and the next token; None means that there is no next page. Some sources send an
            empty text there: give None for it.
        """

    @override
    def read(self, cursor: Cursor | None, batch_size: int) -> Iterator[Page[RecordT]]:
        place = self._place(cursor)
        if place is None:
            return
        token, skip = place
        watch = CycleWatch(encode_cursor(token), f"{type(self).__name__}.fetch", "token")
        while True:
            records, following = self._fetched(self.fetch(token, batch_size))
            length = len(records)
            start = min(skip, length)
            for begin in range(start, length, batch_size):
                end = min(begin + batch_size, length)
                whole = begin == 0 and end == length
                yield self._page(records if whole else records[begin:end], _token_cursor(token, end, length, following))
            del records
            if following is None:
                return
            watch.step(encode_cursor(following))
            # Under another limit the page of a token is shorter: what was delivered of it reaches into the next.
            token, skip = following, skip - start

    def _fetched(self, answer: Any) -> tuple[Sequence[RecordT], TokenT | None]:
        if type(answer) is not tuple or len(answer) != 2:  # noqa: PLR2004 - the pair
            name = type(self).__name__
            msg = f"{name}.fetch gave a {type(answer).__name__}; give a tuple (records, next token or None)"
            raise ConfigurationError(msg)
        return self._checked(answer[0]), answer[1]

    def _place(self, cursor: Cursor | None) -> tuple[TokenT | None, int] | None:
        match cursor:
            case None:
                return None, 0
            case ["end"]:
                return None
            case ["token", token] if token is not None:
                return token, 0
            case ["token", token, int(skip)] if type(skip) is int and skip > 0:
                return token, skip
        raise self._unknown(cursor, '["token", token], ["token", token, records of it] or ["end"]')


def _token_cursor(token: Any, delivered: int, length: int, following: Any) -> Cursor:
    if delivered < length:
        return ["token", token, delivered]
    return ["end"] if following is None else ["token", following]
