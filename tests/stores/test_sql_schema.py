"""The store's own tables: made on first use by one of many, migrated, refused, or asked for."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, inspect, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from resumable_sync._errors import ConfigurationError, StoreError
from resumable_sync._history import History
from resumable_sync._model import DeadLetter, Guarantee, Job, JobStatus
from resumable_sync.stores import _schema
from resumable_sync.stores.sql import SQLJobStore

TABLES = {f"resumable_sync_{name}" for name in ("jobs", "dead_letters", "attempts", "history", "meta")}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


def names(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def test_only_acquire_makes_tables(database_url: str, engine: Engine) -> None:
    with SQLJobStore(database_url) as store:
        assert store.load("job") is None
        assert list(store.jobs()) == []
        assert list(store.dead_letters("job")) == []
        assert [one.outcome for one in store.attempts("job")] in ([], ["failed"])
        assert store.history("job") is None
        store.request_stop("job")
        store.delete("job")
        assert names(engine) == set()
        with pytest.raises(ConfigurationError):
            store.acquire("", owner="one", ttl=60.0)
        assert names(engine) == set()
        store.acquire("job", owner="one", ttl=60.0)
        assert names(engine) == TABLES


def test_no_file_is_made_by_looking(tmp_path: Path) -> None:
    with SQLJobStore(f"sqlite:///{tmp_path}/jobs.db") as store:
        assert store.load("job") is None
        assert list(store.jobs()) == []
        store.delete("job")
        assert list(tmp_path.iterdir()) == []


def test_looking_leaves_a_database_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "somebodys.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE theirs (n INTEGER)"))
    engine.dispose()
    before = path.read_bytes()
    with SQLJobStore(f"sqlite:///{path}") as store:
        assert store.load("job") is None
        assert list(store.jobs()) == []
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["somebodys.db"]


def test_two_prefixes_are_two_stores(database_url: str, engine: Engine) -> None:
    """Names with capitals, or that begin with a digit, must be quoted."""
    with SQLJobStore(database_url, table_prefix="1One_") as one, SQLJobStore(database_url, table_prefix="two_") as two:
        one.acquire("job", owner="one", ttl=60.0)
        assert two.load("job") is None
        two.acquire("job", owner="two", ttl=60.0)
    assert names(engine) == {
        table.replace("resumable_sync_", prefix) for prefix in ("1One_", "two_") for table in TABLES
    }


def run(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)


def test_a_newer_database_is_refused(database_url: str, engine: Engine) -> None:
    with SQLJobStore(database_url) as store:
        store.acquire("job", owner="one", ttl=60.0)
    run(engine, "UPDATE resumable_sync_meta SET value = value + 1 WHERE name = 'schema_version'")
    with SQLJobStore(database_url) as store:
        for call in (
            lambda: store.load("job"),
            store.jobs,
            lambda: store.acquire("job", owner="two", ttl=60.0),
            lambda: store.request_stop("job"),
            lambda: store.delete("job"),
            lambda: store.dead_letters("job"),
            lambda: store.attempts("job"),
            lambda: store.history("job"),
        ):
            with pytest.raises(StoreError, match="upgrade resumable_sync"):
                call()
    run(engine, "UPDATE resumable_sync_meta SET value = value - 1 WHERE name = 'schema_version'")
    with SQLJobStore(database_url) as store:
        assert store.load("job") is not None


def test_a_database_without_its_version_is_never_taken_for_empty(database_url: str, engine: Engine) -> None:
    with SQLJobStore(database_url) as store:
        store.acquire("job", owner="one", ttl=60.0)
    run(engine, "DELETE FROM resumable_sync_meta WHERE name = 'schema_version'")
    with SQLJobStore(database_url) as store:
        with pytest.raises(StoreError, match="schema_version"):
            store.load("job")
        with pytest.raises(StoreError, match="schema_version"):
            store.acquire("job", owner="two", ttl=60.0)


def test_a_missing_table_is_never_taken_for_no_job(database_url: str, engine: Engine) -> None:
    with SQLJobStore(database_url) as store:
        store.acquire("job", owner="one", ttl=60.0)
        run(engine, "DROP TABLE resumable_sync_jobs")
        with pytest.raises(StoreError):
            store.load("job")


def test_a_creation_that_died_half_way_is_finished(database_url: str, engine: Engine) -> None:
    with SQLJobStore(database_url) as store:
        statements = [statement for statement in store.ddl().split(";\n") if statement.strip()]
        for statement in statements[:-1]:
            run(engine, statement)
        assert store.load("job") is None
        store.acquire("job", owner="one", ttl=60.0)
        assert store.load("job") is not None


def make_version_3(engine: Engine) -> None:
    """Turn this version's tables into what version 3 had."""
    run(engine, "DROP TABLE resumable_sync_history")
    run(engine, "UPDATE resumable_sync_meta SET value = 3 WHERE name = 'schema_version'")


