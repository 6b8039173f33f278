"""The batch size finds its place by what batches cost, and stays there; with costs that are made up."""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable_sync._attempts.sizer import LEAST, MOST, START, TARGET_SECONDS, BatchSizer, first_size

Cost = Callable[[int], float]


def run(
    read: Cost, write: Cost, *, batches: int = 120, ahead: int = 1, sizer: BatchSizer | None = None, most: int = MOST
) -> list[int]:
    """Give the sizes that the source was asked for.

    Args:
        read: Seconds by the number of records.
        write: The same.
        batches: How many.
        ahead: How many pages the reader is ahead of what the sizer knows of.
        sizer: Where to begin.
        most: Records that the source gives at most.
    """
    sizer = sizer or BatchSizer()
    asked = [sizer.size] * ahead
    sizes = []
    for _ in range(batches):
        asked.append(sizer.size)
        size = asked.pop(0)
        records = min(size, most)
        sizer.took(size, records, read(records), write(records))
        sizes.append(size)
    return sizes


def linear(per_record: float, fixed: float = 0.0) -> Cost:
    return lambda records: fixed + per_record * records


FREE = linear(0)


def changes(sizes: list[int]) -> int:
    return sum(one != other for one, other in pairwise(sizes))


@pytest.mark.parametrize("ahead", [0, 1, 5])
@pytest.mark.parametrize(
    ("read", "write", "least", "most"),
    [
        (FREE, FREE, MOST, MOST),
        (FREE, linear(1e-3), 700, 1_400),
        (linear(1e-3), FREE, 700, 1_400),
        (linear(1e-5), FREE, 64_000, MOST),
        (linear(4e-3), linear(1e-5), 250, 250),
        (linear(1e-5), linear(4e-3), 250, 250),
        (linear(2e-2), FREE, LEAST, LEAST),  # even the fewest records take too long
        (linear(1e-3, 0.4), linear(1e-4), 500, 1_000),
        # What is fixed does not become less with the size: a batch may take twice that.
        (linear(0, 0.3), FREE, MOST, MOST),
        (linear(0, 2), FREE, MOST, MOST),
        (linear(0, 30), FREE, MOST, MOST),
        (linear(1e-3, 2), FREE, 1_000, 4_000),
        (linear(0, 2), linear(1e-3), 2_000, 8_000),
        # Twice the records, more than twice the time: it does not go to and fro.
        (lambda records: (records / 3_000) ** 2, FREE, 2_000, 4_000),
        (lambda records: 0.01 if records <= 3_000 else 50.0, FREE, 1_000, 2_000),
    ],
)
def test_it_converges_and_stays(read: Cost, write: Cost, least: int, most: int, ahead: int) -> None:
    sizes = run(read, write, ahead=ahead, batches=160)
    assert all(least <= size <= most for size in sizes[-20:]), sizes
    assert changes(sizes[-40:]) == 0, sizes


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_noise_moves_it_little(seed: int, ahead: int) -> None:
    chance = random.Random(seed)
    sizes = run(lambda records: records * 1e-3 * chance.uniform(0.5, 1.5), FREE, batches=300, ahead=ahead)
    assert all(500 <= size <= 4_000 for size in sizes), sizes
    assert changes(sizes) <= 15, sizes


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_spikes_do_not_make_it_collapse(seed: int, ahead: int) -> None:
    chance = random.Random(seed)
    sizes = run(lambda records: records * 1e-3 * (50 if chance.random() < 0.1 else 1), FREE, batches=300, ahead=ahead)
    assert min(sizes) >= 250, sizes
    assert sum(size < 1_000 for size in sizes) < len(sizes) / 2, sizes


@pytest.mark.parametrize("place", range(40))
def test_one_outlier_decides_nothing(place: int) -> None:
    costs = [1.0] * 40
    costs[place] = 1_000.0
    left = iter(costs)
    assert set(run(lambda _: next(left), FREE, batches=40)) == {1_000}


