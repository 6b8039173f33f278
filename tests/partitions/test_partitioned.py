"""A partitioned sync copies everything once, and starts again only what is unfinished."""

import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from typing_extensions import override

from doubles import FAST, Numbers, Target, saved
from resumable_sync import (
    Batch,
    ConfigurationError,
    CrashLoopError,
    Event,
    ExecutorBrokenError,
    FullSync,
    Job,
    JobHeldError,
    JobStatus,
    LeaseLostError,
    MemoryJobStore,
    Page,
    PartsProgressed,
    SourceChangedError,
    StoreError,
    SyncFinished,
    SyncStarted,
    begin_partitioned_sync,
    complete_partitioned_sync,
    part_of,
    reset_job,
    run_full_sync,
    run_partitioned_sync,
)
from resumable_sync._cursor import decode_cursor, encode_cursor
from resumable_sync._parts.plan import PartsPlan
from resumable_sync.testing import Fault, FaultyStore, Raise

TOTAL = 100


class Collect:
    """A sink function that remembers records and who brought them, and may act."""

    def __init__(self, act: Callable[[Batch[int]], object] = lambda _: None) -> None:
        self.act = act
        self.records: list[int] = []
        self.jobs: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, batch: Batch[int]) -> None:
        self.act(batch)
        with self._lock:
            self.records += batch.records
            self.jobs.append(batch.job_id)


@pytest.fixture
def store() -> MemoryJobStore:
    return MemoryJobStore()


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


def run(store: Any, executor: Executor, sink: Any, connector: Any = None, **options: Any) -> Any:
    given = {"parts": 4, "batch_size": 5, "retry": FAST, **options}
    return run_partitioned_sync("j", connector or Numbers(TOTAL), sink, store=store, executor=executor, **given)


def fail_in(*jobs: str) -> Callable[[Batch[int]], None]:
    def act(batch: Batch[int]) -> None:
        if batch.job_id in jobs and batch.sequence == 2:
            raise ValueError(batch.job_id)

    return act


def test_every_record_arrives_once(store: MemoryJobStore, executor: ThreadPoolExecutor) -> None:
    events: list[Event] = []
    sink = Collect()
    result = run(store, executor, sink, observers=[events.append])
    assert sorted(sink.records) == list(range(TOTAL))
    assert (result.status, result.action, result.records, result.batches) == ("completed", "new", TOTAL, 20)
    assert result.reason is None
    job = saved(store)
    assert (job.processed_records, job.processed_batches, job.total_records) == (TOTAL, 20, TOTAL)
    assert [each.id for each in store.jobs()] == ["j", "j/0000", "j/0001", "j/0002", "j/0003"]
    assert all(each.status is JobStatus.COMPLETED and each.lease is None for each in store.jobs())
    assert isinstance(events[0], SyncStarted)
    assert isinstance(events[-1], SyncFinished)
    progress = [event for event in events if isinstance(event, PartsProgressed)]
    assert len(progress) == len(events) - 2
    assert (progress[-1].job.processed_records, progress[-1].completed, progress[-1].parts) == (TOTAL, 4, 4)


def test_four_parts_for_each_worker_by_default(store: MemoryJobStore, executor: ThreadPoolExecutor) -> None:
    run(store, executor, Collect(), parts=None)
    assert len(list(store.jobs())) == 1 + 4 * 2


def test_a_part_that_fails_is_the_error_and_the_others_are_done(
    store: MemoryJobStore, executor: ThreadPoolExecutor
) -> None:
    sink = Collect(fail_in("j/0002"))
    with pytest.raises(ValueError, match="j/0002") as caught:
        run(store, executor, sink)
    assert any("j/0002" in note and "10 records" in note for note in caught.value.__notes__)
    job = saved(store)
    assert (job.status, job.processed_records) == (JobStatus.FAILED, 85)
    assert job.error == "ValueError: j/0002"
    again = Collect()
    # The source has grown, and the plan stays.
    result = run(store, executor, again, Numbers(TOTAL + 50), parts=9)
    assert set(again.jobs) == {"j/0002"}
    assert sorted(sink.records + again.records) == list(range(TOTAL))
    assert (result.action, result.status, result.records) == ("resume", "completed", 15)


