"""Transient errors are tried again, each at the last cursor, and only what failed."""

import pickle
import time

import attrs
import pytest
from typing_extensions import override

from doubles import FAST, Numbers, Target, fail_at, saved
from resumable_sync import Event, Job, Lease, MemoryJobStore, Retry, TransientError, TryFailed, run_full_sync
from resumable_sync._retry import Retrier


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


@pytest.mark.parametrize(
    ("retry", "asked", "waited"),
    [
        (Retry(), 3600.0, [3600.0, 3600.0]),
        (Retry(timeout=60.0), 3600.0, []),
        (Retry(timeout=8000.0), 3600.0, [3600.0, 3600.0]),
        (Retry(timeout=None), 3600.0, [3600.0, 3600.0]),
        (Retry(), 25 * 3600.0, []),
        (Retry(max_tries=2), 3600.0, [3600.0]),
        (pickle.loads(pickle.dumps(attrs.evolve(Retry(), wait_max=1.0))), 3600.0, [3600.0, 3600.0]),
    ],
)
def test_a_wait_that_a_server_asks_for_is_waited_out_unless_a_limit_was_given(
    retry: Retry, asked: float, waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    waits: list[float] = []

    def pause(seconds: float) -> bool:
        waits.append(seconds)
        now[0] += seconds
        return False

    failures = [TransientError("busy", retry_after=asked)] * 2

    def call() -> None:
        if failures:
            raise failures.pop()

    retrier = Retrier(retry, pause, lambda *_: None)
    if len(waited) == 2:
        retrier.call("read", call)
    else:
        with pytest.raises(TransientError, match="busy"):
            retrier.call("read", call)
    assert waits == waited


def test_a_wait_that_was_asked_for_leaves_the_time_for_other_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    waits: list[float] = []

    def pause(seconds: float) -> bool:
        waits.append(seconds)
        now[0] += seconds
        return False

    failures = [TransientError("down"), TransientError("busy", retry_after=600.0), TransientError("down")]

    def call() -> None:
        now[0] += 14.0
        if failures:
            raise failures.pop()

    Retrier(Retry(), pause, lambda *_: None).call("read", call)
    assert [round(wait) for wait in waits] == [0, 600, 0]
