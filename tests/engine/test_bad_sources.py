"""Pages and cursors that cannot work are errors, never a loss or an endless loop."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from typing_extensions import override

from doubles import Pages, Target, saved
from resumable_sync import ConfigurationError, CursorError, MemoryJobStore, Page, run_full_sync


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ([Page([1], None)], "None"),
        ([Page([1], [1]), Page([2], [1])], "advance"),
        ([Page([1], [1]), Page([], [1])], "empty page"),
        ([Page([1, 2, 3, 4], [4])], "at most 3"),
        ([Page([1], object())], "cannot hold"),
        ([Page([1], [1]), Page([2], [2]), Page([1], [1]), Page([2], [2])], "read gave a cursor that was passed before"),
        ([Page([1], ["x" * 70_000])], "65,536"),
    ],
)
def test_cursors_that_cannot_work_are_errors(
    store: MemoryJobStore, prefetch: int, pages: list[Page[int]], message: str
) -> None:
    with pytest.raises(CursorError, match=message) as caught:
        run_full_sync("j", Pages(*pages), Target(), store=store, batch_size=3, prefetch=prefetch)
    assert caught.value.job_id == "j"
    assert saved(store).status == "failed"


def test_a_long_cycle_of_cursors_ends(store: MemoryJobStore) -> None:
    class Round(Pages):
        @override
        def read(self, cursor: Any, batch_size: int) -> Iterator[Page[int]]:
            number = 0
            while True:
                number = number % 700 + 1
                yield Page([], [number])

    with pytest.raises(CursorError, match="passed"):
        run_full_sync("j", Round(), Target(), store=store)


def test_empty_pages_that_advance_move_the_cursor_only(store: MemoryJobStore) -> None:
    target = Target()
    run_full_sync("j", Pages(Page([1], [1]), Page([], [2]), Page([3], [3])), target, store=store)
    assert [batch.previous_cursor for batch in target.batches] == [None, [2]]


@pytest.mark.parametrize("page", [None, 7, [1, 2], Page(cast("Any", iter([1])), [1])])
def test_what_is_no_page_is_said_so(store: MemoryJobStore, page: Any) -> None:
    if page is None:
        connector: Any = Pages()
        connector.read = lambda *_: None
    else:
        connector = Pages(page)
    with pytest.raises(ConfigurationError, match="Page"):
        run_full_sync("j", connector, Target(), store=store)
