"""Bad input on real databases: a clear error or it works, and nothing is lost."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import override

from resumable_sync import (
    Batch,
    ConfigurationError,
    CursorError,
    Event,
    JobStatus,
    Page,
    ResumableSyncError,
    TransientError,
    TryFailed,
    plan_full_sync,
    run_full_sync,
    transactional,
)
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.stores.sql import SQLJobStore
from trouble.parts import (
    JOB_ID,
    TARGET,
    Insert,
    Numbers,
    check_consistent,
    check_exact,
    empty_target,
    engine_of,
    make_target,
)

TOTAL = 50
BAD_IDS: list[Any] = ["", "x" * 256, "a\0b", "a\ud800", 1, None, b"orders"]
GOOD_IDS = [
    "orders",
    "Orders",
    "ORDERS",
    "ordérs",
    "orde\u0301rs",
    "orders ",
    "orders  ",
    " orders",
    "orders\n",
    "or\nders",
    "or\tders",
    "'; DROP TABLE resumable_sync_jobs; --",
    '"orders"',
    "`orders`",
    "100%",
    "%s",
    "%(b_id)s",
    ":b_id",
    "?",
    "\\",
    "\\'",
    "ß",
    "ss",
    "İ",
    "x" * 255,
    "\U0001f600" * 255,
]


@pytest.fixture
def url(database_url: str) -> str:
    make_target(database_url)
    return database_url


@pytest.fixture
def store(url: str) -> Iterator[SQLJobStore]:
    with SQLJobStore(url) as made:
        yield made


@pytest.mark.parametrize("job_id", BAD_IDS, ids=repr)
def test_a_bad_job_id_is_refused_before_anything_is_made(new_database: Callable[[str], str], job_id: Any) -> None:
    url = new_database("sqlite")
    with SQLJobStore(url) as store:
        for function in (run_full_sync, plan_full_sync):
            with pytest.raises(ConfigurationError, match="job id"):
                function(job_id, Numbers(1), print, store=store)
    with engine_of(url) as engine:
        assert inspect(engine).get_table_names() == []


def test_job_ids_are_told_apart_exactly(store: SQLJobStore) -> None:
    for number, job_id in enumerate(GOOD_IDS, 1):
        with pytest.raises(RuntimeError):
            run_full_sync(job_id, Numbers(TOTAL), stop_at(number), store=store, batch_size=1)
    for number, job_id in enumerate(GOOD_IDS, 1):
        plan = plan_full_sync(job_id, Numbers(TOTAL), print, store=store)
        assert (plan.action, plan.processed_records) == ("resume", number), job_id
    assert sorted(job.id for job in store.jobs()) == sorted(GOOD_IDS)
    store.delete("orders")
    assert sorted(job.id for job in store.jobs()) == sorted(set(GOOD_IDS) - {"orders"})


def stop_at(sequence: int) -> Callable[[Batch[int]], None]:
    def sink(batch: Batch[int]) -> None:
        if batch.sequence == sequence:
            raise RuntimeError("here")

    return sink


@pytest.mark.parametrize(
    ("source", "key"),
    [("no_such_table", None), ("no_such_schema.numbers", None), ("numbers", "no_such_column")],
)
def test_an_unknown_table_or_key_is_a_clear_error(url: str, store: SQLJobStore, source: str, key: str | None) -> None:
    with engine_of(url) as engine, engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")
        connection.execute(text("INSERT INTO numbers VALUES (:n)"), [{"n": number} for number in range(TOTAL)])

    @transactional
    def sink(batch: Batch[Any], connection: Connection) -> None:
        connection.execute(TARGET.insert(), batch.dicts())

    with pytest.raises(ResumableSyncError) as caught:
        run_full_sync(JOB_ID, SQLConnector(url, source, key=key), sink, store=store, batch_size=10)
    assert (key or source) in str(caught.value)
    check_consistent(url)
    result = run_full_sync(JOB_ID, SQLConnector(url, "numbers"), sink, store=store, batch_size=10, if_changed="resume")
    assert (result.status, result.records) == ("completed", TOTAL)
    check_exact(url, TOTAL)


def driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def transaction_of(connection: Connection) -> Any:
    transaction = connection.get_transaction()
    assert transaction is not None
    return transaction


UNSEEN = "COMMIT of a cursor"
"""What only SQLite can be kept from; elsewhere what it has committed is delivered again."""

WAYS: dict[str, Callable[[Connection], object]] = {
    "commit": lambda connection: connection.commit(),
    "rollback": lambda connection: connection.rollback(),
    "commit of its transaction": lambda connection: transaction_of(connection).commit(),
    "rollback of its transaction": lambda connection: transaction_of(connection).rollback(),
    "close of its transaction": lambda connection: transaction_of(connection).close(),
    "COMMIT by the driver": lambda connection: connection.exec_driver_sql("COMMIT"),
    "commit in lower case": lambda connection: connection.execute(text("  commit ;")),
    "ROLLBACK": lambda connection: connection.execute(text("ROLLBACK")),
    "a comment and COMMIT": lambda connection: connection.exec_driver_sql("/* so */ -- there\n COMMIT"),
    "close": lambda connection: connection.close(),
    "invalidate": lambda connection: connection.invalidate(),
    "commit of the driver": lambda connection: driver(connection).commit(),
    "rollback of the driver": lambda connection: driver(connection).rollback(),
    UNSEEN: lambda connection: driver(connection).cursor().execute("COMMIT"),
}
"""Ways to end the store's transaction."""


