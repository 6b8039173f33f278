"""One attempt, to the letter: what it saves, tells and gives back, step by step, by a clock that a test moves."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, create_engine
from typing_extensions import override

from doubles import FAST, Numbers, Target, saved
from resumable_sync import (
    Batch,
    BatchCommitted,
    ConfigurationError,
    DeadLetter,
    Guarantee,
    Job,
    JobStatus,
    Lease,
    LeaseLostError,
    MemoryJobStore,
    RecordRefused,
    SourceChangedError,
    StaleRecordsError,
    SyncFinished,
    SyncStarted,
    Throttle,
    TryFailed,
    run_full_sync,
)
from resumable_sync._attempts import attempt as _attempt
from resumable_sync._attempts import checkpoint as _checkpoint
from resumable_sync._attempts import report as _report
from resumable_sync._attempts.attempt import Attempt
from resumable_sync._attempts.options import make_options
from resumable_sync._attempts.pages import Pages
from resumable_sync._attempts.pieces import Pieces, put_together
from resumable_sync._attempts.report import plan_of
from resumable_sync._attempts.sizer import BatchSizer
from resumable_sync._attempts.start import rules_of
from resumable_sync._fingerprint import fingerprint_text
from resumable_sync._lease import LeaseKeeper
from resumable_sync._model import batch_key, changed, utc_now
from resumable_sync._restart import decide
from resumable_sync._retry import StopRequested
from resumable_sync.stores.sql import SQLJobStore

RUN_ID = "0a1b2c3d-0000-4000-8000-0123456789ab"
HALFWAY = Job(
    id="j",
    status=JobStatus.FAILED,
    run=2,
    run_id=RUN_ID,
    attempt=3,
    cursor=[20],
    processed_records=20,
    processed_batches=2,
    total_records=100,
    fingerprint="source",
    stalled_attempts=0,
    batch_size=7,
    error="OSError: no",
)


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Paced(Numbers):
    """Takes 2 seconds for each page; may act before one."""

    def __init__(self, total: int, clock: Clock) -> None:
        super().__init__(total, "source")
        self.clock = clock
        self.counted = 0

    @override
    def fetch(self, offset: int, limit: int) -> list[int]:
        self.clock.now += 2
        return super().fetch(offset, limit)

    @override
    def count(self) -> int | None:
        self.counted += 1
        return self.total


class Opened:
    """An attempt, and what it works with."""

    def __init__(self, attempt: Attempt[int], pieces: Pieces, keeper: LeaseKeeper, events: list[Any]) -> None:
        self.attempt = attempt
        self.pieces = pieces
        self.keeper = keeper
        self.events = events

    def next(self) -> Batch[int]:
        batch = self.attempt.next_batch()
        assert batch is not None
        return batch

    def deliver(self, batches: int) -> None:
        for _ in range(batches):
            self.attempt.deliver(self.next())

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


Open = Callable[..., Opened]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(_attempt, "time", made)
    monkeypatch.setattr(_report, "time", made)
    monkeypatch.setattr(_checkpoint, "time", made)
    return made


@pytest.fixture
def numbers(clock: Clock) -> Paced:
    return Paced(100, clock)


@pytest.fixture
def target(clock: Clock) -> Target:
    """A sink that takes 3 seconds for each batch."""
    return Target(lambda _: setattr(clock, "now", clock.now + 3))


@pytest.fixture
def prepare(store: MemoryJobStore, numbers: Paced, target: Target) -> Iterator[Open]:
    """Acquires a job that stands where `job` is, and gives its attempt, which has not begun."""
    with ExitStack() as stack:

        def make(
            job: Job | None = None, connector: Any = numbers, sink: Any = target, decision: Any = None, **options: Any
        ) -> Opened:
            events: list[Any] = []
            options = {"batch_size": 10, "prefetch": 0, "observers": [events.append], "retry": FAST, **options}
            pieces = put_together("j", connector, sink, store, make_options("j", options))  # type: ignore[arg-type]
            lease = store.acquire("j", owner="me", ttl=60)
            if job is not None:
                store.save(job, lease)
            stored = attrs.evolve(saved(store), lease=None)
            decision = decision or decide(stored, rules_of(connector, pieces.options, pieces.retrier), now=utc_now())
            keeper = LeaseKeeper(store, lease, 60, pieces.stop)
            stack.callback(keeper.close)
            return Opened(Attempt(pieces, stored, decision, keeper), pieces, keeper, events)

        yield make


@pytest.fixture
def begin(prepare: Open) -> Open:
    def make(*arguments: Any, **options: Any) -> Opened:
        opened = prepare(*arguments, **options)
        opened.attempt.begin(fingerprint_text(opened.pieces.connector.fingerprint))
        return opened

    return make


class TestBegin:
    def test_the_job_is_saved_before_anything_else_is_tried(
        self, prepare: Open, store: MemoryJobStore, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[Job] = []
        monkeypatch.setattr(target, "begin", lambda job, _: seen.extend([job, saved(store)]))
        opened = prepare(HALFWAY)
        opened.attempt.begin("source")
        job = attrs.evolve(HALFWAY, status=JobStatus.RUNNING, attempt=4, stalled_attempts=1, error=None)
        given, stored = (attrs.evolve(one, lease=None, finished_at=None) for one in seen)
        assert attrs.evolve(stored, started_at=None) == job
        assert given == stored
        assert opened.attempt.job == stored
        assert stored.started_at is not None

    def test_observers_are_told(self, prepare: Open, store: MemoryJobStore) -> None:
        opened = prepare(HALFWAY)
        decision = opened.attempt._decision
        opened.attempt.begin("source")
        plan = plan_of(HALFWAY, decision, opened.attempt._pieces)
        assert plan.guarantee == Guarantee.AT_LEAST_ONCE
        assert opened.events == [SyncStarted(job=opened.attempt.job, plan=plan)]

    def test_the_decision_is_logged(self, prepare: Open, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "resumable_sync"):
            prepare(HALFWAY).attempt.begin("source")
        assert "job 'j': resume" in caplog.text
        assert "at record 20 of 100, at_least_once" in caplog.text

    def test_the_fingerprint_is_saved(self, prepare: Open, store: MemoryJobStore) -> None:
        prepare().attempt.begin("another")
        assert saved(store).fingerprint == "another"

    def test_what_is_refused_at_the_place_itself_saves_nothing(self, prepare: Open, store: MemoryJobStore) -> None:
        class Moved(Numbers):
            if_moved = "raise"

            def moved(self, cursor: Any) -> str:
                assert cursor == [20]
                return "is gone"

        opened = prepare(HALFWAY, Moved(100, "source"))
        before = saved(store)
        with pytest.raises(SourceChangedError) as caught:
            opened.attempt.begin("source")
        assert caught.value.job_id == "j"
        assert saved(store) == before

    def test_old_letters_are_dropped_before_the_sink_begins(
        self, prepare: Open, store: MemoryJobStore, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dropped: list[Any] = []

        def drop(*given: Any) -> None:
            assert target.begun == []
            dropped.append(given)

        monkeypatch.setattr(_attempt, "drop_old_letters", drop)
        opened = prepare()
        opened.attempt.begin("source")
        assert dropped == [(store, opened.attempt._checkpoints)]
        assert len(target.begun) == 1

    def test_records_come_in_the_format_that_was_found(
        self, prepare: Open, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other, asked = Paced(30, clock), []

        def found(pieces: Pieces, job: Job) -> Pieces:
            asked.append(job)
            return attrs.evolve(pieces, connector=other, format="text")

        monkeypatch.setattr(_attempt, "in_best_format", found)
        opened = prepare(HALFWAY)
        opened.attempt.begin("source")
        assert asked == [opened.attempt.job]
        assert opened.events[0].plan.format == "text"
        opened.next()
        assert other.asked == [(20, 10)]
        opened.attempt.close(None)
        assert opened.attempt.result.format == "text"

    def test_a_loop_of_ones_own_has_no_sink(self, begin: Open) -> None:
        assert begin(sink=None).attempt._delivery is None


class Pinnable(Paced):
    """Has three columns now, and can be made to read two."""

    def __init__(self, clock: Clock, narrowed: Numbers) -> None:
        super().__init__(100, clock)
        self.fingerprint = {"columns": '["a","b","c"]'}
        self.narrowed = narrowed
        self.whole = Paced(100, clock)
        self.pinned: list[Sequence[str]] = []

    def pin(self, columns: Sequence[str]) -> Numbers:
        self.pinned.append(columns)
        return self.narrowed if len(columns) == 2 else self.whole


class TestColumns:
    JOB = attrs.evolve(HALFWAY, fingerprint=fingerprint_text({"columns": '["a","b"]'}), total_records=None)

    def test_a_run_reads_the_columns_that_it_began_with(self, begin: Open, clock: Clock) -> None:
        narrowed = Paced(30, clock)
        connector = Pinnable(clock, narrowed)
        opened = begin(self.JOB, connector, if_changed="resume")
        opened.deliver(1)
        assert opened.attempt.next_batch() is None
        opened.attempt.close(None)
        assert connector.pinned == [("a", "b")]
        assert (connector.asked, connector.counted) == ([], 0)
        assert (narrowed.asked[0], narrowed.counted) == ((20, 10), 1)

    @pytest.mark.parametrize("pinned", [False, True])
    def test_a_count_that_fails_is_told_with_its_job(
        self, begin: Open, clock: Clock, caplog: pytest.LogCaptureFixture, *, pinned: bool
    ) -> None:
        class Uncountable(Paced):
            @override
            def count(self) -> int | None:
                raise OSError("no")

        broken = Uncountable(100, clock)
        connector = Pinnable(clock, broken) if pinned else broken
        opened = begin(self.JOB if pinned else None, connector, if_changed="resume")
        opened.deliver(1)
        opened.next()
        opened.attempt.close(None)
        assert "job 'j': the source could not be counted" in caplog.text

    def test_one_that_starts_anew_reads_all_there_are(self, begin: Open, clock: Clock) -> None:
        class Moved(Paced):
            if_moved = "rerun"

            def moved(self, cursor: Any) -> str:
                return "is gone"

        narrowed = Moved(30, clock)
        connector = Pinnable(clock, narrowed)
        opened = begin(self.JOB, connector, if_changed="resume")
        assert opened.next().previous_cursor is None
        opened.next()
        opened.attempt.close(None)
        assert connector.pinned == [("a", "b"), ("a", "b", "c")]
        assert (narrowed.asked, narrowed.counted) == ([], 0)
        assert (connector.whole.asked, connector.whole.counted) == ([(0, 10), (10, 10)], 1)

    @pytest.mark.parametrize("job", [None, HALFWAY], ids=["new", "resume"])
    def test_the_columns_of_today_are_read_by_a_connector_of_its_own(
        self, begin: Open, clock: Clock, job: Job | None
    ) -> None:
        connector = Pinnable(clock, Paced(30, clock))
        if job is not None:
            job = attrs.evolve(job, fingerprint=fingerprint_text(connector.fingerprint), total_records=None)
        opened = begin(job, connector)
        opened.deliver(1)
        opened.next()
        opened.attempt.close(None)
        assert connector.pinned == [("a", "b", "c")]
        assert (connector.asked, connector.counted, connector.whole.counted) == ([], 0, 1)


class TestSizes:
    @pytest.fixture
    def made(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        pages: list[Any] = []
        make = Pages

        def watched(*given: Any, **options: Any) -> Any:
            pages.append((given, options))
            return make(*given, **options)

        monkeypatch.setattr(_attempt, "Pages", watched)
        return pages

    def test_pages_are_read_as_the_options_say(self, begin: Open, made: list[Any], numbers: Paced) -> None:
        opened = begin(HALFWAY, prefetch=3)
        assert made == [
            (
                (numbers, [20]),
                {
                    "batch_size": 10,
                    "first_size": None,
                    "prefetch": 3,
                    "retrier": opened.pieces.reading,
                    "stop": opened.pieces.stop,
                },
            )
        ]

    def test_or_else_as_sink_and_connector_prefer(
        self, begin: Open, made: list[Any], numbers: Paced, target: Target
    ) -> None:
        target.preferred_batch_size, numbers.preferred_prefetch = 30, 4  # type: ignore[attr-defined]
        begin(HALFWAY, batch_size=None, prefetch=None)
        assert (made[0][1]["batch_size"], made[0][1]["prefetch"]) == (30, 4)

    def test_after_a_death_the_first_size_is_smaller(self, begin: Open, made: list[Any]) -> None:
        begin(attrs.evolve(HALFWAY, stalled_attempts=1))
        assert made[0][1]["first_size"] == 5

    @pytest.mark.parametrize(("learned", "size", "first"), [(4_000, 2_000, 2_000), (None, 500, 500)])
    def test_an_automatic_one_begins_with_what_was_learned(
        self, begin: Open, made: list[Any], learned: int | None, size: int, first: int
    ) -> None:
        opened = begin(attrs.evolve(HALFWAY, stalled_attempts=1, batch_size=learned), batch_size="auto")
        sizer = made[0][1]["batch_size"]
        assert (sizer, sizer.size, made[0][1]["first_size"]) == (opened.attempt._sizer, size, first)


class TestNextBatch:
    def test_it_is_the_page_with_its_identity(self, begin: Open, store: MemoryJobStore) -> None:
        opened = begin(HALFWAY)
        job = saved(store)
        assert opened.next() == Batch(
            records=list(range(20, 30)),
            columns=None,
            cursor=[30],
            previous_cursor=[20],
            job_id="j",
            run=2,
            sequence=2,
            fencing_token=opened.keeper.lease.fencing_token,
            key=batch_key("j", RUN_ID, 2, "[1,[20]]", "[1,[30]]"),
        )
        assert job.lease is not None

    def test_columns_come_with_the_page(self, begin: Open) -> None:
        class Named(Numbers):
            @override
            def read(self, cursor: Any, batch_size: int) -> Any:
                for page in super().read(cursor, batch_size):
                    yield attrs.evolve(page, columns=("n",))

        assert begin(None, Named(10)).next().columns == ("n",)

    def test_one_that_was_not_committed_is_saved_when_the_next_is_asked_for(
        self, begin: Open, store: MemoryJobStore
    ) -> None:
        opened = begin(HALFWAY, sink=None)
        opened.next()
        assert saved(store).processed_records == 20
        opened.next()
        assert (saved(store).processed_records, saved(store).cursor) == (30, [30])

    def test_the_end_of_the_source_is_none(self, begin: Open) -> None:
        opened = begin(HALFWAY)
        opened.deliver(8)
        assert opened.attempt.next_batch() is None

    def test_a_stop_is_seen_before_anything_is_read(self, begin: Open, numbers: Paced) -> None:
        opened = begin(HALFWAY)
        opened.pieces.stop.request("enough")
        assert opened.attempt.next_batch() is None
        assert numbers.asked == []

    def test_a_lost_lease_is_an_error_and_no_stop(self, begin: Open) -> None:
        opened = begin(HALFWAY)
        opened.keeper._lost = True
        opened.pieces.stop.request("the lease was lost")
        with pytest.raises(LeaseLostError):
            opened.attempt.next_batch()

    @pytest.mark.parametrize(("total", "count", "counted"), [(None, True, 1), (None, False, 0), (100, True, 0)])
    def test_the_source_is_counted_once_where_that_is_wanted(
        self, begin: Open, numbers: Paced, total: int | None, counted: int, *, count: bool
    ) -> None:
        opened = begin(attrs.evolve(HALFWAY, total_records=total), count=count)
        opened.deliver(2)
        opened.attempt.close(None)
        assert numbers.counted == counted


class TestDelivery:
    def test_the_checkpoint_moves_behind_the_batch(self, begin: Open, store: MemoryJobStore) -> None:
        opened = begin(attrs.evolve(HALFWAY, stalled_attempts=1, dead_letters=3))
        before = saved(store)
        opened.deliver(1)
        job = saved(store)
        assert job == attrs.evolve(
            before,
            cursor=[25],
            processed_records=25,
            processed_batches=3,
            stalled_attempts=0,
            updated_at=job.updated_at,
            lease=job.lease,
        )
        assert job.updated_at is not None

    def test_observers_are_told_what_it_took(self, begin: Open) -> None:
        opened = begin(HALFWAY)
        opened.deliver(1)
        assert opened.told(BatchCommitted) == [
            BatchCommitted(job=opened.attempt.job, sequence=2, records=10, read_seconds=2.0, write_seconds=3.0)
        ]

    def test_refused_records_are_told_and_counted(
        self, begin: Open, store: MemoryJobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = begin(HALFWAY)
        letters = [DeadLetter(job_id="j", run=2, record=n, error=f"ValueError: {n}", key="k") for n in (20, 21)]

        class Refusing:
            def deliver(self, batch: Batch[int], after: Callable[[Batch[int], int], Job]) -> list[DeadLetter]:
                opened.attempt._checkpoints.save(after(batch, 2))
                return letters

        monkeypatch.setattr(opened.attempt, "_delivery", Refusing())
        opened.deliver(1)
        assert opened.events[1:] == [
            BatchCommitted(job=opened.attempt.job, sequence=2, records=8, read_seconds=2.0, write_seconds=0.0),
            RecordRefused(job_id="j", sequence=2, error="ValueError: 20"),
            RecordRefused(job_id="j", sequence=2, error="ValueError: 21"),
        ]
        job = saved(store)
        assert (job.processed_records, job.dead_letters, job.processed_batches, job.cursor) == (28, 2, 3, [30])

    @pytest.mark.parametrize("own", [False, True])
    def test_a_lease_in_doubt_is_looked_after_first(
        self, begin: Open, target: Target, monkeypatch: pytest.MonkeyPatch, *, own: bool
    ) -> None:
        opened = begin(HALFWAY, sink=None) if own else begin(HALFWAY)
        batch, asked = opened.next(), []

        def assure(patient: Any) -> None:
            asked.append(patient)
            raise LeaseLostError("j", 1)

        monkeypatch.setattr(opened.keeper, "assure", assure)
        with pytest.raises(LeaseLostError):
            (opened.attempt.accept if own else opened.attempt.deliver)(batch)
        assert (asked, target.records) == ([opened.pieces.patient], [])

    def test_a_batch_of_ones_own_loop_is_told_too(self, begin: Open, clock: Clock, store: MemoryJobStore) -> None:
        opened = begin(HALFWAY, sink=None)
        save = opened.attempt._checkpoints.save

        def slow(job: Job) -> None:
            clock.now += 5
            save(job)

        opened.attempt._checkpoints.save = slow  # type: ignore[method-assign]
        opened.attempt.accept(opened.next())
        assert opened.told(BatchCommitted) == [
            BatchCommitted(job=opened.attempt.job, sequence=2, records=10, read_seconds=2.0, write_seconds=5.0)
        ]
        assert saved(store).processed_records == 30

    def test_nothing_is_made_up_for_nobody(self, begin: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_attempt, "BatchCommitted", None)
        monkeypatch.setattr(_attempt, "SyncStarted", None)
        monkeypatch.setattr(_attempt, "SyncFinished", None)
        opened = begin(HALFWAY, observers=[])
        opened.deliver(1)
        opened.attempt.close(None)

    @pytest.mark.parametrize(("limit", "batches"), [(10, 1), (11, 2), (20, 2)])
    def test_a_budget_of_records_ends_with_the_batch_that_reaches_it(
        self, begin: Open, limit: int, batches: int
    ) -> None:
        opened = begin(HALFWAY, max_records=limit)
        opened.deliver(batches - 1)
        assert opened.pieces.stop.reason is None
        opened.deliver(1)
        assert opened.pieces.stop.reason == f"max_records={limit} reached"


class TestStale:
    """Records that a batch only refers to may change before they are written."""

    @pytest.fixture
    def stale(self, target: Target) -> list[bool]:
        """Whether the records of each batch that is written have changed."""
        answers: list[bool] = []

        def act(_: object) -> None:
            if answers.pop(0):
                raise StaleRecordsError("not the same any more")

        target.act = act
        return answers

    def test_they_are_read_anew_from_the_checkpoint_on(
        self, begin: Open, store: MemoryJobStore, numbers: Paced, target: Target, stale: list[bool]
    ) -> None:
        opened = begin(HALFWAY)
        stale[:] = [True, False]
        batch = opened.next()
        opened.attempt.deliver(batch)
        assert (saved(store).processed_records, target.records) == (20, [])
        assert opened.told(BatchCommitted) == []
        again = opened.next()
        assert again == batch
        assert numbers.asked == [(20, 10), (20, 10)]
        opened.attempt.deliver(again)
        assert (saved(store).processed_records, target.records) == (30, list(range(20, 30)))
        assert [event.sequence for event in opened.told(BatchCommitted)] == [2]

    def test_at_the_third_time_in_a_row_as_python_values(
        self, begin: Open, numbers: Paced, clock: Clock, stale: list[bool], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = Paced(100, clock)
        monkeypatch.setattr(
            _attempt, "in_best_format", lambda pieces, _: attrs.evolve(pieces, connector=other, format="text")
        )
        opened = begin(HALFWAY)
        stale[:] = [True, True, False, True, True, True, False]
        opened.deliver(7)
        assert other.asked == [(20, 10)] * 3 + [(30, 10)] * 3
        assert numbers.asked == [(30, 10)]
        opened.attempt.close(None)
        assert (opened.attempt.result.records, opened.attempt.result.format) == (20, "records")


class TestAccept:
    """Batches of a loop of one's own."""

    def test_one_that_was_accepted_changes_nothing(self, begin: Open, store: MemoryJobStore) -> None:
        opened = begin(HALFWAY, sink=None)
        batch = opened.next()
        opened.attempt.accept(batch)
        opened.next()
        opened.attempt.accept(batch)
        assert saved(store).processed_records == 30
        assert len(opened.told(BatchCommitted)) == 1

    @pytest.mark.parametrize(
        "other", [{"job_id": "k"}, {"job_id": "k", "sequence": 0}, {"run": 3}, {"sequence": 2}, {"sequence": 3}]
    )
    def test_one_that_is_not_in_hand_is_refused(self, begin: Open, other: dict[str, Any]) -> None:
        opened = begin(HALFWAY, sink=None)
        batch = opened.next()
        with pytest.raises(ConfigurationError, match=r"job 'j': .* not in hand"):
            opened.attempt.accept(attrs.evolve(batch, **other))

    @pytest.mark.parametrize("thing", [None, [1, 2]])
    def test_what_is_no_batch_is_refused(self, begin: Open, thing: Any) -> None:
        opened = begin(HALFWAY, sink=None)
        opened.next()
        with pytest.raises(ConfigurationError, match="not in hand"):
            opened.attempt.accept(thing)

    def test_one_that_was_saved_cannot_be_committed_with_rows(self, begin: Open) -> None:
        opened = begin(HALFWAY, sink=None)
        batch = opened.next()
        opened.attempt.accept(batch)
        connection: Any = object()
        with pytest.raises(ConfigurationError, match="batch 2 was given to commit"):
            opened.attempt.accept(batch, connection)