def test_several_failures_come_as_a_group(store: MemoryJobStore, executor: ThreadPoolExecutor) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        run(store, executor, Collect(fail_in("j/0001", "j/0003")))
    assert sorted(str(error) for error in caught.value.exceptions) == ["j/0001", "j/0003"]
    assert "j/0001 (failed), j/0003 (failed)" in str(caught.value)
    assert saved(store).status is JobStatus.FAILED


def test_the_last_part_reads_on_where_the_source_grew(store: MemoryJobStore, executor: ThreadPoolExecutor) -> None:
    sink = Collect()
    source = Numbers(TOTAL)
    sink.act = lambda _: setattr(source, "total", TOTAL + 3)
    run(store, executor, sink, source)
    assert sorted(sink.records) == list(range(TOTAL + 3))


def test_stopping_the_whole_stops_the_parts_at_their_next_batch(
    store: MemoryJobStore, executor: ThreadPoolExecutor
) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()

    def act(_: Batch[int]) -> None:
        begun.release()
        assert go_on.wait(60)

    def should_stop() -> bool:
        # Both workers are in a batch; the parts are asked to stop before these end.
        return begun.acquire(blocking=False) and begun.acquire(timeout=60)

    stops: list[str] = []

    def asked(call: str, when: str) -> None:
        if (call, when) == ("request_stop", "after"):
            stops.append(call)
            if len(stops) >= 2:
                go_on.set()

    sink = Collect(act)
    result = run(FaultyStore(store, asked), executor, sink, should_stop=should_stop)
    assert result.status == "interrupted"
    assert "should_stop() said so" in result.reason
    assert "j/0003 (not begun)" in result.reason
    assert sorted(set(sink.jobs)) == ["j/0000", "j/0001"]
    assert len(sink.records) == 10
    assert saved(store).status is JobStatus.INTERRUPTED
    assert [each.lease for each in store.jobs()] == [None] * len(list(store.jobs()))
    rest = Collect()
    assert run(store, executor, rest).records == TOTAL - 10
    assert sorted(sink.records + rest.records) == list(range(TOTAL))


def test_a_stop_that_was_requested_from_elsewhere(store: MemoryJobStore, executor: ThreadPoolExecutor) -> None:
    sink = Collect(lambda batch: store.request_stop("j"))
    result = run(store, executor, sink, lease_ttl=0.3, batch_size=1)
    assert result.status in ("interrupted", "completed")
    if result.status == "interrupted":
        assert "a stop was requested" in result.reason
    sink.act = lambda _: None
    if result.status == "interrupted":
        run(store, executor, sink)
    assert sorted(sink.records) == list(range(TOTAL))


def test_a_part_that_somebody_stopped_leaves_the_whole_interrupted(
    store: MemoryJobStore, executor: ThreadPoolExecutor
) -> None:
    sink = Collect(lambda batch: store.request_stop("j/0001") if batch.job_id == "j/0001" else None)
    result = run(store, executor, sink)
    assert (result.status, result.reason) == ("interrupted", "unfinished: j/0001 (interrupted)")
    sink.act = lambda _: None
    assert run(store, executor, sink).records == 20
    assert sorted(sink.records) == list(range(TOTAL))


