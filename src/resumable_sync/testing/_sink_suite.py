"""The conformance suite for sinks."""

# ruff: noqa: S301, PLR0917 - what is unpickled was pickled in the same line; fixtures come by name

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import attrs
import pytest
from sqlalchemy import Integer, String

from resumable_sync._cursor import encode_cursor
from resumable_sync._errors import LeaseLostError
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

__all__ = ["SinkSuite"]

_JOB_ID = "sink suite"

Delivered = Callable[[], Sequence[Any]]


class _Died(BaseException):
    """Ends an attempt where a real one would be killed."""


@attrs.define
class _Attempt:
    """Plays the engine's part for a sink, without retries and threads: one process working on a run."""

    sink: Any
    store: JobStore
    columns: Sequence[Column]
    job: Job
    lease: Lease

    def begin(self) -> None:
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
        key = batch_key(_JOB_ID, self.job.run_id, self.job.run, encode_cursor(previous), encode_cursor(cursor))
        tuples = bool(records) and isinstance(records[0], tuple)
        return Batch(
            records=records,
            columns=[column.name for column in self.columns] if tuples else None,
            cursor=cursor,
            previous_cursor=previous,
            job_id=_JOB_ID,
            run=self.job.run,
            sequence=self.job.processed_batches,
            fencing_token=self.lease.fencing_token,
            key=key,
        )