class TestOwnTransactions:
    """Batches that the caller commits in transactions of the store's database."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SQLJobStore]:
        with SQLJobStore(f"sqlite:///{tmp_path}/jobs.db") as made:
            yield made

    @pytest.fixture
    def engine(self, store: SQLJobStore, tmp_path: Path) -> Iterator[Engine]:
        made = create_engine(f"sqlite:///{tmp_path}/jobs.db")
        yield made
        made.dispose()

    def test_a_batch_may_be_committed_again_where_it_was(self, begin: Open, store: Any, engine: Engine) -> None:
        opened = begin(HALFWAY, sink=None)
        first = opened.next()
        with engine.begin() as connection:
            opened.attempt.accept(first, connection)
            opened.attempt.accept(first, connection)
            assert opened.told(BatchCommitted) == []
            second = opened.next()
            opened.attempt.accept(second, connection)
            with pytest.raises(ConfigurationError, match="batch 2 was given to commit"):
                opened.attempt.accept(first, connection)
            opened.attempt.accept(second, connection)
        assert [event.sequence for event in opened.told(BatchCommitted)] == []
        third = opened.next()
        assert [event.sequence for event in opened.told(BatchCommitted)] == [2, 3]
        with engine.connect() as connection, pytest.raises(ConfigurationError, match="batch 3 was given to commit"):
            opened.attempt.accept(second, connection)
        assert third.sequence == 4
        assert saved(store).processed_batches == 4

    @pytest.mark.parametrize("all_of_them", [False, True])
    def test_rows_and_checkpoints_commit_together_if_all_of_them_do(
        self, begin: Open, engine: Engine, *, all_of_them: bool
    ) -> None:
        opened = begin(HALFWAY, sink=None, batch_size=40)
        with engine.begin() as connection:
            opened.attempt.accept(opened.next(), connection)
        if all_of_them:
            with engine.begin() as connection:
                opened.attempt.accept(opened.next(), connection)
        else:
            opened.attempt.accept(opened.next())
        assert opened.attempt.next_batch() is None
        opened.attempt.close(None)
        result = opened.attempt.result
        assert (result.status, result.records, result.batches) == ("completed", 80, 2)
        assert result.guarantee == (Guarantee.EXACTLY_ONCE if all_of_them else Guarantee.AT_LEAST_ONCE)

    def test_work_in_one_of_the_stores_is_tried_again(self, begin: Open) -> None:
        opened = begin(HALFWAY, sink=None)
        errors = [ConnectionError("cut")]

        def work(_: object) -> Job:
            if errors:
                raise errors.pop()
            return opened.attempt.job

        opened.attempt._checkpoints.transact("write", work)
        assert [event.call for event in opened.told(TryFailed)] == ["write"]

    def test_what_was_committed_last_is_confirmed_at_the_end(self, begin: Open, store: Any, engine: Engine) -> None:
        opened = begin(HALFWAY, sink=None)
        with engine.begin() as connection:
            opened.attempt.accept(opened.next(), connection)
        opened.attempt.close(None)
        assert (saved(store).status, saved(store).processed_batches) == ("interrupted", 3)
        assert [event.sequence for event in opened.told(BatchCommitted)] == [2]
        assert opened.attempt.result.guarantee is Guarantee.EXACTLY_ONCE

    def test_what_is_still_open_at_the_end_is_an_error(self, begin: Open, store: Any, engine: Engine) -> None:
        opened = begin(HALFWAY, sink=None)
        with engine.connect() as connection:
            opened.attempt.accept(opened.next(), connection)
            with pytest.raises(ConfigurationError, match="still open"):
                opened.attempt.close(None)
        job = saved(store)  # the lease ends by itself: giving it back would wait for the caller's transaction
        assert (job.processed_batches, job.status) == (2, "running")
        assert job.lease is not None


class TestPace:
    @pytest.mark.parametrize("own", [False, True])
    def test_the_sizer_is_told_what_a_batch_took(
        self, begin: Open, clock: Clock, monkeypatch: pytest.MonkeyPatch, *, own: bool
    ) -> None:
        told: list[Any] = []
        monkeypatch.setattr(BatchSizer, "took", lambda _, *facts: told.append(facts))
        sink: dict[str, Any] = {"sink": None} if own else {}
        opened = begin(attrs.evolve(HALFWAY, batch_size=None), Paced(1_500, clock), batch_size="auto", **sink)
        commit = opened.attempt.accept if own else opened.attempt.deliver
        batch = opened.next()
        clock.now += 5
        opened.pieces.stop.waited += 4  # of these five seconds
        commit(batch)
        commit(opened.next())
        writing = 0.0 if own else 3.0
        assert [(asked, records, write) for asked, records, _, write in told] == [
            (1000, 1000, 1.0 + writing),
            (1000, 480, writing),
        ]
        assert all(isinstance(read, float) for _, _, read, _ in told)

    def test_what_was_found_out_is_saved(self, begin: Open, store: MemoryJobStore, clock: Clock) -> None:
        opened = begin(HALFWAY, Paced(1_500, clock), batch_size="auto")
        assert opened.attempt._sizer is not None
        opened.attempt._sizer.size = 300
        opened.deliver(1)
        assert saved(store).batch_size == opened.attempt._sizer.size

    def test_a_given_size_leaves_what_was_found_out(self, begin: Open, store: MemoryJobStore) -> None:
        begin(HALFWAY).deliver(1)
        assert saved(store).batch_size == 7

    def test_a_function_is_asked_from_the_second_batch_on(self, begin: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        answers = [0, 1.5]
        opened = begin(HALFWAY, throttle=lambda: answers.pop(0))
        waits: list[float] = []

        def wait(seconds: float) -> bool:
            waits.append(seconds)
            return len(waits) == 2

        monkeypatch.setattr(opened.pieces.stop, "wait", wait)
        opened.deliver(2)
        assert opened.attempt.next_batch() is None
        assert (waits, answers) == ([0, 1.5], [])

    @pytest.mark.parametrize("answer", [-0.1, float("inf"), float("nan"), True, "1", None])
    def test_it_gives_seconds(self, begin: Open, answer: Any) -> None:
        opened = begin(HALFWAY, throttle=lambda: answer)
        opened.deliver(1)
        with pytest.raises(ConfigurationError, match=r"job 'j': throttle\(\) gave"):
            opened.attempt.next_batch()

    @pytest.fixture
    def throttle(self, clock: Clock) -> Throttle:
        return Throttle(5, clock=clock.monotonic)

    def test_a_rate_is_held(
        self, begin: Open, clock: Clock, throttle: Throttle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = begin(HALFWAY, throttle=throttle)
        waits: list[float] = []

        def wait(seconds: float) -> bool:
            waits.append(seconds)
            clock.now += seconds
            return False

        monkeypatch.setattr(opened.pieces.stop, "wait", wait)
        opened.deliver(3)
        # 10 records take 2 seconds at that rate; 3 in the sink and 2 in the source have passed.
        assert waits == []
        throttle.reserve(50)
        opened.deliver(1)
        assert waits == [8.0]
        clock.now -= 3.5  # as if the sink had taken no time
        opened.deliver(1)
        assert waits == [8.0, 0.5]

    @pytest.mark.parametrize("interrupted", [False, True])
    def test_a_place_in_it_is_given_back_where_the_batch_is_not_delivered(
        self, begin: Open, throttle: Throttle, monkeypatch: pytest.MonkeyPatch, *, interrupted: bool
    ) -> None:
        opened = begin(HALFWAY, throttle=throttle)
        throttle.reserve(100)
        free_at = throttle._free_at

        def wait(_: float) -> bool:
            if interrupted:
                raise KeyboardInterrupt
            return True

        monkeypatch.setattr(opened.pieces.stop, "wait", wait)
        if interrupted:
            with pytest.raises(KeyboardInterrupt):
                opened.attempt.next_batch()
        else:
            assert opened.attempt.next_batch() is None
        assert throttle._free_at == free_at

    def test_that_of_a_batch_in_hand_is_given_back_at_the_end(self, begin: Open, throttle: Throttle) -> None:
        opened = begin(HALFWAY, throttle=throttle)
        throttle.reserve(0)
        free_at = throttle._free_at
        opened.next()
        assert throttle._free_at == free_at + 4.0  # 2 seconds have passed meanwhile
        opened.attempt.close(None)
        assert throttle._free_at == free_at + 2.0

    def test_nothing_is_given_back_where_none_is_in_hand(self, begin: Open, throttle: Throttle) -> None:
        opened = begin(HALFWAY, throttle=throttle)
        opened.deliver(1)
        free_at = throttle._free_at
        opened.attempt.close(None)
        assert throttle._free_at == free_at


class TestEnd:
    def finish(self, opened: Opened, batches: int) -> Any:
        opened.deliver(batches)
        assert opened.attempt.next_batch() is None
        assert opened.attempt.close(None) is False
        return opened.attempt.result

    def test_a_run_that_was_read_to_its_end_is_completed(
        self, begin: Open, store: MemoryJobStore, target: Target, clock: Clock
    ) -> None:
        opened = begin(HALFWAY)
        clock.now += 1
        result = self.finish(opened, 8)
        job = saved(store)
        assert (job.status, job.stalled_attempts, job.error, job.lease) == ("completed", 0, None, None)
        assert job.finished_at is not None
        assert [attrs.evolve(job, lease=None)] == [attrs.evolve(one, lease=None) for one in target.completed]
        assert result.job == job
        assert (result.action, result.status, result.records, result.batches) == ("resume", "completed", 80, 8)
        assert (result.reason, result.guarantee) == (None, Guarantee.AT_LEAST_ONCE)
        assert result.seconds == clock.now - opened.pieces.started
        assert opened.events[-1] == SyncFinished(result=result)

    def test_a_lease_in_doubt_is_looked_after_before_it_is_published(
        self, begin: Open, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = begin(HALFWAY)
        opened.deliver(8)
        assert opened.attempt.next_batch() is None
        asked: list[Any] = []
        monkeypatch.setattr(opened.keeper, "assure", asked.append)
        opened.attempt.close(None)
        assert asked == [opened.pieces.patient]
        assert len(target.completed) == 1

    def test_a_run_with_letters_is_incomplete_and_not_published(
        self, begin: Open, store: MemoryJobStore, target: Target
    ) -> None:
        self.finish(begin(attrs.evolve(HALFWAY, dead_letters=3)), 8)
        assert (saved(store).status, target.completed) == ("incomplete", [])

    def test_unless_the_sink_wants_to(self, begin: Open, target: Target) -> None:
        target.publishes_incomplete = True  # type: ignore[attr-defined]
        self.finish(begin(attrs.evolve(HALFWAY, dead_letters=3)), 8)
        assert [job.status for job in target.completed] == ["incomplete"]

    def test_a_loop_of_ones_own_completes_too(self, begin: Open, store: MemoryJobStore) -> None:
        opened = begin(HALFWAY, sink=None)
        for _ in range(8):
            opened.attempt.accept(opened.next())
        assert opened.attempt.next_batch() is None
        opened.attempt.close(None)
        assert saved(store).status == "completed"
        assert opened.attempt.result.guarantee == Guarantee.AT_LEAST_ONCE

    @pytest.mark.parametrize("in_hand", [False, True])
    def test_a_loop_that_was_left_is_interrupted(
        self, begin: Open, store: MemoryJobStore, target: Target, *, in_hand: bool
    ) -> None:
        opened = begin(HALFWAY, batch_size=80)
        if in_hand:
            opened.next()
        else:
            opened.deliver(1)
        opened.attempt.close(None)
        job = saved(store)
        assert (job.status, job.processed_records, target.completed) == ("interrupted", 20 if in_hand else 100, [])
        assert opened.attempt.result.reason == "the loop was left before the source was exhausted"
        assert job.finished_at is not None

    def test_why_it_was_stopped_is_the_reason(self, begin: Open) -> None:
        opened = begin(HALFWAY)
        opened.pieces.stop.request("enough")
        assert opened.attempt.next_batch() is None
        opened.attempt.close(None)
        assert opened.attempt.result.reason == "enough"

    @pytest.mark.parametrize(("batches", "stalled"), [(0, 2), (1, 0)])
    def test_an_end_is_no_death(self, begin: Open, store: MemoryJobStore, batches: int, stalled: int) -> None:
        opened = begin(attrs.evolve(HALFWAY, stalled_attempts=2))
        assert saved(store).stalled_attempts == 3
        opened.deliver(batches)
        opened.attempt.close(None)
        assert saved(store).stalled_attempts == stalled

    def test_what_was_counted_late_is_saved_with_the_end(self, begin: Open, store: MemoryJobStore) -> None:
        opened = begin(attrs.evolve(HALFWAY, total_records=None), count=False)
        opened.deliver(8)
        opened.attempt._counter.total = 120
        self.finish(opened, 0)
        assert saved(store).total_records == 120

    def test_a_run_that_has_nothing_left_is_no_longer_stalled(self, begin: Open, store: MemoryJobStore) -> None:
        self.finish(begin(attrs.evolve(HALFWAY, cursor=[100], stalled_attempts=2)), 0)
        assert (saved(store).status, saved(store).stalled_attempts) == ("completed", 0)

    @pytest.mark.parametrize("counted", [True, False])
    def test_the_first_count_stays(self, begin: Open, store: MemoryJobStore, *, counted: bool) -> None:
        opened = begin(HALFWAY if counted else attrs.evolve(HALFWAY, total_records=None), count=False)
        opened.attempt._counter.total = 120
        opened.deliver(1)
        assert saved(store).total_records == (100 if counted else 120)
        opened.attempt._counter.total = 130
        self.finish(opened, 7)
        assert saved(store).total_records == (100 if counted else 120)

    def test_fewer_records_than_were_counted_are_a_warning(self, begin: Open, caplog: pytest.LogCaptureFixture) -> None:
        self.finish(begin(attrs.evolve(HALFWAY, total_records=120)), 8)
        assert "completed with 100 records although 120" in caplog.text

    def test_everything_is_closed(self, begin: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        opened = begin(HALFWAY)
        pages = opened.attempt._pages
        ends: list[Any] = []
        assert pages is not None
        monkeypatch.setattr(pages, "close", lambda: ends.append(opened.pieces.stop._pausing))
        monkeypatch.setattr(opened.attempt._counter, "close", lambda: ends.append("counter"))
        monkeypatch.setattr(opened.keeper, "close", lambda: ends.append("keeper"))
        monkeypatch.setattr(type(opened.pieces.signals), "__exit__", lambda _, *told: ends.append(told))
        opened.attempt.close(None)
        assert ends == [False, "counter", "keeper", (None, None, None)]

    def test_the_end_is_logged(self, begin: Open, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "resumable_sync"):
            self.finish(begin(HALFWAY), 8)
        assert "completed after 80 records" in caplog.text

    def test_the_result_is_known_at_the_end_only(self, begin: Open) -> None:
        opened = begin(HALFWAY)
        with pytest.raises(ConfigurationError, match="job 'j'"):
            _ = opened.attempt.result
        opened.attempt.close(None)
        assert opened.attempt.result.status == "interrupted"


class TestFailure:
    @pytest.mark.parametrize("kind", [ValueError, OSError])
    def test_an_error_fails_the_job(self, begin: Open, store: MemoryJobStore, kind: type[Exception]) -> None:
        opened, error = begin(HALFWAY), kind("no")
        opened.next()
        assert opened.attempt.close(error) is False
        job = saved(store)
        assert (job.status, job.lease, job.processed_records) == ("failed", None, 20)
        assert job.error == f"{kind.__name__}: no"
        assert opened.attempt.result.reason is None
        assert opened.pieces.stop.reason is None
        (note,) = error.__notes__
        assert note.startswith("job 'j', run 2, batch 2: the checkpoint stands at 20 records")

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_what_is_no_exception_interrupts_it(
        self, begin: Open, store: MemoryJobStore, kind: type[BaseException]
    ) -> None:
        opened = begin(HALFWAY)
        assert opened.attempt.close(kind()) is False
        job = saved(store)
        assert (job.status, job.error, job.lease) == ("interrupted", None, None)
        assert opened.attempt.result.reason == kind.__name__

    def test_a_stop_that_ended_tries_is_dealt_with(self, begin: Open, store: MemoryJobStore) -> None:
        opened = begin(HALFWAY)
        opened.pieces.stop.request("enough")
        assert opened.attempt.close(StopRequested()) is True
        assert (saved(store).status, saved(store).error) == ("interrupted", None)
        assert opened.attempt.result.reason == "enough"

    def test_what_fails_at_the_end_is_raised(
        self, begin: Open, store: MemoryJobStore, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise ValueError("cannot publish")

        monkeypatch.setattr(target, "complete", fail)
        opened = begin(HALFWAY)
        opened.deliver(8)
        assert opened.attempt.next_batch() is None
        with pytest.raises(ValueError, match="cannot publish"):
            opened.attempt.close(None)
        assert (saved(store).status, saved(store).error) == ("failed", "ValueError: cannot publish")
        assert opened.events[-1] == SyncFinished(result=opened.attempt.result)

    def test_ctrl_c_is_raised_in_the_end(self, begin: Open, store: MemoryJobStore) -> None:
        opened = begin(HALFWAY)
        opened.pieces.stop.request("SIGINT")
        opened.pieces.stop.interrupt = True
        with pytest.raises(KeyboardInterrupt):
            opened.attempt.close(None)
        assert (saved(store).status, opened.attempt.result.reason) == ("interrupted", "SIGINT")

    def test_but_not_twice(self, begin: Open) -> None:
        opened = begin(HALFWAY)
        opened.pieces.stop.interrupt = True
        assert opened.attempt.close(KeyboardInterrupt()) is False

    def test_a_zombie_saves_nothing_and_gives_nothing_back(
        self, begin: Open, store: MemoryJobStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        opened = begin(HALFWAY)
        successor = store.acquire("j", owner="other", ttl=60, replacing=opened.keeper.lease.fencing_token)
        before, error = saved(store), LeaseLostError("j", 7)
        assert opened.attempt.close(error) is False
        assert saved(store) == before
        assert before.lease == successor
        assert [record.getMessage() for record in caplog.records] == [str(error)]
        assert not hasattr(error, "__notes__")

    def test_one_that_had_not_begun_saves_and_tells_nothing(
        self, prepare: Open, store: MemoryJobStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        opened = prepare(HALFWAY)
        with caplog.at_level(logging.INFO, "resumable_sync"):
            assert opened.attempt.close(ValueError("no")) is False
        assert saved(store) == HALFWAY
        assert (opened.events, caplog.records) == ([], [])
        result = opened.attempt.result
        assert (result.status, result.guarantee) == ("failed", Guarantee.AT_LEAST_ONCE)

    def test_nor_does_one_that_was_stopped_before(self, prepare: Open, store: MemoryJobStore) -> None:
        opened = prepare(attrs.evolve(HALFWAY, status=JobStatus.INTERRUPTED))
        assert opened.attempt.close(SystemExit(1)) is False
        assert opened.attempt.result.reason == "SystemExit"


class Unsaved(MemoryJobStore):
    """A store that fails to save how an attempt ended."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None

    @override
    def save(self, job: Job, lease: Lease) -> Lease:
        if self.error is not None and job.status is not JobStatus.RUNNING:
            raise self.error
        return super().save(job, lease)


