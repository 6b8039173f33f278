"""How a store is made, closed, lost, pickled and forked; and what its errors say."""

import gc
import multiprocessing
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.pool import StaticPool

from resumable_sync._database import database_identity, make_engine
from resumable_sync._errors import ConfigurationError, LeaseLostError, StoreError
from resumable_sync._model import Job
from resumable_sync._retry import is_transient
from resumable_sync.stores.sql import SQLJobStore

CUT = (
    "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity "
    "WHERE pid <> pg_backend_pid() AND datname = current_database()"
)


def open_files(path: Path) -> list[str]:
    links = list(Path("/proc/self/fd").iterdir())
    return [str(link.readlink()) for link in links if link.is_symlink() and str(link.readlink()).startswith(str(path))]


def busy_store(path: Path) -> SQLJobStore:
    store = SQLJobStore(f"sqlite:///{path}/jobs.db")
    lease = store.acquire("job", owner="one", ttl=60.0)
    store.save(Job(id="job"), lease)
    thread = threading.Thread(target=lambda: store.save(Job(id="job"), store.renew(lease, 60.0)))
    thread.start()
    thread.join()
    assert open_files(path)
    return store


def test_closing_closes_the_connections(tmp_path: Path) -> None:
    store = busy_store(tmp_path)
    store.close()
    assert open_files(tmp_path) == []
    assert store.load("job") is not None
    store.close()
    assert open_files(tmp_path) == []


def test_a_store_that_is_gone_closes_its_connections(tmp_path: Path) -> None:
    store = busy_store(tmp_path)
    del store
    gc.collect()
    assert open_files(tmp_path) == []


def test_a_thread_that_ends_gives_its_connection_back(database_url: str) -> None:
    engine = create_engine(database_url)
    store = SQLJobStore(engine)
    pool: Any = engine.pool

    def work() -> None:
        store.save(Job(id="job"), store.acquire("job", owner="one", ttl=60.0))
        assert pool.checkedout() == 1

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert pool.checkedout() == 0
    store.close()
    with engine.connect():
        pass
    engine.dispose()


def test_threads_have_transactions_of_their_own(postgres_url: str) -> None:
    """Parts of one sync share a store."""
    inside = threading.Barrier(20)
    with SQLJobStore(postgres_url) as store:
        store.release(store.acquire("first", owner="one", ttl=60.0))

        def work(number: int) -> None:
            lease = store.acquire(f"job {number}", owner="one", ttl=60.0)
            with store.transaction() as transaction:
                transaction.save(Job(id=f"job {number}", processed_records=number), lease)
                inside.wait(30)
            store.release(lease)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(job.processed_records for job in store.jobs()) == sum(range(20))


def test_it_goes_on_after_its_connection_was_cut(postgres_url: str) -> None:
    admin = create_engine(postgres_url)
    with SQLJobStore(postgres_url) as store:
        lease = store.acquire("job", owner="one", ttl=60.0)
        store.save(Job(id="job"), lease)
        with admin.connect() as connection:
            connection.execute(text(CUT))
        with pytest.raises(StoreError) as caught:
            store.save(Job(id="job", processed_records=1), lease)
        assert is_transient(caught.value)
        store.save(Job(id="job", processed_records=2), lease)
        assert (store.load("job") or Job(id="")).processed_records == 2
    admin.dispose()


def test_a_pickled_store_knows_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with SQLJobStore("sqlite:///jobs.db", table_prefix="etl_") as store:
        store.acquire("job", owner="one", ttl=60.0)
        data = pickle.dumps(store)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pickle.loads(data) as copy:
        assert copy.load("job") is not None


@pytest.mark.parametrize(
    "database_url", ["sqlite", "postgresql", pytest.param("mariadb", marks=pytest.mark.crash)], indirect=True
)
def test_a_pickled_store_connects_in_another_process(database_url: str) -> None:
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).load('job').lease.owner)"
    with SQLJobStore(database_url) as store:
        store.acquire("job", owner="one", ttl=60.0)
        data = pickle.dumps(store)
    answer = subprocess.run([sys.executable, "-c", code], input=data, stdout=subprocess.PIPE, check=True, timeout=60)
    assert answer.stdout == b"one\n"


