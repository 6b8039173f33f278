"""Moving the checkpoint where a commit is lost or interrupted: done once, or found out."""

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import attrs
import pytest
from sqlalchemy import create_engine, text

from doubles import FAST, Numbers, Picky, delivered, saved
from resumable_sync import ConfigurationError, FullSync, Job, JobStatus, LeaseLostError, StoreTransaction, run_full_sync
from resumable_sync._attempts import checkpoint as module
from resumable_sync._attempts.checkpoint import Checkpoints
from resumable_sync._attempts.stop import Stop
from resumable_sync._lease import LeaseKeeper
from resumable_sync._retry import Retrier
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import Fault, FaultyStore, Raise, lose_answer

RUN_ID = "5f6c1f9e-5a0e-4d57-9a0b-0c4f3c1d2e3f"
BEFORE = Job(id="j", status=JobStatus.RUNNING, run=1, run_id=RUN_ID, cursor=[10], processed_records=10)
AFTER = attrs.evolve(BEFORE, cursor=[20], processed_records=20, processed_batches=2)
INTERRUPT = Raise(KeyboardInterrupt)

Open = Callable[[Any], Checkpoints]


@pytest.fixture
def store(sqlite_url: str) -> Iterator[SQLJobStore]:
    with SQLJobStore(sqlite_url) as made:
        yield made


@pytest.fixture
def open_checkpoints() -> Open:
    """Acquires the lease, and gives the checkpoints of a job that was saved."""

    def make(store: Any) -> Checkpoints:
        stop = Stop(None, None)
        keeper = LeaseKeeper(store, store.acquire("j", owner="me", ttl=60), 60, stop)
        retrier = Retrier(FAST, stop.wait, lambda *_: None)
        checkpoints = Checkpoints(store, keeper, BEFORE, retrier=retrier, patient=retrier, stop=stop)
        assert checkpoints.seconds == 0.0
        checkpoints.save(BEFORE)
        return checkpoints

    return make


def move(_transaction: StoreTransaction) -> Job:
    return AFTER


class Ticking:
    """A clock on which each look takes twice as long as the one before."""

    def __init__(self) -> None:
        self.now, self.step = 100.0, 0.5

    def monotonic(self) -> float:
        self.now, self.step = self.now + self.step, 2 * self.step
        return self.now