def test_a_part_that_another_worker_holds_is_left_to_him(store: MemoryJobStore, executor: ThreadPoolExecutor) -> None:
    sink = Collect()
    parts = begin_partitioned_sync("j", Numbers(TOTAL), sink, store=store, parts=4)
    assert [part.job_id for part in parts] == ["j/0000", "j/0001", "j/0002", "j/0003"]
    begun, go_on = threading.Event(), threading.Event()
    sinks: dict[bool, Collect] = {}

    def slow(batch: Batch[int]) -> None:
        begun.set()
        assert go_on.wait(60)

    sinks[True] = Collect(slow)
    outcome: list[Any] = []
    other = threading.Thread(
        target=lambda: outcome.append(parts[1].run(Numbers(TOTAL), sinks[True], store=store, batch_size=5))
    )
    other.start()
    assert begun.wait(60)

    def end_when_all_else_is_done(event: Event) -> None:
        if isinstance(event, PartsProgressed) and event.completed == 3:
            go_on.set()

    result = run(store, executor, sink, observers=[end_when_all_else_is_done])
    other.join()
    assert result.status == "completed"
    assert set(sinks[True].jobs) == {"j/0001"}
    assert "j/0001" not in sink.jobs
    assert sorted(sink.records + sinks[True].records) == list(range(TOTAL))
    assert outcome[0].status == "completed"


def test_a_part_of_a_dead_worker_is_taken_up(executor: ThreadPoolExecutor, store: MemoryJobStore) -> None:
    begin_partitioned_sync("j", Numbers(TOTAL), Collect(), store=store, parts=4)
    store.acquire("j/0001", owner="another host:1:x", ttl=0.2)
    sink = Collect()
    assert run(store, executor, sink).status == "completed"
    assert sorted(sink.records) == list(range(TOTAL))


def test_a_new_run_makes_a_new_plan_and_does_all_parts_again(
    store: MemoryJobStore, executor: ThreadPoolExecutor
) -> None:
    run(store, executor, Collect())
    sink = Collect()
    result = run(store, executor, sink, Numbers(TOTAL + 10), parts=2)
    assert (result.action, result.status) == ("new", "completed")
    assert sorted(sink.records) == list(range(TOTAL + 10))
    assert [each.id for each in store.jobs()] == ["j", "j/0000", "j/0001"]
    assert saved(store).run == 2
    skipped = run(store, executor, sink, if_completed="skip")
    assert (skipped.action, skipped.status) == ("skip", "completed")
    assert len(sink.records) == TOTAL + 10


def test_a_whole_that_was_deleted_does_its_parts_again(store: MemoryJobStore, executor: ThreadPoolExecutor) -> None:
    run(store, executor, Collect())
    store.delete("j")
    sink = Collect()
    run(store, executor, sink)
    assert sorted(sink.records) == list(range(TOTAL))


@pytest.mark.parametrize("nth", [1, 3])
def test_a_death_while_old_parts_are_deleted_is_made_good(
    store: MemoryJobStore, executor: ThreadPoolExecutor, nth: int
) -> None:
    run(store, executor, Collect())
    faulty = FaultyStore(store, [Fault("delete", nth, Raise(StoreError, ("gone",)))])
    sink = Collect()
    with pytest.raises(StoreError):
        run(faulty, executor, sink)
    assert sink.records == []
    with pytest.raises(ConfigurationError, match="no job 'j' in parts"):
        part_of("j", 3, store=store)
    result = run(store, executor, sink)
    assert result.action == "resume"
    assert sorted(sink.records) == list(range(TOTAL))


def test_a_worker_of_an_earlier_run_delivers_nothing_more(store: MemoryJobStore, executor: ThreadPoolExecutor) -> None:
    part = begin_partitioned_sync("j", Numbers(TOTAL, fingerprint="one"), Collect(), store=store, parts=4)[2]
    begun, go_on = threading.Event(), threading.Event()
    errors: list[Exception] = []

    def slow(batch: Batch[int]) -> None:
        begun.set()
        assert go_on.wait(60)

    def work() -> None:
        try:
            part.run(Numbers(TOTAL, fingerprint="one"), Collect(slow), store=store, batch_size=5)
        except Exception as error:
            errors.append(error)

    zombie = threading.Thread(target=work)
    zombie.start()
    assert begun.wait(60)
    sink = Collect()
    run(store, executor, sink, Numbers(TOTAL, fingerprint="another"), if_changed="rerun")
    begin_partitioned_sync("j", Numbers(TOTAL), Collect(), store=store, parts=4)
    go_on.set()
    zombie.join()
    assert [type(error) for error in errors] == [LeaseLostError]
    late = part.run(Numbers(TOTAL), sink, store=store)
    assert (late.status, late.records) == ("interrupted", 0)
    assert late.reason == "a new run of job 'j' has begun"


