"""A stop ends after the batch in hand, and every wait."""

import threading
from typing import Any

import pytest
from typing_extensions import override

from doubles import Numbers, Target, fail_at, saved
from resumable_sync import MemoryJobStore, TransientError, TryFailed, run_full_sync


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_a_base_exception_in_the_sink_interrupts(store: MemoryJobStore, error: BaseException) -> None:
    with pytest.raises(type(error)):
        run_full_sync("j", Numbers(1000), Target(fail_at(3, error)), store=store, batch_size=100)
    assert (saved(store).status, saved(store).cursor, saved(store).error) == ("interrupted", [300], None)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"max_records": 250}, "max_records=250"),
        ({"should_stop": lambda: True}, "should_stop"),
        ({"max_runtime": 0}, "max_runtime=0"),
    ],
)
def test_stops_are_interruptions_that_resume(store: MemoryJobStore, option: dict[str, Any], reason: str) -> None:
    target = Target()
    result = run_full_sync("j", Numbers(1000), target, store=store, batch_size=100, **option)
    assert result.status == "interrupted"
    assert reason in (result.reason or "")
    assert saved(store).processed_records == len(target.records) == (300 if "max_records" in option else 0)
    assert run_full_sync("j", Numbers(1000), target, store=store).status == "completed"
    assert target.records == list(range(1000))


def test_a_requested_stop_is_seen_at_the_next_batch(store: MemoryJobStore) -> None:
    target = Target(lambda batch: store.request_stop("j") if batch.sequence == 2 else None)
    result = run_full_sync("j", Numbers(1000), target, store=store, batch_size=100)
    assert (result.status, result.reason, len(target.records)) == ("interrupted", "a stop was requested", 300)


def test_a_stop_ends_the_wait_for_the_next_try(store: MemoryJobStore) -> None:
    stop = threading.Event()
    target = Target(fail_at(1, TransientError("busy", retry_after=30), times=99))
    result = run_full_sync(
        "j",
        Numbers(1000),
        target,
        store=store,
        batch_size=100,
        should_stop=stop.is_set,
        observers=[lambda event: stop.set() if isinstance(event, TryFailed) else None],
    )
    assert (result.status, saved(store).cursor) == ("interrupted", [100])


def test_a_stop_ends_the_wait_for_a_slow_connector(store: MemoryJobStore) -> None:
    stop, go_on = threading.Event(), threading.Event()

    class Slow(Numbers):
        @override
        def fetch(self, offset: int, limit: int) -> list[int]:
            if offset:
                stop.set()
                go_on.wait(60)
            return super().fetch(offset, limit)

    def should_stop() -> bool:
        if stop.is_set():
            go_on.set()
        return stop.is_set()

    result = run_full_sync("j", Slow(1000), Target(), store=store, batch_size=100, should_stop=should_stop)
    assert result.status == "interrupted"
