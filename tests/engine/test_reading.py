"""Reading page by page, to the letter: what is asked of a connector, when it is opened anew, and what is refused."""

import contextlib
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typing_extensions import override

from doubles import FAST
from resumable_sync import ConfigurationError, CursorError, Page
from resumable_sync._attempts import pages as _pages
from resumable_sync._attempts.pages import Pages
from resumable_sync._attempts.reader import PlacedPage, _Openings, read_pages
from resumable_sync._attempts.sizer import BatchSizer
from resumable_sync._attempts.stop import Stop
from resumable_sync._retry import Retrier

PATIENCE = 10.0
"""Seconds after which an event that a test waits for will not come any more."""


class Clock:
    """A clock that a test moves; it does not begin at 0."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Steps:
    """The numbers from 0 to `total`, in pages of the size that is asked for, by a cursor that is a number.

    Attributes:
        opened: The cursor and the size of each `read`.
        closed: How many of them were closed.
        act: Is told of each page, by the cursor before it, before it is made.
    """

    fingerprint = None

    def __init__(self, total: int = 100, act: Callable[[int], object] = lambda _: None) -> None:
        self.total = total
        self.act = act
        self.opened: list[tuple[Any, int]] = []
        self.closed = 0

    def read(self, cursor: Any, batch_size: int) -> Iterator[Page[int]]:
        self.opened.append((cursor, batch_size))
        return self._pages(cursor or 0, batch_size)

    def _pages(self, begin: int, size: int) -> Iterator[Page[int]]:
        try:
            while begin < self.total:
                self.act(begin)
                end = min(begin + size, self.total)
                yield Page(list(range(begin, end)), end)
                begin = end
        finally:
            self.closed += 1

    def count(self) -> int | None:
        return None


class Given(Steps):
    """Gives what it is given, once, with the time that each takes."""

    def __init__(self, clock: Clock, *steps: tuple[float, Any]) -> None:
        super().__init__()
        self.clock = clock
        self.steps = list(steps)

    @override
    def _pages(self, begin: int, size: int) -> Iterator[Any]:
        del begin, size
        try:
            while self.steps:
                seconds, step = self.steps.pop(0)
                self.clock.now += seconds
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            self.closed += 1


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def failed() -> list[str]:
    return []


@pytest.fixture
def retrier(failed: list[str]) -> Retrier:
    return Retrier(FAST, lambda _: False, lambda name, *_: failed.append(name))


class TestReading:
    def test_a_page_is_told_with_its_place_and_what_it_took(self, clock: Clock, retrier: Retrier) -> None:
        one, two, three = Page([1, 2], 2), Page([3], 3), Page([4, 5, 6], 6)
        connector = Given(clock, (1.0, one), (2.0, two), (3.0, three))
        assert list(read_pages(connector, 0, 3, retrier=retrier, clock=clock)) == [
            PlacedPage(one, 0, "[1,0]", "[1,2]", 3, 1.0),
            PlacedPage(two, 2, "[1,2]", "[1,3]", 3, 2.0),
            PlacedPage(three, 3, "[1,3]", "[1,6]", 3, 3.0),
        ]
        assert (connector.opened, connector.closed) == ([(0, 3)], 1)

    def test_an_empty_page_moves_the_cursor_and_its_time_counts_for_the_next(
        self, clock: Clock, retrier: Retrier
    ) -> None:
        steps = (1.0, Page([], 1)), (2.0, Page([], 2)), (4.0, Page([3], 3)), (8.0, Page([4], 4))
        placed = list(read_pages(Given(clock, *steps), None, 3, retrier=retrier, clock=clock))
        assert [(page.previous_cursor, page.text, page.seconds) for page in placed] == [
            (2, "[1,3]", 7.0),
            (3, "[1,4]", 8.0),
        ]

    def test_after_a_transient_error_it_goes_on_at_the_last_cursor(
        self, clock: Clock, retrier: Retrier, failed: list[str]
    ) -> None:
        connector = Given(clock, (1.0, Page([1], 1)), (1.0, ConnectionError("cut")), (1.0, Page([2], 2)))
        assert len(list(read_pages(connector, None, 3, retrier=retrier, clock=clock))) == 2
        assert (connector.opened, connector.closed, failed) == ([(None, 3), (1, 3)], 2, ["read"])

    def test_an_iterator_that_is_no_generator_is_closed_when_it_fails(self, retrier: Retrier) -> None:
        class Cut:
            closed = 0

            def __iter__(self) -> "Cut":
                return self

            def __next__(self) -> Page[int]:
                raise LookupError("damaged")

            def close(self) -> None:
                self.closed += 1

        cut, connector = Cut(), Steps()
        connector.read = lambda *_: cut  # type: ignore[method-assign]
        with pytest.raises(LookupError):
            list(read_pages(connector, None, 3, retrier=retrier))
        assert cut.closed == 1

    def test_it_need_not_have_anything_to_close(self, retrier: Retrier) -> None:
        connector = Steps()
        connector.read = lambda *_: iter([Page([1], 1)])  # type: ignore[method-assign]
        assert len(list(read_pages(connector, None, 3, retrier=retrier))) == 1

    def test_leaving_early_closes_it(self, retrier: Retrier) -> None:
        connector = Steps()
        pages = read_pages(connector, None, 3, retrier=retrier)
        next(pages)
        pages.close()  # type: ignore[attr-defined]
        assert connector.closed == 1

    def test_nothing_is_asked_for_before_the_first_page_is_wanted(self, retrier: Retrier) -> None:
        connector = Steps()
        read_pages(connector, None, 3, retrier=retrier)
        assert connector.opened == []


class TestRefused:
    """What a connector may not yield; the errors name it and say what to do."""

    @pytest.mark.parametrize(
        ("page", "error", "message"),
        [
            (Page([1], None), CursorError, "Given yielded a page whose cursor is None"),
            (Page([1, 2, 3, 4], 4), CursorError, "Given yielded a page of 4 records, asked for at most 3"),
            (Page([], 0), CursorError, "Given yielded an empty page with the cursor of the page before"),
            (Page([1], 0), CursorError, "Given yielded 1 records with the cursor of the page before"),
            (Page([1], object()), CursorError, "object"),
            (None, ConfigurationError, "Given yielded a NoneType"),
            ([1, 2], ConfigurationError, "Given yielded a list"),
            (Page(iter([1]), 1), ConfigurationError, "Given yielded a Page"),  # type: ignore[arg-type]
        ],
    )
    def test_pages(self, clock: Clock, retrier: Retrier, page: Any, error: type[Exception], message: str) -> None:
        connector = Given(clock, (1.0, page))
        with pytest.raises(error, match=message):
            list(read_pages(connector, 0, 3, retrier=retrier, clock=clock))

    def test_what_is_no_iterable(self, retrier: Retrier) -> None:
        connector = Steps()
        connector.read = lambda *_: 5  # type: ignore[method-assign,assignment]
        with pytest.raises(ConfigurationError, match=r"Steps.read gave a int"):
            list(read_pages(connector, None, 3, retrier=retrier))

    def test_cursors_that_come_round_again(self, clock: Clock, retrier: Retrier) -> None:
        connector = Given(clock, *((1.0, Page([number], number % 2)) for number in range(10)))
        with pytest.raises(CursorError, match=r"Given.read gave a cursor that was passed before"):
            list(read_pages(connector, None, 3, retrier=retrier, clock=clock))


class TestOpenings:
    """What opening costs is found out by first pages, and compared with the time since reading began."""

    @pytest.fixture
    def openings(self, clock: Clock) -> _Openings:
        openings = _Openings(clock)
        openings.opened()
        return openings

    def affordable_after(self, openings: _Openings, clock: Clock) -> float:
        """Give after how many seconds since reading began it is affordable to open once more."""
        for seconds in range(1000):
            clock.now = 100 + seconds / 4
            if openings.affordable:
                return seconds / 4
        return float("inf")

    def test_without_a_page_nothing_is_known(self, openings: _Openings, clock: Clock) -> None:
        assert self.affordable_after(openings, clock) == float("inf")

    def test_one_page_may_be_all_cost(self, openings: _Openings, clock: Clock) -> None:
        openings.read(0.5, 10)
        assert self.affordable_after(openings, clock) == 5.0

    def test_later_pages_show_what_of_the_first_was_its_records(self, openings: _Openings, clock: Clock) -> None:
        openings.read(0.5, 10)
        openings.read(0.25, 20)  # the first one's records took 0.125
        assert self.affordable_after(openings, clock) == 3.75

    def test_an_empty_page_shows_nothing(self, openings: _Openings, clock: Clock) -> None:
        openings.read(0.5, 10)
        openings.read(0.25, 0)
        assert self.affordable_after(openings, clock) == 5.0
        openings.read(0.25, 1)
        assert self.affordable_after(openings, clock) == 0.0

    def test_the_first_change_is_free_and_later_ones_cost(self, openings: _Openings, clock: Clock) -> None:
        openings.read(0.5, 10)
        clock.now = 200.0
        openings.opened()
        assert not openings.affordable
        openings.read(0.5, 10)
        assert self.affordable_after(openings, clock) == 10.0  # this one and the next
        openings.opened()
        openings.read(0.25, 10)
        assert self.affordable_after(openings, clock) == 10.0  # 0.5 before, this one and the next
        openings.opened()
        openings.read(0.25, 10)
        assert self.affordable_after(openings, clock) == 12.5
        openings.opened()
        assert not openings.affordable

    def test_one_that_gave_no_page_has_cost_nothing(self, openings: _Openings, clock: Clock) -> None:
        openings.opened()
        openings.opened()
        openings.read(0.5, 10)
        assert self.affordable_after(openings, clock) == 10.0  # this one and the next

    def test_what_later_pages_showed_is_forgotten(self, openings: _Openings, clock: Clock) -> None:
        openings.read(0.5, 10)
        openings.read(0.25, 20)
        openings.opened()
        openings.read(0.5, 10)
        assert self.affordable_after(openings, clock) == 10.0


class TestSizes:
    def test_another_size_is_read_from_the_last_cursor_on_as_soon_as_that_costs_little(
        self, clock: Clock, retrier: Retrier
    ) -> None:
        def take(_: int) -> None:
            clock.now += 1.0

        connector, sizer = Steps(5000, take), BatchSizer(100)
        pages = read_pages(connector, None, sizer, retrier=retrier, clock=clock)
        assert next(pages).asked == 100
        sizer.size = 200
        assert next(pages).asked == 100  # that it was the opening which took a second is possible still
        assert next(pages).asked == 200  # all pages take as long
        assert (connector.opened, connector.closed) == ([(None, 100), (200, 200)], 1)

    def test_before_the_first_page_and_after_an_error_it_costs_nothing(self, clock: Clock, retrier: Retrier) -> None:
        sizer = BatchSizer(100)
        errors = [ConnectionError("cut")]

        def act(begin: int) -> None:
            if begin == 200 and errors:
                sizer.size = 300
                raise errors.pop()

        connector = Steps(5000, act)
        pages = read_pages(connector, None, sizer, retrier=retrier, clock=clock)
        sizer.size = 200
        assert [next(pages).asked, next(pages).asked] == [200, 300]
        assert connector.opened == [(None, 200), (200, 300)]


class TestPages:
    @pytest.fixture
    def stop(self) -> Stop:
        return Stop(None, None)

    @pytest.fixture
    def read(self, retrier: Retrier, stop: Stop) -> Iterator[Callable[..., Pages[int]]]:
        made: list[Pages[int]] = []

        def make(
            connector: Any, cursor: Any = None, size: Any = 10, first: Any = None, prefetch: int = 0
        ) -> Pages[int]:
            pages: Pages[int] = Pages(
                connector,
                cursor,
                batch_size=size,
                first_size=first,
                prefetch=prefetch,
                retrier=retrier,
                stop=stop,
            )
            made.append(pages)
            return pages

        yield make
        for pages in made:
            pages.close()

    @pytest.mark.parametrize("prefetch", [0, 1, 3])
    def test_they_come_in_order_to_the_end(self, read: Any, prefetch: int) -> None:
        connector = Steps(25)
        pages = read(connector, cursor=5, prefetch=prefetch)
        assert pages.exhausted is False
        assert [pages.next().page.cursor, pages.next().page.cursor] == [15, 25]
        assert pages.exhausted is False
        assert (pages.next(), pages.exhausted, pages.next()) == (None, True, None)
        pages.close()
        assert (connector.opened, connector.closed) == ([(5, 10)], 1)

    @pytest.mark.parametrize("prefetch", [0, 2])
    def test_what_ended_reading_once_ends_it_again(self, read: Any, prefetch: int) -> None:
        def fail(begin: int) -> None:
            if begin == 10:
                raise LookupError("damaged")

        pages = read(Steps(25, fail), prefetch=prefetch)
        pages.next()
        for _ in range(2):
            with pytest.raises(LookupError):
                pages.next()
        assert not pages.exhausted

    def test_closing_lets_the_error_go(self, read: Any) -> None:
        class DamagedError(Exception):
            pass

        errors = [DamagedError()]
        left = weakref.ref(errors[0])

        def fail(_: int) -> None:
            raise errors.pop()

        pages = read(Steps(25, fail))
        with contextlib.suppress(DamagedError):
            pages.next()
        pages.close()
        gc.collect()
        assert left() is None

    @pytest.mark.parametrize("prefetch", [0, 2])
    def test_closing_before_the_end_closes_the_connector_once(self, read: Any, prefetch: int) -> None:
        connector = Steps(2500)
        pages = read(connector, prefetch=prefetch)
        pages.next()
        pages.close()
        pages.close()
        assert connector.closed == 1

    def test_so_many_are_read_ahead_and_no_more(self, read: Any) -> None:
        third, fourth = threading.Event(), threading.Event()
        events = {20: third, 30: fourth}
        pages = read(Steps(2500, lambda begin: events.get(begin, threading.Event()).set()), prefetch=2)
        assert pages.next().page.cursor == 10  # it has room for one more now
        assert third.wait(PATIENCE)
        assert not fourth.is_set()

    def test_a_stop_ends_the_wait_for_a_page(self, read: Any, stop: Stop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_pages, "POLL_SECONDS", 0.001)
        asked, go_on = threading.Event(), threading.Event()

        def act(begin: int) -> None:
            if begin == 10:
                asked.set()
                assert go_on.wait(PATIENCE)

        pages = read(Steps(25, act), prefetch=2)
        pages.next()
        assert asked.wait(PATIENCE)
        stop.request("enough")
        assert pages.next() is None
        assert not pages.exhausted
        go_on.set()
        # The stop is still there: it ends each wait until the reader's thread has come to the page.
        deadline = time.monotonic() + PATIENCE
        while (found := pages.next()) is None:
            assert time.monotonic() < deadline
        assert found.page.cursor == 20

    def test_without_a_stop_the_wait_goes_on(self, read: Any, stop: Stop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_pages, "POLL_SECONDS", 0.001)
        go_on = threading.Event()
        polled: list[int] = []

        def ask() -> bool:
            polled.append(1)
            if len(polled) == 3:
                go_on.set()
            return False

        monkeypatch.setattr(stop, "_should_stop", ask)
        pages = read(Steps(25, lambda _: go_on.wait(PATIENCE)), prefetch=1)
        assert pages.next().page.cursor == 10
        assert len(polled) >= 3

    def test_after_deaths_sizes_double_up_to_the_batch_size(self, read: Any) -> None:
        connector = Steps(100)
        pages = read(connector, size=10, first=2, prefetch=1)
        assert [pages.next().page.cursor for _ in range(5)] == [2, 6, 14, 24, 34]
        pages.close()
        assert connector.opened == [(None, 2), (2, 4), (6, 8), (14, 10)]
        assert connector.closed == 4

    @pytest.mark.parametrize("prefetch", [0, 1])
    def test_the_batch_size_itself_is_read_on_and_on(self, read: Any, prefetch: int) -> None:
        connector = Steps(100)
        pages = read(connector, size=8, first=4, prefetch=prefetch)
        assert [pages.next().page.cursor for _ in range(3)] == [4, 12, 20]
        pages.close()
        assert connector.opened == [(None, 4), (4, 8)]

    def test_the_most_may_be_what_was_found_out(self, read: Any) -> None:
        connector = Steps(1000)
        pages = read(connector, size=BatchSizer(100), first=40)
        assert [pages.next().page.cursor for _ in range(4)] == [40, 120, 220, 320]
        assert connector.opened == [(None, 40), (40, 80), (120, 100)]

    def test_the_end_may_come_before(self, read: Any) -> None:
        connector = Steps(3)
        pages = read(connector, first=2)
        assert [pages.next().page.cursor, pages.next().page.cursor] == [2, 3]
        assert not pages.exhausted
        assert (pages.next(), pages.exhausted, pages.next()) == (None, True, None)
        assert connector.opened == [(None, 2), (2, 4), (3, 8)]
        assert connector.closed == 3

    def test_a_page_of_its_own_is_closed_at_once(self, read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        opened: list[Iterator[Any]] = []

        def remembered(*given: Any, **options: Any) -> Iterator[Any]:
            opened.append(read_pages(*given, **options))
            return opened[-1]

        monkeypatch.setattr(_pages, "read_pages", remembered)
        connector = Steps(25)
        read(connector, first=2).next()
        assert (len(opened), connector.closed) == (1, 1)

    def test_a_page_that_cannot_be_read_closes_the_connector(self, read: Any) -> None:
        def fail(_: int) -> None:
            raise LookupError("damaged")

        connector = Steps(25, fail)
        with pytest.raises(LookupError):
            read(connector, first=2).next()
        assert connector.closed == 1
