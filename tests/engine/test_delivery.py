"""What is delivered, what is saved, and where the next call goes on; on a store in memory."""

import threading
from datetime import timedelta
from typing import Any, ClassVar

import attrs
import pytest
from typing_extensions import override

from doubles import Numbers, Target, fail_at, saved
from resumable_sync import (
    ConfigurationError,
    CrashLoopError,
    Guarantee,
    Job,
    JobStatus,
    MemoryJobStore,
    SourceChangedError,
    plan_full_sync,
    run_full_sync,
)


def test_copies_everything_in_order(store: MemoryJobStore, prefetch: int) -> None:
    target = Target()
    result = run_full_sync("j", Numbers(1050), target, store=store, batch_size=100, prefetch=prefetch)
    assert target.records == list(range(1050))
    assert (result.action, result.status, result.records, result.batches) == ("new", "completed", 1050, 11)
    assert [batch.sequence for batch in target.batches] == list(range(11))
    assert [batch.previous_cursor for batch in target.batches] == [None, *([n * 100] for n in range(1, 11))]
    assert len({batch.key for batch in target.batches}) == 11
    assert result.job == saved(store)
    assert (result.job.cursor, result.job.processed_records, result.job.total_records) == ([1050], 1050, 1050)
    assert result.guarantee is Guarantee.AT_LEAST_ONCE
    assert target.completed[0].status == "completed"


def test_an_empty_source_completes(store: MemoryJobStore, prefetch: int) -> None:
    result = run_full_sync("j", Numbers(0), Target(), store=store, prefetch=prefetch)
    assert (result.status, result.job.run, result.job.cursor) == ("completed", 1, None)


def test_a_failure_is_raised_as_it_is_and_the_next_call_resumes(store: MemoryJobStore, prefetch: int) -> None:
    target = Target(fail_at(3, ValueError("no")))
    with pytest.raises(ValueError, match="no") as caught:
        run_full_sync("j", Numbers(1000), target, store=store, batch_size=100, prefetch=prefetch)
    assert "batch 3" in caught.value.__notes__[0]
    job = saved(store)
    assert (job.status, job.error, job.cursor, job.lease) == ("failed", "ValueError: no", [300], None)
    result = run_full_sync("j", Numbers(1000), target, store=store, batch_size=77, prefetch=prefetch)
    assert target.records == list(range(1000))
    assert (result.action, result.status, result.records, result.job.error) == ("resume", "completed", 700, None)
    assert (result.job.run, result.job.attempt) == (1, 2)


def test_a_failing_connector_is_raised_as_it_is(store: MemoryJobStore, prefetch: int) -> None:
    class Broken(Numbers):
        @override
        def fetch(self, offset: int, limit: int) -> list[int]:
            if offset >= 200:
                raise KeyError("gone")
            return super().fetch(offset, limit)

    target = Target()
    with pytest.raises(KeyError):
        run_full_sync("j", Broken(1000), target, store=store, batch_size=100, prefetch=prefetch)
    assert (saved(store).status, saved(store).processed_records) == ("failed", len(target.records))
    assert len(target.records) == 200


def test_an_old_checkpoint_starts_a_new_run(store: MemoryJobStore) -> None:
    with pytest.raises(ValueError, match="no"):
        run_full_sync("j", Numbers(10), Target(fail_at(1, ValueError("no"))), store=store, batch_size=4)
    job = saved(store)
    assert job.updated_at is not None
    lease = store.acquire("j", owner="editor", ttl=60)
    store.save(attrs.evolve(job, updated_at=job.updated_at - timedelta(hours=2)), lease)
    store.release(lease)
    target = Target()
    result = run_full_sync("j", Numbers(10), target, store=store, resume_within=3600)
    assert (result.action, result.job.run, target.records) == ("new", 2, list(range(10)))


def test_a_changed_source_is_refused_and_nothing_is_touched(store: MemoryJobStore) -> None:
    with pytest.raises(ValueError, match="no"):
        run_full_sync("j", Numbers(10, "a"), Target(fail_at(1, ValueError("no"))), store=store, batch_size=4)
    before = saved(store)
    with pytest.raises(SourceChangedError, match="fingerprint"):
        run_full_sync("j", Numbers(10, "b"), Target(), store=store)
    assert saved(store) == before
    result = run_full_sync("j", Numbers(10, "b"), Target(), store=store, if_changed="resume")
    assert (result.action, result.records, result.job.fingerprint) == ("resume", 6, "b")


def test_plan_changes_nothing(store: MemoryJobStore) -> None:
    plan = plan_full_sync("j", Numbers(10), Target(), store=store)
    assert (plan.action, plan.cursor, plan.job, list(store.jobs())) == ("new", None, None, [])
    with pytest.raises(ValueError, match="no"):
        run_full_sync("j", Numbers(10), Target(fail_at(2, ValueError("no"))), store=store, batch_size=3)
    before = saved(store)
    plan = plan_full_sync("j", Numbers(10), Target(), store=store)
    assert (plan.action, plan.cursor, plan.processed_records, plan.job) == ("resume", [6], 6, before)
    assert saved(store) == before


