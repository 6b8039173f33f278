"""A store in memory, a real database with a table, how far to read ahead, and a watch over threads."""

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, text

from resumable_sync import MemoryJobStore


@pytest.fixture
def store() -> MemoryJobStore:
    return MemoryJobStore()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = create_engine(database_url)
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (n INTEGER)"))
    yield made
    made.dispose()


@pytest.fixture(params=[0, 1, 3])
def prefetch(request: pytest.FixtureRequest) -> int:
    value: int = request.param
    return value


@pytest.fixture(autouse=True)
def threads_end() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
