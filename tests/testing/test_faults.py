"""A wrapper changes nothing but what its faults say."""

import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typing_extensions import override

from resumable_sync import (
    Batch,
    CheckpointingSink,
    Connector,
    DeadLetterStore,
    DescribingConnector,
    Job,
    JobStore,
    LeaseLostError,
    MemoryJobStore,
    PreparingSink,
    SeekableConnector,
    Sink,
    SplittableConnector,
    TransactionalJobStore,
    TransientError,
    run_full_sync,
    transactional,
)
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import Fault, FaultyConnector, FaultySink, FaultyStore, Raise, lose_answer
from testing.tiny_parts import RECORDS, TinyCheckpointingSink, TinyConnector, TinyListSink, TinyPart
from testing.tiny_store import TinyStore

PROTOCOLS = (
    CheckpointingSink,
    Connector,
    DeadLetterStore,
    DescribingConnector,
    JobStore,
    PreparingSink,
    SeekableConnector,
    Sink,
    SplittableConnector,
    TransactionalJobStore,
)


def _as_python_3_12(instance: object, protocol: Any) -> bool:
    """Newer Pythons look at what stands in the classes, and ask no `__getattr__`."""
    missing = object()
    names = {
        name
        for base in protocol.__mro__
        if getattr(base, "_is_protocol", False)
        for name in (*vars(base), *inspect.get_annotations(base))
        if not name.startswith("_")
    }
    return all(inspect.getattr_static(instance, name, missing) is not missing for name in names)


def _write(batch: Batch[Any]) -> None:
    pass


def _write_in(batch: Batch[Any], connection: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("wrapper", "inner"),
    [
        (FaultyConnector, TinyConnector()),
        (FaultyConnector, TinyPart(0, 3)),
        (FaultySink, TinyListSink([])),
        (FaultySink, TinyCheckpointingSink({})),
        (FaultySink, _write),
        (FaultySink, transactional(_write_in)),
        (FaultyStore, TinyStore()),
        (FaultyStore, MemoryJobStore()),
        (FaultyStore, SQLJobStore("sqlite:///never-made.db")),
        (FaultyStore, FaultyStore(SQLJobStore("sqlite:///never-made.db"))),
    ],
    ids=lambda value: value.__name__ if hasattr(value, "__name__") else type(value).__name__,
)
def test_offers_what_it_wraps_and_no_more(wrapper: Any, inner: Any) -> None:
    wrapped = wrapper(inner)
    for protocol in PROTOCOLS:
        assert isinstance(wrapped, protocol) is isinstance(inner, protocol), protocol
        assert _as_python_3_12(wrapped, protocol) is _as_python_3_12(inner, protocol), protocol
    assert callable(wrapped) is callable(inner)
    for name in ("transactional", "idempotent", "fingerprint", "bugs", "nothing of the kind"):
        assert getattr(wrapped, name, None) == getattr(inner, name, None)
    assert isinstance(wrapped, wrapper)
    assert wrapped.wrapped is inner


def test_attributes_are_looked_up_when_asked_for() -> None:
    inner = TinyConnector()
    connector = FaultyConnector(inner)
    inner.fingerprint = "changed"
    assert connector.fingerprint == "changed"


def test_a_wrapper_pickles_and_counts_anew() -> None:
    connector = FaultyConnector(TinyConnector(), [Fault("count", 2, Raise(TransientError, ("busy",)))])
    assert connector.count() == 23
    copy = pickle.loads(pickle.dumps(connector))
    assert copy.count() == 23
    for one in (connector, copy):
        with pytest.raises(TransientError, match="busy"):
            one.count()
        assert one.count() == 23


def test_a_fault_strikes_at_its_page() -> None:
    connector = FaultyConnector(TinyConnector(), [Fault("page", 2, Raise(TransientError, ("busy",)), times=2)])
    first, seen = connector.read(None, 3), []
    seen.append(next(first))
    with pytest.raises(TransientError):
        next(first)
    with pytest.raises(TransientError):
        next(connector.read(seen[-1].cursor, 3))
    seen += connector.read(seen[-1].cursor, 3)
    assert [record for page in seen for record in page.records] == RECORDS


def test_closing_the_pages_closes_what_is_wrapped() -> None:
    closed = []

    class Closing(TinyPart):
        @override
        def read(self, cursor: Any, batch_size: int) -> Any:
            try:
                yield from super().read(cursor, batch_size)
            finally:
                closed.append(True)

    pages = FaultyConnector(Closing(0, 9)).read(None, 2)
    next(pages)
    pages.close()
    assert closed == [True]