def test_finished_jobs_run_again_or_are_skipped(store: MemoryJobStore) -> None:
    target = Target()
    run_full_sync("j", Numbers(10), target, store=store)
    first = saved(store)
    result = run_full_sync("j", Numbers(10), target, store=store, if_completed="skip")
    assert (result.action, result.status, result.records, result.job) == ("skip", "completed", 0, first)
    result = run_full_sync("j", Numbers(10), target, store=store)
    assert (result.action, result.job.run, len(target.records)) == ("new", 2, 20)
    assert result.job.run_id != first.run_id


def test_throttle_is_asked_before_every_batch_but_the_first(store: MemoryJobStore) -> None:
    asked: list[float] = []

    def throttle() -> float:
        asked.append(0.001)
        return asked[-1]

    run_full_sync("j", Numbers(500), Target(), store=store, batch_size=100, throttle=throttle)
    assert len(asked) == 4
    with pytest.raises(ConfigurationError, match="throttle"):
        run_full_sync("k", Numbers(500), Target(), store=store, batch_size=100, throttle=lambda: -1)
    assert saved(store, "k").processed_records == 100


def test_deaths_without_progress_halve_the_batch_and_end_in_an_error(store: MemoryJobStore) -> None:
    lease = store.acquire("j", owner="dead", ttl=60)
    job = Job(id="j", status=JobStatus.RUNNING, run=1, run_id="r", cursor=[100], processed_records=100)
    store.save(attrs.evolve(job, stalled_attempts=2), lease)
    store.release(lease)
    numbers, target = Numbers(2000), Target()
    run_full_sync("j", numbers, target, store=store, batch_size=400)
    assert [len(batch) for batch in target.batches] == [100, 200, 400, 400, 400, 400]
    assert target.records == list(range(100, 2000))
    lease = store.acquire("k", owner="dead", ttl=60)
    store.save(attrs.evolve(job, id="k", stalled_attempts=5), lease)
    store.release(lease)
    with pytest.raises(CrashLoopError, match="max_stalled_attempts"):
        run_full_sync("k", Numbers(200), Target(), store=store)
    assert plan_full_sync("k", Numbers(200), Target(), store=store).action == "refuse"
    assert run_full_sync("k", Numbers(200), Target(), store=store, max_stalled_attempts=6).status == "completed"


def test_an_attempt_counts_as_stalled_until_its_first_checkpoint(store: MemoryJobStore) -> None:
    seen: list[int] = []
    target = Target(lambda _: seen.append(saved(store).stalled_attempts))
    run_full_sync("j", Numbers(20), target, store=store, batch_size=10)
    assert seen == [1, 0]
    with pytest.raises(ValueError, match="no"):
        run_full_sync("k", Numbers(20), Target(fail_at(0, ValueError("no"))), store=store)
    assert saved(store, "k").stalled_attempts == 0


@pytest.mark.parametrize(
    ("preferred", "given", "here"),
    [(None, None, False), (0, None, True), (2, None, False), (0, 1, False), (1, 0, True)],
)
def test_the_connector_says_where_it_is_read_unless_the_caller_does(
    store: MemoryJobStore, preferred: int | None, given: int | None, here: bool
) -> None:
    class Noting(Numbers):
        threads: ClassVar[set[threading.Thread]] = set()

        @override
        def read(self, cursor: Any, batch_size: int) -> Any:
            self.threads.add(threading.current_thread())
            return super().read(cursor, batch_size)

    connector = Noting(30)
    if preferred is not None:
        connector.preferred_prefetch = preferred  # type: ignore[attr-defined]
    connector.threads.clear()
    run_full_sync("j", connector, Target(), store=store, batch_size=10, prefetch=given)
    assert (connector.threads == {threading.current_thread()}) is here


@pytest.mark.parametrize(("preferred", "sizes"), [(None, [1000, 200]), (500, [500, 500, 200])])
def test_the_sink_says_how_many_records_make_a_batch_unless_the_caller_does(
    store: MemoryJobStore, preferred: int | None, sizes: list[int]
) -> None:
    class Noting(Target):
        @override
        def write(self, batch: Any, connection: Any) -> None:
            written.append(len(batch))

    written: list[int] = []
    target = Noting()
    if preferred is not None:
        target.preferred_batch_size = preferred  # type: ignore[attr-defined]
    run_full_sync("j", Numbers(1200), target, store=store)
    assert written == sizes
    written.clear()
    run_full_sync("j", Numbers(1200), target, store=store, batch_size=600)
    assert written == [600, 600]