def make_version_2(engine: Engine) -> None:
    """Turn this version's tables into what version 2 had."""
    make_version_3(engine)
    run(engine, "DROP TABLE resumable_sync_attempts")
    run(engine, "ALTER TABLE resumable_sync_jobs DROP COLUMN batch_size")
    run(engine, "ALTER TABLE resumable_sync_jobs DROP COLUMN saved_token")
    run(engine, "UPDATE resumable_sync_meta SET value = 2 WHERE name = 'schema_version'")


def make_version_1(engine: Engine) -> None:
    """Turn this version's tables into what version 1 had."""
    make_version_2(engine)
    run(engine, "DROP TABLE resumable_sync_dead_letters")
    run(engine, "ALTER TABLE resumable_sync_jobs DROP COLUMN stalled_attempts")
    run(engine, "UPDATE resumable_sync_meta SET value = 1 WHERE name = 'schema_version'")
    run(engine, "DELETE FROM resumable_sync_meta WHERE name <> 'schema_version'")


OLDER = {"version 1": make_version_1, "version 2": make_version_2, "version 3": make_version_3}


@pytest.fixture(params=list(OLDER))
def old(database_url: str, engine: Engine, request: pytest.FixtureRequest) -> Job:
    with SQLJobStore(database_url) as store:
        job = Job(id="job", status=JobStatus.FAILED, run=3, cursor=["x"], processed_records=7, error="E: e")
        lease = store.acquire("job", owner="one", ttl=60.0)
        store.save(job, lease)
        store.release(lease)
    OLDER[request.param](engine)
    return job


def everything(engine: Engine) -> str:
    """Give tables, columns and rows."""
    inspector = inspect(engine)
    with engine.connect() as connection:
        rows = {name: connection.execute(text(f"SELECT * FROM {name}")).all() for name in sorted(names(engine))}
    return repr([rows, {name: inspector.get_columns(name) for name in rows}])


def test_looking_leaves_an_older_database_as_it_is(database_url: str, engine: Engine, old: Job) -> None:
    before = everything(engine)
    with SQLJobStore(database_url) as store:
        assert store.load("job") == old
        assert list(store.jobs()) == [old]
        assert list(store.dead_letters("job")) == []
        assert [one.outcome for one in store.attempts("job")] in ([], ["failed"])
        assert store.history("job") is None
        store.request_stop("job")
    assert everything(engine) == before


@pytest.mark.parametrize("first", ["acquire", "delete"])
def test_an_older_database_is_migrated(database_url: str, engine: Engine, old: Job, first: str) -> None:
    with SQLJobStore(database_url) as store:
        if first == "acquire":
            store.release(store.acquire("job", owner="two", ttl=60.0))
        else:
            store.delete("other")
        assert store.load("job") == old
        lease = store.acquire("job", owner="two", ttl=60.0)
        with store.transaction() as transaction:
            store.add_dead_letters([DeadLetter(job_id="job", run=3, record=1, error="e", key="k")], transaction)
            transaction.save(Job(id="job", status=JobStatus.RUNNING, stalled_attempts=2, batch_size=9), lease)
        job = store.load("job")
        assert job is not None
        assert (job.stalled_attempts, job.batch_size) == (2, 9)
        store.release(lease)
        assert [one.outcome for one in store.attempts("job")][-1:] == ["interrupted"]
        lease = store.acquire("job", owner="three", ttl=60.0)
        history = History(run_id=None, guarantee=Guarantee.EXACTLY_ONCE)
        store.keep_history(history, lease)
        assert store.history("job") == history
    tables = _schema.tables(_schema.Names("resumable_sync_"))
    assert names(engine) == TABLES
    for table in (tables.jobs, tables.attempts, tables.dead_letters, tables.history):
        assert {column["name"] for column in inspect(engine).get_columns(table.name)} == set(table.columns.keys())


