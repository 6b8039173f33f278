"""Transient errors are tried again, each at the last cursor, and only what failed."""

import pytest
from typing_extensions import override

from doubles import FAST, Numbers, Target, fail_at, saved
from resumable_sync import Event, Job, Lease, MemoryJobStore, Retry, TransientError, TryFailed, run_full_sync


def test_transient_errors_of_reading_and_writing_are_tried_again(store: MemoryJobStore, prefetch: int) -> None:
    class Flaky(Numbers):
        failures = 2

        @override
        def fetch(self, offset: int, limit: int) -> list[int]:
            if offset == 200 and self.failures:
                self.failures -= 1
                raise ConnectionResetError("cut")
            return super().fetch(offset, limit)

    events: list[Event] = []
    target = Target(fail_at(4, TransientError("busy", retry_after=0.001), times=3))
    run_full_sync(
        "j", Flaky(1000), target, store=store, batch_size=100, retry=FAST, prefetch=prefetch, observers=[events.append]
    )
    assert target.records == list(range(1000))
    tries = [(event.call, event.tries) for event in events if isinstance(event, TryFailed)]
    assert sorted(tries) == [("read", 1), ("read", 2), ("write", 1), ("write", 2), ("write", 3)]


def test_tries_are_limited(store: MemoryJobStore) -> None:
    target = Target(fail_at(2, TransientError("busy"), times=99))
    with pytest.raises(TransientError, match="busy"):
        run_full_sync("j", Numbers(1000), target, store=store, batch_size=100, retry=FAST)
    assert saved(store).cursor == [200]


def test_only_the_save_is_tried_again_when_only_the_save_failed() -> None:
    class Flaky(MemoryJobStore):
        failures = 3

        @override
        def save(self, job: Job, lease: Lease) -> Lease:
            if job.processed_batches == 2 and self.failures:
                self.failures -= 1
                raise TimeoutError
            return super().save(job, lease)

    target = Target()
    run_full_sync("j", Numbers(1000), target, store=Flaky(), batch_size=100, retry=FAST)
    assert target.records == list(range(1000))


def test_retry_covers_what_the_caller_names(store: MemoryJobStore) -> None:
    target = Target(fail_at(1, KeyError("odd")))
    retry = Retry(on=LookupError, wait_initial=0.001)
    assert run_full_sync("j", Numbers(300), target, store=store, batch_size=100, retry=retry).status == "completed"