class TestUnsavedEnd:
    """How it ended cannot be saved; the next start finds out."""

    @pytest.fixture
    def store(self) -> Unsaved:
        return Unsaved()

    def test_the_first_error_is_the_one_to_see(
        self, begin: Open, store: Unsaved, caplog: pytest.LogCaptureFixture
    ) -> None:
        opened = begin(HALFWAY)
        store.error = LookupError("full")
        assert opened.attempt.close(ValueError("no")) is False
        assert saved(store).status == "running"
        assert "job 'j': how it ended could not be saved: LookupError: full" in caplog.text
        assert saved(store).lease is None

    def test_but_a_lost_lease_is_why_anything_failed(self, begin: Open, store: Unsaved) -> None:
        opened = begin(HALFWAY)
        store.error, failure = LeaseLostError("j", 7), ValueError("no")
        with pytest.raises(LeaseLostError) as caught:
            opened.attempt.close(failure)
        assert caught.value is store.error
        assert caught.value.__cause__ is failure

    def test_an_interrupt_stays_one(self, begin: Open, store: Unsaved) -> None:
        opened = begin(HALFWAY)
        store.error = LeaseLostError("j", 7)
        assert opened.attempt.close(SystemExit(1)) is False

    def test_a_stop_has_no_result_then(self, begin: Open, store: Unsaved) -> None:
        opened = begin(HALFWAY)
        store.error, stopped = LookupError("full"), StopRequested()
        with pytest.raises(LookupError) as caught:
            opened.attempt.close(stopped)
        assert caught.value.__cause__ is stopped
        (note,) = caught.value.__notes__
        assert note.startswith("job 'j', run 2: the checkpoint stands at 20 records")

    def test_except_that_of_ctrl_c(self, begin: Open, store: Unsaved) -> None:
        opened = begin(HALFWAY)
        opened.pieces.stop.interrupt = True
        store.error = LookupError("full")
        with pytest.raises(KeyboardInterrupt):
            opened.attempt.close(StopRequested())

    def test_a_commit_in_doubt_is_settled_first(
        self, begin: Open, store: Unsaved, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = begin(HALFWAY)
        order: list[str] = []
        monkeypatch.setattr(opened.attempt._checkpoints, "settle", lambda: order.append("settle"))
        save = store.save

        def watched(job: Job, lease: Lease) -> Lease:
            order.append("save")
            return save(job, lease)

        monkeypatch.setattr(store, "save", watched)
        opened.attempt.close(ValueError("no"))
        assert order == ["settle", "save"]


def test_a_changed_job_is_what_attrs_would_make_of_it() -> None:
    job = Job(id="j", run=2, cursor=[1])
    new = changed(job, cursor=[2], processed_records=5)
    assert new == attrs.evolve(job, cursor=[2], processed_records=5)
    assert job == Job(id="j", run=2, cursor=[1])
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        new.run = 3  # type: ignore[misc]


def test_a_job_that_was_saved_has_the_fields_of_a_job_and_no_others() -> None:
    result = run_full_sync("j", Numbers(10), Target(), store=MemoryJobStore())
    assert list(vars(result.job)) == [field.name for field in attrs.fields(Job)]
