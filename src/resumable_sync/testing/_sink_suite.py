"""The conformance suite for sinks."""

# ruff: noqa: S301, PLR0917 - what is unpickled was pickled in the same line; fixtures come by name

import pickle
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
from sqlalchemy import Integer, String

from resumable_sync._errors import LeaseLostError
from resumable_sync._formats import COPY_TEXT, Format, FormattingSink
from resumable_sync._model import JobStatus, new_run_id
from resumable_sync._protocols import CheckpointingSink, Column, JobStore, Sink
from resumable_sync._split import PartitionableSink
from resumable_sync.testing._copies import copy_of
from resumable_sync.testing._sink_base import JOB_ID, SinkBase

__all__ = ["SinkSuite"]


class SinkSuite(SinkBase):
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

    def test_parts_write_side_by_side(
        self, sink: Any, make_sink: Any, store: JobStore, columns: Any, delivered: Any, records: Any
    ) -> None:
        """Parts fill the run that the whole began, one of them after a death, and only the whole publishes it."""
        exactly = sink.transactional or isinstance(sink, CheckpointingSink)
        if not isinstance(sink, PartitionableSink):
            pytest.skip("the sink has no part")
        whole = self._attempt(sink, store, columns)
        whole.begin()
        whole.job = attrs.evolve(whole.job, cursor=["the plan of the parts"])  # which shows that it has begun
        first, second = (
            self._attempt(make_sink().part(whole.job), store, columns, job_id=f"{JOB_ID}/{number}")
            for number in range(2)
        )
        first.begin()
        first.write(records[:2])
        second.begin()
        second.write(records[5:7])
        first.write(records[2:4], die=exactly)
        whole.begin()
        first = self._attempt(make_sink().part(whole.job), store, columns, first)
        first.begin()
        second.write(records[7:])
        second.complete()
        first.write(records[first.job.processed_records : 5])
        first.complete()
        if not self.visible:
            self._check_unpublished(delivered)
        whole.complete()
        missing = list(delivered())
        for record in records:
            assert record in missing
            missing.remove(record)
        assert missing == []

    def test_a_format_changes_nothing(
        self, sink: Any, store: JobStore, columns: Any, delivered: Any, records: Any
    ) -> None:
        """What is written from a format that the sink takes is the same as from Python values."""
        if not isinstance(sink, FormattingSink):
            pytest.skip("the sink takes no formats")
        attempt = self._attempt(sink, store, columns)
        attempt.begin()
        names = tuple(column.name for column in columns)
        offered = Format(name=COPY_TEXT, columns=names, types=tuple(map(_copied_type, columns)))
        assert not sink.takes(attrs.evolve(offered, name="nobody knows it"), attempt.job)
        if not sink.takes(offered, attempt.job):
            pytest.skip("the sink does not take COPY's text here")
        rows = [list(record.values()) if isinstance(record, Mapping) else list(record) for record in records]
        for start in range(0, 10, 4):
            attempt.write(copy_of(rows[start : start + 4]))
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


def _copied_type(column: Column) -> str:
    """Give the type of a column in the words of PostgreSQL."""
    if isinstance(column.type, String):
        return "text" if column.type.length is None else f"character varying({column.type.length})"
    return "integer" if isinstance(column.type, Integer) else "of no kind that the suite can write"
