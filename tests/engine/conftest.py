"""A store in memory, how far to read ahead, and a watch over threads."""

import threading
from collections.abc import Iterator

import pytest

from resumable_sync import MemoryJobStore


@pytest.fixture
def store() -> MemoryJobStore:
    return MemoryJobStore()


@pytest.fixture(params=[0, 1, 3])
def prefetch(request: pytest.FixtureRequest) -> int:
    value: int = request.param
    return value


@pytest.fixture(autouse=True)
def threads_end() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before
