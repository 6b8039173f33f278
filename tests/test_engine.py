"""The engine's behaviour, on a store in memory: what is delivered, what is saved, what the caller sees."""

import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, cast

import attrs
import pytest
from typing_extensions import override

from resumable_sync import (
    Batch,
    BatchCommitted,
    Checkpoint,
    ConfigurationError,
    CrashLoopError,
    CursorError,
    Event,
    Guarantee,
    Job,
    JobHeldError,
    JobStatus,
    Lease,
    LeaseLostError,
    MemoryJobStore,
    OffsetConnector,
    Page,
    Retry,
    SourceChangedError,
    StoreError,
    SyncFinished,
    SyncStarted,
    TransientError,
    TryFailed,
    plan_full_sync,
    run_full_sync,
)
from resumable_sync._options import Options, SyncOptions

FAST = Retry(wait_initial=0.001, wait_max=0.002)


class Numbers(OffsetConnector[int]):
    """The numbers from 0; remembers what was asked for."""

    def __init__(self, total: int, fingerprint: str | None = None) -> None:
        self.total = total
        self.fingerprint = fingerprint
        self.asked: list[tuple[int, int]] = []

    @override
    def fetch(self, offset: int, limit: int) -> list[int]:
        self.asked.append((offset, limit))
        return list(range(offset, min(offset + limit, self.total)))

    @override
    def count(self) -> int | None:
        return self.total


class Pages:
    """Yields the pages it was given, from wherever it is asked to read."""

    fingerprint = None

    def __init__(self, *pages: Any) -> None:
        self.pages = pages

    def read(self, cursor: Any, batch_size: int) -> Iterator[Page[int]]:
        del cursor, batch_size
        yield from self.pages

    def count(self) -> int | None:
        return None


class Target:
    """A sink that keeps what it gets, and fails or acts when told."""

    transactional = False
    idempotent = False

    def __init__(self, act: Callable[[Batch[int]], object] = lambda _: None) -> None:
        self.records: list[int] = []
        self.batches: list[Batch[int]] = []
        self.begun: list[Job] = []
        self.completed: list[Job] = []
        self.act = act

    def begin(self, job: Job, connection: object) -> None:
        assert connection is None
        self.begun.append(job)

    def write(self, batch: Batch[int], connection: object) -> None:
        assert connection is None
        self.act(batch)
        self.batches.append(batch)
        self.records.extend(batch.records)

    def complete(self, job: Job, connection: object) -> None:
        assert connection is None
        self.completed.append(job)


@pytest.fixture
def store() -> MemoryJobStore:
    return MemoryJobStore()


@pytest.fixture(params=[0, 1, 3])
def prefetch(request: pytest.FixtureRequest) -> int:
    value: int = request.param
    return value


@pytest.fixture(autouse=True)
def threads_end() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def fail_at(sequence: int, error: BaseException, times: int = 1) -> Callable[[Batch[int]], None]:
    left = [times]

    def act(batch: Batch[int]) -> None:
        if batch.sequence == sequence and left[0]:
            left[0] -= 1
            raise error

    return act


def saved(store: MemoryJobStore, job_id: str = "j") -> Job:
    job = store.load(job_id)
    assert job is not None
    return job


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


def test_transient_errors_of_reading_and_writing_are_tried_again(store: MemoryJobStore, prefetch: int) -> None:
    class Flaky(Numbers):
        failures = 2

        @override
        def fetch(self, offset: int, limit: int) -> list[int]:
            if offset == 200 and self.failures:
                self.failures -= 1
                raise ConnectionResetError("cut")
            return super().fetch(offset, limit)

    events: list[Event] = []
    target = Target(fail_at(4, TransientError("busy", retry_after=0.001), times=3))
    run_full_sync(
        "j", Flaky(1000), target, store=store, batch_size=100, retry=FAST, prefetch=prefetch, observers=[events.append]
    )
    assert target.records == list(range(1000))
    tries = [(event.call, event.tries) for event in events if isinstance(event, TryFailed)]
    assert sorted(tries) == [("read", 1), ("read", 2), ("write", 1), ("write", 2), ("write", 3)]


def test_tries_are_limited(store: MemoryJobStore) -> None:
    target = Target(fail_at(2, TransientError("busy"), times=99))
    with pytest.raises(TransientError, match="busy"):
        run_full_sync("j", Numbers(1000), target, store=store, batch_size=100, retry=FAST)
    assert saved(store).cursor == [200]


def test_only_the_save_is_tried_again_when_only_the_save_failed() -> None:
    class Flaky(MemoryJobStore):
        failures = 3

        @override
        def save(self, job: Job, lease: Lease) -> Lease:
            if job.processed_batches == 2 and self.failures:
                self.failures -= 1
                raise TimeoutError
            return super().save(job, lease)

    target = Target()
    run_full_sync("j", Numbers(1000), target, store=Flaky(), batch_size=100, retry=FAST)
    assert target.records == list(range(1000))


