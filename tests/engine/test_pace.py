"""How fast a sync goes, how large its batches are and when it stops, by a clock that only the tests move."""

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from sqlalchemy import Connection, Engine, text
from typing_extensions import override

from doubles import Numbers, Target, fail_at, saved
from resumable_sync import (
    Batch,
    FullSync,
    Job,
    JobStatus,
    Lease,
    MemoryJobStore,
    OffsetConnector,
    Page,
    SingleWorkerJobStore,
    Throttle,
    TransientError,
    plan_full_sync,
    run_full_sync,
    transactional,
)
from resumable_sync._attempts import reader
from resumable_sync._attempts import sizer as sizing
from resumable_sync._attempts.reader import read_pages
from resumable_sync._attempts.sizer import BatchSizer
from resumable_sync._retry import Retrier, Retry
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.stores.sql import SQLJobStore


class Clock:
    """Stands for the module `time`: a sleep only moves it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in ("_attempts.attempt", "_attempts.stop", "_engine", "_attempts.report"):
        monkeypatch.setattr(f"resumable_sync.{module}.time", made)
    return made


class TestThrottle:
    def test_batches_begin_when_the_rate_lets_them(self, store: MemoryJobStore, clock: Clock, prefetch: int) -> None:
        begun: list[float] = []

        def write(batch: Batch[int]) -> None:
            begun.append(clock.now - 1_000)
            clock.now += 0.5  # what the sink takes is not added to the wait

        throttle = Throttle(100, clock=clock.monotonic)
        for _ in range(2):
            run_full_sync(
                "j", Numbers(450), Target(write), store=store, batch_size=100, throttle=throttle, prefetch=prefetch
            )
        # The second run waits for the last batch of the first one: the rate is that of the throttle, not of a sync.
        assert begun == pytest.approx([0, 1, 2, 3, 4, 4.5, 5.5, 6.5, 7.5, 8.5])

    def test_a_slow_sink_is_not_slowed_down(self, store: MemoryJobStore, clock: Clock) -> None:
        def write(batch: Batch[int]) -> None:
            clock.now += 3

        run_full_sync(
            "j",
            Numbers(500),
            Target(write),
            store=store,
            batch_size=100,
            throttle=Throttle(100, clock=clock.monotonic),
        )
        assert clock.now == 1_015

    def test_a_stop_ends_the_wait_and_the_batch_does_not_count(self, store: MemoryJobStore, clock: Clock) -> None:
        throttle = Throttle(1, clock=clock.monotonic)
        target = Target()
        options: Any = {"store": store, "batch_size": 100, "throttle": throttle}
        result = run_full_sync("j", Numbers(300), target, **options, max_runtime=10)
        assert (result.status, result.reason, len(target.records)) == ("interrupted", "max_runtime=10 reached", 100)
        assert clock.now == pytest.approx(1_010, abs=0.2)
        assert throttle.reserve(1) == pytest.approx(90, abs=0.2)

    def test_a_batch_that_was_not_delivered_does_not_count(self, store: MemoryJobStore, clock: Clock) -> None:
        throttle = Throttle(1, clock=clock.monotonic)
        options: Any = {"store": store, "batch_size": 100, "throttle": throttle}
        with pytest.raises(ValueError, match="no"):
            run_full_sync("j", Numbers(300), Target(fail_at(0, ValueError("no"))), **options)
        with FullSync("j", Numbers(300), **options) as sync:
            next(iter(sync))
        assert (sync.result.status, clock.now) == ("interrupted", 1_000)
        with FullSync("j", Numbers(300), **options) as sync:
            sync.commit(next(iter(sync)))
        assert (saved(store).processed_records, throttle.reserve(1)) == (100, 100)

    def test_threads_share_a_rate(self, clock: Clock) -> None:
        throttle = Throttle(1e9)  # as good as none: what counts is that all are counted by one
        reserved: list[int] = []

        @attrs.define(eq=False)
        class Counting(Throttle):
            @override
            def reserve(self, records: int) -> float:
                reserved.append(records)
                return super().reserve(records)

        throttle = Counting(1e9)
        stores = [MemoryJobStore() for _ in range(4)]
        threads = [
            threading.Thread(
                target=run_full_sync,
                args=("j", Numbers(1_000), Target()),
                kwargs={"store": store, "batch_size": 100, "throttle": throttle},
            )
            for store in stores
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(reserved) == 4_000
        assert all(saved(store).status == "completed" for store in stores)


class TestBudgets:
    def test_max_runtime_begins_when_the_block_is_entered(self, store: MemoryJobStore, clock: Clock) -> None:
        sync: FullSync[int] = FullSync("j", Numbers(500), store=store, batch_size=100, max_runtime=10)
        clock.now += 3_600
        with sync:
            for _ in sync:
                clock.now += 4
        assert (sync.result.status, sync.result.reason) == ("interrupted", "max_runtime=10 reached")
        # The batch in hand is finished: it was delivered when the loop asked for the next one.
        assert (saved(store).processed_records, sync.result.seconds) == (300, 12)

    def test_max_runtime_ends_the_wait_for_a_held_job(self, store: MemoryJobStore, clock: Clock) -> None:
        store.acquire("j", owner="other", ttl=60)
        result = run_full_sync("j", Numbers(10), Target(), store=store, if_held="wait", max_runtime=5)
        assert (result.action, result.records) == ("held", 0)
        assert "max_runtime=5 reached" in (result.reason or "")

    def test_max_runtime_ends_the_wait_for_another_try(self, store: MemoryJobStore, clock: Clock) -> None:
        target = Target(fail_at(1, TransientError("busy", retry_after=30), times=9))
        result = run_full_sync("j", Numbers(300), target, store=store, batch_size=100, max_runtime=5)
        assert (result.status, saved(store).cursor, saved(store).error) == ("interrupted", [100], None)

    def test_max_records_counts_this_attempt(self, store: MemoryJobStore, prefetch: int) -> None:
        target = Target()
        options: Any = {"store": store, "batch_size": 100, "max_records": 250, "prefetch": prefetch}
        results = [run_full_sync("j", Numbers(1_000), target, **options) for _ in range(4)]
        assert [result.records for result in results] == [300, 300, 300, 100]
        assert [result.status for result in results] == ["interrupted"] * 3 + ["completed"]
        assert results[0].reason == "max_records=250 reached"
        assert target.records == list(range(1_000))

    def test_max_records_counts_batches_of_a_loop_of_ones_own(self, store: MemoryJobStore) -> None:
        for expected in (200, 400):
            with FullSync("j", Numbers(1_000), store=store, batch_size=100, max_records=150) as sync:
                for _ in sync:
                    pass
            assert (sync.result.status, sync.result.records, saved(store).processed_records) == (
                "interrupted",
                200,
                expected,
            )
        with FullSync("j", Numbers(1_000), store=store, batch_size=100, max_records=150) as sync:
            for batch in sync:
                sync.commit(batch)
        assert saved(store).processed_records == 600

    def test_max_records_counts_batches_of_ones_own_transactions(self, engine: Engine) -> None:
        with SQLJobStore(engine) as store:
            with FullSync("j", Numbers(500), store=store, batch_size=100, max_records=200) as sync:
                for batch in sync:
                    with engine.begin() as connection:
                        connection.execute(text("INSERT INTO numbers VALUES (:n)"), [{"n": n} for n in batch.records])
                        sync.commit(batch, connection)
            assert (sync.result.records, sync.result.reason) == (200, "max_records=200 reached")
            assert saved(store).processed_records == 200

    def test_a_budget_that_ends_with_the_source_is_completed_by_the_next_call(self, store: MemoryJobStore) -> None:
        options: Any = {"store": store, "batch_size": 100, "max_records": 300}
        assert run_full_sync("j", Numbers(300), Target(), **options).status == "interrupted"
        result = run_full_sync("j", Numbers(300), Target(), **options)
        assert (result.action, result.status, result.records) == ("resume", "completed", 0)


@pytest.fixture
def growing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing takes as long as a batch should, whatever else the machine does."""
    monkeypatch.setattr(sizing, "TARGET_SECONDS", 1e9)
    monkeypatch.setattr(reader, "REOPENING_SHARE", 1e9)


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizer wants something else after every batch."""
    chance = random.Random(0)

    def took(self: BatchSizer, *_: Any) -> None:
        self.size = chance.choice([1, 2, 3, 7, 50, 400])

    monkeypatch.setattr(BatchSizer, "took", took)
    monkeypatch.setattr(reader, "REOPENING_SHARE", 1e9)
    monkeypatch.setattr(sizing, "START", 60)
    monkeypatch.setattr(sizing, "LEAST", 1)


class TestAuto:
    def test_no_change_of_the_size_loses_or_repeats_a_record(
        self, store: MemoryJobStore, any_size: None, prefetch: int
    ) -> None:
        target = Target()
        result = run_full_sync("j", Numbers(5_000), target, store=store, batch_size="auto", prefetch=prefetch)
        assert target.records == list(range(5_000))
        assert (result.status, result.job.processed_records) == ("completed", 5_000)
        assert len({len(batch) for batch in target.batches}) > 2
        assert [batch.previous_cursor for batch in target.batches[1:]] == [b.cursor for b in target.batches[:-1]]
        assert len({batch.key for batch in target.batches}) == len(target.batches)

    @pytest.mark.parametrize(("paging", "ahead"), [("keyset", 2), ("stream", 0), ("stream", 2), ("offset", 1)])
    def test_nor_one_of_a_database(self, engine: Engine, any_size: None, ahead: int, paging: Any) -> None:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE source (id INTEGER PRIMARY KEY)"))
            connection.execute(text("INSERT INTO source VALUES (:n)"), [{"n": n} for n in range(1, 1_001)])
        got: list[int] = []
        sizes: set[int] = set()

        @transactional
        def write(batch: Batch[Any], connection: Connection) -> None:
            got.extend(row[0] for row in batch.records)
            sizes.add(len(batch))

        with SQLJobStore(engine) as store:
            connector = SQLConnector(engine, "source", paging=paging)
            run_full_sync("j", connector, write, store=store, batch_size="auto", prefetch=ahead)
        assert got == list(range(1, 1_001))
        assert len(sizes) > 1

    def test_it_grows_and_the_job_remembers(self, store: MemoryJobStore, growing: None, prefetch: int) -> None:
        numbers, target = Numbers(100_000), Target()
        options: Any = {"store": store, "batch_size": "auto", "prefetch": prefetch}
        run_full_sync("j", numbers, target, **options, max_records=60_000)
        learned = saved(store).batch_size
        assert learned is not None
        assert learned >= 8_000
        sizes = [len(batch) for batch in target.batches]
        assert sizes[:3] == [1_000] * 3
        assert all(later in (size, 2 * size) for size, later in itertools.pairwise(sizes)), sizes
        # Reading went on where it was with the new size: hardly anything was read twice.
        assert sum(min(limit, 100_000 - offset) for offset, limit in numbers.asked) <= 60_000 + 16_000 * (prefetch + 3)
        count = len(target.batches)
        run_full_sync("j", numbers, target, **options)
        assert len(target.batches[count]) == learned
        assert target.records == list(range(100_000))

    def test_a_new_run_begins_with_what_was_learned(self, store: MemoryJobStore, growing: None) -> None:
        run_full_sync("j", Numbers(50_000), Target(), store=store, batch_size="auto")
        learned, target = saved(store).batch_size, Target()
        run_full_sync("j", Numbers(50_000), target, store=store, batch_size="auto")
        assert len(target.batches[0]) == learned

    def test_a_database_remembers_it(self, engine: Engine, growing: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sizing, "START", 100)
        sizes: list[int] = []

        @transactional
        def write(batch: Batch[int], connection: Connection) -> None:
            sizes.append(len(batch))

        with SQLJobStore(engine) as store:
            run_full_sync("j", Numbers(3_000), write, store=store, batch_size="auto", max_records=2_500)
            learned = saved(store).batch_size
        count = len(sizes)
        with SQLJobStore(engine) as store:
            run_full_sync("j", Numbers(6_000), write, store=store, batch_size="auto")
        assert learned is not None
        assert (sizes[0], sizes[count]) == (100, learned)
        assert learned > 100

    def test_a_given_size_changes_nothing_of_it(self, store: MemoryJobStore, growing: None) -> None:
        run_full_sync("j", Numbers(50_000), Target(), store=store, batch_size="auto")
        learned, target = saved(store).batch_size, Target()
        run_full_sync("j", Numbers(5_000), target, store=store, batch_size=700)
        assert (saved(store).batch_size, len(target.batches[0])) == (learned, 700)

    def test_deaths_without_progress_halve_it(self, store: MemoryJobStore, growing: None, prefetch: int) -> None:
        lease = store.acquire("j", owner="dead", ttl=60)
        job = Job(id="j", status=JobStatus.RUNNING, run=1, run_id="r", cursor=[100], processed_records=100)
        store.save(attrs.evolve(job, stalled_attempts=3, batch_size=8_000), lease)
        store.release(lease)
        target = Target()
        options: Any = {"store": store, "batch_size": "auto", "prefetch": prefetch}
        run_full_sync("j", Numbers(40_000), target, **options, max_records=10_000)
        assert [len(batch) for batch in target.batches[:4]] == [1_000, 2_000, 4_000, 4_000]
        assert saved(store).batch_size == 4_000
        run_full_sync("j", Numbers(40_000), target, **options)
        assert target.records == list(range(100, 40_000))

    def test_one_death_halves_it_too(self, store: MemoryJobStore, prefetch: int) -> None:
        lease = store.acquire("j", owner="dead", ttl=60)
        store.save(Job(id="j", status=JobStatus.RUNNING, run=1, run_id="r", stalled_attempts=1), lease)
        store.release(lease)
        target = Target()
        run_full_sync("j", Numbers(900), target, store=store, batch_size="auto", prefetch=prefetch)
        assert ([len(batch) for batch in target.batches], target.records) == ([500, 400], list(range(900)))

    def test_a_table_that_does_not_keep_it_starts_anew(self, growing: None) -> None:
        class Table(SingleWorkerJobStore):
            def __init__(self) -> None:
                self.rows: dict[str, Job] = {}

            @override
            def load(self, job_id: str) -> Job | None:
                return self.rows.get(job_id)

            @override
            def save(self, job: Job, lease: Lease) -> Lease:
                self.rows[job.id] = Job(id=job.id, status=job.status, processed_records=job.processed_records)
                return lease

        store, target = Table(), Target()
        options: Any = {"store": store, "batch_size": "auto"}
        run_full_sync("j", Numbers(30_000), target, **options, max_records=7_500)
        count, done = len(target.batches), len(target.records)
        plan = plan_full_sync("j", Numbers(30_000), Target(), **options)
        # Batches differ in size, so the count is the place, not a number of whole batches.
        assert (plan.action, plan.cursor, plan.processed_records) == ("resume", [done], done)
        result = run_full_sync("j", Numbers(30_000), target, **options)
        assert (result.action, len(target.batches[count])) == ("resume", 1_000)
        assert target.records == list(range(30_000))

    def test_a_loop_of_ones_own_has_it_too(self, store: MemoryJobStore, growing: None) -> None:
        got: list[int] = []
        with FullSync("j", Numbers(30_000), store=store, batch_size="auto") as sync:
            for batch in sync:
                got.extend(batch.records)
        assert got == list(range(30_000))
        assert (saved(store).batch_size or 0) >= 4_000


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, float, float]]:
    """What the sizer is told of each batch."""
    seen: list[tuple[int, int, float, float]] = []

    def took(self: BatchSizer, *facts: Any) -> None:
        seen.append(facts)

    monkeypatch.setattr(BatchSizer, "took", took)
    return seen


class TestMeasuring:
    def test_waiting_is_no_part_of_what_writing_takes(
        self, store: MemoryJobStore, clock: Clock, told: list[Any], prefetch: int
    ) -> None:
        failures = [TransientError("busy", retry_after=30)] * 3

        def write(batch: Batch[int]) -> None:
            clock.now += 2
            if batch.sequence == 1 and failures:
                raise failures.pop()

        run_full_sync(
            "j",
            Numbers(2_500),
            Target(write),
            store=store,
            batch_size="auto",
            prefetch=prefetch,
            throttle=Throttle(1, clock=clock.monotonic),
        )
        # A try that failed did something; the 30 seconds between tries and the throttle's 1,000 are only waiting.
        assert [facts[3] for facts in told] == pytest.approx([2, 8, 2], abs=1e-6)
        assert [facts[:2] for facts in told] == [(1_000, 1_000), (1_000, 1_000), (1_000, 500)]
        assert clock.now > 3_000

    def test_waiting_for_the_store_neither(
        self, clock: Clock, told: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = MemoryJobStore()
        save, failures = store.save, [TransientError("busy", retry_after=50)]

        def failing(job: Job, lease: Lease) -> Lease:
            if job.processed_batches == 2 and failures:
                raise failures.pop()
            return save(job, lease)

        monkeypatch.setattr(store, "save", failing)

        def write(batch: Batch[int]) -> None:
            clock.now += 2

        run_full_sync("j", Numbers(3_000), Target(write), store=store, batch_size="auto")
        assert [facts[3] for facts in told] == pytest.approx([2, 2, 2], abs=1e-6)
        assert clock.now == pytest.approx(1_056, abs=1e-6)

    def test_a_loop_of_ones_own_is_measured_by_what_it_does_with_a_batch(
        self, store: MemoryJobStore, clock: Clock, told: list[Any]
    ) -> None:
        with FullSync("j", Numbers(3_000), store=store, batch_size="auto") as sync:
            for batch in sync:
                clock.now += 3
                if batch.sequence == 1:
                    sync.commit(batch)
                    clock.now += 100  # after the commit it is the caller's own business
        assert [facts[3] for facts in told] == [3, 3, 3]


class Costly(OffsetConnector[int]):
    """Takes its time, on a clock of its own, to be opened and to read a record."""

    def __init__(self, total: int, clock: Clock, *, opening: float, per_record: float) -> None:
        self.total, self.clock = total, clock
        self.opening, self.per_record = opening, per_record
        self.opened: list[int] = []
        self.opened_at: list[float] = []

    @override
    def fetch(self, offset: int, limit: int) -> list[int]:
        records = list(range(offset, min(offset + limit, self.total)))
        self.clock.now += self.per_record * len(records)
        return records

    @override
    def read(self, cursor: Any, batch_size: int) -> Iterator[Page[int]]:
        self.opened.append(batch_size)
        self.opened_at.append(self.clock.now - 1_000)
        self.clock.now += self.opening
        return super().read(cursor, batch_size)


class TestReopening:
    def pages(self, connector: Costly, sizer: BatchSizer, retrier: Retrier | None = None) -> Iterator[Any]:
        quiet = Retrier(Retry(), lambda _: False, lambda *_: None)
        return read_pages(connector, None, sizer, retrier=retrier or quiet, clock=connector.clock.monotonic)

    def run(self, connector: Costly, change: Callable[[int, BatchSizer], None], wait: float = 0.0) -> list[Any]:
        sizer, got = BatchSizer(1_000), []
        for number, placed in enumerate(self.pages(connector, sizer)):
            got.append(placed)
            connector.clock.now += wait
            change(number, sizer)
        assert [record for placed in got for record in placed.page.records] == list(range(connector.total))
        return got

    def test_what_a_page_takes_is_measured_where_it_is_read(self) -> None:
        connector = Costly(5_000, Clock(), opening=0.0, per_record=0.001)
        got = self.run(connector, lambda *_: None, wait=100.0)
        assert [placed.seconds for placed in got] == pytest.approx([1.0] * 5)
        assert [placed.asked for placed in got] == [1_000] * 5

    def test_a_cheap_opening_follows_the_sizer_at_once(self) -> None:
        connector = Costly(20_000, Clock(), opening=0.0, per_record=0.001)

        def change(number: int, sizer: BatchSizer) -> None:
            if number == 2:
                sizer.size = 2_000

        got = self.run(connector, change)
        assert [placed.asked for placed in got[:5]] == [1_000, 1_000, 1_000, 2_000, 2_000]
        assert connector.opened == [1_000, 2_000]

    def test_a_costly_opening_waits_until_it_is_a_small_part(self) -> None:
        connector = Costly(100_000, Clock(), opening=5.0, per_record=0.001)

        def change(number: int, sizer: BatchSizer) -> None:
            sizer.size = 2_000 if number < 60 else 4_000

        got = self.run(connector, change)
        # Five seconds are a tenth of fifty; the second time, both openings count.
        assert connector.opened == [1_000, 2_000, 4_000]
        assert connector.opened_at == pytest.approx([0, 50, 100], abs=2.1)
        assert sorted(placed.asked for placed in got) == [placed.asked for placed in got]

    def test_a_size_that_goes_to_and_fro_does_not_open_a_stream_for_ever(self) -> None:
        connector = Costly(300_000, Clock(), opening=3.0, per_record=0.0001)

        def change(number: int, sizer: BatchSizer) -> None:
            sizer.size = 2_000 if sizer.size == 1_000 else 1_000

        self.run(connector, change)
        elapsed = connector.clock.now - 1_000
        assert connector.opening * (len(connector.opened) - 1) <= 0.1 * elapsed + 1e-6

    def test_a_failed_try_and_an_empty_page_are_told_apart(self) -> None:
        clock = Clock()

        class Odd:
            fingerprint = None
            failed = False

            def read(self, cursor: Any, batch_size: int) -> Iterator[Page[int]]:
                if cursor is None:
                    clock.now += 1
                    yield Page([], [1])
                    cursor = [1]
                if cursor == [1]:
                    clock.now += 2
                    if not self.failed:
                        self.failed = True
                        raise TransientError("busy")
                    yield Page([7], [2])

            def count(self) -> None:
                return None

        def pause(seconds: float) -> bool:
            clock.now += 1_000
            return False

        retrier = Retrier(Retry(wait_initial=0), pause, lambda *_: None)
        (placed,) = read_pages(Odd(), None, BatchSizer(), retrier=retrier, clock=clock.monotonic)
        # The empty page belongs to what the record took; the try that failed and the wait do not.
        assert placed.seconds == 3
