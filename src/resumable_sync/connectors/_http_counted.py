"""Paging by counting: offset and limit, or numbers of pages. The next place is known before the answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from typing_extensions import override

from resumable_sync._errors import ConfigurationError
from resumable_sync._model import Cursor
from resumable_sync.connectors import _http_paging as paging
from resumable_sync.connectors._http_paging import Answer, Ask, Delivery, Paging, unknown_cursor

__all__ = ["OffsetPaging", "PagePaging"]


class _CountedPaging(Paging):
    """What both share: nothing is handed out by the API, so that no place can expire."""

    counts = True

    @override
    def mark(self, place: Any) -> Cursor:
        return list(place)

    @override
    def may_be_gone(self, place: Any) -> bool:
        return False

    @override
    def anew(self, place: Any) -> Any:
        return None


@attrs.frozen(kw_only=True)
class OffsetPaging(_CountedPaging):
    """Asks for "`limit` records from `offset` on": `?offset=1000&limit=500`.

    Ends at the first page without records; a short page is not the end. The API must keep its order and its records
    while it is read: one that is inserted or removed before the offset moves all others. Where there is a key, prefer
    `KeysetPaging`.

    The cursor is the number of records delivered: `[1000]`.

    Attributes:
        offset_param: The parameter for how many records to pass over.
        limit_param: The parameter for how many to give; None: the API decides.
        page_size: How many to ask for; None asks for the batch size. An API that gives fewer, or more, is fine.
        past_end: Statuses, such as `(404,)`, with which the API says that nothing is left, instead of an empty page.
    """

    offset_param: str = attrs.field(default="offset", validator=paging.check_name)
    limit_param: str | None = attrs.field(default="limit", validator=paging.check_optional_name)
    page_size: int | None = attrs.field(default=None, validator=paging.check_page_size)
    past_end: tuple[int, ...] = attrs.field(default=(), converter=paging.as_statuses, validator=paging.check_statuses)

    @override
    def identity(self) -> Mapping[str, str]:
        return {"paging": f"offset {self.offset_param}"}

    @override
    def parameters(self) -> Sequence[str]:
        return [self.offset_param, *([self.limit_param] if self.limit_param else [])]

    @override
    def start(self, cursor: Cursor | None) -> Any:
        match cursor:
            case None:
                return (0,)
            case [int(offset)] if type(cursor) is list and type(offset) is int and offset > 0:
                return (offset,)
        raise unknown_cursor(cursor, "[records delivered], such as [1000]")

    @override
    def ask(self, place: Any, batch_size: int) -> Ask:
        size = ((self.limit_param, str(self.page_size or batch_size)),) if self.limit_param else ()
        return Ask(query=((self.offset_param, str(place[0])), *size))

    @override
    def deliver(self, place: Any, answer: Answer, batch_size: int) -> Delivery:
        records, offset = answer.records, place[0]
        following = (offset + len(records),) if records else None
        return Delivery(records=records, cursor=lambda count: [offset + count], following=following)

    @override
    def ahead(self, place: Any, length: int) -> Any:
        return (place[0] + length,)


@attrs.frozen(kw_only=True)
class PagePaging(_CountedPaging):
    """Asks for one numbered page after the other: `?page=3`.

    Ends at the first page without records; a short page is not the end. As with offsets, the API must keep its order
    and its records while it is read. One that gives its last page for every number behind it, or begins with the first
    page again, is refused with a `CursorError`.

    The cursor is the number of the page to go on with, and how many of its records were delivered: `[3, 0]`, `[3, 40]`.

    Attributes:
        page_param: The parameter for the number.
        first: The number of the first page.
        limit_param: The parameter for how many records a page has; None: the API decides.
        page_size: What to send there. The meaning of page numbers depends on it: it cannot change within a run.
        past_end: Statuses, such as `(404,)`, with which the API says that nothing is left, instead of an empty page.

    Raises:
        ConfigurationError: If only one of `limit_param` and `page_size` is given.
    """

    may_wrap = True

    page_param: str = attrs.field(default="page", validator=paging.check_name)
    first: int = attrs.field(default=1, validator=paging.check_number)
    limit_param: str | None = attrs.field(default=None, validator=paging.check_optional_name)
    page_size: int | None = attrs.field(default=None, validator=paging.check_page_size)
    past_end: tuple[int, ...] = attrs.field(default=(), converter=paging.as_statuses, validator=paging.check_statuses)

    def __attrs_post_init__(self) -> None:
        if (self.limit_param is None) != (self.page_size is None):
            msg = "PagePaging needs limit_param and page_size together, or neither; give both, or leave both out"
            raise ConfigurationError(msg)

    @override
    def identity(self) -> Mapping[str, str]:
        return {"paging": f"page {self.page_param} {self.first} {self.limit_param} {self.page_size}"}

    @override
    def parameters(self) -> Sequence[str]:
        return [self.page_param, *([self.limit_param] if self.limit_param else [])]

    @override
    def start(self, cursor: Cursor | None) -> Any:
        match cursor:
            case None:
                return (self.first, 0)
            case [int(page), int(skip)] if type(cursor) is list and type(page) is int and type(skip) is int:
                if page >= self.first and skip >= 0:
                    return (page, skip)
        raise unknown_cursor(cursor, "[page, records of it], such as [3, 0]")

    @override
    def ask(self, place: Any, batch_size: int) -> Ask:
        size = ((self.limit_param, str(self.page_size)),) if self.limit_param else ()
        return Ask(query=((self.page_param, str(place[0])), *size))

    @override
    def deliver(self, place: Any, answer: Answer, batch_size: int) -> Delivery:
        page, skip = place
        length = len(answer.records)

        def cursor(count: int) -> Cursor:
            done = skip + count
            return [page + 1, 0] if done == length else [page, done]

        following = (page + 1, 0) if length else None
        return Delivery(records=answer.records[skip:], cursor=cursor, following=following, whole=not skip)

    @override
    def ahead(self, place: Any, length: int) -> Any:
        return (place[0] + 1, 0)