HALF_WAY = [
    "ALTER TABLE resumable_sync_jobs ADD COLUMN stalled_attempts BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE resumable_sync_jobs ADD COLUMN batch_size BIGINT",
    "ALTER TABLE resumable_sync_jobs ADD COLUMN saved_token BIGINT",
]


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_migration_that_died_half_way_is_finished(database_url: str, engine: Engine, done: int) -> None:
    with SQLJobStore(database_url) as store:
        store.release(store.acquire("job", owner="one", ttl=60.0))
    make_version_1(engine)
    for statement in HALF_WAY[:done]:
        run(engine, statement)
    with SQLJobStore(database_url) as store:
        assert store.load("job") is not None
        store.release(store.acquire("job", owner="two", ttl=60.0))
        assert store.load("job") is not None
        assert list(store.dead_letters("job")) == []
    assert names(engine) == TABLES


def test_a_migration_that_fails_changes_nothing(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with SQLJobStore(sqlite_url) as store:
        store.release(store.acquire("job", owner="one", ttl=60.0))
    engine = create_engine(sqlite_url)
    make_version_1(engine)
    before = everything(engine)
    migration = _schema.MIGRATIONS[1]

    def fail(connection: Any, tables: Any) -> None:
        migration(connection, tables)
        connection.exec_driver_sql("no such statement")

    monkeypatch.setitem(_schema.MIGRATIONS, 1, fail)
    with SQLJobStore(sqlite_url) as store, pytest.raises(StoreError):
        store.acquire("job", owner="two", ttl=60.0)
    assert everything(engine) == before
    monkeypatch.undo()
    with SQLJobStore(sqlite_url) as store:
        store.acquire("job", owner="two", ttl=60.0)
    engine.dispose()


def ddl_of(error: StoreError) -> list[str]:
    return [part for part in str(error)[str(error).index("CREATE TABLE") :].split(";\n") if part.strip()]


def test_a_role_that_may_not_create_tables_on_postgresql(postgres_url: str) -> None:
    admin = create_engine(postgres_url)
    role = f"clerk_{make_url(postgres_url).database}"
    run(admin, f"CREATE ROLE {role} LOGIN PASSWORD 'pw'")
    run(admin, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    url = make_url(postgres_url).set(username=role, password="pw").render_as_string(hide_password=False)
    try:
        with SQLJobStore(url) as store:
            assert store.load("job") is None
            with pytest.raises(StoreError, match="have a role run this") as caught:
                store.acquire("job", owner="one", ttl=60.0)
            for statement in ddl_of(caught.value):
                run(admin, statement)
            run(admin, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
            check_works(store)
        make_version_2(admin)
        check_migration_is_asked_for(url, postgres_url)
    finally:
        run(admin, f"DROP OWNED BY {role}")
        run(admin, f"DROP ROLE {role}")
        admin.dispose()


def test_a_role_that_may_not_create_tables_on_mariadb(mariadb_url: str) -> None:
    admin = create_engine(mariadb_url)
    database = make_url(mariadb_url).database
    run(admin, "CREATE USER clerk IDENTIFIED BY 'pw'")
    run(admin, f"GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.* TO clerk")
    url = make_url(mariadb_url).set(username="clerk", password="pw").render_as_string(hide_password=False)
    try:
        with SQLJobStore(url) as store:
            with pytest.raises(StoreError, match="have a role run this") as caught:
                store.acquire("job", owner="one", ttl=60.0)
            for statement in ddl_of(caught.value):
                run(admin, statement)
            check_works(store)
        make_version_2(admin)
        check_migration_is_asked_for(url, mariadb_url)
    finally:
        run(admin, "DROP USER clerk")
        admin.dispose()


def check_migration_is_asked_for(url: str, owners_url: str) -> None:
    with SQLJobStore(url) as store, SQLJobStore(owners_url) as owners:
        assert store.load("job") is None
        with pytest.raises(
            StoreError, match=r"version 2 .* UPDATE and DELETE on resumable_sync_attempts and resumable_sync_history"
        ):
            store.acquire("job", owner="one", ttl=60.0)
        owners.release(owners.acquire("job", owner="owner", ttl=60.0))
        owners.delete("job")


def check_works(store: SQLJobStore) -> None:
    lease = store.acquire("job", owner="one", ttl=60.0)
    with store.transaction() as transaction:
        store.add_dead_letters([DeadLetter(job_id="job", run=1, record=1, error="e", key="k")], transaction)
        transaction.save(Job(id="job", processed_records=1), lease)
    store.release(store.renew(lease, 60.0))
    assert len(list(store.dead_letters("job"))) == 1
    assert list(store.attempts("job")) == []
    store.delete("job")
    assert store.load("job") is None


def test_the_ddl_is_what_the_store_makes(database_url: str, engine: Engine, new_database: Callable[[str], str]) -> None:
    with SQLJobStore(database_url) as store:
        store.acquire("job", owner="one", ttl=60.0)
        statements = [statement for statement in store.ddl().split(";\n") if statement.strip()]
    kind = make_url(database_url).get_backend_name()
    by_hand = create_engine(new_database("mariadb" if kind in ("mysql", "mariadb") else kind))
    for _ in range(2):
        for statement in statements:
            run(by_hand, statement)
    assert described(by_hand) == described(engine)
    by_hand.dispose()


def described(engine: Engine) -> str:
    inspector = inspect(engine)
    return json.dumps(
        {name: [inspector.get_columns(name), inspector.get_indexes(name)] for name in sorted(TABLES)}, default=str
    )


def test_ids_are_binary_in_order_and_index(database_url: str) -> None:
    ids = ["B", "a", "Z ", "Z", "é", "z", "\U0001f600", "\uffff", "%", "10", "9"]
    with SQLJobStore(database_url) as store:
        for job_id in ids:
            store.acquire(job_id, owner="one", ttl=60.0)
        assert [job.id for job in store.jobs()] == sorted(ids)


def test_tokens_grow_when_the_clock_goes_back(database_url: str, engine: Engine) -> None:
    far = 200_000_000_000_000_000
    with SQLJobStore(database_url) as store:
        store.acquire("job", owner="one", ttl=60.0)
        run(engine, f"UPDATE resumable_sync_jobs SET fencing_token = {far}")
        assert store.acquire("job", owner="one", ttl=60.0).fencing_token == far + 1
        store.delete("job")
        assert store.acquire("job", owner="one", ttl=60.0).fencing_token == far + 2


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_process_that_is_frozen_while_it_makes_the_tables_is_ended(
    new_database: Callable[[str], str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the server it is one whose session is idle; the others wait for its lock, and get it."""
    url = new_database(kind)
    frozen = create_engine(url)
    connection = frozen.connect()
    with monkeypatch.context() as patch:
        patch.setattr(_schema, "IDLE_SECONDS", 1)
        _schema._Exclusive(connection, _schema.Names("resumable_sync_")).__enter__()
    with SQLJobStore(url) as store:
        assert store.acquire("job", owner="owner", ttl=60.0).owner == "owner"
    with pytest.raises(DBAPIError):
        connection.execute(text("SELECT 1"))
    connection.close()
    frozen.dispose()


def test_making_the_tables_leaves_no_limit_behind(mariadb_url: str) -> None:
    engine = create_engine(mariadb_url, poolclass=StaticPool)
    query = "SELECT @@SESSION.wait_timeout, @@GLOBAL.wait_timeout"
    with SQLJobStore(engine) as store:
        store.acquire("job", owner="owner", ttl=60.0)
    with engine.connect() as connection:
        limit, usual = connection.exec_driver_sql(query).one()
    engine.dispose()
    assert limit == usual