def test_retry_covers_what_the_caller_names(store: MemoryJobStore) -> None:
    target = Target(fail_at(1, KeyError("odd")))
    retry = Retry(on=LookupError, wait_initial=0.001)
    assert run_full_sync("j", Numbers(300), target, store=store, batch_size=100, retry=retry).status == "completed"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_a_base_exception_in_the_sink_interrupts(store: MemoryJobStore, error: BaseException) -> None:
    with pytest.raises(type(error)):
        run_full_sync("j", Numbers(1000), Target(fail_at(3, error)), store=store, batch_size=100)
    assert (saved(store).status, saved(store).cursor, saved(store).error) == ("interrupted", [300], None)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"max_records": 250}, "max_records=250"),
        ({"should_stop": lambda: True}, "should_stop"),
        ({"max_runtime": 0}, "max_runtime=0"),
    ],
)
def test_stops_are_interruptions_that_resume(store: MemoryJobStore, option: dict[str, Any], reason: str) -> None:
    target = Target()
    result = run_full_sync("j", Numbers(1000), target, store=store, batch_size=100, **option)
    assert result.status == "interrupted"
    assert reason in (result.reason or "")
    assert saved(store).processed_records == len(target.records) == (300 if "max_records" in option else 0)
    assert run_full_sync("j", Numbers(1000), target, store=store).status == "completed"
    assert target.records == list(range(1000))


def test_a_requested_stop_is_seen_at_the_next_batch(store: MemoryJobStore) -> None:
    target = Target(lambda batch: store.request_stop("j") if batch.sequence == 2 else None)
    result = run_full_sync("j", Numbers(1000), target, store=store, batch_size=100)
    assert (result.status, result.reason, len(target.records)) == ("interrupted", "a stop was requested", 300)


def test_a_stop_ends_the_wait_for_the_next_try(store: MemoryJobStore) -> None:
    stop = threading.Event()
    target = Target(fail_at(1, TransientError("busy", retry_after=30), times=99))
    result = run_full_sync(
        "j",
        Numbers(1000),
        target,
        store=store,
        batch_size=100,
        should_stop=stop.is_set,
        observers=[lambda event: stop.set() if isinstance(event, TryFailed) else None],
    )
    assert (result.status, saved(store).cursor) == ("interrupted", [100])


def test_a_stop_ends_the_wait_for_a_slow_connector(store: MemoryJobStore) -> None:
    stop, go_on = threading.Event(), threading.Event()

    class Slow(Numbers):
        @override
        def fetch(self, offset: int, limit: int) -> list[int]:
            if offset:
                stop.set()
                go_on.wait(10)
            return super().fetch(offset, limit)

    def should_stop() -> bool:
        if stop.is_set():
            go_on.set()
        return stop.is_set()

    result = run_full_sync("j", Slow(1000), Target(), store=store, batch_size=100, should_stop=should_stop)
    assert result.status == "interrupted"


def test_throttle_is_asked_before_every_batch_but_the_first(store: MemoryJobStore) -> None:
    asked: list[float] = []

    def throttle() -> float:
        asked.append(0.001)
        return asked[-1]

    run_full_sync("j", Numbers(500), Target(), store=store, batch_size=100, throttle=throttle)
    assert len(asked) == 5
    with pytest.raises(ConfigurationError, match="throttle"):
        run_full_sync("k", Numbers(500), Target(), store=store, batch_size=100, throttle=lambda: -1)
    assert saved(store, "k").processed_records == 100


def test_finished_jobs_run_again_or_are_skipped(store: MemoryJobStore) -> None:
    target = Target()
    run_full_sync("j", Numbers(10), target, store=store)
    first = saved(store)
    result = run_full_sync("j", Numbers(10), target, store=store, if_completed="skip")
    assert (result.action, result.status, result.records, result.job) == ("skip", "completed", 0, first)
    result = run_full_sync("j", Numbers(10), target, store=store)
    assert (result.action, result.job.run, len(target.records)) == ("new", 2, 20)
    assert result.job.run_id != first.run_id


def test_a_held_job_is_an_error_or_passed_over_or_waited_for(store: MemoryJobStore) -> None:
    lease = store.acquire("j", owner="other", ttl=60)
    with pytest.raises(JobHeldError) as caught:
        run_full_sync("j", Numbers(10), Target(), store=store)
    assert (caught.value.owner, caught.value.job_id) == ("other", "j")
    assert run_full_sync("j", Numbers(10), Target(), store=store, if_held="skip").action == "held"
    asked: list[int] = []

    def should_stop() -> bool:
        asked.append(1)
        if len(asked) == 3:
            store.release(lease)
        return False

    result = run_full_sync("j", Numbers(10), Target(), store=store, if_held="wait", should_stop=should_stop)
    assert result.status == "completed"


