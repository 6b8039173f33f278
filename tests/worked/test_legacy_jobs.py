"""The jobs table that was there before is a store, and a job that failed in it goes on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import legacy_jobs
import psycopg
import pytest
from legacy_jobs import LegacyJobs
from sqlalchemy import create_engine, make_url
from typing_extensions import override

from resumable_sync import run_full_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.testing import SingleWorkerSuite
from servers import Server

TABLE = legacy_jobs.__doc__[legacy_jobs.__doc__.index("CREATE TABLE") : legacy_jobs.__doc__.index("Whoever")]


@pytest.fixture(scope="module")
def database(postgres: Server) -> Iterator[str]:
    url = postgres.create_database()
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn) as connection:
        connection.execute(TABLE)
    yield dsn
    postgres.drop_database(url)


@pytest.fixture
def jobs(database: str) -> Iterator[LegacyJobs]:
    store = LegacyJobs(database)
    store.database.execute("TRUNCATE etl_jobs")
    yield store
    store.database.close()


class TestLegacyJobs(SingleWorkerSuite):
    kept_fields = frozenset({"id", "status", "processed_records", "cursor"})

    @pytest.fixture
    @override
    def store(self, jobs: LegacyJobs) -> LegacyJobs:
        return jobs


def test_a_job_that_failed_before_goes_on(jobs: LegacyJobs, tmp_path: Path) -> None:
    jobs.database.execute("INSERT INTO etl_jobs VALUES ('orders', 'ERROR', 4321, NULL, 'timeout', now())")
    url = f"sqlite:///{tmp_path}/shop.db"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO orders VALUES (?)", [(number,) for number in range(1, 6_001)])
    engine.dispose()
    loaded: list[Any] = []

    def load(batch: Any) -> None:
        if len(loaded) == 1_000:
            raise ValueError("disk full")
        loaded.extend(number for (number,) in batch.records)

    def row() -> Any:
        return jobs.database.execute("SELECT state, rows_done, position, message FROM etl_jobs").fetchone()

    orders = SQLConnector(url, "orders")
    with pytest.raises(ValueError, match="disk full"):
        run_full_sync("orders", orders, load, store=jobs)
    state, rows_done, position, message = row()
    assert (state, rows_done, message) == ("ERROR", 5_000, "ValueError: disk full")
    assert position is not None
    loaded.append("mended")
    result = run_full_sync("orders", orders, load, store=jobs)
    orders.close()
    assert (result.action, result.records) == ("resume", 1_000)
    assert loaded == [*range(4_001, 5_001), "mended", *range(5_001, 6_001)]
    assert row()[:2] == ("DONE", 6_000)
