"""The history of a run: what is sampled, how often, and that the sync does not notice."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, event
from typing_extensions import override

from doubles import FAST, Numbers, Target, saved
from resumable_sync import (
    Batch,
    BatchCommitted,
    FullSync,
    Guarantee,
    History,
    HistoryStore,
    Job,
    JobStatus,
    Lease,
    LeaseLostError,
    MemoryJobStore,
    Sample,
    StoreError,
    SyncResult,
    TransientError,
    reset_job,
    run_full_sync,
    transactional,
)
from resumable_sync._attempts import recorder as _recorder
from resumable_sync._attempts.options import make_options
from resumable_sync._attempts.pieces import Pieces, put_together
from resumable_sync._attempts.recorder import Recorder, recorder_of
from resumable_sync._history import MAX_SAMPLES, thinned
from resumable_sync._lease import LeaseKeeper
from resumable_sync.stores.sql import SQLJobStore

RUN_ID, OTHER_ID = "0a1b2c3d-0000-4000-8000-0123456789ab", "0a1b2c3d-0000-4000-8000-0123456789ac"
START = datetime(2026, 11, 29, tzinfo=UTC)
SUMS = ("records", "batches", "read_seconds", "write_seconds", "commit_seconds", "failed_tries")


def sample(attempt: int, start: float, seconds: float = 1.0, **fields: Any) -> Sample:
    facts: dict[str, Any] = {"records": 10, "batches": 1, "read_seconds": 0.25, "write_seconds": 0.5}
    facts |= {"commit_seconds": 0.125, "processed_records": 10, **fields}
    return Sample(attempt=attempt, started_at=START + timedelta(seconds=start), seconds=seconds, **facts)


def sums(samples: Any) -> list[float]:
    return [sum(getattr(one, field) for one in samples) for field in SUMS]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from([0, 0, 0, 1]), st.integers(1, 64)), max_size=60), st.integers(20, 40))
def test_thinning_loses_nothing(steps: list[tuple[int, int]], limit: int) -> None:
    samples: list[Sample] = []
    attempt, now = 1, 0.0
    for died, quarters in steps:
        attempt += died
        samples.append(sample(attempt, now, quarters / 4, processed_records=len(samples)))
        now += quarters / 4
    attempts = list(dict.fromkeys(one.attempt for one in samples))
    kept = thinned(samples, limit)
    assert len(kept) <= limit
    if len(attempts) <= limit:
        assert sums(kept) == sums(samples)
        assert list(dict.fromkeys(one.attempt for one in kept)) == attempts
    assert [one.started_at for one in kept] == sorted(one.started_at for one in kept)


class TestThinning:
    def test_two_stretches_side_by_side_make_one(self) -> None:
        both = sample(1, 0, processed_records=10) + sample(1, 1.5, 0.5, processed_records=20, failed_tries=3)
        assert both == sample(
            1, 0, 2.0, records=20, batches=2, read_seconds=0.5, write_seconds=1.0, commit_seconds=0.25,
            failed_tries=3, processed_records=20,
        )  # fmt: skip
        assert both.ended_at == START + timedelta(seconds=2)

    def test_few_samples_stay_as_they_are(self) -> None:
        samples = [sample(1, number) for number in range(5)]
        assert thinned(samples, 5) == tuple(samples)
        assert thinned([]) == ()

    @pytest.mark.parametrize(
        ("taken", "limit", "kept"),
        [
            ([(1, 1), (1, 1), (1, 1)], 2, [(1, 2), (1, 1)]),  # the older pair
            ([(1, 10), (1, 1), (1, 1)], 2, [(1, 10), (1, 2)]),  # the shorter pair
            ([(1, 1), (1, 1), (2, 1)], 2, [(1, 2), (2, 1)]),
            ([(1, 1), (2, 1), (2, 1)], 2, [(1, 1), (2, 2)]),
            ([(1, 1), (1, 1), (2, 1), (3, 1)], 2, [(2, 1), (3, 1)]),
            ([(1, 1)] * 4, 1, [(1, 4)]),
            ([(1, 1), (1, 1), (1, 1), (1, 1), (1, 1), (1, 4)], 3, [(1, 2), (1, 3), (1, 4)]),
        ],
    )
    def test_which_pair_becomes_one(
        self, taken: list[tuple[int, int]], limit: int, kept: list[tuple[int, int]]
    ) -> None:
        now, samples = 0, []
        for attempt, seconds in taken:
            samples.append(sample(attempt, now, seconds))
            now += seconds
        assert [(one.attempt, one.seconds) for one in thinned(samples, limit)] == kept

    def test_old_samples_become_the_longer_ones_and_none_too_long(self) -> None:
        kept: tuple[Sample, ...] = ()
        for second in range(5_000):
            kept = thinned([*kept, sample(1, second)], 100)
        lengths = [one.seconds for one in kept]
        assert sum(lengths) == 5_000
        assert max(lengths) == max(lengths[:50]) <= 150
        assert sum(lengths[-20:]) < sum(lengths[:20]) / 3

    def test_with_more_attempts_than_samples_the_oldest_go(self) -> None:
        assert [one.attempt for one in thinned([sample(number, number) for number in range(9)], 4)] == [5, 6, 7, 8]


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


class Counting(MemoryJobStore):
    """Counts what it is asked for, and fails when told."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[History | None] = []
        self.failure: Exception | None = None

    @override
    def keep_history(self, history: History | None, lease: Lease) -> None:
        self.kept.append(history)
        if self.failure is not None:
            raise self.failure
        super().keep_history(history, lease)