def test_waiting_for_a_held_job_honours_a_stop(store: MemoryJobStore) -> None:
    store.acquire("j", owner="other", ttl=60)
    result = run_full_sync("j", Numbers(10), Target(), store=store, if_held="wait", max_runtime=0.05)
    assert result.action == "held"
    assert "max_runtime" in (result.reason or "")


def test_what_another_attempt_finished_while_this_one_waited_is_not_done_again(store: MemoryJobStore) -> None:
    lease = store.acquire("j", owner="other", ttl=60)
    store.save(Job(id="j", status=JobStatus.RUNNING, run=1, cursor=[5], processed_records=5), lease)
    asked: list[int] = []

    def should_stop() -> bool:
        asked.append(1)
        if len(asked) == 2:
            store.save(Job(id="j", status=JobStatus.COMPLETED, run=1, cursor=[9], processed_records=9), lease)
            store.release(lease)
        return False

    target = Target()
    result = run_full_sync("j", Numbers(10), target, store=store, if_held="wait", should_stop=should_stop)
    assert (result.action, result.status, target.records) == ("skip", "completed", [])
    assert "meanwhile" in (result.reason or "")


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


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ([Page([1], None)], "None"),
        ([Page([1], [1]), Page([2], [1])], "advance"),
        ([Page([1], [1]), Page([], [1])], "empty page"),
        ([Page([1, 2, 3, 4], [4])], "at most 3"),
        ([Page([1], object())], "cannot hold"),
        ([Page([1], [1]), Page([2], [2]), Page([1], [1]), Page([2], [2])], "passed"),
        ([Page([1], ["x" * 70_000])], "65,536"),
    ],
)
def test_cursors_that_cannot_work_are_errors(
    store: MemoryJobStore, prefetch: int, pages: list[Page[int]], message: str
) -> None:
    with pytest.raises(CursorError, match=message) as caught:
        run_full_sync("j", Pages(*pages), Target(), store=store, batch_size=3, prefetch=prefetch)
    assert caught.value.job_id == "j"
    assert saved(store).status == "failed"


def test_a_long_cycle_of_cursors_ends(store: MemoryJobStore) -> None:
    class Round(Pages):
        @override
        def read(self, cursor: Any, batch_size: int) -> Iterator[Page[int]]:
            number = 0
            while True:
                number = number % 700 + 1
                yield Page([], [number])

    with pytest.raises(CursorError, match="passed"):
        run_full_sync("j", Round(), Target(), store=store)


def test_empty_pages_that_advance_move_the_cursor_only(store: MemoryJobStore) -> None:
    target = Target()
    run_full_sync("j", Pages(Page([1], [1]), Page([], [2]), Page([3], [3])), target, store=store)
    assert [batch.previous_cursor for batch in target.batches] == [None, [2]]


@pytest.mark.parametrize("page", [None, 7, [1, 2], Page(cast("Any", iter([1])), [1])])
def test_what_is_no_page_is_said_so(store: MemoryJobStore, page: Any) -> None:
    if page is None:
        connector: Any = Pages()
        connector.read = lambda *_: None
    else:
        connector = Pages(page)
    with pytest.raises(ConfigurationError, match="Page"):
        run_full_sync("j", connector, Target(), store=store)


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


def test_observers_are_told_in_order_and_never_matter(store: MemoryJobStore, caplog: pytest.LogCaptureFixture) -> None:
    events: list[Event] = []
    calls: list[Event] = []

    def broken(event: Event) -> None:
        calls.append(event)
        raise RuntimeError("observer")

    run_full_sync("j", Numbers(25), Target(), store=store, batch_size=10, observers=[broken, events.append])
    assert [type(event) for event in events] == [
        SyncStarted,
        BatchCommitted,
        BatchCommitted,
        BatchCommitted,
        SyncFinished,
    ]
    assert len(calls) == 1
    assert "observer" in caplog.text


def test_a_failing_count_is_a_warning(store: MemoryJobStore, caplog: pytest.LogCaptureFixture) -> None:
    class Uncountable(Numbers):
        @override
        def count(self) -> int | None:
            raise OSError("password=hunter2")

    assert run_full_sync("j", Uncountable(10), Target(), store=store).status == "completed"
    assert "could not be counted" in caplog.text
    assert "hunter2" not in caplog.text


def test_fewer_records_than_counted_is_a_warning(store: MemoryJobStore, caplog: pytest.LogCaptureFixture) -> None:
    class Shrinking(Numbers):
        @override
        def count(self) -> int | None:
            return 12

    run_full_sync("j", Shrinking(10), Target(), store=store)
    assert "10 records although 12" in caplog.text