def test_a_part_of_a_whole_that_is_not_at_work_waits_for_it(
    store: MemoryJobStore, executor: ThreadPoolExecutor
) -> None:
    with pytest.raises(ValueError, match="j/0002"):
        run(store, executor, Collect(fail_in("j/0002")))
    sink = Collect()
    late = part_of("j", 2, store=store).run(Numbers(TOTAL), sink, store=store)
    assert (late.status, late.records) == ("interrupted", 0)
    assert late.reason == "job 'j' is failed, and its parts go on when that is started again"
    assert sink.records == []


def test_parts_run_by_others_are_completed_at_the_end(store: MemoryJobStore) -> None:
    sink, source = Collect(), Numbers(TOTAL)
    with pytest.raises(ConfigurationError, match="begin it"):
        complete_partitioned_sync("j", source, sink, store=store)
    parts = begin_partitioned_sync("j", source, sink, store=store, parts=3)
    for part in parts[:2]:
        assert part.run(source, sink, store=store).status == "completed"
    early = complete_partitioned_sync("j", source, sink, store=store)
    assert (early.status, early.reason) == ("running", "unfinished: j/0002 (not begun)")
    assert saved(store).lease is None
    found = part_of("j", 2, store=store)
    assert found.run(source, sink, store=store, max_records=10, batch_size=10).status == "interrupted"
    rest = begin_partitioned_sync("j", source, sink, store=store, parts=3)
    assert [part.index for part in rest] == [2]
    assert found.run(source, sink, store=store).records == 24
    assert found.run(source, sink, store=store).action == "skip"
    assert complete_partitioned_sync("j", source, sink, store=store).status == "completed"
    assert complete_partitioned_sync("j", source, sink, store=store).action == "skip"
    assert sorted(sink.records) == list(range(TOTAL))
    assert begin_partitioned_sync("j", source, sink, store=store, parts=3, if_completed="skip") == []
    for index in (3, -1, "1"):
        with pytest.raises(ConfigurationError, match="has no part"):
            part_of("j", index, store=store)  # type: ignore[arg-type]


class Empty(Numbers):
    @override
    def split(self, parts: int) -> list[Any]:
        return []


def test_an_empty_source_is_completed(store: MemoryJobStore, executor: ThreadPoolExecutor) -> None:
    assert run(store, executor, Collect(), Numbers(0)).status == "completed"
    assert run(store, executor, Collect(), Empty(0)).status == "completed"


def test_what_cannot_work_in_parts_is_refused(store: MemoryJobStore, executor: ThreadPoolExecutor) -> None:
    class Whole:
        fingerprint = None

        def read(self, cursor: Any, batch_size: int) -> Iterator[Page[int]]:
            yield Page([1], 1)

        def count(self) -> int:
            return 1

    with pytest.raises(ConfigurationError, match="cannot be split"):
        run(store, executor, Collect(), Whole())
    with pytest.raises(ConfigurationError, match="give it the method part"):
        run(store, executor, Target())
    for parts in (0, 1.5, 10_001):
        with pytest.raises(ConfigurationError, match="parts="):
            run(store, executor, Collect(), parts=parts)
    with pytest.raises(ConfigurationError, match="how many workers"):
        run(store, Lossy(0), Collect(), parts=None)
    with pytest.raises(ConfigurationError, match="251 characters"):
        run_partitioned_sync("j" * 251, Numbers(1), Collect(), store=store, executor=executor)
    assert list(store.jobs()) == []


