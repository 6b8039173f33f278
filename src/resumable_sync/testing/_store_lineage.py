"""`JobStoreSuite`, fourth part: who worked on a job, from where to where, and how it ended."""

# ruff: noqa: PT012, DOC501 - a block that is to fail as a whole, by an error raised in it

from datetime import timedelta
from functools import partial
from typing import Any

import attrs
import pytest

from resumable_sync._errors import LeaseLostError
from resumable_sync._model import AttemptRecord, Job, JobStatus, utc_now
from resumable_sync._protocols import JobStore, LineageStore, TransactionalJobStore
from resumable_sync.testing._store_base import LONG, SHORT, Expire, MakeStore, StoreBase

__all__ = ["StoredLineage"]

_ENDS = [JobStatus.COMPLETED, JobStatus.INCOMPLETE, JobStatus.INTERRUPTED, JobStatus.FAILED]


class StoredLineage(StoreBase):
    """What `LineageStore` promises; skipped for stores that keep no lineage."""

    @pytest.fixture
    def lineage(self, store: JobStore) -> LineageStore:
        """Give the store, if it keeps a lineage."""
        if not isinstance(store, LineageStore):
            pytest.skip("the store keeps no lineage")
        return store

    def test_a_job_without_attempts_has_no_lineage(self, lineage: LineageStore) -> None:
        """Asking makes nothing."""
        assert list(lineage.attempts("nobody")) == []
        assert list(lineage.jobs()) == []

    def test_an_attempt_at_work_is_shown(self, lineage: LineageStore, make_store: MakeStore) -> None:
        """From its first checkpoint to its latest one it can be seen, by other processes too."""
        job, lease = self.begin(lineage)
        other = make_store()
        assert isinstance(other, LineageStore)
        for records in (10, 20):
            lineage.save(attrs.evolve(job, cursor=[records], processed_records=records), lease)
            for shown in (lineage.attempts("job"), other.attempts("job")):
                (attempt,) = shown
                assert _where(attempt) == (None, 0, [records], records)
                assert (attempt.job_id, attempt.run, attempt.attempt) == ("job", 1, 1)
                assert (attempt.owner, attempt.fencing_token) == ("one", lease.fencing_token)
                assert (attempt.outcome, attempt.ended_at, attempt.error) == ("running", None, None)
                assert attempt.started_at.utcoffset() == timedelta(0)

    @pytest.mark.parametrize("status", _ENDS)
    def test_how_an_attempt_ended_is_kept(self, lineage: LineageStore, status: JobStatus) -> None:
        """The status that it left the job with is its outcome, at the latest when it gives the lease back."""
        job, lease = self.begin(lineage)
        error = "ValueError: é\x00" if status is JobStatus.FAILED else None
        end = utc_now()
        lineage.save(attrs.evolve(job, status=status, error=error, finished_at=end), lease)
        (before,) = lineage.attempts("job")
        assert (before.outcome, before.ended_at, before.error) == (status.value, end, error)
        lineage.release(lease)
        (ended,) = lineage.attempts("job")
        assert (ended.outcome, ended.error) == (status.value, error)
        assert ended.ended_at is not None
        assert ended.ended_at >= ended.started_at
        assert _where(ended) == (None, 0, [10], 10)
        lineage.release(lease)
        assert list(lineage.attempts("job")) == [ended]

    def test_attempts_follow_each_other(self, lineage: LineageStore) -> None:
        """The next attempt begins where the one before stopped; a new run at the beginning; the oldest comes first."""
        end = partial(self._attempt, lineage)
        end(Job(id="job", run=1, attempt=1, cursor=[10], processed_records=10), JobStatus.INTERRUPTED)
        end(Job(id="job", run=1, attempt=2, cursor=[30], processed_records=30), JobStatus.COMPLETED)
        end(Job(id="job", run=2, attempt=1, cursor=[20], processed_records=20), JobStatus.FAILED)
        attempts = list(lineage.attempts("job"))
        assert [(one.run, one.attempt, one.outcome) for one in attempts] == [
            (1, 1, "interrupted"),
            (1, 2, "completed"),
            (2, 1, "failed"),
        ]
        assert [_where(one) for one in attempts] == [(None, 0, [10], 10), ([10], 10, [30], 30), (None, 0, [20], 20)]
        tokens = [one.fencing_token for one in attempts]
        assert tokens == sorted(set(tokens))

    @pytest.mark.parametrize("how", ["expired", "replaced", "expired and seen"])
    def test_an_attempt_that_died(self, lineage: LineageStore, expire: Expire, how: str) -> None:
        """Who takes over marks the attempt before as dead, with how far it got, and when that was found."""
        _, lease = self.begin(lineage, ttl=LONG if how == "replaced" else SHORT)
        if how != "replaced":
            expire(lease)
            (dead,) = lineage.attempts("job")
            assert (dead.outcome, dead.ended_at, dead.to_records) == ("died", None, 10)
        replacing = None if how == "expired" else lease.fencing_token
        taken = lineage.acquire("job", owner="two", ttl=LONG, replacing=replacing)
        dead, alive = lineage.attempts("job")
        assert (dead.owner, dead.outcome, dead.fencing_token) == ("one", "died", lease.fencing_token)
        assert _where(dead) == (None, 0, [10], 10)
        assert dead.ended_at is not None
        assert (alive.owner, alive.outcome, alive.fencing_token) == ("two", "running", taken.fencing_token)
        assert _where(alive) == ([10], 10, [10], 10)

    def test_one_that_died_after_it_had_ended_has_ended(self, lineage: LineageStore) -> None:
        """A death between the last checkpoint and the release does not make a completed attempt a dead one."""
        job, lease = self.begin(lineage)
        end = utc_now()
        lineage.save(attrs.evolve(job, status=JobStatus.COMPLETED, finished_at=end), lease)
        lineage.acquire("job", owner="two", ttl=LONG, replacing=lease.fencing_token)
        first, _ = lineage.attempts("job")
        assert (first.outcome, first.ended_at) == ("completed", end)

    def test_one_that_died_before_it_saved(self, lineage: LineageStore) -> None:
        """A death between grant and first checkpoint is not taken for the end of the attempt before."""
        self._attempt(lineage, Job(id="job", run=1, attempt=1, finished_at=utc_now()), JobStatus.COMPLETED)
        dead = lineage.acquire("job", owner="two", ttl=LONG)
        lineage.acquire("job", owner="three", ttl=LONG, replacing=dead.fencing_token)
        assert [one.outcome for one in lineage.attempts("job")] == ["completed", "died", "running"]

    def test_a_lease_that_was_not_used_leaves_nothing(self, lineage: LineageStore) -> None:
        """Who finds nothing to do, or only makes a job pending, made no attempt."""
        lease = lineage.acquire("job", owner="one", ttl=LONG)
        assert [one.outcome for one in lineage.attempts("job")] == ["running"]
        lineage.release(lease)
        assert list(lineage.attempts("job")) == []
        lease = lineage.acquire("job", owner="one", ttl=LONG)
        lineage.save(Job(id="job", run=3), lease)
        lineage.release(lease)
        assert list(lineage.attempts("job")) == []

    def test_given_back_without_a_word(self, lineage: LineageStore) -> None:
        """An attempt that releases a running job was interrupted."""
        _, lease = self.begin(lineage)
        lineage.release(lease)
        (attempt,) = lineage.attempts("job")
        assert (attempt.outcome, attempt.to_records) == ("interrupted", 10)
        assert attempt.ended_at is not None

    @pytest.mark.parametrize("how", ["again", "replacing"])
    def test_the_same_owner_goes_on_with_its_attempt(self, lineage: LineageStore, how: str) -> None:
        """A lost answer makes no second attempt, only a newer token."""
        job, first = self.begin(lineage)
        replacing = first.fencing_token if how == "replacing" else None
        second = lineage.acquire("job", owner="one", ttl=LONG, replacing=replacing)
        lineage.save(attrs.evolve(job, cursor=[20], processed_records=20), second)
        (attempt,) = lineage.attempts("job")
        assert (attempt.fencing_token, attempt.outcome) == (second.fencing_token, "running")
        assert _where(attempt) == (None, 0, [20], 20)
        lineage.release(second)
        assert len(list(lineage.attempts("job"))) == 1

    def test_a_replay_is_an_attempt(self, lineage: LineageStore) -> None:
        """It leaves number and status of the job as they were, and yet worked; if it dies, that shows too."""
        job = Job(id="job", run=1, attempt=1, cursor=[9], processed_records=9, finished_at=utc_now())
        self._attempt(lineage, job, JobStatus.INCOMPLETE)
        job = attrs.evolve(job, status=JobStatus.INCOMPLETE, processed_records=10)
        lease = lineage.save(job, lineage.acquire("job", owner="replay", ttl=LONG))
        assert lineage.attempts("job")[-1].outcome == "running"
        lineage.release(lease)
        lease = lineage.acquire("job", owner="dying replay", ttl=LONG)
        lineage.save(attrs.evolve(job, processed_records=11), lease)
        lineage.acquire("job", owner="last", ttl=LONG, replacing=lease.fencing_token)
        shown = [(one.owner, one.outcome, one.from_records, one.to_records) for one in lineage.attempts("job")]
        assert shown[1:3] == [("replay", "incomplete", 9, 10), ("dying replay", "died", 10, 11)]

    @pytest.mark.parametrize("successor", ["at work", "finished", "gone"])
    def test_a_zombie_does_not_write_lineage(self, lineage: LineageStore, expire: Expire, successor: str) -> None:
        """Nothing that a process does that lost its lease changes what is kept of it or of others."""
        job, zombie = self.begin(lineage, ttl=SHORT)
        expire(zombie)
        taken = lineage.acquire("job", owner="two", ttl=LONG)
        lineage.save(attrs.evolve(job, attempt=2, cursor=[15], processed_records=15), taken)
        if successor == "finished":
            lineage.save(attrs.evolve(job, attempt=2, status=JobStatus.COMPLETED), taken)
            lineage.release(taken)
        if successor == "gone":
            lineage.delete("job")
        before = list(lineage.attempts("job"))
        for write in (
            partial(lineage.save, attrs.evolve(job, status=JobStatus.COMPLETED, processed_records=99), zombie),
            partial(lineage.renew, zombie, LONG),
            partial(lineage.release, zombie),
        ):
            with pytest.raises(LeaseLostError):
                write()
            assert list(lineage.attempts("job")) == before
        if successor != "gone":
            assert before[0].outcome == "died"

    def test_only_the_newest_are_kept(self, lineage: LineageStore) -> None:
        """At least a hundred, and never more than two hundred."""
        token = None
        for number in range(201):
            token = lineage.acquire("job", owner=f"owner {number}", ttl=LONG, replacing=token).fencing_token
        kept = [one.owner for one in lineage.attempts("job")]
        assert 100 <= len(kept) <= 200
        assert kept == [f"owner {number}" for number in range(201)][-len(kept) :]

    def test_lineage_belongs_to_its_job(self, lineage: LineageStore) -> None:
        """Ids are exact, and deleting a job forgets its attempts and no others."""
        for job_id in ("job", "JOB", "job "):
            self._attempt(lineage, Job(id=job_id, run=1, attempt=1), JobStatus.COMPLETED)
        lineage.delete("job")
        assert [len(list(lineage.attempts(job_id))) for job_id in ("job", "JOB", "job ")] == [0, 1, 1]
        lineage.acquire("job", owner="two", ttl=LONG)
        assert [one.owner for one in lineage.attempts("job")] == ["two"]

    def test_what_was_rolled_back_did_not_happen(self, lineage: LineageStore) -> None:
        """A checkpoint that was not committed is none here either."""
        if not isinstance(lineage, TransactionalJobStore):
            pytest.skip("the store is not transactional")
        lease = lineage.acquire("job", owner="one", ttl=LONG)
        with pytest.raises(RuntimeError), lineage.transaction() as transaction:
            transaction.save(Job(id="job", status=JobStatus.COMPLETED, run=1, attempt=1, processed_records=5), lease)
            msg = "the sink failed"
            raise RuntimeError(msg)
        (attempt,) = lineage.attempts("job")
        assert (attempt.outcome, attempt.to_records) == ("running", 0)
        lineage.release(lease)
        assert list(lineage.attempts("job")) == []

    def _attempt(self, store: LineageStore, job: Job, status: JobStatus) -> None:
        lease = store.acquire(job.id, owner=f"attempt {job.run}.{job.attempt}", ttl=LONG)
        lease = store.save(attrs.evolve(job, status=JobStatus.RUNNING), lease)
        store.release(store.save(attrs.evolve(job, status=status), lease))


def _where(attempt: AttemptRecord) -> tuple[Any, int, Any, int]:
    return attempt.from_cursor, attempt.from_records, attempt.to_cursor, attempt.to_records
