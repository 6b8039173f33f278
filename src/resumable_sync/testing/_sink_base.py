"""What `SinkSuite` stands on: its fixtures, and attempts that play the engine's part."""

# ruff: noqa: S301 - what is unpickled was pickled in the same line

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import attrs
import pytest
from sqlalchemy import Integer, String

from resumable_sync._cursor import encode_cursor
from resumable_sync._model import Batch, Job, JobStatus, Lease, batch_key, new_run_id
from resumable_sync._protocols import (
    CheckpointingSink,
    Column,
    JobStore,
    PreparingSink,
    Sink,
    TransactionalJobStore,
)
from resumable_sync.testing._store_base import LONG

__all__ = ["JOB_ID", "Attempt", "SinkBase"]

JOB_ID = "sink suite"

Delivered = Callable[[], Sequence[Any]]


class _Died(BaseException):
    """Ends an attempt where a real one would be killed."""


@attrs.define
class Attempt:
    """Plays the engine's part for a sink, without retries and threads: one process working on a run."""

    sink: Any
    store: JobStore
    columns: Sequence[Column]
    job: Job
    lease: Lease

    def begin(self) -> None:
        """Prepare the sink, and go on from its checkpoint where it is ahead."""
        if isinstance(self.sink, PreparingSink):
            self.sink.prepare(self.columns)
        if isinstance(self.sink, CheckpointingSink):
            there = self.sink.checkpoint(attrs.evolve(self.job, lease=self.lease))
            if there is not None and there.processed_records > self.job.processed_records:
                self.job = attrs.evolve(
                    self.job,
                    cursor=there.cursor,
                    processed_records=there.processed_records,
                    processed_batches=there.processed_batches,
                )
        with self._transaction(self.job) as connection:
            self.sink.begin(attrs.evolve(self.job, lease=self.lease), connection)

    def write(self, records: Sequence[Any], *, die: bool = False) -> None:
        """Deliver a batch; with `die` the process ends after the sink took it and before it is committed or saved."""
        batch = self._batch(records)
        after = attrs.evolve(
            self.job,
            cursor=batch.cursor,
            processed_records=self.job.processed_records + len(records),
            processed_batches=self.job.processed_batches + 1,
        )
        self._deliver(after, lambda connection: self.sink.write(batch, connection), die=die)

    def complete(self, status: JobStatus = JobStatus.COMPLETED, *, die: bool = False) -> None:
        """Finish the run; with `die` the process ends before that is committed or saved."""
        after = attrs.evolve(self.job, status=status)
        job = attrs.evolve(after, lease=self.lease)
        self._deliver(after, lambda connection: self.sink.complete(job, connection), die=die)

    def _deliver(self, after: Job, work: Callable[[Any], object], *, die: bool) -> None:
        try:
            with self._transaction(after) as connection:
                work(connection)
                if die:
                    raise _Died  # noqa: TRY301 - it has to leave the transaction first
        except _Died:
            return
        self.job = after

    @contextmanager
    def _transaction(self, job: Job) -> Iterator[Any]:
        if self.sink.transactional:
            assert isinstance(self.store, TransactionalJobStore)
            with self.store.transaction() as transaction:
                yield transaction.connection
                transaction.save(job, self.lease)
        else:
            yield None
            self.store.save(job, self.lease)

    def _batch(self, records: Sequence[Any]) -> Batch[Any]:
        previous, cursor = self.job.cursor, [self.job.processed_records + len(records)]
        key = batch_key(self.job.id, self.job.run_id, self.job.run, encode_cursor(previous), encode_cursor(cursor))
        tuples = bool(records) and isinstance(records[0], tuple | bytes)
        return Batch(
            records=records,
            columns=[column.name for column in self.columns] if tuples else None,
            cursor=cursor,
            previous_cursor=previous,
            job_id=self.job.id,
            run=self.job.run,
            sequence=self.job.processed_batches,
            fencing_token=self.lease.fencing_token,
            key=key,
        )