def test_the_decision_is_one_line_of_the_log(store: MemoryJobStore, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "resumable_sync"):
        run_full_sync("a\nb", Numbers(10), Target(), store=store)
    line = caplog.messages[0]
    assert "\n" not in line
    assert all(word in line for word in ("'a\\nb'", "new", "record 0", "at_least_once"))


def test_a_zombie_ends_with_an_error_and_saves_nothing(store: MemoryJobStore) -> None:
    def overtake(batch: Batch[int]) -> None:
        if batch.sequence == 2:
            store.acquire("j", owner="successor", ttl=60, replacing=batch.fencing_token)

    with pytest.raises(LeaseLostError):
        run_full_sync("j", Numbers(1000), Target(overtake), store=store, batch_size=100)
    job = saved(store)
    assert (job.status, job.cursor) == ("running", [200])
    assert job.lease is not None
    assert job.lease.owner == "successor"


def test_a_long_batch_keeps_its_lease(store: MemoryJobStore) -> None:
    renewed = threading.Event()
    renew = store.renew

    def watched(lease: Lease, ttl: float) -> Lease:
        renewed.set()
        return renew(lease, ttl)

    store.renew = watched  # type: ignore[method-assign]
    target = Target(lambda _: renewed.wait(10))
    assert run_full_sync("j", Numbers(10), target, store=store, lease_ttl=0.3).status == "completed"
    assert renewed.is_set()


def test_memory_holds_no_more_pages_than_promised(store: MemoryJobStore, prefetch: int) -> None:
    import weakref

    class Records(list[int]):
        __slots__ = ("__weakref__",)

    alive: weakref.WeakSet[Records] = weakref.WeakSet()
    most = [0]

    class Counting(Pages):
        @override
        def read(self, cursor: Any, batch_size: int) -> Iterator[Page[int]]:
            for number in range(50):
                records = Records([number])
                alive.add(records)
                most[0] = max(most[0], sum(1 for _ in alive))
                yield Page(records, [number])
                del records

        __hash__ = object.__hash__

    Records.__hash__ = object.__hash__  # type: ignore[assignment]
    run_full_sync("j", Counting(), lambda _: None, store=store, prefetch=prefetch)
    assert most[0] <= prefetch + 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": -1}, "batch_size=-1"),
        ({"batch_size": True}, "batch_size=True"),
        ({"batch_size": "10"}, "batch_size='10'"),
        ({"lease_ttl": 0}, "lease_ttl=0"),
        ({"prefetch": -1}, "prefetch=-1"),
        ({"if_held": "steal"}, "if_held='steal'"),
        ({"if_completed": None}, "if_completed=None"),
        ({"max_records": 0}, "max_records=0"),
        ({"retry": 3}, "retry=3"),
        ({"observers": print}, "observers="),
        ({"resume_within": float("nan")}, "resume_within=nan"),
        ({"on_refused": "dead_letter"}, "transactional sink"),
    ],
)
def test_bad_options_are_refused_before_anything_happens(
    store: MemoryJobStore, options: dict[str, Any], message: str
) -> None:
    numbers = Numbers(10)
    with pytest.raises(ConfigurationError) as caught:
        run_full_sync("my job", numbers, Target(), store=store, **options)
    assert message in str(caught.value)
    assert "my job" in str(caught.value)
    assert numbers.asked == []
    assert list(store.jobs()) == []


def test_defaults_are_written_alike_in_both_places() -> None:
    parameters = inspect.signature(run_full_sync).parameters
    assert {name: parameters[name].default for name in SyncOptions.__annotations__} == attrs.asdict(
        Options(), recurse=False
    )


def test_an_unknown_option_is_a_type_error(store: MemoryJobStore) -> None:
    with pytest.raises(TypeError, match="batchsize"):
        plan_full_sync("j", Numbers(10), Target(), store=store, batchsize=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("job_id", ["", "x" * 256, "a\0b", "\ud800", 7, None])
def test_bad_job_ids_are_refused(store: MemoryJobStore, job_id: Any) -> None:
    with pytest.raises(ConfigurationError, match="job id"):
        run_full_sync(job_id, Numbers(10), Target(), store=store)


@pytest.mark.parametrize("connector", [Numbers, object(), None])
def test_what_is_no_connector_is_refused(store: MemoryJobStore, connector: Any) -> None:
    with pytest.raises(ConfigurationError, match="connector"):
        run_full_sync("j", connector, Target(), store=store)


@pytest.mark.parametrize("bad_store", [MemoryJobStore, object(), "sqlite://"])
def test_what_is_no_store_is_refused(bad_store: Any) -> None:
    with pytest.raises(ConfigurationError, match="store"):
        run_full_sync("j", Numbers(10), Target(), store=bad_store)


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
