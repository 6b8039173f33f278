"""Paging by key: "the records after this one". Nothing to expire, nothing that moves."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import attrs
from typing_extensions import override

from resumable_sync._errors import ConfigurationError, CursorError
from resumable_sync._model import Cursor
from resumable_sync.connectors import _http_paging as paging
from resumable_sync.connectors._http_address import Pairs
from resumable_sync.connectors._http_order import Order
from resumable_sync.connectors._http_paging import Answer, Ask, Delivery, Paging, key_of, unknown_cursor

__all__ = ["KeysetPaging"]

_Values = list[str | int]


@attrs.frozen(kw_only=True)
class _Place:
    """Behind a record.

    Attributes:
        after: Its key; None is the beginning.
        done: The ids of the records with that key that were delivered; empty where keys are unique.
        order: How the pages of this read are ordered so far.
    """

    after: _Values | None = None
    done: _Values = attrs.field(factory=list)
    order: Order = attrs.field(factory=Order, eq=False)


@attrs.frozen(kw_only=True)
class KeysetPaging(Paging):
    """Asks for "the records after this key": `?since_id=4711`.

    The API gives its records ordered by the key, ascending or descending, which is never null; let `params` ask for
    that order where it has a choice. Ends at the first page that brings nothing new. Records that come and go elsewhere
    move nothing.

    An API that does not order them would lose records, and is refused with a `CursorError` where that can be seen:
    whole numbers, and times as ISO 8601 writes them, must go one way, from record to record and from page to page; of
    other text, whose order only the API knows, none may come again, in the same page or the next. Of several fields
    that are compared one after the other only the first one is looked at. Where the key is but the name of a record
    that the API goes on behind in an order of its own, give `ordered=False`.

    With a key that is not unique, such as the time of the last change, the API must begin with the key itself
    (`updated_since`, "from this time on"): name the field that is unique in `inclusive`, and what was delivered is left
    out. Such an API must give full pages of `page_size`: one that brings nothing new is the end only if it is shorter.

    The cursor is the key of the last record delivered: `[4711]`, with `inclusive` also the ids of the records with that
    key: `["2026-01-31T12:00:00Z", [4711, 4712]]`; of a key of two fields `[["2026-01-31", 7]]`.

    Attributes:
        key: Query parameters, and the dotted paths of the record's fields that they take: `{"since_id": "id"}`, or
            several that are compared one after the other: `{"after_time": "updated_at", "after_id": "id"}`.
        limit_param: The parameter for how many records a page has; None: the API decides.
        page_size: How many to ask for; None asks for the batch size.
        inclusive: The dotted path of a unique id, where the API begins with the key itself.
        ordered: Whether the order of the keys is that of the records; False checks no order.

    Raises:
        ConfigurationError: If `inclusive` is given without `page_size`.
    """

    past_end = ()

    key: Pairs = attrs.field(converter=paging.as_key, validator=paging.check_key)
    limit_param: str | None = attrs.field(default=None, validator=paging.check_optional_name)
    page_size: int | None = attrs.field(default=None, validator=paging.check_page_size)
    inclusive: str | None = attrs.field(default=None, validator=paging.check_path)
    ordered: bool = attrs.field(default=True, validator=paging.check_bool)

    def __attrs_post_init__(self) -> None:
        if self.inclusive is not None and self.page_size is None:
            msg = "KeysetPaging(inclusive=...) needs page_size, to tell the end from a page of one key; give both"
            raise ConfigurationError(msg)

    @override
    def identity(self) -> Mapping[str, str]:
        kind = "keyset" if self.inclusive is None else f"keyset inclusive {self.inclusive}"
        return {"paging": kind, "key": str(self.key)}

    @override
    def parameters(self) -> Sequence[str]:
        return [*(name for name, _ in self.key), *([self.limit_param] if self.limit_param else [])]

    @override
    def start(self, cursor: Cursor | None) -> Any:
        if cursor is None:
            return _Place()
        form = "[key]" if self.inclusive is None else "[key, ids of its records]"
        if type(cursor) is not list or len(cursor) != (1 if self.inclusive is None else 2):
            raise unknown_cursor(cursor, form)
        after = cursor[0] if len(self.key) > 1 else [cursor[0]]
        done = [] if self.inclusive is None else cursor[1]
        if not _are_values(after) or len(after) != len(self.key) or not _are_values(done):
            raise unknown_cursor(cursor, form)
        return _Place(after=after, done=done)

    @override
    def ask(self, place: _Place, batch_size: int) -> Ask:
        values = place.after or []
        key = tuple((name, str(value)) for (name, _), value in zip(self.key, values, strict=False))
        size = ((self.limit_param, str(self.page_size or batch_size)),) if self.limit_param else ()
        return Ask(query=(*key, *size))

    @override
    def deliver(self, place: _Place, answer: Answer, batch_size: int) -> Delivery:
        keys = [key_of(record, self.key, "KeysetPaging.key") for record in answer.records]
        if self.inclusive is None:
            return self._unique(place, answer.records, keys)
        return self._inclusive(place, answer.records, keys, self.inclusive)

    def _order(self, place: _Place, keys: list[_Values]) -> Order:
        if not self.ordered:
            return place.order
        return place.order.checked(place.after, keys, [name for name, _ in self.key], unique=self.inclusive is None)

    def _unique(self, place: _Place, records: list[Any], keys: list[_Values]) -> Delivery:
        if any(one == other for one, other in pairwise(keys)):
            msg = (
                "two records of a page have the same key, and where a page ends between two of them one would be lost; "
                "page by a key that is unique, or from the key on with KeysetPaging(inclusive='id', page_size=...)"
            )
            raise CursorError(msg)
        if place.after in keys:
            msg = (
                f"the API gave the record of the key that it was asked to go on behind; if it ignores "
                f"{' and '.join(repr(name) for name, _ in self.key)}, correct KeysetPaging.key, and if it begins with "
                "the key itself, give KeysetPaging(inclusive='id', page_size=...)"
            )
            raise CursorError(msg)
        following = _Place(after=keys[-1], order=self._order(place, keys)) if records else None
        return Delivery(records=records, cursor=lambda count: [self._written(keys[count - 1])], following=following)

    def _inclusive(self, place: _Place, records: list[Any], keys: list[_Values], path: str) -> Delivery:
        ids = [key_of(record, (("", path),), "KeysetPaging.inclusive")[0] for record in records]
        done = set(place.done)
        new = [at for at, key in enumerate(keys) if key != place.after or ids[at] not in done]
        if not new:
            self._check_end(len(records))
            return Delivery(records=[], cursor=lambda _: None, following=None)

        order = self._order(place, keys)

        def behind(count: int) -> _Place:
            after = keys[new[count - 1]]
            same = [ids[at] for at in new[:count] if keys[at] == after]
            done = [*place.done, *same] if after == place.after else same
            return _Place(after=after, done=done, order=order)

        def cursor(count: int) -> Cursor:
            there = behind(count)
            return [self._written(there.after), there.done]

        return Delivery(records=[records[at] for at in new], cursor=cursor, following=behind(len(new)))

    def _check_end(self, length: int) -> None:
        if length >= (self.page_size or 1):
            msg = (
                f"a page of {length} records holds one key only, and no page begins behind it; raise "
                "KeysetPaging.page_size above the most records that share a key"
            )
            raise CursorError(msg)

    def _written(self, values: _Values | None) -> Cursor:
        return values if values is None or len(self.key) > 1 else values[0]

    @override
    def mark(self, place: _Place) -> Cursor:
        return [place.after, place.done]

    @override
    def may_be_gone(self, place: _Place) -> bool:
        return False

    @override
    def anew(self, place: _Place) -> Any:
        return None


def _are_values(value: Any) -> bool:
    return type(value) is list and all(type(item) in (str, int) for item in value)