class Wide(Numbers):
    """Splits into parts whose places take a lot of space."""

    @override
    def split(self, parts: int) -> Any:
        return [SimpleNamespace(place=[f"{number:064}", f"{number + 1:064}"]) for number in range(parts)]


class Odd(Numbers):
    """Splits into what are no parts."""

    @override
    def split(self, parts: int) -> Any:
        return None


@pytest.mark.parametrize(("connector", "match"), [(Wide(10), "ask for fewer parts"), (Odd(10), "gave no parts")])
def test_a_source_that_cannot_be_split_leaves_everything_as_it_was(
    store: MemoryJobStore, executor: ThreadPoolExecutor, connector: Numbers, match: str
) -> None:
    run(store, executor, Collect())
    before = list(store.jobs())
    with pytest.raises(ConfigurationError, match=match) as caught:
        run(store, executor, Collect(), connector, parts=2_000)
    assert caught.value.__notes__ == ["job 'j': nothing was written"]
    assert list(store.jobs()) == before


@pytest.mark.parametrize(
    "places",
    [
        [],
        [[None, [4711]], [[4711], [300000]]],
        [[0, 10], [10, 20], [20, None]],
        [[None, None]],
        [[0, 10], [11, 20]],
        [[None, 1], [True, 2]],
        [["a", "b", "c"], ["c", "d", "e"]],
        ["one", {"two": 2}, None],
    ],
)
def test_a_plan_comes_back_as_it_was_kept(places: list[Any]) -> None:
    plan = PartsPlan(places, open=True, earlier=7)
    kept = PartsPlan.of(decode_cursor(encode_cursor(plan.cursor("j"))))
    assert kept == plan
    assert repr(kept) == repr(plan)  # 1 and True are equal


def test_a_plan_keeps_each_edge_once() -> None:
    ends = [[10_000_000 * number] for number in range(1, 4_001)]
    places: list[Any] = [[None, ends[0]], *(list(pair) for pair in pairwise(ends))]
    assert PartsPlan.of(PartsPlan(places).cursor("j")) == PartsPlan(places)
    assert PartsPlan.of({"parts": "resumable_sync parts", "version": 1, "open": True, "earlier": 0}) is None


def test_one_piece_and_parts_do_not_mix(store: MemoryJobStore, executor: ThreadPoolExecutor) -> None:
    with pytest.raises(ValueError, match="j/0000"):
        run(store, executor, Collect(fail_in("j/0000")))
    with pytest.raises(ConfigurationError, match="go on with run_partitioned_sync"):
        run_full_sync("j", Numbers(TOTAL), Collect(), store=store)
    store.delete("j")
    with FullSync("j", Numbers(TOTAL), store=store, batch_size=5) as sync:
        for batch in sync:
            sync.commit(batch)
            break
    with pytest.raises(ConfigurationError, match="begun in one piece"):
        run(store, executor, Collect())
    assert saved(store).processed_records == 5


def test_a_changed_source_needs_consent(store: MemoryJobStore, executor: ThreadPoolExecutor) -> None:
    sink = Collect(fail_in("j/0003"))
    with pytest.raises(ValueError, match="j/0003"):
        run(store, executor, sink, Numbers(TOTAL, fingerprint="one"))
    with pytest.raises(SourceChangedError):
        run(store, executor, Collect(), Numbers(TOTAL, fingerprint="two"))
    sink.act = lambda _: None
    assert run(store, executor, sink, Numbers(TOTAL, fingerprint="two"), if_changed="resume").status == "completed"
    assert sorted(sink.records) == list(range(TOTAL))


def test_the_whole_is_held_by_one_call(store: MemoryJobStore, executor: ThreadPoolExecutor) -> None:
    lease = store.acquire("j", owner="another host:1:x", ttl=60)
    with pytest.raises(JobHeldError):
        run(store, executor, Collect())
    assert run(store, executor, Collect(), if_held="skip").action == "held"
    waited = run(store, executor, Collect(), if_held="wait", should_stop=lambda: True)
    assert waited.action == "held"
    assert "stopped waiting" in waited.reason
    store.release(lease)


