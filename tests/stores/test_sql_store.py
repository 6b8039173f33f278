"""The store of a database, call by call and to the letter, on a SQLite file."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

from resumable_sync._database import make_engine
from resumable_sync._errors import ConfigurationError, JobHeldError, LeaseLostError, StateCorruptError, StoreError
from resumable_sync._history import History
from resumable_sync._model import DeadLetter, Guarantee, Job, JobStatus, Lease
from resumable_sync.stores import _schema, _upkeep
from resumable_sync.stores import sql as module
from resumable_sync.stores._durability import Saved
from resumable_sync.stores._identity import same_database
from resumable_sync.stores._leases import LATER_ATTEMPT
from resumable_sync.stores._rows import time_of
from resumable_sync.stores._statements import Statements
from resumable_sync.stores._transaction import EnlistedTransaction
from resumable_sync.stores.sql import SQLJobStore, from_data

JOB = Job(id="j", status=JobStatus.RUNNING, run=1, attempt=1, cursor=[1], processed_records=10)
LETTER = DeadLetter(job_id="j", run=1, record=[5], error="ValueError: no", key="k")
HISTORY = History(run_id=None, guarantee=Guarantee.EXACTLY_ONCE, stops={1: "SIGTERM"})
NEWEST = 253_402_300_800_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def open_store(path: Path) -> Iterator[Callable[..., SQLJobStore]]:
    with ExitStack() as stack:

        def make(url: Any = None, **options: Any) -> SQLJobStore:
            return stack.enter_context(SQLJobStore(url or f"sqlite:///{path}", **options))

        yield make


@pytest.fixture
def store(open_store: Callable[..., SQLJobStore]) -> SQLJobStore:
    return open_store()


@pytest.fixture
def database(path: Path) -> Iterator[Engine]:
    """An engine of somebody else's."""
    engine = create_engine(f"sqlite:///{path}")
    yield engine
    engine.dispose()


def saved(store: SQLJobStore) -> Job:
    job = store.load("j")
    assert job is not None
    return job


def held(store: SQLJobStore, owner: str = "me") -> Lease:
    return store.acquire("j", owner=owner, ttl=60.0)


def do(engine: Engine, statement: str, **values: Any) -> Any:
    with engine.begin() as connection:
        return connection.execute(text(statement), values)


