"""The store's transaction belongs to the store: nobody else ends it, and nobody starts a sync inside it."""

import threading
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, create_engine, event, text

from resumable_sync._errors import ConfigurationError, LeaseLostError, StoreError
from resumable_sync._model import Job, JobStatus, Lease
from resumable_sync.stores.sql import SQLJobStore


@pytest.fixture
def store(database_url: str) -> Iterator[SQLJobStore]:
    with SQLJobStore(database_url) as store:
        yield store


@pytest.fixture
def lease(store: SQLJobStore) -> Lease:
    return store.acquire("job", owner="one", ttl=60.0)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (n INTEGER NOT NULL)"))
    yield engine
    engine.dispose()


JOB = Job(id="job", status=JobStatus.RUNNING, run=1, attempt=1, cursor=[1], processed_records=1)
INSERT = text("INSERT INTO numbers VALUES (1)")


def numbers(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT n FROM numbers")).scalars())


ENDINGS = {
    "commit": lambda connection: connection.commit(),
    "rollback": lambda connection: connection.rollback(),
    "close": lambda connection: connection.close(),
    "the transaction's commit": lambda connection: connection.get_transaction().commit(),
    "the transaction's rollback": lambda connection: connection.get_transaction().rollback(),
    "COMMIT": lambda connection: connection.exec_driver_sql("COMMIT"),
    "commit work": lambda connection: connection.execute(text(" commit work")),
    "ROLLBACK": lambda connection: connection.execute(text("ROLLBACK")),
    "BEGIN": lambda connection: connection.exec_driver_sql("BEGIN"),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("swallowed", [False, True])
def test_nobody_ends_the_transaction(
    store: SQLJobStore, engine: Engine, lease: Lease, ending: str, swallowed: bool
) -> None:
    def sink(connection: Any) -> None:
        connection.execute(INSERT)
        try:
            ENDINGS[ending](connection)
        except ConfigurationError:
            if not swallowed:
                raise

    with pytest.raises(ConfigurationError, match="begin_nested"), store.transaction() as transaction:
        sink(transaction.connection)
        transaction.save(JOB, lease)
    assert numbers(engine) == []
    assert store.load("job") != JOB
    with store.transaction() as transaction:
        transaction.connection.execute(INSERT)
        transaction.save(JOB, lease)
    assert numbers(engine) == [1]


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_an_end_through_the_driver_is_stopped(store: SQLJobStore, engine: Engine, lease: Lease, ending: str) -> None:
    with pytest.raises(ConfigurationError, match="begin_nested"), store.transaction() as transaction:
        transaction.connection.execute(INSERT)
        getattr(transaction.connection.connection.driver_connection, ending)()
        transaction.save(JOB, lease)
    assert (store.load("job") or JOB).cursor is None
    assert numbers(engine) == []


def test_after_a_refused_end_no_lock_is_left(store: SQLJobStore, engine: Engine, lease: Lease) -> None:
    with pytest.raises(ConfigurationError) as caught, store.transaction() as transaction:
        driver_connection: Any = transaction.connection.connection.driver_connection
        cursor = driver_connection.cursor()
        cursor.execute("SELECT 1 UNION ALL SELECT 2")  # not read to its end
        transaction.connection.execute(INSERT)
        transaction.connection.commit()
    assert caught.value.__traceback__ is not None  # with the cursor
    with engine.begin() as connection:
        connection.execute(INSERT)
    assert numbers(engine) == [1]
    del cursor


def test_ddl_may_stand_where_the_sink_begins(store: SQLJobStore, engine: Engine, lease: Lease) -> None:
    with store.transaction() as transaction:
        transaction.connection.execute(INSERT)
        transaction.connection.execute(text("CREATE TABLE other (number INTEGER)"))
        transaction.save(JOB, lease)
    assert numbers(engine) == [1]


def test_the_word_commit_is_not_forbidden(store: SQLJobStore, lease: Lease) -> None:
    with store.transaction() as transaction:
        connection = transaction.connection
        assert connection.execute(text("SELECT 'COMMIT'")).scalar() == "COMMIT"
        savepoint = connection.begin_nested()
        savepoint.rollback()
        transaction.save(JOB, lease)


def test_no_sync_is_started_inside(store: SQLJobStore, database_url: str, sqlite_url: str, lease: Lease) -> None:
    with SQLJobStore(database_url) as same, SQLJobStore(sqlite_url) as other, store.transaction() as transaction:
        for one in (store, same):
            with pytest.raises(ConfigurationError, match="inside a transaction"):
                one.acquire("another", owner="one", ttl=60.0)
        if other._identity != store._identity:
            other.acquire("another", owner="one", ttl=60.0)
        transaction.save(JOB, lease)
    store.acquire("another", owner="two", ttl=60.0)


def test_no_transaction_inside_another(store: SQLJobStore, lease: Lease) -> None:
    with store.transaction() as transaction:
        with pytest.raises(ConfigurationError, match="inside a transaction"), store.transaction():
            pass
        with pytest.raises(ConfigurationError, match="inside a transaction"):
            store.save(JOB, lease)
        transaction.save(JOB, lease)
    assert attrs.evolve(store.load("job") or Job(id=""), lease=None) == JOB
    with pytest.raises(ConfigurationError, match="not open"):
        transaction.save(JOB, lease)


def test_a_checkpoint_is_one_update(store: SQLJobStore, engine: Engine, lease: Lease) -> None:
    with store.transaction() as transaction:
        own = transaction.connection.engine
        transaction.save(JOB, lease)
    beside: list[str] = []
    commits: list[int] = []
    event.listen(own, "before_cursor_execute", lambda _1, _2, statement, *_: beside.append(statement))
    event.listen(own, "commit", lambda _: commits.append(1))
    sent: list[str] = []
    for prepared in filter(None, (store._statements.save, store._statements.extended)):
        original = prepared.execute

        def counting(*arguments: Any, original: Any = original, prepared: Any = prepared) -> Any:
            sent.append(prepared._sql)
            return original(*arguments)

        prepared.execute = counting  # type: ignore[assignment,method-assign]
    with store.transaction() as transaction:
        transaction.save(JOB, lease)
    assert beside == []
    assert len(commits) == 1
    assert [one.split()[0] for one in sent] in (["UPDATE"], ["UPDATE", "SELECT"])


def test_a_transaction_of_the_caller(store: SQLJobStore, engine: Engine, lease: Lease) -> None:
    with engine.connect() as connection:  # commits as it goes
        connection.execute(INSERT)
        store.enlist(connection).save(JOB, lease)
        connection.commit()
    assert numbers(engine) == [1]
    with engine.connect() as connection:  # the job alone
        store.enlist(connection).save(attrs.evolve(JOB, processed_records=2), lease)
        connection.commit()
    assert (store.load("job") or JOB).processed_records == 2
    with engine.connect() as connection:
        store.enlist(connection).save(attrs.evolve(JOB, processed_records=3), lease)
    assert (store.load("job") or JOB).processed_records == 2


def test_a_callers_connection_in_autocommit_mode_is_refused(
    store: SQLJobStore, database_url: str, lease: Lease
) -> None:
    engine = create_engine(database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection, pytest.raises(ConfigurationError, match="autocommit"):
        store.enlist(connection).save(JOB, lease)
    engine.dispose()
    assert (store.load("job") or JOB).cursor is None


def test_a_callers_engine_in_autocommit_mode_has_transactions(database_url: str, engine: Engine) -> None:
    autocommit = create_engine(database_url, isolation_level="AUTOCOMMIT")
    store = SQLJobStore(autocommit)
    lease = store.acquire("job", owner="one", ttl=60.0)
    with pytest.raises(ZeroDivisionError), store.transaction() as transaction:
        transaction.connection.execute(INSERT)
        transaction.save(JOB, lease)
        raise ZeroDivisionError
    assert numbers(engine) == []
    with store.transaction() as transaction:
        transaction.connection.execute(INSERT)
        transaction.save(JOB, lease)
    assert numbers(engine) == [1]
    store.release(lease)
    assert autocommit.pool.checkedout() == 0  # type: ignore[attr-defined]
    with autocommit.connect() as connection:
        connection.execute(INSERT)
    assert numbers(engine) == [1, 1]
    autocommit.dispose()


@pytest.mark.server
def test_another_database_is_refused(store: SQLJobStore, new_database: Any) -> None:
    store.acquire("job", owner="one", ttl=60.0)
    for kind in ("sqlite", "postgresql", "mariadb"):
        engine = create_engine(new_database(kind))
        with engine.begin() as connection, pytest.raises(ConfigurationError, match="does not lead to"):
            store.enlist(connection)
        engine.dispose()


def test_the_same_database_by_another_name(store: SQLJobStore, engine: Engine, tmp_path: Any) -> None:
    lease = store.acquire("job", owner="one", ttl=60.0)
    if engine.dialect.name == "sqlite":
        link = tmp_path / "link.db"
        link.symlink_to(str(engine.url.database))
        other = create_engine(f"sqlite:///{link}")
    else:
        other = create_engine(engine.url.set(host="localhost"))
    with other.begin() as connection:
        store.enlist(connection).save(JOB, lease)
    other.dispose()
    assert (store.load("job") or JOB).cursor == [1]


TABLES = [
    "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
    "CREATE TABLE children (id INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED)",
]
FAILING: dict[tuple[str, str], list[str]] = {
    ("sqlite", "commit"): [
        *TABLES,
        "CREATE TRIGGER fail AFTER UPDATE ON resumable_sync_jobs BEGIN INSERT INTO children VALUES (1); END",
    ],
    ("sqlite", "update"): [
        "CREATE TRIGGER fail AFTER UPDATE ON resumable_sync_jobs BEGIN SELECT RAISE(ABORT, 'not now'); END"
    ],
    ("postgresql", "commit"): [
        *TABLES,
        """CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN INSERT INTO children VALUES (1); RETURN NULL; END$$""",
        "CREATE TRIGGER fail AFTER UPDATE ON resumable_sync_jobs FOR EACH ROW EXECUTE FUNCTION fail()",
    ],
    ("postgresql", "update"): [
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not now'; END$$",
        "CREATE TRIGGER fail AFTER UPDATE ON resumable_sync_jobs FOR EACH ROW EXECUTE FUNCTION fail()",
    ],
    ("mysql", "update"): [
        "CREATE TRIGGER fail AFTER UPDATE ON resumable_sync_jobs FOR EACH ROW SIGNAL SQLSTATE '45000'"
    ],
}


def save_by_itself(store: SQLJobStore, job: Job, lease: Lease) -> None:
    store.save(job, lease)


def save_with_others(store: SQLJobStore, job: Job, lease: Lease) -> None:
    with store.transaction() as transaction:
        transaction.save(job, lease)


WAYS = pytest.mark.parametrize("save", [save_by_itself, save_with_others])


@WAYS
@pytest.mark.parametrize("failing", ["update", "commit", "parameter"])
def test_a_save_that_fails_leaves_nothing_behind(engine: Engine, save: Any, failing: str) -> None:
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON"))
        engine.dispose()
    elif (engine.dialect.name, failing) == ("mysql", "commit"):
        pytest.skip("no constraint is checked by a commit")
    store = SQLJobStore(engine)
    lease = store.acquire("job", owner="one", ttl=60.0)
    with engine.begin() as connection:
        for statement in FAILING.get((engine.dialect.name, failing), []):
            connection.exec_driver_sql(statement)
    job = attrs.evolve(JOB, processed_records=2**70) if failing == "parameter" else JOB
    # The error is kept, with its traceback, and through that every cursor.
    with pytest.raises(StoreError, match=r"failed: .*; see to the store's database") as caught:
        save(store, job, lease)
    assert caught.value.__cause__ is not None
    assert (store.load("job") or JOB).cursor is None
    with engine.begin() as connection:  # nobody holds a lock
        if failing == "commit":
            connection.exec_driver_sql("INSERT INTO parents VALUES (1)")
        elif failing == "update":
            connection.exec_driver_sql(f"DROP TRIGGER fail{' ON resumable_sync_jobs' * (engine.name == 'postgresql')}")
        else:
            connection.execute(INSERT)
    save(store, JOB, lease)
    assert (store.load("job") or JOB).cursor == [1]
    store.release(lease)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@WAYS
def test_who_listens_to_transactions_is_told(engine: Engine, save: Any) -> None:
    store = SQLJobStore(engine)
    told: list[str] = []
    for name in ("begin", "commit"):
        event.listen(engine, name, lambda _connection, name=name: told.append(name))
    lease = store.acquire("job", owner="one", ttl=60.0)
    save(store, JOB, lease)
    told.clear()
    save(store, JOB, lease)
    assert told == ["begin", "commit"]


@WAYS
def test_closing_the_store_meanwhile_undoes_nothing(engine: Engine, save: Any) -> None:
    store = SQLJobStore(engine)
    lease = store.acquire("job", owner="one", ttl=60.0)
    prepared: Any = store._statements.save
    original = prepared.execute

    def closing(*arguments: Any) -> Any:
        row = original(*arguments)
        thread = threading.Thread(target=store.close)
        thread.start()
        thread.join()
        return row

    prepared.execute = closing
    save(store, JOB, lease)
    assert attrs.evolve(store.load("job") or Job(id=""), lease=None) == JOB
    store.release(lease)


@WAYS
def test_an_interrupt_before_the_commit_leaves_nothing_behind(store: SQLJobStore, lease: Lease, save: Any) -> None:
    prepared: Any = store._statements.save
    original = prepared.execute

    def interrupted(*arguments: Any) -> Any:
        original(*arguments)
        raise KeyboardInterrupt

    prepared.execute = interrupted
    with pytest.raises(KeyboardInterrupt):
        save(store, JOB, lease)
    assert (store.load("job") or JOB).cursor is None
    prepared.execute = original
    save(store, JOB, lease)
    assert (store.load("job") or JOB).cursor == [1]


@WAYS
def test_a_connection_that_is_used_after_its_block_is_not_committed(
    store: SQLJobStore, engine: Engine, lease: Lease, save: Any
) -> None:
    with store.transaction() as transaction:
        connection = transaction.connection
    connection.execute(INSERT)
    with pytest.raises(StoreError):
        save(store, JOB, lease)
    assert numbers(engine) == []
    save(store, JOB, lease)
    assert numbers(engine) == []


def test_a_lost_lease_gives_the_connection_back(database_url: str, engine: Engine) -> None:
    store = SQLJobStore(engine)
    lease = store.acquire("job", owner="one", ttl=60.0)
    store.save(JOB, lease)
    pool: Any = engine.pool
    assert pool.checkedout() == 1
    store.acquire("job", owner="two", ttl=60.0, replacing=lease.fencing_token)
    with pytest.raises(LeaseLostError):
        store.save(JOB, lease)
    assert pool.checkedout() == 0


def test_the_server_ends_a_short_transaction_that_is_idle_too_long(store: SQLJobStore, engine: Engine) -> None:
    """A heartbeat that is frozen between its UPDATE and its COMMIT must not keep the successor out."""
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no such limit")
    on_postgresql = engine.dialect.name == "postgresql"
    name = "current_setting('idle_in_transaction_session_timeout')" if on_postgresql else "@@idle_transaction_timeout"
    seen: list[Any] = []
    store.release(store.acquire("job", owner="one", ttl=600.0))  # makes the tables
    own = store._connections.engine
    event.listen(own, "commit", lambda connection: seen.append(connection.exec_driver_sql(f"SELECT {name}").scalar()))
    lease = store.acquire("job", owner="one", ttl=600.0)
    store.renew(lease, 600.0)
    store.request_stop("job")
    store.release(lease)
    with pytest.raises(LeaseLostError):
        store.renew(lease, 600.0)
    store.delete("job")
    assert seen == ["10s" if on_postgresql else 10] * 5
    with own.connect() as connection:
        assert connection.exec_driver_sql(f"SELECT {name}").scalar() in ("0", 0)


def test_the_server_ends_a_transaction_that_is_idle_too_long(store: SQLJobStore, engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no such limit")
    on_postgresql = engine.dialect.name == "postgresql"
    name = "current_setting('idle_in_transaction_session_timeout')" if on_postgresql else "@@idle_transaction_timeout"
    setting = text(f"SELECT {name}")
    lease = store.acquire("job", owner="one", ttl=24.0)
    with store.transaction() as transaction:
        before = transaction.connection.execute(setting).scalar()
        transaction.save(JOB, lease)
        after = transaction.connection.execute(setting).scalar()
        own = transaction.connection.engine
    assert (before, after) in {("2min", "24s"), (120, 120)}
    store.release(lease)
    with own.connect() as connection:
        assert connection.execute(setting).scalar() in ("0", 0)