def test_a_call_that_was_overtaken_leaves_everything_to_its_successor(
    store: MemoryJobStore, executor: ThreadPoolExecutor
) -> None:
    def take_over(batch: Batch[int]) -> None:
        job = saved(store)
        if job.lease is not None and not job.lease.owner.startswith("another"):
            store.acquire("j", owner="another host:1:x", ttl=60, replacing=job.lease.fencing_token)

    with pytest.raises(LeaseLostError):
        run(store, executor, Collect(take_over))
    job = saved(store)
    assert job.lease is not None
    assert job.lease.owner.startswith("another")
    assert job.status is JobStatus.RUNNING


def test_a_whole_that_keeps_dying_is_refused(store: MemoryJobStore, executor: ThreadPoolExecutor) -> None:
    lease = store.acquire("j", owner="x", ttl=60)
    store.save(Job(id="j", status=JobStatus.RUNNING, run=1, run_id="r", stalled_attempts=5), lease)
    store.release(lease)
    with pytest.raises(CrashLoopError):
        run(store, executor, Collect())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"if_completed": "rerun"}, "if_completed='rerun'"),
        ({"if_changed": "rerun"}, "if_changed='rerun'"),
        ({"resume_within": 0}, "resume_within"),
        ({"on_refused": "dead_letter"}, "on_refused='dead_letter'"),
    ],
)
def test_a_part_begins_no_run_and_leaves_nothing_behind(
    store: MemoryJobStore, options: dict[str, Any], named: str
) -> None:
    (part, *_) = begin_partitioned_sync("j", Numbers(TOTAL), Collect(), store=store, parts=2)
    with pytest.raises(ConfigurationError, match=re.escape(f"job 'j/0000': {named} is not possible for a part")):
        part.run(Numbers(TOTAL), Collect(), store=store, **options)
    assert [job.id for job in store.jobs()] == ["j"]


def test_a_part_reads_what_the_whole_was_begun_with(store: MemoryJobStore) -> None:
    def reading(source: str) -> Numbers:
        connector = Numbers(TOTAL)
        connector.fingerprint = {"source": source}
        return connector

    sink = Collect()
    (part, *_) = begin_partitioned_sync("j", reading("one"), sink, store=store, parts=2)
    with pytest.raises(SourceChangedError, match="the source of job 'j' changed") as caught:
        part.run(reading("another"), sink, store=store)
    assert caught.value.changed == ("source",)
    assert sink.records == []
    assert part.run(reading("another"), sink, store=store, if_changed="resume").status == "completed"


def test_reset_takes_the_parts_along(store: MemoryJobStore) -> None:
    parts = begin_partitioned_sync("j", Numbers(TOTAL), Collect(), store=store, parts=5)
    parts[0].run(Numbers(TOTAL), Collect(), store=store)
    refused: list[JobHeldError] = []

    def reset(_: Batch[int]) -> None:
        with pytest.raises(JobHeldError) as caught:
            reset_job("j", store=store)
        refused.append(caught.value)

    assert parts[4].run(Numbers(TOTAL), Collect(reset), store=store).status == "completed"
    assert {error.job_id for error in refused} == {"j/0004"}
    assert saved(store).status is JobStatus.RUNNING
    reset_job("j", store=store)
    assert [job.id for job in store.jobs()] == ["j"]


@pytest.mark.parametrize("how", ["in the whole", "in a part"])
def test_ctrl_c_does_not_say_that_nothing_was_written(
    store: MemoryJobStore, executor: ThreadPoolExecutor, how: str
) -> None:
    once = iter([signal.SIGINT])  # a second strikes at once, and a part that still runs sends pytest a third

    def interrupt(event: Event | Batch[int]) -> None:
        for number in once:
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt) as caught:
        run(
            store,
            executor,
            Collect(interrupt if how == "in a part" else lambda _: None),
            observers=[interrupt if how == "in the whole" else lambda _: None],
        )
    assert not [note for note in getattr(caught.value, "__notes__", ()) if "nothing" in note]


