"""A throttle holds its rate over any stretch of time, whoever shares it; by a clock that the tests move."""

import pickle
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable_sync import ConfigurationError, Throttle


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_batch_keeps_the_next_one_back_for_its_share_of_time() -> None:
    clock = Clock()
    throttle = Throttle(100, clock=clock)
    assert throttle.reserve(50) == 0.0
    assert throttle.reserve(200) == pytest.approx(0.5)
    assert throttle.reserve(1) == pytest.approx(2.5)
    clock.now = 1.5
    assert throttle.reserve(1) == pytest.approx(1.01)


def test_after_a_pause_there_is_no_burst() -> None:
    clock = Clock()
    throttle = Throttle(100, clock=clock)
    throttle.reserve(100)
    clock.now = 3_600.0
    assert throttle.reserve(100) == 0.0
    assert throttle.reserve(100) == pytest.approx(1.0)


def test_what_is_given_back_does_not_count() -> None:
    throttle = Throttle(100, clock=Clock())
    throttle.reserve(100)
    assert throttle.reserve(500) == pytest.approx(1.0)
    throttle.give_back(500)
    assert throttle.reserve(100) == pytest.approx(1.0)


@given(
    rate=st.floats(0.01, 1e6),
    steps=st.lists(st.tuples(st.floats(0, 1_000), st.integers(1, 100_000)), min_size=2, max_size=40),
)
def test_the_rate_holds_over_any_stretch_of_time(rate: float, steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    throttle = Throttle(rate, clock=clock)
    begun: list[tuple[float, int]] = []
    for pause, records in steps:
        clock.now += pause
        wait = throttle.reserve(records)
        assert wait >= 0
        # Never longer than the batch before asks for.
        if begun:
            assert clock.now + wait == pytest.approx(max(clock.now, begun[-1][0] + begun[-1][1] / rate))
        else:
            assert wait == 0
        clock.now += wait
        begun.append((clock.now, records))
    for first in range(len(begun)):
        delivered = 0
        for time, records in begun[first:]:
            assert delivered <= rate * (time - begun[first][0]) * (1 + 1e-6) + 1e-3
            delivered += records


def test_threads_that_share_it_have_the_rate_together() -> None:
    throttle = Throttle(10, clock=Clock())
    waits: list[float] = []
    together = threading.Barrier(8)

    def work() -> None:
        together.wait()
        waits.extend([throttle.reserve(5) for _ in range(50)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Four hundred batches of half a second each, and no two of them at the same time.
    assert sorted(waits) == pytest.approx([place * 0.5 for place in range(400)])


def test_it_pickles_and_begins_anew() -> None:
    throttle = Throttle(0.5)
    throttle.reserve(1_000)
    copy = pickle.loads(pickle.dumps(throttle))
    assert copy.records_per_second == 0.5
    assert copy.reserve(1_000) == 0.0
    assert repr(copy) == "Throttle(records_per_second=0.5)"


@pytest.mark.parametrize("rate", [0, -1, True, None, "500", float("nan"), float("inf")])
def test_a_rate_that_cannot_be_held_is_refused(rate: Any) -> None:
    with pytest.raises(ConfigurationError, match="give it records per second"):
        Throttle(rate)


def test_the_rate_does_not_change() -> None:
    with pytest.raises(AttributeError):
        Throttle(1).records_per_second = 2