@attrs.frozen
class Setting:
    store: Counting
    clock: Clock
    pieces: Pieces
    recorder: Recorder

    def batch(self, after: float, job: Job, records: int = 10) -> None:
        self.clock.now += after
        self.recorder.committed(job, records, 0.25, 0.5, 0.125)

    def result(self, job: Job, reason: str | None = None) -> SyncResult:
        return SyncResult(
            job=job, action="new", status=job.status, records=0, batches=0, seconds=1.0, reason=reason,
            guarantee=Guarantee.EXACTLY_ONCE,
        )  # fmt: skip


JOB = Job(id="j", status=JobStatus.RUNNING, run=4, attempt=2, processed_records=70)


@pytest.fixture
def setting() -> Setting:
    store, clock = Counting(), Clock()
    pieces = attrs.evolve(put_together("j", Numbers(10), Target(), store, make_options("j", {})), format="a form")
    keeper = LeaseKeeper(store, store.acquire("j", owner="o", ttl=60.0), 60.0, pieces.stop)
    recorder = recorder_of(pieces, keeper, RUN_ID, clock)
    assert recorder is not None
    return Setting(store, clock, pieces, recorder)


class TestSampling:
    def test_a_sample_is_the_sum_of_the_batches_of_a_second(self, setting: Setting) -> None:
        for _ in range(3):
            setting.batch(0.4, JOB)
        (history,) = setting.store.kept
        assert history == setting.store.history("j")
        assert history is not None
        assert (history.run_id, history.guarantee, history.format) == (RUN_ID, Guarantee.AT_LEAST_ONCE, "a form")
        (one,) = history.samples
        assert attrs.evolve(one, started_at=START) == sample(
            2, 0, one.seconds, records=30, batches=3, read_seconds=0.75, write_seconds=1.5, commit_seconds=0.375,
            processed_records=70,
        )  # fmt: skip
        assert one.seconds == pytest.approx(1.2)
        assert abs((one.started_at - datetime.now(UTC)).total_seconds()) < 60

    def test_samples_follow_each_other_without_a_gap(self, setting: Setting) -> None:
        for _ in range(20):
            setting.batch(0.5, JOB)
        history = setting.store.kept[-1]
        assert history is not None
        assert len(history.samples) == 10
        assert sums(history.samples) == pytest.approx([200, 20, 20 * 0.25, 20 * 0.5, 20 * 0.125, 0])
        for one, other in zip(history.samples, history.samples[1:], strict=False):
            assert abs((other.started_at - one.ended_at).total_seconds()) < 0.001

    def test_they_become_fewer_the_longer_an_attempt_lasts(self, setting: Setting) -> None:
        for _ in range(100_000):
            setting.batch(0.5, JOB)
        assert 300 < len(setting.store.kept) < 100 + 100 * 7  # one a second, then a hundred for each e-fold of its age
        history = setting.store.kept[-1]
        assert history is not None
        assert len(history.samples) == MAX_SAMPLES
        assert sum(one.records for one in history.samples) == pytest.approx(1_000_000, rel=0.01)

    def test_a_long_batch_is_one_sample(self, setting: Setting) -> None:
        setting.batch(30.0, JOB)
        history = setting.store.kept[-1]
        assert history is not None
        assert [one.seconds for one in history.samples] == [30.0]

    def test_the_end_brings_what_is_left_and_why_it_stopped(self, setting: Setting) -> None:
        setting.batch(0.1, JOB)
        setting.recorder.close(setting.result(JOB, "max_records=10 reached"))
        (history,) = setting.store.kept
        assert history is not None
        assert (history.samples[0].batches, history.stops) == (1, {2: "max_records=10 reached"})
        assert history.guarantee is Guarantee.EXACTLY_ONCE

    def test_an_end_that_brings_nothing_writes_nothing(self, setting: Setting) -> None:
        setting.recorder.close(setting.result(JOB))
        assert setting.store.kept == []

    def test_failed_tries_are_counted_once(self, setting: Setting) -> None:
        for number in range(3):
            setting.pieces.observers.try_failed("j", "write", 1, None, ValueError("no"))
            setting.batch(1.0, JOB)
            history = setting.store.kept[-1]
            assert history is not None
            assert [one.failed_tries for one in history.samples] == [1] * (number + 1)

    def test_the_last_hundred_stops_are_kept(self, setting: Setting) -> None:
        stops = dict.fromkeys(range(1, 101), "x")
        kept = History(run_id=RUN_ID, guarantee=Guarantee.EXACTLY_ONCE, stops=stops)
        setting.store._histories["j"] = kept
        setting.recorder.close(setting.result(attrs.evolve(JOB, attempt=101), "y"))
        history = setting.store.kept[-1]
        assert history is not None
        assert list(history.stops.items()) == [*list(stops.items())[1:], (101, "y")]

    @pytest.mark.parametrize(("run_id", "samples"), [(RUN_ID, 2), (OTHER_ID, 1)])
    def test_it_goes_on_with_what_its_run_has(self, setting: Setting, run_id: str, samples: int) -> None:
        earlier = History(run_id=run_id, guarantee=Guarantee.EXACTLY_ONCE, samples=(sample(1, 0),))
        setting.store._histories["j"] = earlier
        setting.batch(1.0, JOB)
        history = setting.store.kept[-1]
        assert history is not None
        assert len(history.samples) == samples

    @pytest.mark.parametrize("lost", [False, True])
    def test_a_failure_is_logged_once_and_ends_it(
        self, setting: Setting, caplog: pytest.LogCaptureFixture, *, lost: bool
    ) -> None:
        setting.store.failure = LeaseLostError("j", 1) if lost else StoreError("disk full")
        for _ in range(5):
            setting.batch(1.0, JOB)
        setting.recorder.close(setting.result(JOB))
        assert len(setting.store.kept) == 1
        told = "job 'j': its history is not kept for the rest of this attempt: StoreError: disk full"
        assert (told in caplog.text) is not lost
        assert len(caplog.records) == (0 if lost else 1)

    def test_a_store_without_history_is_left_alone(self, setting: Setting) -> None:
        class Plain:
            acquire = load = jobs = renew = save = release = request_stop = delete = None

        pieces = attrs.evolve(setting.pieces, store=Plain())  # type: ignore[arg-type]
        assert recorder_of(pieces, setting.recorder._keeper, RUN_ID, Clock()) is None


