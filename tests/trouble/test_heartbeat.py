"""The heartbeat, where the lease changes hands while it is on its way."""

import threading
from typing import Any

import pytest
from typing_extensions import override

from resumable_sync import Batch, Lease, LeaseLostError, StoreError, TransientError, run_full_sync
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import Fault, FaultyStore, Raise, lose_answer
from trouble.parts import JOB_ID, PATIENT, Insert, Numbers, check_consistent, check_exact, make_target

TTL = 0.3


class Watched(SQLJobStore):
    """A store that holds back the answer to `acquire` until a heartbeat was refused, and may lose it then."""

    def __init__(self, url: str, lost_answers: int) -> None:
        super().__init__(url)
        self.refused = threading.Event()
        self.lost_answers = lost_answers

    @override
    def acquire(self, job_id: str, *, owner: str, ttl: float, replacing: int | None = None) -> Lease:
        lease = super().acquire(job_id, owner=owner, ttl=ttl, replacing=replacing)
        if replacing is not None:
            self.refused.wait(60)
            if self.lost_answers:
                self.lost_answers -= 1
                raise ConnectionError("lost")
        return lease

    @override
    def renew(self, lease: Lease, ttl: float) -> Lease:
        try:
            return super().renew(lease, ttl)
        except LeaseLostError:
            self.refused.set()
            raise


@pytest.fixture
def url(sqlite_url: str) -> str:
    make_target(sqlite_url)
    return sqlite_url


@pytest.mark.parametrize("lost_answers", [0, 1])
def test_a_token_that_the_attempt_outdated_itself_is_not_lost(url: str, lost_answers: int) -> None:
    with Watched(url, lost_answers) as inner:
        store: Any = FaultyStore(inner, [lose_answer("commit", 3)])
        result = run_full_sync(JOB_ID, Numbers(100), Insert(), store=store, batch_size=10, lease_ttl=TTL, retry=PATIENT)
        assert inner.refused.is_set()
        assert inner.lost_answers == 0
    assert (result.status, result.records) == ("completed", 100)
    check_exact(url, 100)


def test_a_lease_that_is_lost_in_a_wait_for_the_next_try_is_an_error(url: str) -> None:
    def lose_it(batch: Batch[int]) -> None:
        if batch.sequence == 2:
            steal(url)
            raise TransientError("busy", retry_after=30.0)

    with SQLJobStore(url) as store, pytest.raises(LeaseLostError) as caught:
        run_full_sync(JOB_ID, Numbers(100), Plain(lose_it), store=store, batch_size=10, lease_ttl=TTL)
    assert "new owner" in str(caught.value)  # and no note that says how to resume
    with SQLJobStore(url) as store:
        job = store.load(JOB_ID)
    assert job is not None
    assert (job.status, job.processed_batches, job.lease is None) == ("running", 2, False)


def test_a_stop_that_cannot_be_saved_gives_no_result(url: str) -> None:
    stop = threading.Event()

    def stop_here(batch: Batch[int]) -> None:
        if batch.sequence == 2:
            stop.set()
            raise TransientError("busy", retry_after=30.0)

    with SQLJobStore(url) as inner:
        # Two saves in the transactions of the start, its own, and those of two batches come before.
        store: Any = FaultyStore(inner, [Fault("save", 6, Raise(StoreError, ("no",)), times=1000)])
        with pytest.raises(StoreError, match="no"):
            run_full_sync(JOB_ID, Numbers(100), Insert(stop_here), store=store, batch_size=10, should_stop=stop.is_set)
    job = check_consistent(url)
    assert job is not None
    assert (job.status, job.processed_batches, job.lease) == ("running", 2, None)


class Plain:
    """A sink outside of the store's transaction, so that others can write to the store meanwhile."""

    transactional = idempotent = False

    def __init__(self, act: Any) -> None:
        self.act = act

    def begin(self, job: object, connection: object) -> None:
        pass

    def write(self, batch: Batch[int], connection: object) -> None:
        self.act(batch)

    def complete(self, job: object, connection: object) -> None:
        pass


def steal(url: str) -> None:
    """Take the job over, as a successor that believes its holder dead."""
    with SQLJobStore(url) as store:
        job = store.load(JOB_ID)
        assert job is not None
        assert job.lease is not None
        store.acquire(JOB_ID, owner="successor", ttl=60.0, replacing=job.lease.fencing_token)