class SinkSuite:
    """Every "must" of `Sink` and of its optional abilities, as tests.

    Subclass it in a test module under a name that starts with `Test`, and override the fixtures `sink` and `delivered`;
    for a transactional sink `store` too, with a store in the database that the sink writes to.

        from resumable_sync.testing import SinkSuite

        class TestMySink(SinkSuite):
            @pytest.fixture
            def sink(self, tmp_path):
                return MySink(tmp_path / "out.jsonl")

            @pytest.fixture
            def delivered(self, tmp_path):
                return lambda: read_records(tmp_path / "out.jsonl")     # in the order of the target

    The records are dicts `{"id": 1, "name": "..."}` unless `records` and `columns` are overridden.
    """

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

    def test_is_a_sink(self, sink: Sink[Any]) -> None:
        """It has the members of the protocol, and says truth values of itself."""
        assert isinstance(sink, Sink)
        assert type(sink.transactional) is bool
        assert type(sink.idempotent) is bool

    def test_records_arrive_in_order(
        self, sink: Any, store: JobStore, columns: Any, delivered: Any, records: Any
    ) -> None:
        """Every record of every batch is in the target once, in the order of the batches."""
        attempt = self._attempt(sink, store, columns)
        attempt.begin()
        for start in range(0, 10, 3):
            attempt.write(records[start : start + 3])
        attempt.complete()
        self._check(delivered, records)

    def test_an_empty_source_is_fine(self, sink: Any, store: JobStore, columns: Any, delivered: Any) -> None:
        """A run without any batch completes, with an empty target."""
        attempt = self._attempt(sink, store, columns)
        attempt.begin()
        attempt.complete()
        self._check(delivered, [])

    def test_beginning_again_is_harmless(
        self, sink: Any, make_sink: Any, store: JobStore, columns: Any, delivered: Any, records: Any
    ) -> None:
        """`begin` may come again before any progress, and again with every attempt, without losing a record."""
        attempt = self._attempt(sink, store, columns)
        attempt.begin()
        attempt.begin()
        for start in range(0, 10, 2):
            attempt.write(records[start : start + 2])
            attempt = self._attempt(make_sink(), store, columns, attempt)
            attempt.begin()
        attempt.begin()
        attempt.complete()
        self._check(delivered, records)

    def test_a_death_during_a_batch(
        self, sink: Any, make_sink: Any, store: JobStore, columns: Any, delivered: Any, records: Any
    ) -> None:
        """What was open when the process died is there once; for a sink that promises nothing, at most twice."""
        exactly = sink.transactional or sink.idempotent or isinstance(sink, CheckpointingSink)
        attempt = self._attempt(sink, store, columns)
        attempt.begin()
        attempt.write(records[:4])
        attempt.write(records[4:7], die=True)
        if sink.transactional and self.visible:
            assert self._sorted(delivered()) == self._sorted(records[:4])
        attempt = self._attempt(make_sink(), store, columns, attempt)
        attempt.begin()
        done = attempt.job.processed_records
        assert done in ({4, 7} if isinstance(sink, CheckpointingSink) else {4})
        for start in range(done, 10, 3):
            attempt.write(records[start : start + 3])
        attempt.complete()
        target = list(delivered())
        if exactly:
            self._check(delivered, records)
        else:
            assert [record for record in records if record not in target] == []
            allowed = [*records, *records[4:7]]
            assert all(target.count(record) <= allowed.count(record) for record in target)

    def test_a_death_before_the_first_checkpoint(
        self, sink: Any, make_sink: Any, store: JobStore, columns: Any, delivered: Any, records: Any
    ) -> None:
        """A run that died with nothing saved begins anew; an idempotent or transactional sink shows no trace of it."""
        if not (sink.transactional or sink.idempotent or isinstance(sink, CheckpointingSink)):
            pytest.skip("the sink promises nothing about a batch that is delivered again")
        attempt = self._attempt(sink, store, columns)
        attempt.begin()
        attempt.write(records[:4], die=True)
        attempt = self._attempt(make_sink(), store, columns, attempt)
        attempt.begin()
        done = attempt.job.processed_records
        attempt.write(records[done:])
        attempt.complete()
        self._check(delivered, records)

    def test_a_death_during_completion(
        self, sink: Any, make_sink: Any, store: JobStore, columns: Any, delivered: Any, records: Any
    ) -> None:
        """`complete` may come again, in the next attempt, and the target is whole."""
        attempt = self._attempt(sink, store, columns)
        attempt.begin()
        attempt.write(records)
        attempt.complete(die=True)
        attempt = self._attempt(make_sink(), store, columns, attempt)
        attempt.begin()
        attempt.complete()
        self._check(delivered, records)

    def test_what_is_published_incomplete_is_added_to(
        self, sink: Any, make_sink: Any, store: JobStore, columns: Any, delivered: Any, records: Any
    ) -> None:
        """What `complete` publishes of an incomplete run stays while its dead letters come, and it may come again."""
        if not getattr(sink, "publishes_incomplete", False):
            pytest.skip("the sink publishes no incomplete runs")
        attempt = self._attempt(sink, store, columns)
        attempt.begin()
        attempt.write(records[:4])
        attempt.complete(JobStatus.INCOMPLETE)
        self._check(delivered, records[:4])
        for start, end in ((4, 7), (7, 10)):
            attempt = self._attempt(make_sink(), store, columns, attempt)
            attempt.begin()
            attempt.write(records[start:end])
            self._check(delivered, records[:end])
        attempt.complete()
        self._check(delivered, records)

    def test_a_batch_is_taken_whole_or_not_at_all(
        self, sink: Any, make_sink: Any, store: JobStore, columns: Any, delivered: Any, records: Any, bad_record: Any
    ) -> None:
        """A batch with a record that the sink refuses raises, and none of it counts."""
        if bad_record is None:
            pytest.skip("the suite was given no record that the sink refuses")
        attempt = self._attempt(sink, store, columns)
        attempt.begin()
        attempt.write(records[:4])
        with pytest.raises(Exception) as caught:  # noqa: PT011 - what a sink raises is its own affair
            attempt.write([*records[4:6], bad_record, records[6]])
        assert not isinstance(caught.value, LeaseLostError)
        attempt = self._attempt(make_sink(), store, columns, attempt)
        attempt.begin()
        assert attempt.job.processed_records == 4
        attempt.write(records[4:])
        attempt.complete()
        if sink.transactional or sink.idempotent or isinstance(sink, CheckpointingSink):
            self._check(delivered, records)

    def test_a_sink_writes_only_in_the_transaction(
        self, sink: Any, store: JobStore, columns: Any, delivered: Any, records: Any
    ) -> None:
        """Until the store's transaction commits, nothing of a transactional sink's batch can be seen."""
        if not sink.transactional:
            pytest.skip("the sink is not transactional")
        attempt = self._attempt(sink, store, columns)
        attempt.begin()
        attempt.write(records[:3])
        for _ in range(2):
            attempt.write(records[3:6], die=True)
            if self.visible:
                assert self._sorted(delivered()) == self._sorted(records[:3])
        attempt.write(records[3:])
        attempt.complete()
        self._check(delivered, records)

    def test_its_checkpoint_follows_the_rows(
        self, sink: Any, make_sink: Any, store: JobStore, columns: Any, records: Any
    ) -> None:
        """A sink with a checkpoint of its own knows after every batch how far its target got, in this run alone."""
        self._needs_checkpoint(sink)
        attempt = self._attempt(sink, store, columns)
        assert sink.checkpoint(attrs.evolve(attempt.job, lease=attempt.lease)) is None
        attempt.begin()
        for start in range(0, 9, 3):
            attempt.write(records[start : start + 3], die=True)
            attempt = self._attempt(make_sink(), store, columns, attempt)
            attempt.begin()
            assert attempt.job.processed_records == start + 3
            assert attempt.job.processed_batches == start // 3 + 1
            assert attempt.job.cursor == [start + 3]
        other_run = attrs.evolve(attempt.job, run=2, run_id=new_run_id(), lease=attempt.lease)
        assert attempt.sink.checkpoint(other_run) is None

    def test_its_checkpoint_fences_zombies(
        self, sink: Any, make_sink: Any, store: JobStore, columns: Any, delivered: Any, records: Any
    ) -> None:
        """Once a newer attempt has asked for the checkpoint, an older one neither writes nor asks."""
        self._needs_checkpoint(sink)
        zombie = self._attempt(sink, store, columns)
        zombie.begin()
        zombie.write(records[:4])
        attempt = self._attempt(make_sink(), store, columns, zombie)
        attempt.begin()
        with pytest.raises(LeaseLostError):
            zombie.write(records[4:7])
        with pytest.raises(LeaseLostError):
            zombie.sink.checkpoint(attrs.evolve(zombie.job, lease=zombie.lease))
        assert attempt.job.processed_records == 4
        attempt.write(records[4:])
        with pytest.raises(LeaseLostError):
            zombie.write(records[4:7])
        attempt.complete()
        self._check(delivered, records)

    def test_a_pickled_sink_writes_to_the_same_target(
        self, sink: Any, store: JobStore, columns: Any, delivered: Any, records: Any
    ) -> None:
        """A sink that pickles leads another process to the same target."""
        try:
            copy = pickle.loads(pickle.dumps(sink))
        except Exception as error:
            if self.must_pickle:
                raise
            pytest.skip(f"the sink does not pickle: {type(error).__name__}: {error}")
        attempt = self._attempt(copy, store, columns)
        attempt.begin()
        attempt.write(records)
        attempt.complete()
        self._check(delivered, records)

    def _attempt(self, sink: Any, store: JobStore, columns: Any, before: _Attempt | None = None) -> _Attempt:
        """Begin the first attempt of a run, or the next one, after the death of the one before."""
        if before is None:
            lease = store.acquire(_JOB_ID, owner="attempt 1", ttl=LONG)
            job = Job(id=_JOB_ID, status=JobStatus.RUNNING, run=1, run_id=new_run_id(), attempt=1)
        else:
            token = before.lease.fencing_token
            attempt = before.job.attempt + 1
            lease = store.acquire(_JOB_ID, owner=f"attempt {attempt}", ttl=LONG, replacing=token)
            stored = store.load(_JOB_ID)
            assert stored is not None
            job = attrs.evolve(stored, attempt=attempt, lease=None)
        store.save(job, lease)
        return _Attempt(sink, store, columns, job, lease)

    def _needs_checkpoint(self, sink: Any) -> None:
        # As the engine: a transactional sink is not asked for its checkpoint.
        if sink.transactional or not isinstance(sink, CheckpointingSink):
            pytest.skip("the sink keeps no checkpoint of its own")

    def _sorted(self, records: Sequence[Any]) -> list[Any]:
        return list(records) if self.ordered else sorted(records, key=repr)

    def _check(self, delivered: Delivered, records: Sequence[Any]) -> None:
        assert self._sorted(list(delivered())) == self._sorted(list(records))
