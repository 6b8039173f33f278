"""What the parts of `JobStoreSuite` share: its fixtures and its small helpers."""

import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import attrs
import pytest

from resumable_sync._model import Job, JobStatus, Lease
from resumable_sync._protocols import JobStore
from resumable_sync.testing._samples import job_facts

__all__ = ["LONG", "SHORT", "Expire", "MakeStore", "StoreBase", "in_threads", "wait_until"]

LONG = 600.0
"""Seconds of a lease that outlives every test."""

SHORT = 0.05
"""Seconds of a lease that a test lets expire."""

_BOUND = 30.0

ResultT = TypeVar("ResultT")
Expire = Callable[[Lease], None]
MakeStore = Callable[[], JobStore]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds, at most 30 seconds."""
    deadline = time.monotonic() + _BOUND
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {_BOUND:.0f} s in vain: {what}")
        pause.wait(0.005)


def in_threads(works: "list[Callable[[], ResultT]]") -> "list[ResultT | BaseException]":
    """Call functions at the same moment, a thread for each; give what each returned or raised."""
    barrier = threading.Barrier(len(works))
    answers: list[ResultT | BaseException | None] = [None] * len(works)

    def run(place: int) -> None:
        barrier.wait(_BOUND)
        try:
            answers[place] = works[place]()
        except BaseException as error:  # noqa: BLE001 - it is the answer
            answers[place] = error

    threads = [threading.Thread(target=run, args=(place,), daemon=True) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * _BOUND)
        assert not thread.is_alive(), "a call did not end within a minute"
    return answers  # type: ignore[return-value]  # every place was filled by its thread


class StoreBase:
    """Fixtures and helpers of the store suite."""

    kept_fields: ClassVar[frozenset[str] | None] = None
    """Fields of `Job` that the store keeps; None for all. For tables that were there before."""

    shares_leases: ClassVar[bool] = True
    """Whether stores made by `make_store` see each other's leases; False if leases are kept in the store object."""

    own_clock: ClassVar[bool] = True
    """Whether the store's clock is not that of the Python process (a database's is not)."""

    must_pickle: ClassVar[bool] = False
    """Whether a store that does not pickle fails the suite instead of skipping that test."""

    @pytest.fixture
    def store(self) -> JobStore:
        """Give a fresh, empty store. To be overridden."""
        pytest.fail("override the fixture `store` with one that gives a fresh, empty store")

    @pytest.fixture
    def make_store(self, store: JobStore) -> MakeStore:
        """Give a function that makes one more store on the same data, as another process would.

        Override it where that is possible; by default it gives the same store again.
        """
        return lambda: store

    @pytest.fixture
    def broken_store(self) -> JobStore | None:
        """Give a store of this kind that cannot reach its data; None skips the test that needs it."""
        return None

    @pytest.fixture
    def expire(self, store: JobStore) -> Expire:
        """Give a function that returns when a lease (of 0.05 s) has expired by the store's clock.

        Override it for a store whose clock the test moves; by default it looks until the lease is gone.
        """

        def wait(lease: Lease) -> None:
            wait_until(lambda: _lease_of(store, lease.job_id) is None, "a lease of 0.05 s did not expire")

        return wait

    def facts(self, job: Job | None) -> dict[str, Any]:
        """Give what the store must keep of a job."""
        return job_facts(job, self.kept_fields)

    def needs(self, *fields: str) -> None:
        """Skip a test that is about fields the store does not keep."""
        missing = sorted(set(fields) - (self.kept_fields if self.kept_fields is not None else set(fields)))
        if missing:
            pytest.skip(f"the store does not keep {', '.join(missing)}")

    def begin(
        self, store: JobStore, job_id: str = "job", *, owner: str = "one", ttl: float = LONG
    ) -> tuple[Job, Lease]:
        """Acquire a job and save it as an attempt that delivered ten records."""
        lease = store.acquire(job_id, owner=owner, ttl=ttl)
        job = store.load(job_id)
        assert job is not None
        job = attrs.evolve(
            job, status=JobStatus.RUNNING, run=1, attempt=1, cursor=[10], processed_records=10, processed_batches=1
        )
        return job, store.save(job, lease)


def _lease_of(store: JobStore, job_id: str) -> Lease | None:
    job = store.load(job_id)
    return None if job is None else job.lease