@pytest.mark.parametrize("executor", ["threads", SimpleNamespace(submit=None)])
def test_what_is_no_executor_is_refused(store: MemoryJobStore, executor: Any) -> None:
    with pytest.raises(ConfigurationError, match="give an Executor"):
        run(store, executor, Collect())
    assert list(store.jobs()) == []


class Lossy(Executor):
    """Runs tasks at once, and loses some of them or breaks."""

    def __init__(self, losses: int, error: type[BaseException] = RuntimeError, *, twice: bool = False) -> None:
        self.losses, self.error, self.twice = losses, error, twice

    @override
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self.losses:
            self.losses -= 1
            future.set_exception(self.error("the worker is gone"))
            return future
        if self.twice:
            fn(*args, **kwargs)
        future.set_result(fn(*args, **kwargs))
        return future


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resumable_sync._partition.check_travels", lambda *_: None)


@pytest.mark.usefixtures("anywhere")
def test_an_executor_that_runs_every_task_twice_or_loses_some_delivers_once(store: MemoryJobStore) -> None:
    sink = Collect()
    assert run(store, Lossy(3, twice=True), sink).status == "completed"
    assert sorted(sink.records) == list(range(TOTAL))


@pytest.mark.usefixtures("anywhere")
def test_a_task_that_is_lost_again_and_again_is_a_failure(store: MemoryJobStore) -> None:
    with pytest.raises(ExceptionGroup):
        run(store, Lossy(1_000), Collect())


@pytest.mark.usefixtures("anywhere")
def test_a_broken_executor_is_said_and_the_next_start_goes_on(
    store: MemoryJobStore, executor: ThreadPoolExecutor
) -> None:
    sink = Collect()
    with pytest.raises(ExecutorBrokenError, match="only these go on") as caught:
        run(store, Lossy(1, BrokenExecutor), sink)
    assert 0 in caught.value.unfinished
    assert isinstance(caught.value.__cause__, BrokenExecutor)
    assert saved(store).status is JobStatus.FAILED
    assert run(store, executor, sink).action == "resume"
    assert sorted(sink.records) == list(range(TOTAL))


def test_an_executor_that_was_shut_down(store: MemoryJobStore) -> None:
    with ThreadPoolExecutor(1) as executor:
        pass
    with pytest.raises(ExecutorBrokenError):
        run(store, executor, Collect())


class Portable:
    """A sink that pickles."""

    def __call__(self, batch: Batch[int]) -> None:
        pass


def test_what_cannot_travel_is_refused_before_a_process_starts(store: MemoryJobStore) -> None:
    with ProcessPoolExecutor(1) as pool:
        with pytest.raises(ConfigurationError, match="the sink cannot travel"):
            run(store, pool, Collect())
        with pytest.raises(ConfigurationError, match="the store cannot travel"):
            run(store, pool, Portable())


def test_a_store_that_other_processes_do_not_share_is_refused() -> None:
    class Copied(MemoryJobStore):
        @override
        def __reduce__(self) -> Any:
            return MemoryJobStore, ()

    with ProcessPoolExecutor(1) as pool, pytest.raises(ConfigurationError, match="do not see the leases"):
        run(Copied(), pool, Portable())


def test_all_pieces_are_checked_before_anything_is_stored(store: MemoryJobStore, executor: ThreadPoolExecutor) -> None:
    wrong: Sequence[dict[str, Any]] = [{"batch_size": 0}, {"if_held": "x"}, {"lease_ttl": 0}]
    for options in wrong:
        with pytest.raises(ConfigurationError):
            run(store, executor, Collect(), **options)
    assert list(store.jobs()) == []
