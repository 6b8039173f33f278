"""The sync of the night: once a night, to its end, and whatever it says to cron."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import nightly
import pytest
from sqlalchemy import Engine, create_engine

from resumable_sync.stores.sql import SQLJobStore

pytestmark = pytest.mark.once

SCRIPT = Path(nightly.__file__)


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def warehouse(new_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    shop, warehouse = create_engine(new_database("sqlite")), create_engine(new_database("sqlite"))
    with shop.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO orders VALUES (?)", [(number,) for number in range(12_000)])
    shop.dispose()
    monkeypatch.setenv("SHOP_URL", str(shop.url))
    monkeypatch.setenv("WAREHOUSE_URL", str(warehouse.url))
    yield warehouse
    warehouse.dispose()


def rows(warehouse: Engine) -> int:
    with warehouse.connect() as connection:
        counted: int = connection.exec_driver_sql("SELECT count(*) FROM orders").scalar_one()
    return counted


def change(warehouse: Engine, **fields: Any) -> None:
    with SQLJobStore(str(warehouse.url)) as store:
        lease = store.acquire("orders", owner="test", ttl=60.0)
        job = store.load("orders")
        assert job is not None
        store.save(attrs.evolve(job, **fields), lease)
        store.release(lease)


def run_of(warehouse: Engine) -> int:
    with SQLJobStore(str(warehouse.url)) as store:
        job = store.load("orders")
    assert job is not None
    return job.run


def test_once_a_night(warehouse: Engine) -> None:
    assert nightly.sync(now()) == 75  # it is day already
    assert nightly.sync(now() + timedelta(hours=1)) == 0
    assert nightly.sync(now() + timedelta(hours=1)) == 0
    assert (run_of(warehouse), rows(warehouse)) == (1, 12_000)
    change(warehouse, finished_at=now() - timedelta(hours=23))
    assert nightly.sync(now() + timedelta(hours=1)) == 0
    assert run_of(warehouse) == 2


def test_another_process_works_on_it(warehouse: Engine) -> None:
    with SQLJobStore(str(warehouse.url)) as store:
        store.acquire("orders", owner="elsewhere:1:x", ttl=60.0)
        assert nightly.sync(now() + timedelta(hours=1)) == 3


def test_as_cron_calls_it(warehouse: Engine) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    called = subprocess.run(
        [sys.executable, SCRIPT, "--until", "23:59"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "INFO job 'orders'" in called.stderr
    assert rows(warehouse) == 12_000
