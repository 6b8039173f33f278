"""What `durability="relaxed"` changes of a store, and where it is refused."""

import pickle
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.dialects.mysql.mariadb import MariaDBDialect
from typing_extensions import override

from resumable_sync import ConfigurationError, MemoryJobStore, OffsetConnector, plan_full_sync, registry, transactional
from resumable_sync._model import Job, JobStatus, Lease, utc_now
from resumable_sync.stores._durability import UNKNOWN, Saved, check_durability
from resumable_sync.stores.sql import SQLJobStore

NORMAL, FULL = 1, 2


LEASE = Lease(job_id="job", owner="one", fencing_token=7, expires_at=utc_now())
NEWER, OTHER = attrs.evolve(LEASE, fencing_token=8), attrs.evolve(LEASE, job_id="other")


class Nothing(OffsetConnector[int]):
    """No numbers."""

    @override
    def fetch(self, offset: int, limit: int) -> list[int]:
        return []


def synchronous(connection: Connection) -> Any:
    return connection.exec_driver_sql("PRAGMA synchronous").scalar_one()


def working(store: SQLJobStore) -> Any:
    """Give the setting of a batch's transaction."""
    lease = store.acquire("job", owner="one", ttl=60.0)
    job = store.load("job")
    assert job is not None
    with store.transaction() as transaction:
        found = synchronous(transaction.connection)
        lease = transaction.save(attrs.evolve(job, status=JobStatus.RUNNING), lease)
    store.release(lease)
    return found


def test_only_the_working_connection_of_sqlite_is_relaxed(tmp_path: Path) -> None:
    with SQLJobStore(f"sqlite:///{tmp_path}/jobs.db", durability="relaxed") as store:
        for _ in range(2):
            assert working(store) == NORMAL
            with store._connections.write() as connection:
                assert synchronous(connection) == FULL
    with SQLJobStore(f"sqlite:///{tmp_path}/jobs.db") as store:
        assert working(store) == FULL
        with store._connections.write() as connection:
            assert connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar_one() == 2_000


def test_an_engine_gets_its_connections_back_as_they_were(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/jobs.db")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    @event.listens_for(engine, "connect")
    def connect(driver_connection: Any, _record: Any) -> None:
        driver_connection.isolation_level = None

    assert working(SQLJobStore(engine, durability="relaxed")) == NORMAL
    with engine.connect() as connection:
        assert synchronous(connection) == FULL
    engine.dispose()


def test_a_file_that_is_not_in_wal_mode_is_not_relaxed(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/jobs.db")
    with SQLJobStore(engine, durability="relaxed") as store:
        store.release(store.acquire("job", owner="one", ttl=60.0))
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode=DELETE").scalar_one() == "delete"
        assert working(store) == FULL
    engine.dispose()


def test_it_is_carried_along(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    with SQLJobStore(url, durability="relaxed") as store:
        assert pickle.loads(pickle.dumps(store)).durability == "relaxed"
    made = registry.store({"type": "sql", "url": url, "durability": "relaxed"})
    assert isinstance(made, SQLJobStore)
    assert made.durability == "relaxed"


def test_the_plan_says_it(tmp_path: Path) -> None:
    sink = transactional(lambda batch, connection: None)
    with SQLJobStore(f"sqlite:///{tmp_path}/jobs.db", durability="relaxed") as store:
        plan = plan_full_sync("job", Nothing(), sink, store=store)
    assert (plan.guarantee, plan.durability) == ("exactly_once", "relaxed")
    plan = plan_full_sync("job", Nothing(), lambda batch: None, store=MemoryJobStore())
    assert plan.durability == "full"


@pytest.mark.parametrize("wrong", ["fast", True, None, "Full"])
def test_other_values_are_refused(tmp_path: Path, wrong: Any) -> None:
    message = re.escape(f"durability={wrong!r} is not possible; give 'full' or 'relaxed'")
    with pytest.raises(ConfigurationError, match=message):
        SQLJobStore(f"sqlite:///{tmp_path}/jobs.db", durability=wrong)


@pytest.mark.parametrize("dialect", [mysql.dialect, MariaDBDialect], ids=["first", "second"])
def test_where_one_setting_is_that_of_the_whole_server_it_is_refused(dialect: Any) -> None:
    with pytest.raises(ConfigurationError, match="innodb_flush_log_at_trx_commit"):
        check_durability("relaxed", dialect())
    assert check_durability("full", dialect()) == "full"


@pytest.mark.parametrize("dialect", [postgresql.dialect, sqlite.dialect], ids=["first", "second"])
@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_elsewhere_it_is_not(durability: str, dialect: Any) -> None:
    assert check_durability(durability, dialect()) == durability


def job(batches: int) -> Job:
    """Give a job with so many batches."""
    return Job(id="job", status=JobStatus.RUNNING, run=1, run_id="run", attempt=1, processed_batches=batches)


class TestSaved:
    def test_of_a_lease_under_which_nothing_was_saved_nothing_is_known(self) -> None:
        saved = Saved()
        assert saved.expected(LEASE) == UNKNOWN
        saved.in_doubt(LEASE, job(2))
        assert saved.expected(LEASE) == UNKNOWN
        saved.committed(LEASE, job(3))
        assert [saved.expected(lease) for lease in (LEASE, NEWER, OTHER)] == [("run", 3, 3), UNKNOWN, UNKNOWN]

    def test_what_is_in_doubt_may_be_or_not(self) -> None:
        saved = Saved()
        saved.committed(LEASE, job(3))
        saved.in_doubt(LEASE, job(5))
        assert saved.expected(LEASE) == ("run", 3, 5)
        saved.in_doubt(LEASE, job(0))  # of a reset
        assert saved.expected(LEASE) == ("run", 0, 5)
        assert str(saved.undone(LEASE, 7)).startswith("job 'job' stands at batch 7 in its store, and not at 5: ")
        saved.committed(LEASE, job(1))
        assert saved.expected(LEASE) == ("run", 1, 1)
        saved.in_doubt(LEASE, attrs.evolve(job(0), run_id="next"))
        assert saved.expected(LEASE) == (None, 0, 1)

    def test_an_older_lease_that_is_given_back_takes_nothing_along(self) -> None:
        saved = Saved()
        saved.committed(LEASE, job(3))
        saved.committed(NEWER, job(4))
        saved.forget(LEASE)
        assert saved.expected(NEWER) == ("run", 4, 4)
        saved.forget(OTHER)
        saved.forget(NEWER)
        assert saved.expected(NEWER) == UNKNOWN