class TestMaking:
    @pytest.mark.parametrize("prefix", ["", "a-b", "a b", "é", "x" * 41, "x\n"])
    def test_what_cannot_start_a_tables_name_is_refused(self, path: Path, prefix: str) -> None:
        with pytest.raises(ConfigurationError, match="table_prefix="):
            SQLJobStore(f"sqlite:///{path}", table_prefix=prefix)

    @pytest.mark.parametrize("prefix", ["x" * 40, "A_9", "0"])
    def test_what_can_does(self, open_store: Any, database: Engine, prefix: str) -> None:
        held(open_store(table_prefix=prefix))
        names = {name for (name,) in do(database, "SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert names >= {f"{prefix}jobs", f"{prefix}meta", f"{prefix}dead_letters", f"{prefix}attempts"}

    @pytest.mark.parametrize(
        ("variable", "url"),
        [(None, "resumable_sync.db"), ("", "resumable_sync.db"), ("sqlite:///named.db", "named.db")],
    )
    def test_where_it_is_if_nobody_says(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, url: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("RESUMABLE_SYNC_STORE", raising=False)
        if variable is not None:
            monkeypatch.setenv("RESUMABLE_SYNC_STORE", variable)
        with SQLJobStore() as store:
            assert repr(store) == f"SQLJobStore('sqlite:///{url}', table_prefix='resumable_sync_')"

    def test_commits_survive_a_power_cut(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[bool] = []

        def watched(url: Any, *, durable: bool = False) -> Engine:
            asked.append(durable)
            return make_engine(url, durable=durable)

        monkeypatch.setattr(module, "make_engine", watched)
        with SQLJobStore(f"sqlite:///{path}") as store, self.copy(store):
            assert asked == [True, True]

    def test_plain_data_make_one_too(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RESUMABLE_SYNC_STORE", "sqlite:///named.db")
        parts = {"drivername": "sqlite", "database": str(path)}
        for given, shown in (({"url": parts}, path), ({"url": f"sqlite:///{path}"}, path), ({}, "named.db")):
            with from_data(**given, table_prefix="etl_") as store:
                assert repr(store) == f"SQLJobStore('sqlite:///{shown}', table_prefix='etl_')"

    def copy(self, store: SQLJobStore) -> SQLJobStore:
        other = SQLJobStore.__new__(SQLJobStore)
        other.__setstate__(store.__getstate__())
        return other

    @pytest.mark.parametrize("form", ["jobs.db", "file:jobs.db?uri=true"])
    def test_a_copy_knows_the_folder_and_the_prefix(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with SQLJobStore(f"sqlite:///{form}", table_prefix="etl_") as store:
            held(store)
            state = store.__getstate__()
            assert state["table_prefix"] == "etl_"
            named = "file:jobs.db" if form.startswith("file:") else str(tmp_path / "jobs.db")
            assert state["url"].database == named
            with self.copy(store) as copy:
                assert copy.load("j") is not None
                copy.__getstate__()  # it is its own engine that it has

    @pytest.mark.parametrize("durability", ["full", "relaxed"])
    def test_it_knows_how_durable_it_is_and_copies_do(self, path: Path, durability: Any) -> None:
        with SQLJobStore(f"sqlite:///{path}", durability=durability) as store, self.copy(store) as copy:
            assert (store.durability, copy.durability) == (durability, durability)
        with from_data(url=f"sqlite:///{path}", durability=durability) as made:
            assert made.durability == durability

    @pytest.mark.parametrize("durability", ["full", "relaxed"])
    @pytest.mark.parametrize("server", [False, True])
    def test_what_was_saved_is_remembered_where_a_server_may_forget_it(
        self, path: Path, durability: Any, *, server: bool
    ) -> None:
        url = "postgresql://somebody@127.0.0.1:1/jobs" if server else f"sqlite:///{path}"
        with SQLJobStore(url, durability=durability) as store:
            remembered = server and durability == "relaxed"
            assert (store._saved is not None) is remembered
            assert (store._statements.save_enlisted is not store._statements.save) is remembered
            assert store._connections._relaxed is (durability == "relaxed")

    def test_memory_is_refused_and_a_server_has_no_file(self, store: SQLJobStore, path: Path) -> None:
        with pytest.raises(ConfigurationError, match="MemoryJobStore"):
            SQLJobStore("sqlite://")
        with SQLJobStore("postgresql://somebody@127.0.0.1:1/jobs") as elsewhere:
            assert (elsewhere._path, store._path) == (None, path)

    @pytest.mark.parametrize("driver", ["psycopg2", "psycopg2cffi"])
    def test_a_driver_whose_connections_nobody_can_watch_is_refused(self, database: Engine, driver: str) -> None:
        database.dialect.driver = driver
        with pytest.raises(ConfigurationError, match=rf"'{driver}' cannot serve .* postgresql\+psycopg://"):
            SQLJobStore(database)

    def test_one_that_is_gone_closes_its_connections(self, store: SQLJobStore) -> None:
        assert store._finalizer.peek()[1] == store._connections.close  # type: ignore[index]

    def test_one_on_an_engine_is_not_copied_and_leaves_the_engine_open(self, database: Engine) -> None:
        pool = database.pool
        with SQLJobStore(database) as store:
            with pytest.raises(ConfigurationError, match="from a URL"):
                store.__getstate__()
            held(store)
        assert database.pool is pool

    def test_its_own_engine_is_closed(self, open_store: Any) -> None:
        store = open_store()
        pool = store._connections.engine.pool
        store.close()
        assert store._connections.engine.pool is not pool

    def test_the_ddl_is_one_statement_after_another(self, store: SQLJobStore) -> None:
        lines = store.ddl().split(";\n")
        assert lines[-1] == ""
        assert lines[:-1] == _schema.ddl(_schema.Names("resumable_sync_"), store._connections.engine.dialect)


class TestBeforeThereAreTables:
    def test_nothing_is_there_and_nothing_is_made(self, store: SQLJobStore, path: Path) -> None:
        assert (store.load("j"), store.jobs(), store.dead_letters("j"), store.attempts("j")) == (None, [], [], [])
        assert store.history("j") is None
        store.request_stop("j")
        store.delete("j")
        assert not path.exists()

    def test_nor_where_there_is_another_database(self, store: SQLJobStore, database: Engine) -> None:
        do(database, "CREATE TABLE numbers (n INTEGER)")
        assert (store.load("j"), store.jobs(), store.dead_letters("j"), store.attempts("j")) == (None, [], [], [])
        assert store.history("j") is None
        store.request_stop("j")
        store.delete("j")
        assert [name for (name,) in do(database, "SELECT name FROM sqlite_master")] == ["numbers"]

    def test_the_file_is_made_as_a_reader_friendly_one(self, store: SQLJobStore, database: Engine) -> None:
        held(store)
        assert do(database, "PRAGMA journal_mode").scalar() == "wal"

    @pytest.mark.parametrize(
        "call",
        [
            lambda store: store.load(""),
            lambda store: store.acquire("", owner="me", ttl=60.0),
            lambda store: store.request_stop(""),
            lambda store: store.delete(""),
            lambda store: store.dead_letters(""),
            lambda store: store.attempts(""),
            lambda store: store.history(""),
        ],
    )
    def test_a_job_has_a_name(self, store: SQLJobStore, call: Callable[[SQLJobStore], object]) -> None:
        with pytest.raises(ConfigurationError, match="the job id"):
            call(store)


class TestErrors:
    """What is done is told by the error, with the job."""

    @pytest.fixture
    def broken(self, open_store: Any, path: Path) -> SQLJobStore:
        store: SQLJobStore = open_store()
        path.write_text("no database, but long enough to be looked at as one\n" * 100)
        return store

    @pytest.mark.parametrize(
        ("call", "told"),
        [
            (lambda store: store.load("j"), "loading job 'j' failed: "),
            (lambda store: store.jobs(), "listing the jobs failed: "),
            (lambda store: store.acquire("j", owner="me", ttl=60.0), "acquiring job 'j' failed: "),
            (lambda store: store.request_stop("j"), "stopping job 'j' failed: "),
            (lambda store: store.delete("j"), "deleting job 'j' failed: "),
            (lambda store: store.dead_letters("j"), "reading the dead letters of job 'j' failed: "),
            (lambda store: store.attempts("j"), "reading the lineage of job 'j' failed: "),
            (lambda store: store.history("j"), "reading the history of job 'j' failed: "),
        ],
    )
    def test_of_what_needs_no_lease(
        self, broken: SQLJobStore, call: Callable[[SQLJobStore], object], told: str
    ) -> None:
        with pytest.raises(StoreError) as caught:
            call(broken)
        assert str(caught.value).startswith(told)

    @pytest.mark.parametrize(
        ("table", "call", "told"),
        [
            ("jobs", lambda store, lease, _: store.renew(lease, 60.0), "renewing the lease of job 'j' failed: "),
            ("jobs", lambda store, lease, _: store.save(JOB, lease), "saving job 'j' failed: "),
            ("jobs", lambda store, lease, _: store.release(lease), "releasing job 'j' failed: "),
            (
                "dead_letters",
                lambda store, _, transaction: store.add_dead_letters([LETTER], transaction),
                "keeping dead letters of job 'j' failed: ",
            ),
            (
                "dead_letters",
                lambda store, _, transaction: store.remove_dead_letter(LETTER, transaction),
                "removing a dead letter of job 'j' failed: ",
            ),
            (
                "dead_letters",
                lambda store, _, transaction: store.purge_dead_letters("j", transaction),
                "removing the dead letters of job 'j' failed: ",
            ),
            (
                "history",
                lambda store, lease, _: store.keep_history(HISTORY, lease),
                "keeping the history of job 'j' failed: ",
            ),
        ],
    )
    def test_of_what_needs_one(
        self, store: SQLJobStore, database: Engine, table: str, call: Callable[..., object], told: str
    ) -> None:
        lease = held(store)
        do(database, f"ALTER TABLE resumable_sync_{table} RENAME TO gone")
        save = partial(store._save, store._statements.save)
        transaction = EnlistedTransaction(store._connections.read(), save, None)
        with pytest.raises(StoreError) as caught:
            call(store, lease, transaction)
        assert str(caught.value).startswith(told)
        transaction.connection.close()

    def test_of_a_connection_that_is_closed(self, store: SQLJobStore, database: Engine) -> None:
        connection = database.connect()
        connection.close()
        with pytest.raises(StoreError) as caught:
            store.enlist(connection)
        assert str(caught.value).startswith("taking part in a transaction failed: ")

    @pytest.mark.parametrize("job", [JOB, attrs.evolve(JOB, id="k")])
    def test_a_job_is_saved_under_its_own_lease(self, store: SQLJobStore, job: Job) -> None:
        lease = store.acquire("k" if job.id == "j" else "j", owner="me", ttl=60.0)
        with pytest.raises(ConfigurationError, match=f"job '{job.id}' cannot be saved"):
            store.save(job, lease)


class TestLeases:
    def test_the_lease_is_what_was_granted(self, store: SQLJobStore, database: Engine) -> None:
        lease = held(store)
        row = do(database, "SELECT * FROM resumable_sync_jobs").mappings().one()
        assert (lease.job_id, lease.owner, lease.fencing_token) == ("j", "me", row["fencing_token"])
        assert (row["lease_owner"], row["lease_ttl"]) == ("me", 60_000_000)
        assert lease.expires_at == time_of(row["lease_expires_at"])
        assert not lease.stop_requested
        assert saved(store).lease == lease

    @pytest.mark.parametrize(("ttl", "microseconds"), [(0.5, 500_000), (1e-9, 1), (1.0000004, 1_000_000)])
    def test_its_ttl_is_kept_in_microseconds(
        self, store: SQLJobStore, database: Engine, ttl: float, microseconds: int
    ) -> None:
        lease = store.acquire("j", owner="me", ttl=ttl)
        query = "SELECT lease_ttl FROM resumable_sync_jobs"
        assert do(database, query).scalar() == microseconds
        store.renew(lease, 2 * ttl)
        assert do(database, query).scalar() == max(1, round(2_000_000 * ttl))

    def test_who_holds_it_is_told_and_until_when(self, store: SQLJobStore) -> None:
        lease = held(store)
        with pytest.raises(JobHeldError) as caught:
            held(store, "other")
        assert (caught.value.owner, caught.value.expires_at, caught.value.job_id) == ("me", lease.expires_at, "j")

    def test_a_stop_that_was_asked_for_is_told_to_its_owner_alone(self, store: SQLJobStore) -> None:
        lease = held(store)
        store.request_stop("j")
        assert held(store).stop_requested
        lease = held(store)
        assert store.renew(lease, 60.0).stop_requested
        assert store.save(JOB, lease).stop_requested
        assert not store.acquire("j", owner="other", ttl=60.0, replacing=lease.fencing_token).stop_requested

    def test_another_token_than_the_newest_is_not_replaced(self, store: SQLJobStore) -> None:
        lease = held(store)
        with pytest.raises(JobHeldError) as caught:
            store.acquire("j", owner="other", ttl=60.0, replacing=lease.fencing_token - 1)
        assert (caught.value.owner, caught.value.expires_at) == ("me", lease.expires_at)
        store.release(lease)
        with pytest.raises(JobHeldError) as caught:
            store.acquire("j", owner="other", ttl=60.0, replacing=lease.fencing_token - 1)
        assert (caught.value.owner, caught.value.expires_at, caught.value.job_id) == (LATER_ATTEMPT, None, "j")

    def test_nor_one_of_a_job_that_is_not_there(self, store: SQLJobStore) -> None:
        with pytest.raises(JobHeldError) as caught:
            store.acquire("j", owner="other", ttl=60.0, replacing=7)
        assert (caught.value.owner, caught.value.expires_at, caught.value.job_id) == (LATER_ATTEMPT, None, "j")
        assert store.load("j") is None

    def test_the_newest_is(self, store: SQLJobStore) -> None:
        lease = held(store)
        newer = store.acquire("j", owner="other", ttl=60.0, replacing=lease.fencing_token)
        assert newer.fencing_token > lease.fencing_token
        for call in (
            lambda: store.renew(lease, 60.0),
            lambda: store.save(JOB, lease),
            lambda: store.release(lease),
        ):
            with pytest.raises(LeaseLostError) as caught:
                call()
            assert (caught.value.job_id, caught.value.fencing_token) == ("j", lease.fencing_token)
        assert saved(store).lease == newer

    @pytest.mark.parametrize("returning", [False, True])
    def test_saving_and_renewing_tell_the_lease_as_it_is_then(
        self, store: SQLJobStore, monkeypatch: pytest.MonkeyPatch, *, returning: bool
    ) -> None:
        """As on MySQL, where an UPDATE returns nothing, and as elsewhere."""
        dialect = store._connections.engine.dialect
        monkeypatch.setattr(dialect, "update_returning", returning)
        monkeypatch.setattr(store, "_statements", Statements(store._sql))
        other = store.acquire("k", owner="me", ttl=5.0)
        lease = held(store)
        for newer in (store.renew(lease, 120.0), store.save(JOB, lease)):
            assert attrs.evolve(newer, expires_at=lease.expires_at) == lease
            assert newer.expires_at > lease.expires_at + timedelta(seconds=50)
        assert saved(store) == attrs.evolve(JOB, lease=saved(store).lease)
        store.request_stop("j")
        assert store.save(JOB, lease).stop_requested
        assert not store.renew(other, 5.0).stop_requested
        with pytest.raises(LeaseLostError):
            store.save(JOB, attrs.evolve(lease, fencing_token=lease.fencing_token - 1))

    def test_a_token_beyond_any_clock_is_not_granted(self, store: SQLJobStore, database: Engine) -> None:
        lease = held(store)
        store.release(lease)
        do(
            database,
            "UPDATE resumable_sync_meta SET value = :newest WHERE name = 'newest_deleted_token'",
            newest=NEWEST,
        )
        with pytest.raises(StateCorruptError) as caught:
            held(store)
        assert (caught.value.job_id, caught.value.field) == ("j", "fencing_token")
        assert do(database, "SELECT fencing_token FROM resumable_sync_jobs").scalar() == lease.fencing_token

    @pytest.mark.parametrize("column", ["run", "processed_records"])
    def test_a_job_that_cannot_be_counted_on_is_left(self, store: SQLJobStore, database: Engine, column: str) -> None:
        lease = held(store)
        store.release(lease)
        do(database, f"UPDATE resumable_sync_jobs SET {column} = :most", most=2**62 + 1)
        with pytest.raises(StateCorruptError):
            held(store)
        assert saved(store).lease is None

    def test_who_acquires_it_again_goes_on_with_the_attempt(self, store: SQLJobStore) -> None:
        held(store)
        lease = held(store)
        (attempt,) = store.attempts("j")
        assert (attempt.owner, attempt.fencing_token) == ("me", lease.fencing_token)
        newer = store.acquire("j", owner="other", ttl=60.0, replacing=lease.fencing_token)
        assert [(one.owner, one.fencing_token) for one in store.attempts("j")] == [
            ("me", lease.fencing_token),
            ("other", newer.fencing_token),
        ]

    def test_how_long_a_transaction_may_be_idle_goes_by_the_lease(self, store: SQLJobStore) -> None:
        held(store)
        assert store._connections.idle_seconds == 300

    def test_a_job_that_is_deleted_each_time_is_given_up(
        self, store: SQLJobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        held(store)
        tries: list[dict[str, Any]] = []

        def deleted(_: str, grant: dict[str, Any]) -> None:
            tries.append(grant)

        monkeypatch.setattr(store, "_grant", deleted)
        with pytest.raises(StoreError, match="job 'k' was deleted each time"):
            store.acquire("k", owner="me", ttl=60.0)
        assert tries == [{"b_id": "k", "b_owner": "me", "b_ttl": 60_000_000}] * module.MAX_RACES

    def test_one_that_is_deleted_once_is_made_again(self, store: SQLJobStore, monkeypatch: pytest.MonkeyPatch) -> None:
        grant, tries = store._grant, []

        def moody(job_id: str, parameters: dict[str, Any]) -> Lease | None:
            tries.append(job_id)
            if len(tries) == 2:
                store.delete("j")
            return grant(job_id, parameters)

        monkeypatch.setattr(store, "_grant", moody)
        assert held(store).owner == "me"
        assert len(tries) == 3

    def test_one_that_is_deleted_amid_the_grant_is_none(self, store: SQLJobStore, database: Engine) -> None:
        store.release(held(store))
        do(
            database,
            "CREATE TRIGGER strike BEFORE UPDATE ON resumable_sync_jobs BEGIN DELETE FROM resumable_sync_jobs; END",
        )
        assert store._grant("j", {"b_id": "j", "b_owner": "me", "b_ttl": 1}) is None

    def test_no_sync_begins_inside_a_transaction_of_its_database(self, store: SQLJobStore) -> None:
        with store.transaction(), pytest.raises(ConfigurationError, match="job 'k' cannot be started from inside"):
            store.acquire("k", owner="me", ttl=60.0)

    def test_but_one_of_another_may(self, store: SQLJobStore, open_store: Any, tmp_path: Path) -> None:
        held(store)
        with store.transaction():
            assert held(open_store(f"sqlite:///{tmp_path}/other.db")).owner == "me"

    def test_a_thread_gives_its_connection_back_with_the_lease(self, database: Engine) -> None:
        pool: Any = database.pool
        with SQLJobStore(database) as store:
            lease = held(store)
            store.save(JOB, lease)
            assert pool.checkedout() == 1
            store.release(lease)
            assert pool.checkedout() == 0
            newer = held(store)
            store.save(JOB, newer)
            with pytest.raises(LeaseLostError):
                store.release(lease)
            assert pool.checkedout() == 0

    def test_of_a_released_lease_nothing_is_left(self, store: SQLJobStore, database: Engine) -> None:
        lease = held(store)
        store.save(JOB, lease)
        store.request_stop("j")
        store.release(lease)
        row = do(database, "SELECT * FROM resumable_sync_jobs").mappings().one()
        names = ("lease_owner", "lease_ttl", "lease_expires_at", "stop_requested", "fencing_token")
        assert [row[name] for name in names] == [None, None, None, 0, lease.fencing_token]
        assert [attempt.outcome for attempt in store.attempts("j")] == ["interrupted"]


class TestRelaxed:
    """A server that crashed may have lost the newest commits."""

    @pytest.fixture
    def store(self, open_store: Any) -> SQLJobStore:
        """As on PostgreSQL, but for the setting of its transactions, which SQLite does not have."""
        made: SQLJobStore = open_store()
        made._saved = Saved()
        made._statements = Statements(made._sql, relaxed=True)
        made._statements.save = made._statements.save_enlisted
        return made

    def save(self, store: Any, batches: int, lease: Lease) -> Lease:
        answer: Lease = store.save(attrs.evolve(JOB, processed_batches=batches), lease)
        return answer

    @pytest.mark.parametrize("alone", [True, False])
    def test_a_job_is_saved_only_onto_what_was_saved_before(
        self, store: SQLJobStore, database: Engine, *, alone: bool
    ) -> None:
        def save(batches: int) -> Lease:
            if alone:
                return self.save(store, batches, lease)
            with store.transaction() as transaction:
                return self.save(transaction, batches, lease)

        lease = held(store)
        for batches in (1, 2):
            assert save(batches).fencing_token == lease.fencing_token
        do(database, "UPDATE resumable_sync_jobs SET processed_batches = 1")
        with pytest.raises(StoreError, match="job 'j' stands at batch 1 in its store, and not at 2") as caught:
            save(3)
        assert not isinstance(caught.value, LeaseLostError)
        assert saved(store).processed_batches == 1

    def test_a_row_of_another_run_is_not_what_was_saved_before(self, store: SQLJobStore, database: Engine) -> None:
        lease, job = held(store), attrs.evolve(JOB, run_id="this", processed_batches=1)
        store.save(job, lease)
        store.save(job, lease)
        do(database, "UPDATE resumable_sync_jobs SET run_id = 'that before'")
        with pytest.raises(StoreError, match="job 'j' stands at batch 1 of another run in its store"):
            store.save(job, lease)

    def test_a_lease_is_lost_as_ever(self, store: SQLJobStore) -> None:
        lease = held(store)
        self.save(store, 1, lease)
        store.acquire("j", owner="other", ttl=60.0, replacing=lease.fencing_token)
        with pytest.raises(LeaseLostError):
            self.save(store, 2, lease)

    def test_what_was_saved_under_a_lease_is_forgotten_with_it(self, store: SQLJobStore, database: Engine) -> None:
        assert store._saved is not None
        lease = held(store)
        self.save(store, 1, lease)
        assert store._saved.expected(lease) == (JOB.run_id, 1, 1)
        store.release(lease)
        assert store._saved._saved == {}

    @pytest.mark.parametrize("committed", [False, True])
    def test_a_transaction_of_the_callers_may_commit_or_not(
        self, store: SQLJobStore, database: Engine, *, committed: bool
    ) -> None:
        lease = held(store)
        self.save(store, 1, lease)
        with database.connect() as connection:
            self.save(store.enlist(connection), 2, lease)
            (connection.commit if committed else connection.rollback)()
        self.save(store, 3, lease)
        assert saved(store).processed_batches == 3


class TestHistory:
    def test_it_is_kept_for_its_job_until_that_is_deleted(self, store: SQLJobStore) -> None:
        store.keep_history(HISTORY, held(store))
        other = store.acquire("k", owner="me", ttl=60.0)
        assert (store.history("j"), store.history("k")) == (HISTORY, None)
        store.keep_history(HISTORY, other)
        store.delete("j")
        assert (store.history("j"), store.history("k")) == (None, HISTORY)
        store.keep_history(None, other)
        assert store.history("k") is None

    def test_one_of_another_job_with_the_same_token_is_left(self, store: SQLJobStore, database: Engine) -> None:
        lease, _ = held(store), store.acquire("k", owner="me", ttl=60.0)
        do(database, "UPDATE resumable_sync_history SET fencing_token = :token", token=lease.fencing_token)
        store.keep_history(HISTORY, lease)
        assert (store.history("j"), store.history("k")) == (HISTORY, None)

    def test_a_damaged_one_is_named(self, store: SQLJobStore, database: Engine) -> None:
        held(store)
        do(database, "UPDATE resumable_sync_history SET samples = '['")
        with pytest.raises(StateCorruptError) as caught:
            store.history("j")
        assert (caught.value.job_id, caught.value.field) == ("j", "samples")

    def test_only_the_newest_lease_keeps_it(self, store: SQLJobStore) -> None:
        lease = held(store)
        newer = store.acquire("j", owner="other", ttl=60.0, replacing=lease.fencing_token)
        with pytest.raises(LeaseLostError):
            store.keep_history(HISTORY, lease)
        assert store.history("j") is None
        store.keep_history(HISTORY, newer)
        assert store.history("j") == HISTORY


class TestDeleting:
    def test_everything_of_the_job_goes_and_nothing_of_others(self, store: SQLJobStore, database: Engine) -> None:
        other = store.acquire("k", owner="me", ttl=60.0)
        lease = held(store)
        with store.transaction() as transaction:
            store.add_dead_letters([LETTER, attrs.evolve(LETTER, job_id="k")], transaction)
            transaction.save(JOB, lease)
        store.delete("j")
        assert (store.load("j"), store.dead_letters("j"), store.attempts("j")) == (None, [], [])
        assert (len(store.dead_letters("k")), len(store.attempts("k"))) == (1, 1)  # type: ignore[arg-type]
        assert [job.id for job in store.jobs()] == ["k"]
        assert store.renew(other, 60.0).owner == "me"

    def test_its_tokens_are_never_granted_again(self, store: SQLJobStore, database: Engine) -> None:
        lease = held(store)
        do(database, "UPDATE resumable_sync_jobs SET fencing_token = :token", token=NEWEST - 5)
        store.delete("j")
        assert held(store).fencing_token == NEWEST - 4
        assert lease.fencing_token < NEWEST - 5

    @pytest.mark.parametrize("token", [-1, 2**63 - 1])
    def test_a_damaged_token_is_not_noted(self, store: SQLJobStore, database: Engine, token: int) -> None:
        held(store)
        do(database, "UPDATE resumable_sync_jobs SET fencing_token = :token", token=token)
        store.delete("j")
        assert do(database, "SELECT value FROM resumable_sync_meta WHERE name = 'newest_deleted_token'").scalar() == 0

    def test_one_that_is_not_there(self, store: SQLJobStore) -> None:
        held(store)
        store.delete("k")
        assert len(list(store.jobs())) == 1


class TestLetters:
    def test_they_come_back_in_order_with_their_ids(self, store: SQLJobStore) -> None:
        lease = held(store)
        with store.transaction() as transaction:
            store.add_dead_letters([attrs.evolve(LETTER, record=[n]) for n in (1, 2, 3)], transaction)
            transaction.save(JOB, lease)
        first, second, third = store.dead_letters("j")
        assert [letter.record for letter in (first, second, third)] == [[1], [2], [3]]
        with store.transaction() as transaction:
            store.remove_dead_letter(second, transaction)
            transaction.save(JOB, lease)
        assert store.dead_letters("j") == [first, third]
        with store.transaction() as transaction:
            store.purge_dead_letters("k", transaction)
            transaction.save(JOB, lease)
        assert store.dead_letters("j") == [first, third]

    def test_none_may_be_kept(self, store: SQLJobStore) -> None:
        lease = held(store)
        with store.transaction() as transaction:
            store.add_dead_letters([], transaction)
            transaction.save(JOB, lease)
        assert store.dead_letters("j") == []

    def test_of_another_job_none_is_removed(self, store: SQLJobStore) -> None:
        lease = held(store)
        with store.transaction() as transaction:
            store.add_dead_letters([LETTER], transaction)
            transaction.save(JOB, lease)
        (letter,) = store.dead_letters("j")
        with store.transaction() as transaction:
            store.remove_dead_letter(attrs.evolve(letter, job_id="k"), transaction)
            transaction.save(JOB, lease)
        assert store.dead_letters("j") == [letter]


class TestTakingPart:
    def test_in_a_transaction_of_the_same_database(self, store: SQLJobStore, database: Engine) -> None:
        lease = held(store)
        with database.begin() as connection:
            transaction = store.enlist(connection)
            assert transaction.connection is connection
            assert transaction.save(JOB, lease).owner == "me"
        assert saved(store).processed_records == 10

    def test_an_engine_is_asked_once(
        self, store: SQLJobStore, database: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[bool] = []

        def watched(one: Any, other: Any) -> bool:
            assert one.engine is database
            assert other.engine is store._connections.engine
            asked.append(same_database(one, other))
            return asked[-1]

        monkeypatch.setattr(module, "same_database", watched)
        held(store)
        for _ in range(2):
            with database.begin() as connection:
                store.enlist(connection)
        assert asked == [True]
        with store._connections.read() as own:
            store.enlist(own)
        assert asked == [True]

    def test_not_in_one_of_another(self, store: SQLJobStore, tmp_path: Path) -> None:
        held(store)
        other = create_engine(f"sqlite:///{tmp_path}/other.db")
        for _ in range(2):
            with other.begin() as connection, pytest.raises(ConfigurationError, match="does not lead to"):
                store.enlist(connection)
        other.dispose()


class TestVersions:
    """Tables of an older version are read as they are, and brought up to date when something is to be written."""

    def age(self, store: SQLJobStore, database: Engine, version: int) -> None:
        """Let somebody have used a store of an older version."""
        lease = held(store)
        with store.transaction() as transaction:
            store.add_dead_letters([LETTER], transaction)
            transaction.save(JOB, lease)
        store.release(lease)
        columns = {1: ("stalled_attempts", "batch_size", "saved_token"), 2: ("batch_size", "saved_token"), 3: ()}
        for column in columns[version]:
            do(database, f"ALTER TABLE resumable_sync_jobs DROP COLUMN {column}")
        do(database, "DROP TABLE resumable_sync_history")
        if version < 3:
            do(database, "DROP TABLE resumable_sync_attempts")
        if version == 1:
            do(database, "DROP TABLE resumable_sync_dead_letters")
        do(database, "UPDATE resumable_sync_meta SET value = :version WHERE name = 'schema_version'", version=version)

    def version(self, database: Engine) -> Any:
        return do(database, "SELECT value FROM resumable_sync_meta WHERE name = 'schema_version'").scalar()

    @pytest.mark.parametrize("version", [1, 2, 3])
    def test_reading_changes_nothing(self, open_store: Any, database: Engine, version: int) -> None:
        self.age(open_store(), database, version)
        store = open_store()
        assert saved(store) == JOB
        assert store.jobs() == [JOB]
        assert [letter.record for letter in store.dead_letters("j")] == ([] if version == 1 else [[5]])
        assert [attempt.outcome for attempt in store.attempts("j")] == (["interrupted"] if version == 3 else [])
        assert store.history("j") is None
        store.request_stop("j")
        assert self.version(database) == version

    @pytest.mark.parametrize("version", [1, 2, 3])
    @pytest.mark.parametrize("call", [held, lambda store: store.delete("j")])
    def test_writing_brings_them_up_to_date(
        self, open_store: Any, database: Engine, version: int, call: Callable[[SQLJobStore], object]
    ) -> None:
        self.age(open_store(), database, version)
        store = open_store()
        call(store)
        assert self.version(database) == _schema.SCHEMA_VERSION
        assert (store.load("j") is None) == (call is not held)

    def test_what_is_up_to_date_is_asked_once(self, open_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        held(open_store())
        asked: list[int | None] = []
        stored_version = _schema.stored_version

        def watched(*given: Any) -> int | None:
            asked.append(stored_version(*given))
            return asked[-1]

        monkeypatch.setattr(_schema, "stored_version", watched)
        store = open_store()
        for _ in range(2):
            saved(store)
            held(store)
        assert asked == [_schema.SCHEMA_VERSION]

    def test_nor_after_they_were_made_or_migrated(
        self, open_store: Any, database: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made, migrated = open_store(), open_store()
        self.age(made, database, 2)
        held(migrated)

        def fail(*_: object) -> None:
            raise AssertionError

        monkeypatch.setattr(_schema, "stored_version", fail)
        saved(made)
        saved(migrated)

    @pytest.mark.parametrize("call", [held, lambda store: store.delete("j")])
    def test_a_role_that_may_not_migrate_is_told_what_to_do(
        self, open_store: Any, database: Engine, monkeypatch: pytest.MonkeyPatch, call: Callable[[SQLJobStore], object]
    ) -> None:
        self.age(open_store(), database, 2)
        monkeypatch.setattr(_schema, "migrate", refuse)
        with pytest.raises(StoreError) as caught:
            call(open_store())
        message = str(caught.value)
        assert f"are of version 2 and must be brought to version {_schema.SCHEMA_VERSION}" in message
        assert "may not do that (ProgrammingError: permission denied)" in message
        assert "DELETE on resumable_sync_attempts" in message

    def test_one_that_may_not_make_them_is_given_the_statements(
        self, store: SQLJobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_schema, "create", refuse)
        with pytest.raises(StoreError) as caught:
            held(store)
        message = str(caught.value)
        assert "the job store's tables do not exist" in message
        assert message.endswith(store.ddl()) or store.ddl() in message
        assert isinstance(caught.value.__cause__, ProgrammingError)


class DriverError(Exception):
    """What a driver raises."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments)
        vars(self).update(attributes)


def refuse(*_: object) -> None:
    raise ProgrammingError("CREATE", {}, DriverError("permission denied", sqlstate="42501"))


@pytest.mark.parametrize(
    ("origin", "answer"),
    [
        (DriverError("no", sqlstate="42501"), True),
        (DriverError("no", pgcode="42501"), True),
        (DriverError("no", sqlstate="42P01"), False),
        (DriverError(1044, "no"), True),
        (DriverError(1142, "no"), True),
        (DriverError(1227, "no"), True),
        (DriverError(1146, "no"), False),
        (DriverError(), False),
        (None, False),
    ],
)
def test_whether_a_role_may_not(origin: Any, answer: bool) -> None:
    assert _upkeep._may_not_create(DBAPIError("CREATE", {}, origin)) is answer


def test_another_error_while_they_are_made_is_told_as_it_is(
    store: SQLJobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("CREATE", {}, DriverError("disk full"))

    monkeypatch.setattr(_schema, "create", fail)
    with pytest.raises(StoreError, match="acquiring job 'j' failed: OperationalError: disk full"):
        held(store)