def test_how_long_the_store_took_is_told_and_not_the_sink(
    store: SQLJobStore, open_checkpoints: Open, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Ticking()
    monkeypatch.setattr(module, "time", clock)
    checkpoints = open_checkpoints(store)
    assert (checkpoints.seconds, clock.step) == (1.0, 2.0)

    def work(transaction: StoreTransaction) -> Job:
        clock.now += 1_000
        return move(transaction)

    checkpoints.transact("write", work)
    assert (checkpoints.seconds, clock.step) == (4.0, 8.0)
    engine = create_engine(sqlite_url)
    with engine.begin() as connection:
        checkpoints.enlist(AFTER, connection)
        assert (checkpoints.seconds, clock.step) == (16.0, 32.0)
    engine.dispose()


@pytest.mark.parametrize("committed", [False, True])
def test_an_interrupted_commit_is_in_doubt_until_it_is_settled(
    store: SQLJobStore, open_checkpoints: Open, *, committed: bool
) -> None:
    faults = [Fault("commit", 1, INTERRUPT, when="after" if committed else "before")]
    checkpoints = open_checkpoints(FaultyStore(store, faults))
    with pytest.raises(KeyboardInterrupt):
        checkpoints.transact("write", move)
    assert (checkpoints.job, checkpoints.tip) == (BEFORE, AFTER)
    assert checkpoints.confirm()  # nothing was given to `enlist`
    assert checkpoints.settle() is committed
    assert checkpoints.job == checkpoints.tip == (AFTER if committed else BEFORE)
    assert not checkpoints.settle()


@pytest.mark.parametrize(
    "other",
    [
        {"run": 2},
        {"run_id": RUN_ID.replace("5", "6")},
        {"status": JobStatus.FAILED},
        {"processed_records": 21},
        {"processed_batches": 3},
        {"dead_letters": 1},
        {"cursor": [21]},
    ],
)
@pytest.mark.parametrize("like", [BEFORE, AFTER])
def test_a_state_that_is_neither_the_one_before_nor_the_one_after_is_somebody_elses(
    store: SQLJobStore, open_checkpoints: Open, like: Job, other: dict[str, Any]
) -> None:
    faulty: Any = FaultyStore(store, [Fault("commit", 1, INTERRUPT)])
    checkpoints = open_checkpoints(faulty)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.transact("write", move)
    job = store.load("j")
    assert job is not None
    assert job.lease is not None
    store.save(attrs.evolve(like, **other), job.lease)
    with pytest.raises(LeaseLostError):
        checkpoints.settle()


@pytest.mark.parametrize("fault", [lose_answer("commit", 4), Fault("commit", 4, Raise(ConnectionError))])
def test_a_commit_of_which_the_answer_is_lost_is_done_once(sqlite_url: str, fault: Fault) -> None:
    engine = create_engine(sqlite_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (n INTEGER)"))
    with SQLJobStore(engine) as inner:
        store: Any = FaultyStore(inner, [fault])
        result = run_full_sync("j", Numbers(50), Picky(), store=store, batch_size=10, retry=FAST)
        assert (result.status, result.records, saved(inner).processed_records) == ("completed", 50, 50)
    assert delivered(engine) == list(range(50))
    engine.dispose()


def test_a_stop_is_honoured_though_the_answer_that_tells_of_it_is_lost(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (n INTEGER)"))
    with SQLJobStore(engine) as inner:
        store: Any = FaultyStore(inner, [lose_answer("commit", 4)])

        def ask() -> bool:
            if saved(inner).processed_records == 10:
                inner.request_stop("j")
            return False

        options: dict[str, Any] = {"batch_size": 10, "retry": FAST, "should_stop": ask}
        result = run_full_sync("j", Numbers(50), Picky(), store=store, **options)
        assert (result.status, result.reason, result.records) == ("interrupted", "a stop was requested", 20)
    assert delivered(engine) == list(range(20))
    engine.dispose()


class LateBlock:
    """A block that an interrupt strikes before it has begun to end; then it ends, or fails to."""

    def __init__(self, inner: Any, failure: Exception | None) -> None:
        self.inner = inner
        self.failure = failure
        self.exits: list[tuple[Any, ...]] = []

    def __enter__(self) -> StoreTransaction:
        transaction: StoreTransaction = self.inner.__enter__()
        return transaction

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.exits.append((kind, error, traceback))
        if len(self.exits) == 1:
            raise error or KeyboardInterrupt
        self.inner.__exit__(kind, error, traceback)
        if self.failure is not None:
            raise self.failure


@pytest.mark.parametrize("failure", [None, OSError("disk full")])
@pytest.mark.parametrize("at_work", [False, True])
def test_an_interrupt_leaves_no_transaction_open(
    store: SQLJobStore,
    open_checkpoints: Open,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception | None,
    *,
    at_work: bool,
) -> None:
    checkpoints = open_checkpoints(store)
    block = LateBlock(store.transaction(), failure)
    monkeypatch.setattr(store, "transaction", lambda: block)

    def work(transaction: StoreTransaction) -> Job:
        if at_work:
            raise KeyboardInterrupt
        return move(transaction)

    with pytest.raises(KeyboardInterrupt) as caught:
        checkpoints.transact("write", work)
    assert len(block.exits) == 2
    kind, error, traceback = block.exits[-1]
    assert (kind, error) == (KeyboardInterrupt, caught.value)
    assert traceback is not None
    monkeypatch.undo()
    assert saved(store).processed_records == 10
    assert not checkpoints.settle()
    checkpoints.save(AFTER)  # nothing holds the database's lock


def test_an_error_ends_its_block_once(
    store: SQLJobStore, open_checkpoints: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = open_checkpoints(store)
    ends: list[object] = []
    block: Any = store.transaction()
    end = block.__exit__

    def ended(_: object, *told: Any) -> None:
        ends.append(told[0])
        end(*told)

    monkeypatch.setattr(type(block), "__exit__", ended)
    monkeypatch.setattr(store, "transaction", lambda: block)

    def fail(_: StoreTransaction) -> Job:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        checkpoints.transact("write", fail)
    assert ends == [ValueError]


def test_what_was_enlisted_is_confirmed_when_its_transaction_has_committed(
    store: SQLJobStore, open_checkpoints: Open, sqlite_url: str
) -> None:
    checkpoints = open_checkpoints(store)
    engine = create_engine(sqlite_url)
    with engine.begin() as connection:
        checkpoints.enlist(AFTER, connection)
        assert not checkpoints.confirm()
        assert (checkpoints.job, checkpoints.tip) == (BEFORE, AFTER)
        with pytest.raises(ConfigurationError, match="still open"):
            checkpoints.save(AFTER)
    assert checkpoints.confirm()
    assert checkpoints.job == AFTER
    checkpoints.save(AFTER)
    engine.dispose()


def test_a_batch_may_be_committed_twice_in_its_transaction_and_in_no_other(store: SQLJobStore, sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    with FullSync("j", Numbers(20), store=store, batch_size=10) as sync:
        for batch in sync:
            with engine.begin() as connection:
                sync.commit(batch, connection)
                sync.commit(batch, connection)
                with (
                    engine.connect() as other,
                    other.begin(),
                    pytest.raises(ConfigurationError, match="before"),
                ):
                    sync.commit(batch, other)
    assert (sync.result.status, sync.result.records) == ("completed", 20)
    engine.dispose()
