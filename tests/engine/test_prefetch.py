"""The thread that reads ahead."""

from collections.abc import Iterator

import pytest

from resumable_sync._prefetch import Prefetch
from waiting import until


@pytest.mark.parametrize(("depth", "made"), [(1, [1, 2, 3, 4, 5]), (2, [2, 3, 4, 5, 6]), (4, [4, 4, 6, 6, 8])])
def test_room_is_made_for_half_of_them_at_a_time(depth: int, made: list[int]) -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1, 100):
            read.append(number)
            yield number

    ahead = Prefetch(items(), depth)
    try:
        for taken, most in enumerate(made, 1):
            until(lambda most=most: len(read) == most and ahead._room.empty())  # type: ignore[misc]
            assert ahead.get(60.0) == taken
    finally:
        ahead.close()


def test_all_there_is_comes_in_order_and_then_the_end() -> None:
    ahead = Prefetch(iter(range(1, 11)), 4)
    assert [ahead.get(60.0) for _ in range(11)] == [*range(1, 11), None]
    ahead.close()
