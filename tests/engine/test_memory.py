"""Memory holds no more pages than were asked for."""

from collections.abc import Iterator
from typing import Any

from typing_extensions import override

from doubles import Pages
from resumable_sync import MemoryJobStore, Page, run_full_sync


def test_memory_holds_no_more_pages_than_promised(store: MemoryJobStore, prefetch: int) -> None:
    import weakref

    class Records(list[int]):
        __slots__ = ("__weakref__",)

    alive: weakref.WeakSet[Records] = weakref.WeakSet()
    most = [0]

    class Counting(Pages):
        @override
        def read(self, cursor: Any, batch_size: int) -> Iterator[Page[int]]:
            for number in range(50):
                records = Records([number])
                alive.add(records)
                most[0] = max(most[0], sum(1 for _ in alive))
                yield Page(records, [number])
                del records

        __hash__ = object.__hash__

    Records.__hash__ = object.__hash__  # type: ignore[assignment]
    run_full_sync("j", Counting(), lambda _: None, store=store, prefetch=prefetch)
    assert most[0] <= prefetch + 2