class SinkBase:
    """Fixtures and helpers of the sink suite."""

    visible: ClassVar[bool] = True
    """Whether records can be seen in the target before the run is completed (not so if they are staged)."""

    ordered: ClassVar[bool] = True
    """Whether `delivered` gives the records in the order in which they were written."""

    must_pickle: ClassVar[bool] = False
    """Whether a sink that does not pickle fails the suite instead of skipping that test."""

    @pytest.fixture
    def sink(self) -> Sink[Any]:
        """Give a sink on an empty or missing target. To be overridden."""
        pytest.fail("override the fixture `sink` with one that gives a sink on an empty target")

    @pytest.fixture
    def delivered(self) -> Delivered:
        """Give a function that reads all records in the target, in the form of `records`. To be overridden."""
        pytest.fail("override the fixture `delivered` with one that gives a function that reads the target")

    @pytest.fixture
    def store(self, sink: Sink[Any]) -> JobStore:
        """Give a store; for a transactional sink it must be in the database of the target."""
        if sink.transactional:
            pytest.fail("override the fixture `store` with a store in the database that the sink writes to")
        from resumable_sync.stores.memory import MemoryJobStore  # noqa: PLC0415 - only those who need it load it

        return MemoryJobStore()

    @pytest.fixture
    def make_sink(self, sink: Sink[Any]) -> Callable[[], Sink[Any]]:
        """Give a function that makes the sink as the next process would; by default a pickled copy, if it pickles."""

        def make() -> Sink[Any]:
            try:
                copy: Sink[Any] = pickle.loads(pickle.dumps(sink))
            except Exception:  # noqa: BLE001 - of whatever kind: it does not pickle
                return sink
            return copy

        return make

    @pytest.fixture
    def columns(self) -> Sequence[Column]:
        """Give the columns of the records."""
        return [
            Column(name="id", type=Integer(), nullable=False, primary_key=True),
            Column(name="name", type=String(50)),
        ]

    @pytest.fixture
    def records(self) -> Sequence[Any]:
        """Give ten records that differ, in cursor order."""
        return [{"id": number, "name": f"name {number} é'%"} for number in range(1, 11)]

    @pytest.fixture
    def bad_record(self) -> Any:
        """Give a record that the sink refuses; None if it takes all."""
        return None

    def _attempt(
        self, sink: Any, store: JobStore, columns: Any, before: Attempt | None = None, *, job_id: str = JOB_ID
    ) -> Attempt:
        """Begin the first attempt of a run, or the next one, after the death of the one before."""
        if before is None:
            lease = store.acquire(job_id, owner="attempt 1", ttl=LONG)
            job = Job(id=job_id, status=JobStatus.RUNNING, run=1, run_id=new_run_id(), attempt=1)
        else:
            job_id, token = before.job.id, before.lease.fencing_token
            attempt = before.job.attempt + 1
            lease = store.acquire(job_id, owner=f"attempt {attempt}", ttl=LONG, replacing=token)
            stored = store.load(job_id)
            assert stored is not None
            job = attrs.evolve(stored, attempt=attempt, lease=None)
        store.save(job, lease)
        return Attempt(sink, store, columns, job, lease)

    def _check_unpublished(self, delivered: Delivered) -> None:
        try:
            shown = list(delivered())
        except Exception:  # noqa: BLE001 - the target is not there yet, and how that shows is its own affair
            return
        assert shown == []

    def _needs_checkpoint(self, sink: Any) -> None:
        # As the engine: a transactional sink is not asked for its checkpoint.
        if sink.transactional or not isinstance(sink, CheckpointingSink):
            pytest.skip("the sink keeps no checkpoint of its own")

    def _sorted(self, records: Sequence[Any]) -> list[Any]:
        return list(records) if self.ordered else sorted(records, key=repr)

    def _check(self, delivered: Delivered, records: Sequence[Any]) -> None:
        assert self._sorted(list(delivered())) == self._sorted(list(records))
