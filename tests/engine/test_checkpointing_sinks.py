"""A sink that keeps its own checkpoint says where the next attempt goes on."""

import attrs
import pytest
from typing_extensions import override

from doubles import Numbers, Target, fail_at, saved
from resumable_sync import (
    Batch,
    Checkpoint,
    ConfigurationError,
    Job,
    Lease,
    MemoryJobStore,
    SingleWorkerJobStore,
    StoreError,
    run_full_sync,
)


class Ledger(Target):
    """A sink that keeps its own checkpoint beside its records, in memory, as if in one transaction."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = Checkpoint(run_id=None, cursor=None, processed_records=0, processed_batches=0)
        self.run_id: str | None = None

    def checkpoint(self, job: Job) -> Checkpoint | None:
        assert job.lease is not None
        self.run_id = job.run_id
        return self.kept if self.kept.run_id == job.run_id else None

    @override
    def write(self, batch: Batch[int], connection: object) -> None:
        super().write(batch, connection)
        before = (
            self.kept
            if self.kept.run_id == self.run_id
            else Checkpoint(run_id=self.run_id, cursor=None, processed_records=0, processed_batches=0)
        )
        self.kept = attrs.evolve(
            before,
            cursor=batch.cursor,
            processed_records=before.processed_records + len(batch),
            processed_batches=before.processed_batches + 1,
        )


class Forgetful(MemoryJobStore):
    """A store that fails for good from a certain batch on."""

    limit = 99

    @override
    def save(self, job: Job, lease: Lease) -> Lease:
        if job.processed_batches >= self.limit:
            raise OSError("disk full")
        return super().save(job, lease)


@pytest.mark.parametrize("limit", [1, 3])
def test_the_sinks_own_checkpoint_is_where_the_next_attempt_goes_on(limit: int) -> None:
    store, ledger = Forgetful(), Ledger()
    store.limit = limit
    with pytest.raises(OSError, match="disk full"):
        run_full_sync("j", Numbers(50), ledger, store=store, batch_size=10)
    assert saved(store).processed_batches == limit - 1
    store.limit = 99
    result = run_full_sync("j", Numbers(50), ledger, store=store, batch_size=10)
    assert (result.status, result.guarantee, ledger.records) == ("completed", "exactly_once", list(range(50)))
    assert result.records == 50 - limit * 10
    assert [batch.sequence for batch in ledger.batches] == list(range(len(ledger.batches)))


def test_a_target_that_lost_what_the_store_says_it_had_is_refused() -> None:
    store, ledger = MemoryJobStore(), Ledger()
    with pytest.raises(ValueError, match="no"):
        ledger.act = fail_at(3, ValueError("no"))
        run_full_sync("j", Numbers(50), ledger, store=store, batch_size=10)
    ledger.kept = attrs.evolve(ledger.kept, cursor=[20], processed_records=20, processed_batches=2)
    with pytest.raises(StoreError, match="replaced or restored"):
        run_full_sync("j", Numbers(50), ledger, store=store, batch_size=10)
    assert saved(store).cursor == [30]


def test_the_checkpoint_of_another_source_is_not_gone_on_from() -> None:
    store, ledger = Forgetful(), Ledger()
    store.limit = 1
    with pytest.raises(OSError, match="disk full"):
        run_full_sync("j", Numbers(50, "a"), ledger, store=store, batch_size=10)
    store.limit = 99
    assert run_full_sync("j", Numbers(50, "b"), ledger, store=store, batch_size=10).records == 50


class Thin(SingleWorkerJobStore):
    """A table that has no column for the run."""

    def __init__(self) -> None:
        self.rows: dict[str, Job] = {}

    @override
    def load(self, job_id: str) -> Job | None:
        return self.rows.get(job_id)

    @override
    def save(self, job: Job, lease: Lease) -> Lease:
        self.rows[job.id] = Job(id=job.id, status=job.status, processed_records=job.processed_records)
        return lease


def test_a_store_that_does_not_keep_the_run_cannot_serve_such_a_sink() -> None:
    ledger = Ledger()
    with pytest.raises(ConfigurationError, match="run_id"):
        run_full_sync("j", Numbers(50), ledger, store=Thin(), batch_size=10)
    assert ledger.records == []
