"""Several pages in flight: in order, no more than asked for, and none behind an error."""

import threading
from collections.abc import Iterator

import pytest

from resumable_sync.connectors._http_flight import Flight
from resumable_sync.testing._store_base import wait_until


class Source:
    """Answers a place with its square; remembers what was asked for, and holds back or refuses what it is told."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.refused: set[int] = set()
        self.held: dict[int, threading.Event] = {}
        self.lock = threading.Lock()

    def fetch(self, place: int) -> int:
        with self.lock:
            self.asked.append(place)
        if place in self.held:
            assert self.held[place].wait(30)
        if place in self.refused:
            raise ValueError(place)
        return place * place

    def release(self) -> None:
        for event in self.held.values():
            event.set()


@pytest.fixture
def source() -> Iterator[Source]:
    source = Source()
    yield source
    source.release()


def flight(source: Source, most: int) -> Flight[int]:
    return Flight(source.fetch, lambda place: place + 1, most, source.release)


def test_answers_come_in_order_whatever_comes_first(source: Source) -> None:
    source.held = {3: threading.Event()}
    with flight(source, 4) as flying:
        got = [flying.get(place) for place in range(3)]
        threading.Timer(0.01, source.release).start()
        got += [flying.get(place) for place in range(3, 20)]
    assert got == [place * place for place in range(20)]


def test_one_request_becomes_two_then_three(source: Source) -> None:
    with flight(source, 3) as flying:
        counts = []
        for place in range(5):
            flying.get(place)
            wait_until(lambda: all(place in source.asked for place, _ in flying._flying), "what was sent to arrive")
            counts.append(len(source.asked))
    assert counts == [1, 3, 5, 6, 7]


def test_one_at_a_time_takes_no_thread(source: Source) -> None:
    before = threading.active_count()
    with flight(source, 1) as flying:
        assert [flying.get(place) for place in range(3)] == [0, 1, 4]
        assert threading.active_count() == before
    assert source.asked == [0, 1, 2]


def test_another_place_than_foreseen_drops_what_was_fetched(source: Source) -> None:
    with flight(source, 4) as flying:
        assert [flying.get(0), flying.get(1), flying.get(2)] == [0, 1, 4]
        wait_until(lambda: 4 in source.asked, "a place to be fetched ahead")
        assert flying.get(100) == 10_000
        assert flying.get(101) == 10_201


def test_nothing_is_asked_for_behind_an_error(source: Source) -> None:
    source.refused = {2}
    with flight(source, 8) as flying:
        flying.get(0)
        flying.get(1)
        wait_until(flying._has_failed, "the error")
        with pytest.raises(ValueError, match="2"):
            flying.get(2)
        assert not flying._flying
    assert sorted(source.asked) == [0, 1, 2]


def test_at_the_end_what_is_on_its_way_is_broken_off(source: Source) -> None:
    source.held = {2: threading.Event()}
    with flight(source, 2) as flying:
        flying.get(0)
        flying.get(1)
        wait_until(lambda: 2 in source.asked, "a place to be fetched ahead")
    assert not any(thread.name.startswith("resumable_sync-http") for thread in threading.enumerate())
