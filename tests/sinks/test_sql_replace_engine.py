"""`SQLSink(mode="replace")` under `run_full_sync`: published once, whole, and at the right time."""

import pickle
import re
import uuid
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool
from typing_extensions import override

from resumable_sync import (
    Batch,
    ConfigurationError,
    Guarantee,
    Job,
    JobStatus,
    LeaseLostError,
    Retry,
    StoreError,
    plan_full_sync,
    replay_dead_letters,
    reset_job,
    run_full_sync,
    transactional,
)
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import FaultySink, FaultyStore, lose_answer
from sinks.driving import batch
from sinks.replacing import rows, stagings, tables

ROWS = [(number, f"name {number}") for number in range(1, 51)]
QUICK = Retry(max_tries=10, wait_initial=0.01, wait_max=0.05)
OLD = "INSERT INTO orders VALUES (-1, 'old')"
MAKE = "CREATE TABLE orders (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(20))"


@pytest.fixture
def source(tmp_path: Any) -> str:
    url = f"sqlite:///{tmp_path}/source.db"
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY, name VARCHAR(20))"))
        connection.exec_driver_sql("INSERT INTO orders VALUES (?, ?)", ROWS)
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = create_engine(database_url, poolclass=NullPool)
    yield made
    made.dispose()


@pytest.fixture
def store(database_url: str) -> Iterator[SQLJobStore]:
    with SQLJobStore(database_url) as made:
        yield made


def sync(source: str, store: Any, sink: Any = None, **options: Any) -> Any:
    sink = sink or SQLSink("orders", mode="replace")
    return run_full_sync("orders", SQLConnector(source, "orders"), sink, store=store, batch_size=10, **options)


