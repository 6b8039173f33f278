"""One attempt at a time: a held job, a lost lease, a lease that is kept."""

import threading

import pytest

from doubles import Numbers, Target, saved
from resumable_sync import (
    Batch,
    Job,
    JobHeldError,
    JobStatus,
    Lease,
    LeaseLostError,
    MemoryJobStore,
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
    target = Target(lambda _: renewed.wait(10))
    assert run_full_sync("j", Numbers(10), target, store=store, lease_ttl=0.3).status == "completed"
    assert renewed.is_set()
