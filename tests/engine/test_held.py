"""One attempt at a time: a held job, a lost lease, a lease that is kept."""

import threading
from types import SimpleNamespace

import pytest
from typing_extensions import override

from doubles import FAST, Numbers, Target, saved
from resumable_sync import (
    Batch,
    Job,
    JobHeldError,
    JobStatus,
    Lease,
    LeaseLostError,
    MemoryJobStore,
    _lease,
    run_full_sync,
)


def test_a_held_job_is_an_error_or_passed_over_or_waited_for(store: MemoryJobStore) -> None:
    lease = store.acquire("j", owner="other", ttl=60)
    with pytest.raises(JobHeldError) as caught:
        run_full_sync("j", Numbers(10), Target(), store=store)
    assert (caught.value.owner, caught.value.job_id) == ("other", "j")
    assert run_full_sync("j", Numbers(10), Target(), store=store, if_held="skip").action == "held"
    asked: list[int] = []

    def should_stop() -> bool:
        asked.append(1)
        if len(asked) == 3:
            store.release(lease)
        return False

    result = run_full_sync("j", Numbers(10), Target(), store=store, if_held="wait", should_stop=should_stop)
    assert result.status == "completed"


def test_waiting_for_a_held_job_honours_a_stop(store: MemoryJobStore) -> None:
    store.acquire("j", owner="other", ttl=60)
    result = run_full_sync("j", Numbers(10), Target(), store=store, if_held="wait", max_runtime=0.05)
    assert result.action == "held"
    assert "max_runtime" in (result.reason or "")


def test_what_another_attempt_finished_while_this_one_waited_is_not_done_again(store: MemoryJobStore) -> None:
    lease = store.acquire("j", owner="other", ttl=60)
    store.save(Job(id="j", status=JobStatus.RUNNING, run=1, cursor=[5], processed_records=5), lease)
    asked: list[int] = []

    def should_stop() -> bool:
        asked.append(1)
        if len(asked) == 2:
            store.save(Job(id="j", status=JobStatus.COMPLETED, run=1, cursor=[9], processed_records=9), lease)
            store.release(lease)
        return False

    target = Target()
    result = run_full_sync("j", Numbers(10), target, store=store, if_held="wait", should_stop=should_stop)
    assert (result.action, result.status, target.records) == ("skip", "completed", [])
    assert "meanwhile" in (result.reason or "")


def test_a_zombie_ends_with_an_error_and_saves_nothing(store: MemoryJobStore) -> None:
    def overtake(batch: Batch[int]) -> None:
        if batch.sequence == 2:
            store.acquire("j", owner="successor", ttl=60, replacing=batch.fencing_token)

    with pytest.raises(LeaseLostError):
        run_full_sync("j", Numbers(1000), Target(overtake), store=store, batch_size=100)
    job = saved(store)
    assert (job.status, job.cursor) == ("running", [200])
    assert job.lease is not None
    assert job.lease.owner == "successor"


def test_a_long_batch_keeps_its_lease(store: MemoryJobStore) -> None:
    renewed = threading.Event()
    renew = store.renew

    def watched(lease: Lease, ttl: float) -> Lease:
        renewed.set()
        return renew(lease, ttl)

    store.renew = watched  # type: ignore[method-assign]
    target = Target(lambda _: renewed.wait(60))
    assert run_full_sync("j", Numbers(10), target, store=store, lease_ttl=0.3).status == "completed"
    assert renewed.is_set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock by which an attempt notices that it slept; a test moves it."""
    now = [0.0]
    monkeypatch.setattr(_lease, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.mark.parametrize("place", ["before begin", "before complete"])
def test_a_zombie_prepares_and_completes_nothing(store: MemoryJobStore, clock: list[float], place: str) -> None:
    def overtaken(*_: object) -> None:
        clock[0] += 100
        job = store.load("j")
        assert job is not None
        assert job.lease is not None
        store.acquire("j", owner="successor", ttl=60, replacing=job.lease.fencing_token)

    class Sleeper(Numbers):
        @override
        def fetch(self, offset: int, limit: int) -> list[int]:
            if offset == 10 and place == "before complete":
                overtaken()
            return super().fetch(offset, limit)

        def columns(self) -> list[object]:
            if place == "before begin":
                overtaken()
            return []

    class Prepared(Target):
        def prepare(self, columns: object) -> None:
            pass

    target = Prepared()
    with pytest.raises(LeaseLostError) as caught:
        run_full_sync("j", Sleeper(10), target, store=store, batch_size=10, prefetch=0)
    assert target.completed == []
    assert target.begun == [] or place == "before complete"
    assert getattr(caught.value, "__notes__", []) == []


def test_a_doubtful_lease_is_looked_after_with_the_patience_of_the_store(clock: list[float]) -> None:
    class Cut(MemoryJobStore):
        cuts = 2

        @override
        def renew(self, lease: Lease, ttl: float) -> Lease:
            if self.cuts:
                self.cuts -= 1
                raise ConnectionError("net down")
            return super().renew(lease, ttl)

    class Slow(Numbers):
        @override
        def fetch(self, offset: int, limit: int) -> list[int]:
            clock[0] += 100
            return super().fetch(offset, limit)

    store = Cut()
    result = run_full_sync("j", Slow(30), Target(), store=store, batch_size=10, retry=FAST, prefetch=0)
    assert (result.status, store.cuts) == ("completed", 0)