@attrs.frozen
class Ending:
    """Ends the transaction it writes in, in the third batch."""

    act: Callable[[Connection], object]
    early: bool
    swallowing: bool

    def __call__(self, batch: Batch[int], connection: Connection) -> None:
        rows = [{"number": number} for number in batch.records]
        connection.execute(TARGET.insert(), rows[:5])
        if not self.early:
            connection.execute(TARGET.insert(), rows[5:])
        if batch.sequence == 2:
            try:
                self.act(connection)
            except Exception:
                if not self.swallowing:
                    raise
        if self.early:
            connection.execute(TARGET.insert(), rows[5:])


@pytest.mark.parametrize("early", [False, True], ids=["after its last statement", "between its statements"])
def test_a_sink_that_ends_the_transaction_is_stopped(url: str, store: SQLJobStore, *, early: bool) -> None:
    ways = dict(WAYS)
    if early and not url.startswith("sqlite"):
        del ways[UNSEEN]  # the driver begins anew with the next statement, and says nothing
    for number, (way, act) in enumerate(ways.items()):
        # On a server, where it takes longer, each way is swallowed at one of the two places and raised at the other.
        swallows = (False, True) if url.startswith("sqlite") else (number % 2 == early,)
        for swallowing in swallows:
            empty_target(url)
            with pytest.raises((ResumableSyncError, SQLAlchemyError)) as caught:
                run_full_sync(
                    JOB_ID, Numbers(TOTAL), transactional(Ending(act, early, swallowing)), store=store, batch_size=10
                )
            gone = way in {"close", "invalidate"}
            assert gone or isinstance(caught.value, ConfigurationError), (way, caught.value)
            job = store.load(JOB_ID)
            assert job is not None
            assert (job.status, job.processed_records, job.lease) == (JobStatus.FAILED, 20, None), way
            if way != UNSEEN or url.startswith("sqlite"):
                check_consistent(url)


def test_a_savepoint_is_not_the_transaction(url: str, store: SQLJobStore) -> None:
    @transactional
    def sink(batch: Batch[int], connection: Connection) -> None:
        with connection.begin_nested():
            Insert().write(batch, connection)
        undone = connection.begin_nested()
        connection.execute(TARGET.insert(), [{"number": -1}])
        undone.rollback()

    result = run_full_sync(JOB_ID, Numbers(TOTAL), sink, store=store, batch_size=10)
    assert result.status == "completed"
    check_exact(url, TOTAL)


class Pages:
    """Yields the pages it was given, from wherever it is asked to read."""

    fingerprint = None

    def __init__(self, *pages: Any) -> None:
        self.pages = pages

    def read(self, _cursor: Any, _batch_size: int) -> Iterator[Page[int]]:
        yield from self.pages

    def count(self) -> int | None:
        return None


FIRST = Page([0, 1], [2])


BAD_PAGES = [
    Page([2, 3], [2]),
    Page([], [2]),
    Page(list(range(2, 20)), [20]),
    Page([2, 3], None),
    Page([2, 3], object()),
    Page([2, 3], {1: 2}),
    Page([2, 3], {4}),
    Page([2, 3], "x" * 70_000),
    [2, 3],
    None,
    7,
]
# A page is refused before any store sees it: one of them on each server shows that the failure is saved there.
BAD_RUNS = [("sqlite", prefetch, bad) for prefetch in (0, 1) for bad in BAD_PAGES]
BAD_RUNS += [("postgresql", 1, BAD_PAGES[0]), ("mariadb", 1, BAD_PAGES[0])]


@pytest.mark.parametrize(
    ("database_url", "prefetch", "bad"), BAD_RUNS, indirect=["database_url"], ids=lambda value: repr(value)[:40]
)
def test_a_bad_page_costs_nothing_that_came_before(url: str, store: SQLJobStore, bad: Any, prefetch: int) -> None:
    with pytest.raises((CursorError, ConfigurationError)) as caught:
        run_full_sync(JOB_ID, Pages(FIRST, bad), Insert(), store=store, batch_size=10, prefetch=prefetch)
    assert "Pages" in str(caught.value) or "cursor" in str(caught.value)
    job = check_consistent(url)
    assert job is not None
    assert (job.status, job.processed_records, job.cursor, job.lease) == (JobStatus.FAILED, 2, [2], None)
    run_full_sync(JOB_ID, Numbers(TOTAL), Insert(), store=store, batch_size=10)
    check_exact(url, TOTAL)


def test_a_failure_does_not_wait_for_a_reader_that_waits(sqlite_url: str) -> None:
    class Limited(Numbers):
        @override
        def fetch(self, offset: int, limit: int) -> list[int]:
            if offset >= 10:
                raise TransientError("too many requests", retry_after=50.0)
            return super().fetch(offset, limit)

    waiting = threading.Event()

    def observe(event: Event) -> None:
        if isinstance(event, TryFailed):
            waiting.set()

    def sink(_batch: Batch[int]) -> None:
        waiting.wait(20)
        raise ValueError("no")

    began = time.monotonic()
    with SQLJobStore(sqlite_url) as store, pytest.raises(ValueError, match="no"):
        run_full_sync(JOB_ID, Limited(TOTAL), sink, store=store, batch_size=10, observers=[observe])
    assert time.monotonic() - began < 40


@pytest.mark.parametrize("size", [0, -1, True, "10", 1.5], ids=repr)
def test_a_bad_batch_size_is_refused_before_anything_is_made(new_database: Callable[[str], str], size: Any) -> None:
    url = new_database("sqlite")
    with SQLJobStore(url) as store, pytest.raises(ConfigurationError, match="batch_size"):
        run_full_sync(JOB_ID, Numbers(1), print, store=store, batch_size=size)
    with engine_of(url) as engine:
        assert inspect(engine).get_table_names() == []