def execute(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def seen(engine: Engine) -> list[Any]:
    return rows(engine, "orders")


def without(*numbers: int) -> list[Any]:
    return [row for row in ROWS if row[0] not in numbers]


def staged(engine: Engine) -> list[str]:
    return [name for name in stagings(engine) if re.match(r"resumable_sync_[0-9a-f]{20}", name)]


def test_a_sync_again_and_again(source: str, store: SQLJobStore, engine: Engine) -> None:
    sink = SQLSink("orders", mode="replace")
    assert plan_full_sync("orders", SQLConnector(source, "orders"), sink, store=store).guarantee == "exactly_once"
    result = sync(source, store, sink)
    assert (result.status, result.guarantee) == (JobStatus.COMPLETED, Guarantee.EXACTLY_ONCE)
    assert seen(engine) == ROWS
    before = tables(engine)
    execute(engine, "DELETE FROM orders WHERE id < 9", "INSERT INTO orders VALUES (99, 'mine')")
    for _ in range(2):
        result = sync(source, store, sink, max_records=20)
        assert result.status == JobStatus.INTERRUPTED
        assert len(seen(engine)) == 43
        sink = pickle.loads(pickle.dumps(sink))
        assert sync(source, store, sink).status == JobStatus.COMPLETED
        assert seen(engine) == ROWS
        assert tables(engine) == before
        execute(engine, "DELETE FROM orders WHERE id < 9", "INSERT INTO orders VALUES (99, 'mine')")


@pytest.mark.parametrize("how", ["deleted", "reset"])
def test_a_job_that_starts_over_leaves_nothing(source: str, store: SQLJobStore, engine: Engine, how: str) -> None:
    sync(source, store, max_records=20)
    loading = staged(engine)
    if how == "deleted":
        store.delete("orders")
    else:
        reset_job("orders", store=store)
    assert sync(source, store).status == JobStatus.COMPLETED
    assert seen(engine) == ROWS
    assert len(loading) == 1
    assert staged(engine) == []


def test_a_zombie_publishes_nothing(store: SQLJobStore, engine: Engine) -> None:
    """What it swaps is rolled back, or it finds nothing to swap."""
    execute(engine, MAKE, OLD)
    sink, successor = SQLSink("orders", mode="replace"), SQLSink("orders", mode="replace")
    job = Job(id="orders", status=JobStatus.RUNNING, run=1, run_id=str(uuid.uuid4()))
    lease = store.acquire("orders", owner="zombie", ttl=60)
    with store.transaction() as transaction:
        sink.begin(attrs.evolve(job, lease=lease), transaction.connection)
        transaction.save(job, lease)
    job = attrs.evolve(job, cursor=[1], processed_records=1, processed_batches=1)
    with store.transaction() as transaction:
        record = {"id": 1, "name": "one"}
        each = batch([record], job_id="orders", token=lease.fencing_token)
        sink.write(each, transaction.connection)
        transaction.save(job, lease)
    newer = store.acquire("orders", owner="successor", ttl=60, replacing=lease.fencing_token)
    with store.transaction() as transaction:
        successor.begin(attrs.evolve(job, lease=newer), transaction.connection)
        transaction.save(job, newer)
    done = attrs.evolve(job, status=JobStatus.COMPLETED)
    for _ in range(2):
        with pytest.raises(LeaseLostError), store.transaction() as transaction:
            sink.complete(done, transaction.connection)
            transaction.save(done, lease)
        assert seen(engine) == [(-1, "old")]
    with store.transaction() as transaction:
        successor.complete(done, transaction.connection)
        transaction.save(done, newer)
    assert seen(engine) == [(1, "one")]
    assert staged(engine) == []


def test_an_incomplete_run_is_published_with_its_last_letter(
    source: str, store: SQLJobStore, database_url: str, engine: Engine
) -> None:
    execute(engine, MAKE, OLD)
    result = sync(source, store, picky(13, 31), on_refused="dead_letter")
    assert (result.status, result.job.dead_letters) == (JobStatus.INCOMPLETE, 2)
    assert seen(engine) == [(-1, "old")]
    with SQLJobStore(database_url) as later:
        result = replay_dead_letters("orders", picky(31), store=later)
        assert (result.status, result.records) == (JobStatus.INCOMPLETE, 1)
        assert seen(engine) == [(-1, "old")]
        result = replay_dead_letters("orders", SQLSink("orders", mode="replace"), store=later)
        assert (result.status, result.records) == (JobStatus.COMPLETED, 1)
    assert seen(engine) == ROWS
    assert staged(engine) == []


def test_a_new_run_after_an_incomplete_one(source: str, store: SQLJobStore, engine: Engine) -> None:
    execute(engine, MAKE, OLD)
    sync(source, store, picky(13), on_refused="dead_letter")
    assert len(staged(engine)) == 1
    assert sync(source, store).status == JobStatus.COMPLETED
    assert seen(engine) == ROWS
    assert staged(engine) == []


@pytest.mark.parametrize("exists", [True, False])
def test_an_incomplete_run_can_be_published_at_once(
    source: str, store: SQLJobStore, engine: Engine, *, exists: bool
) -> None:
    if exists:
        execute(engine, MAKE, OLD)
    result = sync(source, store, picky(13, 31, publish_incomplete=True), on_refused="dead_letter")
    assert (result.status, result.job.dead_letters) == (JobStatus.INCOMPLETE, 2)
    assert seen(engine) == without(13, 31)
    assert replay_dead_letters("orders", picky(31), store=store).records == 1
    assert seen(engine) == without(31)
    assert replay_dead_letters("orders", SQLSink("orders", mode="replace"), store=store).status == JobStatus.COMPLETED
    assert seen(engine) == ROWS
    assert staged(engine) == []


def test_letters_have_no_place_in_what_another_job_has_published(
    source: str, store: SQLJobStore, engine: Engine
) -> None:
    sync(source, store, picky(13, publish_incomplete=True), on_refused="dead_letter")
    sink = SQLSink("orders", mode="replace")
    run_full_sync("other", SQLConnector(source, "orders"), sink, store=store)
    with pytest.raises(StoreError, match="another job has replaced since"):
        replay_dead_letters("orders", sink, store=store)
    assert seen(engine) == ROWS


@pytest.mark.parametrize("call", ["commit", "begin", "complete"])
def test_answers_that_are_lost(source: str, store: SQLJobStore, engine: Engine, call: str) -> None:
    """Of every commit, and of every begin and completion of the sink."""
    execute(engine, MAKE, OLD)
    for nth in range(1, 10, 2) if call == "commit" else [1]:
        fault = [lose_answer(call, nth)]
        sink: Any = SQLSink("orders", mode="replace")
        broken = (FaultyStore(store, fault), sink) if call == "commit" else (store, FaultySink(sink, fault))
        result = sync(source, *broken, retry=QUICK)
        assert (result.status, result.job.processed_records) == (JobStatus.COMPLETED, 50)
        assert seen(engine) == ROWS
        assert staged(engine) == []


def test_into_another_database(source: str, sqlite_url: str, database_url: str, engine: Engine) -> None:
    execute(engine, MAKE, OLD)
    with SQLJobStore(sqlite_url) as store:
        for _ in range(2):
            before = seen(engine)
            sink = SQLSink("orders", mode="replace", url=database_url)
            assert sync(source, store, sink, max_records=20).status == JobStatus.INTERRUPTED
            assert seen(engine) == before
            faults = [lose_answer("begin"), lose_answer("write", 2), lose_answer("complete")]
            result = sync(source, store, FaultySink(sink, faults), retry=QUICK)
            assert (result.status, result.guarantee) == (JobStatus.COMPLETED, Guarantee.EXACTLY_ONCE)
            assert seen(engine) == ROWS
            assert staged(engine) == []
            execute(engine, "DELETE FROM orders WHERE id < 9")
            sink.close()


@pytest.mark.parametrize("own", [False, True])
def test_a_run_that_goes_on_in_another_mode_is_refused(
    source: str, store: SQLJobStore, engine: Engine, database_url: str, *, own: bool
) -> None:
    """What was loaded so far would never be published, and the job would be called completed."""
    url = database_url if own else None
    sync(source, store, SQLSink("orders", "replace", url=url), max_records=20)
    other = SQLSink("orders", "upsert", key="id", url=url)
    with pytest.raises(ConfigurationError, match=r"records of run 1 go to the staging table .* go on with that"):
        sync(source, store, other)
    other.close()
    assert "orders" not in tables(engine)
    again = SQLSink("orders", "replace", url=url)
    assert sync(source, store, again).status == JobStatus.COMPLETED
    again.close()
    assert seen(engine) == ROWS


def test_dead_letters_go_to_the_sink_that_publishes_their_run(source: str, store: SQLJobStore, engine: Engine) -> None:
    execute(engine, MAKE, OLD)
    sync(source, store, picky(13), on_refused="dead_letter")
    with pytest.raises(ConfigurationError, match="records of run 1 go to the staging table"):
        replay_dead_letters("orders", SQLSink("orders", mode="append"), store=store)
    assert seen(engine) == [(-1, "old")]
    assert replay_dead_letters("orders", SQLSink("orders", mode="replace"), store=store).status == JobStatus.COMPLETED
    assert seen(engine) == ROWS


def test_no_other_sink_ends_a_run_that_waits_to_be_published(
    source: str, store: SQLJobStore, engine: Engine, database_url: str
) -> None:
    execute(engine, MAKE, OLD, MAKE.replace("orders", "others"))
    sync(source, store, picky(13), on_refused="dead_letter")

    def no_write(_batch: Any, _connection: Any = None) -> None:
        pytest.fail("was written")

    others: list[Any] = [SQLSink("others", mode="append"), SQLSink("others", "upsert", "id"), transactional(no_write)]
    refused = r"job 'orders': records of run 1 are in the staging table .* replace 'orders'.*SQLSink\('orders', mode="
    for other in others:
        with pytest.raises(ConfigurationError, match=refused):
            replay_dead_letters("orders", other, store=store)
        letters = list(store.dead_letters("orders"))
        assert (len(letters), seen(engine), rows(engine, "others")) == (1, [(-1, "old")], [])
    assert replay_dead_letters("orders", SQLSink("orders", mode="replace"), store=store).status == JobStatus.COMPLETED
    assert seen(engine) == ROWS
    sync(source, store, max_records=20)
    for other in [*others, no_write]:
        with pytest.raises(ConfigurationError, match=refused.replace("run 1", "run 2")):
            sync(source, store, other)
    again = SQLSink("orders", mode="replace", url=database_url)
    assert sync(source, store).status == JobStatus.COMPLETED
    assert sync(source, store, again, max_records=20).status == JobStatus.INTERRUPTED
    assert sync(source, store, again).status == JobStatus.COMPLETED
    again.close()
    assert staged(engine) == []


def test_a_run_goes_on_that_loads_another_table_in_another_mode_too(
    source: str, store: SQLJobStore, engine: Engine
) -> None:
    class Both(SQLSink):
        @override
        def begin(self, job: Job, connection: Any) -> None:
            super().begin(job, connection)
            SQLSink("history", "append").begin(job, connection)

    execute(engine, MAKE.replace("orders", "history"))
    sync(source, store, Both("orders", "replace"), max_records=20)
    assert sync(source, store, Both("orders", "replace")).status == JobStatus.COMPLETED


class Picky(SQLSink):
    """Refuses some ids."""

    refused: tuple[int, ...] = ()

    @override
    def write(self, batch: Batch[Any], connection: Any) -> None:
        if {record[0] for record in batch.records} & {*self.refused}:
            msg = "of no use"
            raise ValueError(msg)
        super().write(batch, connection)


def picky(*refused: int, **options: Any) -> Picky:
    sink = Picky("orders", mode="replace", **options)
    sink.refused = refused
    return sink