def test_a_store_on_an_engine_does_not_pickle(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    with pytest.raises(ConfigurationError, match="from a URL"):
        pickle.dumps(SQLJobStore(engine))
    engine.dispose()


def test_what_a_listener_makes_of_transactions_holds_for_reading_too(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA tenant"))

    @event.listens_for(engine, "begin")
    def of_tenant(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL search_path TO tenant")

    for _ in range(2):
        with SQLJobStore(engine) as store:
            lease = store.acquire("j", owner="me", ttl=60.0)
            store.save(Job(id="j", processed_records=7), lease)
            job = store.load("j")
            assert job is not None
            assert job.processed_records == 7
            assert [job.id for job in store.jobs()] == ["j"]
            store.release(lease)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT processed_records FROM tenant.resumable_sync_jobs")).scalar_one() == 7
    engine.dispose()


def test_a_store_works_on_an_engine_with_options_of_its_own(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    store = SQLJobStore(engine.execution_options(mine=1))
    lease = store.acquire("job", owner="one", ttl=60.0)
    with store.transaction() as transaction:
        transaction.save(Job(id="job", processed_records=5), lease)
    store.release(lease)
    assert [job.processed_records for job in store.jobs()] == [5]
    engine.dispose()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python warns of every fork of a process with threads")
def test_a_forked_process_leaves_its_parents_connections_alone(database_url: str) -> None:
    context = multiprocessing.get_context("fork")
    with SQLJobStore(database_url) as store:
        lease = store.acquire("job", owner="one", ttl=60.0)
        with store.transaction() as transaction:
            transaction.save(Job(id="job", processed_records=1), lease)
        child = context.Process(target=_save_other, args=(store,))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        store.save(Job(id="job", processed_records=2), lease)
        assert [(job.id, job.processed_records) for job in store.jobs()] == [("job", 2), ("other", 5)]


def _save_other(store: SQLJobStore) -> None:
    lease = store.acquire("other", owner="child", ttl=60.0)
    store.save(Job(id="other", processed_records=5), lease)
    store.release(lease)
    store.close()


def test_the_default_is_a_file_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESUMABLE_SYNC_STORE", raising=False)
    with SQLJobStore() as store:
        assert not Path("resumable_sync.db").exists()
        store.acquire("job", owner="one", ttl=60.0)
        assert Path("resumable_sync.db").exists()
    monkeypatch.setenv("RESUMABLE_SYNC_STORE", f"sqlite:///{tmp_path}/named.db")
    with SQLJobStore() as store:
        store.acquire("job", owner="one", ttl=60.0)
        assert Path("named.db").exists()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true"])
def test_memory_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="MemoryJobStore"):
        SQLJobStore(url)


def test_an_engine_in_memory_is_refused() -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with pytest.raises(ConfigurationError, match="MemoryJobStore"):
        SQLJobStore(engine)
    engine.dispose()


@pytest.mark.parametrize(
    "url", ["", "nonsense", "oracle://u:secret@h/d", "postgresql+nope://u:secret@h/d", "postgresql://u:secret@h:x/d", 5]
)
def test_bad_urls_are_refused_without_their_password(url: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESUMABLE_SYNC_STORE", "nonsense")
    with pytest.raises(ConfigurationError) as caught:
        SQLJobStore(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["postgresql+psycopg", "mysql+pymysql"])
def test_an_unreachable_server_is_a_transient_store_error(kind: str, tcp_free_port: int) -> None:
    url = f"{kind}://somebody:secret@127.0.0.1:{tcp_free_port}/db"
    with SQLJobStore(url) as store:
        calls: list[Callable[[], object]] = [
            lambda: store.load("job"),
            store.jobs,
            lambda: store.acquire("job", owner="one", ttl=60.0),
            lambda: store.request_stop("job"),
            lambda: store.delete("job"),
            lambda: store.transaction().__enter__(),
        ]
        for call in calls:
            with pytest.raises(StoreError) as caught:
                call()
            assert is_transient(caught.value)
            assert "secret" not in str(caught.value)
        assert "secret" not in repr(store)


@pytest.fixture
def tcp_free_port() -> Iterator[int]:
    """A port on which nobody listens, nor will while the test runs."""
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with SQLJobStore(f"sqlite:///{tmp_path}/nowhere/jobs.db") as store:
        assert store.load("job") is None
        with pytest.raises(StoreError, match="unable to open"):
            store.acquire("job", owner="one", ttl=60.0)


def test_a_locked_file_is_a_transient_store_error(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/jobs.db", connect_args={"timeout": 0.05})
    store = SQLJobStore(engine)
    lease = store.acquire("job", owner="one", ttl=60.0)
    with store.transaction() as transaction:
        transaction.save(Job(id="job"), lease)
        with pytest.raises(StoreError) as caught:
            store.renew(lease, 60.0)
        assert is_transient(caught.value)
    store.renew(lease, 60.0)
    store.close()
    engine.dispose()


def test_statements_and_values_stay_out_of_errors(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)  # with SQLAlchemy's own texts
    store = SQLJobStore(engine)
    lease = store.acquire("job", owner="one", ttl=60.0)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE resumable_sync_jobs RENAME COLUMN error TO failure"))
    with pytest.raises(StoreError) as caught:
        store.save(Job(id="job", cursor=["4111-1111"]), lease)
    told = f"{caught.value} {caught.value.__cause__}"
    assert "4111" not in told
    assert "UPDATE" not in told
    store.close()
    engine.dispose()


@pytest.mark.parametrize("ttl", [0, -1, True, "60", float("nan"), float("inf"), 1e12, None])
def test_bad_ttls(sqlite_url: str, ttl: Any) -> None:
    with SQLJobStore(sqlite_url) as store:
        with pytest.raises(ConfigurationError, match="seconds"):
            store.acquire("job", owner="one", ttl=ttl)
        lease = store.acquire("job", owner="one", ttl=60.0)
        with pytest.raises(ConfigurationError, match="seconds"):
            store.renew(lease, ttl)


@pytest.mark.parametrize("owner", ["", "x" * 256, "a\0", "\ud800", None, 5])
def test_bad_owners(sqlite_url: str, owner: Any) -> None:
    with SQLJobStore(sqlite_url) as store, pytest.raises(ConfigurationError, match="owner"):
        store.acquire("job", owner=owner, ttl=60.0)


def test_a_released_lease_is_no_longer_good(database_url: str) -> None:
    """A late heartbeat must not make a finished job look held, nor a late writer overwrite how it ended."""
    with SQLJobStore(database_url) as store:
        lease = store.acquire("job", owner="one", ttl=60.0)
        store.release(lease)
        with pytest.raises(LeaseLostError):
            store.renew(lease, 60.0)
        with pytest.raises(LeaseLostError):
            store.save(Job(id="job", processed_records=1), lease)
        assert store.load("job") is not None
        store.release(lease)


def identity(url: str) -> str:
    engine: Engine = make_engine(url)
    try:
        return database_identity(engine)
    finally:
        engine.dispose()


def test_the_identity_of_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link.db").symlink_to(tmp_path / "jobs.db")
    names = {
        identity(f"sqlite:///{name}") for name in ("jobs.db", f"{tmp_path}/jobs.db", "link.db", "file:jobs.db?uri=true")
    }
    assert len(names) == 1
    assert identity("sqlite:///other.db") not in names
    assert identity("sqlite://") != identity("sqlite://")
    server = identity("postgresql://one:secret@localhost/db")
    assert server == identity("postgresql+psycopg://two@127.0.0.1:5432/db")
    assert "secret" not in server
    assert server != identity("postgresql://localhost/other")
    assert identity("postgresql:///db?host=one") != identity("postgresql:///db?host=two")
    assert "secret" not in identity("postgresql:///db?host=one&password=secret")
    assert identity("mysql://localhost/db") == identity("mariadb+pymysql://localhost/db")
    assert make_url("sqlite:///x").database == "x"