def test_parts_have_the_faults_too() -> None:
    part = FaultyConnector(TinyConnector(), [Fault("count", 1, Raise(TransientError, ("busy",)))]).split(2)[0]
    with pytest.raises(TransientError):
        part.count()


def test_before_and_after() -> None:
    rows: list[Any] = []
    batch = _batch([1, 2])
    before = FaultySink(TinyListSink(rows), [Fault("write", 1, Raise(ConnectionError))])
    with pytest.raises(ConnectionError):
        before.write(batch, None)
    assert rows == []
    after = FaultySink(TinyListSink(rows), [lose_answer("write")])
    with pytest.raises(ConnectionError, match="lost"):
        after.write(batch, None)
    assert rows == [1, 2]


def test_a_callable_stays_one() -> None:
    rows: list[Any] = []
    sink: Any = FaultySink(lambda batch: rows.extend(batch.records), [Fault("write", 2, Raise(ConnectionError))])
    sink(_batch([1]))
    with pytest.raises(ConnectionError):
        sink(_batch([2]))
    assert rows == [1]


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with SQLJobStore(f"sqlite:///{tmp_path}/jobs.db") as store:
        with store.transaction() as transaction:
            engine = transaction.connection.engine
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE target (n INTEGER)"))
        yield store


@pytest.mark.parametrize(
    ("call", "when", "committed"),
    [
        ("transaction", "before", False),
        ("transaction", "after", False),
        ("save", "before", False),
        ("save", "after", False),
        ("commit", "before", False),
        ("commit", "after", True),
    ],
)
def test_a_fault_around_a_transaction(store: Any, call: str, when: Any, committed: bool) -> None:
    job, lease = _begin(store)
    faulty = FaultyStore(store, [Fault(call, 1, Raise(ConnectionError), when=when)])
    with pytest.raises(ConnectionError), faulty.transaction() as transaction:
        transaction.connection.execute(text("INSERT INTO target VALUES (1)"))
        transaction.save(job, lease)
    with store.transaction() as transaction:
        rows = transaction.connection.execute(text("SELECT n FROM target")).all()
    assert (len(rows) == 1) is committed
    assert (store.load("job").processed_records == 10) is committed
    with faulty.transaction() as transaction:
        transaction.save(job, lease)


def test_an_error_leaves_a_transaction_as_it_is(store: Any) -> None:
    calls: list[tuple[str, str]] = []
    faulty = FaultyStore(store, lambda call, when: calls.append((call, when)))
    msg = "its own"
    with pytest.raises(ValueError, match="its own"), faulty.transaction():
        raise ValueError(msg)
    assert calls == [
        ("transaction", "before"),
        ("transaction", "after"),
        ("rollback", "before"),
        ("rollback", "after"),
    ]


def test_dead_letters_and_enlisting_take_a_wrapped_transaction(store: Any) -> None:
    job, lease = _begin(store)
    faulty = FaultyStore(store)
    with faulty.transaction() as transaction:
        faulty.purge_dead_letters("job", transaction)
        faulty.add_dead_letters([], transaction=transaction)
        engine = transaction.connection.engine
    with engine.begin() as connection:
        enlisted = FaultyStore(store, [Fault("save", 1, Raise(LeaseLostError, ("job",)))]).enlist(connection)
        with pytest.raises(LeaseLostError):
            enlisted.save(job, lease)


@pytest.mark.parametrize("call", ["load", "acquire", "save", "commit", "transaction", "renew", "page", "read", "write"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_sync_survives_a_passing_fault(store: Any, call: str, when: Any) -> None:
    faults = [Fault(call, 2 if call in {"save", "commit", "page", "write"} else 1, Raise(ConnectionError), when=when)]

    @transactional
    def insert(batch: Batch[Any], connection: Any) -> None:
        connection.execute(text("INSERT INTO target VALUES (:id)"), batch.dicts())

    run_full_sync(
        "job",
        FaultyConnector(TinyConnector(), faults),
        FaultySink(insert, faults),
        store=FaultyStore(store, faults),
        batch_size=5,
    )
    with store.transaction() as transaction:
        rows = transaction.connection.execute(text("SELECT n FROM target ORDER BY n")).scalars().all()
    assert list(rows) == [record["id"] for record in RECORDS]


def _begin(store: Any) -> Any:
    lease = store.acquire("job", owner="one", ttl=60.0)
    return Job(id="job", processed_records=10, cursor=[10]), lease


def _batch(records: list[Any]) -> Batch[Any]:
    return Batch(
        records=records, cursor=[1], previous_cursor=None, job_id="job", run=1, sequence=0, fencing_token=1, key="k"
    )
