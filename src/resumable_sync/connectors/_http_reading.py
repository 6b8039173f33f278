"""One read of a paged API: from place to place, each answer cut into pages."""

from collections.abc import Callable, Iterator
from typing import Any

import attrs

from resumable_sync._cursor import encode_cursor
from resumable_sync._cycle import CycleWatch
from resumable_sync._errors import CursorError
from resumable_sync._model import Page
from resumable_sync.connectors._http_errors import PlaceGoneError
from resumable_sync.connectors._http_flight import Flight
from resumable_sync.connectors._http_paging import Answer, Delivery, Paging

__all__ = ["Reading", "gone_error"]


def gone_error(status: int) -> CursorError:
    """Give the error for a place that an API no longer knows."""
    return CursorError(
        f"the API refuses the place where the stored cursor goes on (status {status}): it has expired. Give the paging "
        "an anchor=, which lets a run go on behind the last record, or start over with reset_job(job_id)"
    )


@attrs.define
class Reading:
    """Reads from a place to the end.

    Attributes:
        paging: The way of paging.
        fetch: Gives the answer of a place; None where it is past the end.
        batch_size: Most records in a page.
        abort: Breaks off what is being fetched.
    """

    paging: Paging
    fetch: Callable[[Any], Answer | None]
    batch_size: int
    abort: Callable[[], object]
    _length: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        size = getattr(self.paging, "page_size", None)
        self._length = size or self.batch_size

    def pages(self, place: Any, concurrency: int) -> Iterator[Page[Any]]:
        """Yield the pages from a place on, with so many requests on their way at once.

        Raises:
            CursorError: If the API goes round in circles, or no longer knows a place.
        """
        watch = CycleWatch(encode_cursor(self.paging.mark(place)), "the API", "place")
        before: list[Any] | None = None
        first: list[Any] | None = None
        with Flight(self.fetch, self._ahead, concurrency, self.abort) as flight:
            while place is not None:
                delivery = self._delivery(flight, place)
                if delivery is not None and self.paging.counts:
                    before = self._other_than(before, delivery.records)
                    if self.paging.may_wrap and delivery.whole:
                        first = self._no_return(first, delivery.records)
                place = self.paging.anew(place) if delivery is None else delivery.following
                if place is not None:
                    watch.step(encode_cursor(self.paging.mark(place)))
                if delivery is not None:
                    yield from self._cut(delivery)
                # The page that is read next shall not find this one in memory, unless the two are to be compared.
                del delivery

    def _ahead(self, place: Any) -> Any:
        return self.paging.ahead(place, self._length)

    def _delivery(self, flight: Flight[Answer | None], place: Any) -> Delivery | None:
        # None: the API no longer knows the place, and there is another one to go on from.
        try:
            answer = flight.get(place)
        except PlaceGoneError as gone:
            if self.paging.anew(place) is None:
                raise gone_error(gone.status) from None
            return None
        if answer is None:
            return Delivery(records=[], cursor=lambda _: None, following=None)
        # An API that gives fewer records than asked for will do so again.
        self._length = len(answer.records) or self._length
        return self.paging.deliver(place, answer, self.batch_size)

    def _other_than(self, before: list[Any] | None, records: list[Any]) -> list[Any]:
        if records and records == before:
            msg = (
                "the API gave the same page twice, one after the other; if it does not know the parameters "
                f"{', '.join(map(repr, self.paging.parameters()))}, correct the paging, and if pages may really be "
                "equal, choose another page_size"
            )
            raise CursorError(msg)
        return records

    def _no_return(self, first: list[Any] | None, records: list[Any]) -> list[Any]:
        # Single records without an id may well be equal.
        if first is not None and len(records) > 1 and records == first:
            msg = (
                "the API gave the first page of this read again: behind its last page it seems to begin anew; page in "
                "another way, or subclass RequestConnector and end where the API says so"
            )
            raise CursorError(msg)
        return records if first is None else first

    def _cut(self, delivery: Delivery) -> Iterator[Page[Any]]:
        length, size = len(delivery.records), self.batch_size
        for begin in range(0, length, size):
            end = min(begin + size, length)
            records = delivery.records if end - begin == length else delivery.records[begin:end]
            yield Page(records, delivery.cursor(end))
