"""`JobStoreSuite`, first part: jobs are kept exactly, and apart from each other."""

# ruff: noqa: S301 - what is unpickled was pickled in the same line

import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import attrs
import pytest

from resumable_sync._cursor import encode_cursor
from resumable_sync._errors import ConfigurationError, CursorError, LeaseLostError, ResumableSyncError, StoreError
from resumable_sync._model import Job, JobStatus, Lease
from resumable_sync._protocols import JobStore
from resumable_sync.testing._samples import CURSORS, EXACT_IDS, REFUSED_IDS, full_job
from resumable_sync.testing._store_base import LONG, MakeStore, StoreBase

__all__ = ["StoredJobs"]

_FIELDS = tuple(field.name for field in attrs.fields(Job) if field.name not in {"id", "lease"})


class StoredJobs(StoreBase):
    """A job comes back as it was saved; ids are exact; deleting forgets."""

    def test_is_a_job_store(self, store: JobStore) -> None:
        """It has all the methods of the protocol."""
        assert isinstance(store, JobStore)

    def test_an_unknown_job_is_none(self, store: JobStore) -> None:
        """Asking for a job does not create it."""
        assert store.load("nobody") is None
        assert store.load("nobody") is None
        assert list(store.jobs()) == []

    def test_acquire_creates_a_pending_job(self, store: JobStore) -> None:
        """A new job is pending, without progress, and shows its lease."""
        lease = store.acquire("job", owner="one", ttl=LONG)
        job = store.load("job")
        assert job is not None
        assert (job.id, job.status, job.run, job.attempt) == ("job", JobStatus.PENDING, 0, 0)
        assert (job.cursor, job.processed_records, job.processed_batches, job.total_records) == (None, 0, 0, None)
        assert (job.dead_letters, job.fingerprint, job.error) == (0, None, None)
        assert not job.has_progress
        assert job.lease is not None
        assert (job.lease.job_id, job.lease.owner, job.lease.fencing_token) == ("job", "one", lease.fencing_token)
        assert job.lease.expires_at == lease.expires_at

    def test_acquire_leaves_a_stored_job_as_it_is(self, store: JobStore) -> None:
        """A grant changes the lease and nothing else."""
        job, lease = self.begin(store)
        store.release(lease)
        store.acquire("job", owner="two", ttl=LONG)
        assert self.facts(store.load("job")) == self.facts(job)

    def test_every_field_is_kept(self, store: JobStore, make_store: MakeStore) -> None:
        """A job with extreme values in every field comes back equal, for another process too."""
        lease = store.acquire("job", owner="one", ttl=LONG)
        job = full_job("job")
        store.save(job, lease)
        assert self.facts(store.load("job")) == self.facts(job)
        assert self.facts(make_store().load("job")) == self.facts(job)

    @pytest.mark.parametrize("field", _FIELDS)
    def test_a_field_can_be_set_and_cleared(self, store: JobStore, field: str) -> None:
        """Each field is stored on its own, and goes back to its default."""
        self.needs(field)
        lease = store.acquire("job", owner="one", ttl=LONG)
        full = full_job("job")
        plain = Job(id="job", status=JobStatus.RUNNING, created_at=full.created_at)
        job = attrs.evolve(plain, **{field: getattr(full, field)})
        store.save(job, lease)
        assert self.facts(store.load("job")) == self.facts(job)
        store.save(plain, lease)
        assert self.facts(store.load("job")) == self.facts(plain)

    @pytest.mark.parametrize("status", list(JobStatus))
    def test_every_status_is_kept(self, store: JobStore, status: JobStatus) -> None:
        """Each status comes back as a `JobStatus`."""
        self.needs("status")
        lease = store.acquire("job", owner="one", ttl=LONG)
        store.save(Job(id="job", status=status), lease)
        job = store.load("job")
        assert job is not None
        assert job.status is status

    def test_every_cursor_is_kept(self, store: JobStore, make_store: MakeStore) -> None:
        """A cursor of each type comes back as the same value of the same type."""
        self.needs("cursor")
        other = make_store()
        for name, cursor in CURSORS.items():
            lease = store.acquire(name, owner="one", ttl=LONG)
            store.save(Job(id=name, status=JobStatus.RUNNING, cursor=cursor), lease)
            job = other.load(name)
            assert job is not None, name
            assert type(job.cursor) is type(cursor), name
            assert encode_cursor(job.cursor) == encode_cursor(cursor), name

    def test_zero_is_not_unknown(self, store: JobStore) -> None:
        """A total of 0 and no total are two things; so are an empty and a missing text."""
        self.needs("total_records", "fingerprint", "error")
        lease = store.acquire("job", owner="one", ttl=LONG)
        for job in (Job(id="job", total_records=0, fingerprint="", error=""), Job(id="job")):
            store.save(job, lease)
            stored = store.load("job")
            assert stored is not None
            assert (stored.total_records, stored.fingerprint, stored.error) == (
                job.total_records,
                job.fingerprint,
                job.error,
            )

    def test_times_are_aware_and_utc(self, store: JobStore) -> None:
        """Times come back in UTC with their microseconds."""
        self.needs("updated_at")
        lease = store.acquire("job", owner="one", ttl=LONG)
        moment = datetime(2026, 3, 29, 1, 30, 0, 1, tzinfo=UTC)
        store.save(Job(id="job", created_at=moment, updated_at=moment), lease)
        job = store.load("job")
        assert job is not None
        assert job.updated_at == moment
        assert job.updated_at is not None
        assert job.updated_at.utcoffset() == timedelta(0)

    @pytest.mark.parametrize("text", ["ValueError: a\x00b", "ValueError: \udc80\ud800", "ValueError: \U0001f600\n\t'%"])
    def test_any_error_text_can_be_saved(self, store: JobStore, text: str) -> None:
        """An exception with an odd message must not keep the job from being marked failed."""
        self.needs("error", "status")
        lease = store.acquire("job", owner="one", ttl=LONG)
        store.save(Job(id="job", status=JobStatus.FAILED, error=text), lease)
        job = store.load("job")
        assert job is not None
        assert job.status is JobStatus.FAILED
        assert job.error is not None
        assert job.error.startswith("ValueError: ")

    def test_saving_twice_is_fine(self, store: JobStore) -> None:
        """The same job under the same lease is no news."""
        job, lease = self.begin(store)
        store.save(job, store.save(job, lease))
        assert self.facts(store.load("job")) == self.facts(job)

    def test_a_save_that_cannot_be_done_changes_nothing(self, store: JobStore) -> None:
        """A cursor of an unsupported type is refused, and the job stays as it was."""
        self.needs("cursor")
        job, lease = self.begin(store)
        with pytest.raises(CursorError):
            store.save(attrs.evolve(job, cursor=object(), processed_records=20), lease)
        assert self.facts(store.load("job")) == self.facts(job)

    def test_a_lease_of_another_job_saves_nothing(self, store: JobStore) -> None:
        """A job is never saved under the lease of another one."""
        job, _ = self.begin(store, "job")
        _, other = self.begin(store, "other")
        with pytest.raises((ConfigurationError, LeaseLostError)):
            store.save(attrs.evolve(job, processed_records=20), other)
        assert self.facts(store.load("job")) == self.facts(job)

    def test_ids_are_exact(self, store: JobStore, make_store: MakeStore) -> None:
        """Ids that differ in case, accents or blanks are different jobs; quotes and wildcards are only text."""
        for number, job_id in enumerate(EXACT_IDS, 1):
            lease = store.acquire(job_id, owner=f"owner of {number}", ttl=LONG)
            store.save(Job(id=job_id, status=JobStatus.RUNNING, processed_records=number), lease)
        other = make_store()
        for number, job_id in enumerate(EXACT_IDS, 1):
            job = other.load(job_id)
            assert job is not None, job_id
            assert (job.id, job.processed_records) == (job_id, number)
        assert {job.id for job in other.jobs()} == set(EXACT_IDS)
        store.delete("orders")
        store.delete("%")
        assert {job.id for job in store.jobs()} == set(EXACT_IDS) - {"orders", "%"}

    @pytest.mark.parametrize("job_id", REFUSED_IDS, ids=["empty", "256 characters"])
    def test_bad_ids_are_refused(self, store: JobStore, job_id: str) -> None:
        """An id that is empty or too long is a clear error, and nothing is stored."""
        with pytest.raises(ConfigurationError):
            store.acquire(job_id, owner="one", ttl=LONG)
        assert list(store.jobs()) == []

    @pytest.mark.parametrize("job_id", ["a\x00b", "\x00", "\ud800"], ids=["NUL inside", "NUL", "lone surrogate"])
    def test_odd_ids_work_or_are_refused(self, store: JobStore, job_id: str) -> None:
        """An id that a database cannot hold is a clear error; where it can be held, it is exact."""
        try:
            store.acquire(job_id, owner="one", ttl=LONG)
        except ResumableSyncError:
            assert list(store.jobs()) == []
        else:
            assert [job.id for job in store.jobs()] == [job_id]
            assert store.load(job_id) is not None
            assert store.load("a") is None

    def test_jobs_are_ordered_by_id(self, store: JobStore) -> None:
        """All jobs are listed, with what `load` shows."""
        ids = [f"job-{number:02}" for number in range(12)]
        for job_id in sorted(ids, key=lambda text: text[::-1]):
            self.begin(store, job_id)
        listed = list(store.jobs())
        assert [job.id for job in listed] == ids
        assert [self.facts(job) for job in listed] == [self.facts(store.load(job_id)) for job_id in ids]
        assert all(job.lease is not None for job in listed)

    def test_delete_forgets_the_job(self, store: JobStore, make_store: MakeStore) -> None:
        """A deleted job is unknown, and comes back empty."""
        _, lease = self.begin(store)
        store.release(lease)
        store.delete("job")
        assert make_store().load("job") is None
        store.delete("job")
        store.delete("never there")
        store.acquire("job", owner="two", ttl=LONG)
        job = store.load("job")
        assert job is not None
        assert (job.status, job.has_progress) == (JobStatus.PENDING, False)

    def test_what_cannot_be_done_is_an_error(self, broken_store: JobStore | None) -> None:
        """A store that cannot reach its data says so at every call; no call answers as if there was no job."""
        if broken_store is None:
            pytest.skip("override the fixture `broken_store`")
        lease = Lease(job_id="job", owner="one", fencing_token=1, expires_at=datetime.now(UTC))
        calls: list[Callable[[], object]] = [
            partial(broken_store.load, "job"),
            lambda: list(broken_store.jobs()),
            partial(broken_store.acquire, "job", owner="one", ttl=LONG),
            partial(broken_store.acquire, "job", owner="one", ttl=LONG, replacing=1),
            partial(broken_store.renew, lease, LONG),
            partial(broken_store.save, Job(id="job"), lease),
            partial(broken_store.release, lease),
            partial(broken_store.request_stop, "job"),
            partial(broken_store.delete, "job"),
        ]
        for call in calls:
            with pytest.raises(StoreError):
                call()

    def test_other_jobs_are_untouched(self, store: JobStore) -> None:
        """Nothing that is done to one job changes another."""
        _, lease = self.begin(store, "other", owner="its owner")
        before = store.load("other")
        job, mine = self.begin(store, "job")
        store.request_stop("job")
        store.release(store.save(job, store.renew(mine, LONG)))
        store.delete("job")
        assert store.load("other") == before
        assert not store.renew(lease, LONG).stop_requested

    def test_a_pickled_store_is_the_same_store(self, store: JobStore) -> None:
        """A store that pickles leads another process to the same jobs."""
        if not self.shares_leases:
            pytest.skip("the store keeps its leases to itself")
        copy = self._copy(store)
        job, lease = self.begin(store)
        assert self.facts(copy.load("job")) == self.facts(job)
        copy.save(attrs.evolve(job, processed_records=20), lease)
        stored = store.load("job")
        assert stored is not None
        assert stored.processed_records == 20

    def test_a_pickled_lease_is_as_good(self, store: JobStore) -> None:
        """A lease travels as a value."""
        job, lease = self.begin(store)
        travelled: Lease = pickle.loads(pickle.dumps(lease))
        assert store.save(job, travelled).fencing_token == lease.fencing_token

    def _copy(self, store: JobStore) -> Any:
        try:
            return pickle.loads(pickle.dumps(store))
        except Exception as error:
            if self.must_pickle:
                raise
            pytest.skip(f"the store does not pickle: {type(error).__name__}: {error}")