def history_of(store: HistoryStore) -> History:
    history = store.history("j")
    assert history is not None
    return history


class TestSyncs:
    @pytest.fixture(autouse=True)
    def one_sample_for_each_attempt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However slow the machine is."""
        monkeypatch.setattr(_recorder, "MIN_SECONDS", 3_600.0)

    def test_attempts_leave_one_history_and_a_new_run_its_own(self, store: MemoryJobStore) -> None:
        run_full_sync("j", Numbers(50), Target(), store=store, batch_size=10, max_records=20)
        run_full_sync("j", Numbers(50), Target(), store=store, batch_size=10)
        history = history_of(store)
        assert [(one.attempt, one.records, one.batches) for one in history.samples] == [(1, 20, 2), (2, 30, 3)]
        assert [one.processed_records for one in history.samples] == [20, 50]
        assert (history.run_id, history.stops) == (saved(store).run_id, {1: "max_records=20 reached"})
        for one, attempt in zip(history.samples, store.attempts("j"), strict=True):
            assert attempt.ended_at is not None
            assert attempt.started_at - timedelta(minutes=1) < one.started_at < one.ended_at
            assert one.ended_at < attempt.ended_at + timedelta(minutes=1)
            parts = one.read_seconds, one.write_seconds, one.commit_seconds
            assert min(parts) >= 0 < sum(parts) <= one.seconds + 1e-6
        run_full_sync("j", Numbers(50), Target(), store=store, batch_size=50)
        history = history_of(store)
        assert (history.run_id, [one.records for one in history.samples]) == (saved(store).run_id, [50])
        assert history.stops == {}

    def test_a_reset_drops_it(self, store: MemoryJobStore) -> None:
        run_full_sync("j", Numbers(50), Target(), store=store, max_records=20)
        reset_job("j", store=store)
        assert store.history("j") is None
        assert len(store.attempts("j")) == 1

    def test_a_failed_attempt_and_its_tries_are_in_it(self, store: MemoryJobStore) -> None:
        def flaky(batch: Batch[int]) -> None:
            if batch.sequence == 2:
                raise TransientError("not now")

        with pytest.raises(TransientError):
            run_full_sync("j", Numbers(50), flaky, store=store, batch_size=10, retry=FAST)
        (one,) = history_of(store).samples
        assert (one.records, one.failed_tries) == (20, 5)

    def test_an_attempt_that_got_no_batch_leaves_none(self, store: MemoryJobStore) -> None:
        class Unprepared(Target):
            @override
            def begin(self, job: Job, connection: Any) -> None:
                raise OSError("no target")

        with pytest.raises(OSError, match="no target"):
            run_full_sync("j", Numbers(50), Unprepared(), store=store)
        assert (saved(store).status, store.history("j")) == ("failed", None)

    def test_a_history_that_cannot_be_kept_is_no_reason_to_fail(self, caplog: pytest.LogCaptureFixture) -> None:
        store = Counting()
        store.failure = StoreError("disk full")
        assert run_full_sync("j", Numbers(50), Target(), store=store).status == "completed"
        assert "its history is not kept for the rest of this attempt: StoreError: disk full" in caplog.text

    def test_the_time_of_a_loop_is_that_of_its_body(self, store: MemoryJobStore) -> None:
        told: list[Any] = []
        spent: list[float] = []
        with FullSync("j", Numbers(20), store=store, batch_size=10, observers=[told.append]) as sync:
            for _ in sync:
                begun = time.monotonic()
                sum(range(100_000))
                spent.append(time.monotonic() - begun)
        committed = [one for one in told if isinstance(one, BatchCommitted)]
        for one, seconds in zip(committed, spent, strict=True):
            assert one.write_seconds - one.commit_seconds >= seconds
        (whole,) = history_of(store).samples
        assert whole.write_seconds == pytest.approx(sum(both.write_seconds - both.commit_seconds for both in committed))
        assert whole.commit_seconds == pytest.approx(sum(both.commit_seconds for both in committed))
        assert all(both.commit_seconds > 0 for both in committed)

    def test_a_transaction_of_ones_own_says_what_held(self, sqlite_url: str) -> None:
        engine = create_engine(sqlite_url)
        with SQLJobStore(engine) as store:
            with FullSync("j", Numbers(30), store=store, batch_size=10) as sync:
                for batch in sync:
                    with engine.begin() as connection:
                        sync.commit(batch, connection)
            history = history_of(store)
        engine.dispose()
        assert (history.guarantee, [one.records for one in history.samples]) == (Guarantee.EXACTLY_ONCE, [30])

    def test_it_costs_no_statement_per_batch(self, sqlite_url: str) -> None:
        engine = create_engine(sqlite_url)
        statements: list[str] = []
        event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        with SQLJobStore(engine) as store:
            for records, batch_size in ((100, 50), (100, 1)):
                statements.clear()
                sink = transactional(lambda _, connection: None)
                run_full_sync("j", Numbers(records), sink, store=store, batch_size=batch_size)
                about = [one for one in statements if "resumable_sync_history" in one and "CREATE" not in one]
                assert len(about) <= 4, about
        engine.dispose()