def test_a_source_that_becomes_slow_and_fast_again_is_followed() -> None:
    sizer = BatchSizer()
    assert run(linear(1e-4), FREE, sizer=sizer)[-1] == 8_000
    assert run(linear(4e-3), FREE, sizer=sizer)[-1] == 250
    assert run(linear(1e-4), FREE, sizer=sizer)[-1] >= 4_000


def test_the_slower_side_decides_when_they_change_places() -> None:
    sizer = BatchSizer()
    assert run(linear(1e-3), linear(1e-6), sizer=sizer)[-1] == 1_000
    assert run(linear(1e-6), linear(1e-3), sizer=sizer)[-1] == 1_000


def test_a_source_that_gives_less_than_asked_is_not_asked_for_ever_more() -> None:
    assert set(run(FREE, FREE, most=300)) == {1_000}


@given(
    costs=st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=80),
    ahead=st.integers(0, 5),
    learned=st.none() | st.integers(0, 10**9),
    stalled=st.integers(0, 70),
)
def test_whatever_batches_take_the_steps_are_bounded(
    costs: list[tuple[float, float]], ahead: int, learned: int | None, stalled: int
) -> None:
    sizer = BatchSizer.resume(learned, stalled)
    asked = [sizer.size] * ahead
    for read, write in costs:
        asked.append(sizer.size)
        size = asked.pop(0)
        sizer.took(size, size, read, write)
        assert LEAST <= sizer.size <= MOST
        assert size // 2 <= sizer.size <= size * 2


@given(fixed=st.floats(0, 5), per_record=st.floats(1e-7, 1e-1), ahead=st.integers(0, 3), on_read=st.booleans())
def test_wherever_it_comes_to_rest_a_batch_takes_what_it_should(
    fixed: float, per_record: float, ahead: int, on_read: bool
) -> None:
    cost = linear(per_record, fixed)
    sizes = run(*((cost, FREE) if on_read else (FREE, cost)), batches=250, ahead=ahead)
    assert changes(sizes[-30:]) == 0, sizes
    seconds = cost(sizes[-1])
    should = max(TARGET_SECONDS, 2 * fixed)
    assert sizes[-1] == LEAST or seconds <= should * 2.1, (sizes[-1], seconds)
    assert sizes[-1] == MOST or seconds >= should * 0.4, (sizes[-1], seconds)


@pytest.mark.parametrize(
    ("learned", "stalled", "size", "first"),
    [
        (None, 0, START, None),
        (8_000, 0, 8_000, None),
        (8_000, 1, 4_000, 4_000),
        (8_000, 3, 4_000, 1_000),
        (None, 2, START // 2, START // 4),
        (100, 5, LEAST, 3),
        (100, 80, LEAST, 1),
        (5, 0, LEAST, None),
        (10**9, 0, MOST, None),
        (0, 0, START, None),
    ],
)
def test_an_attempt_goes_on_with_what_was_learned_and_halves_it_after_deaths(
    learned: int | None, stalled: int, size: int, first: int | None
) -> None:
    assert BatchSizer.resume(learned, stalled).size == size
    assert first_size(learned, stalled) == first


def test_the_small_batches_after_a_death_say_nothing() -> None:
    sizer = BatchSizer(1_000)
    for asked in (62, 125, 250, 500):
        sizer.took(asked, asked, 100.0, 100.0)
    assert sizer.size == 1_000
    sizer.took(1_000, 1_000, 0.0, 0.0)
    sizer.took(1_000, 1_000, 0.0, 0.0)
    sizer.took(1_000, 1_000, 0.0, 0.0)
    assert sizer.size == 2_000


def test_a_size_that_was_far_too_slow_is_tried_ever_less_often() -> None:
    sizes = run(lambda records: 0.01 if records <= 3_000 else 50.0, FREE, batches=2_000)
    assert set(sizes[10:]) == {2_000, 4_000}
    assert 4 <= sum(size == 4_000 for size in sizes) <= 30
