"""The store suite, on the stores of the library. That it finds what it should is shown in test_store_suite_finds.py."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typing_extensions import override

from resumable_sync import Job, Lease
from resumable_sync.stores.memory import MemoryJobStore
from resumable_sync.stores.single_worker import SingleWorkerJobStore
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import JobStoreSuite, SingleWorkerSuite


class TestMemoryJobStore(JobStoreSuite):
    own_clock = False

    @pytest.fixture
    def moment(self) -> list[datetime]:
        return [datetime(2026, 1, 1, tzinfo=UTC)]

    @pytest.fixture
    @override
    def store(self, moment: list[datetime]) -> MemoryJobStore:
        return MemoryJobStore(clock=lambda: moment[0])

    @pytest.fixture
    @override
    def expire(self, moment: list[datetime]) -> Callable[[Lease], None]:
        def pass_time(_: Lease) -> None:
            moment[0] += timedelta(seconds=1)

        return pass_time


class TestSQLJobStore(JobStoreSuite):
    must_pickle = True

    @pytest.fixture
    @override
    def store(self, database_url: str) -> Iterator[SQLJobStore]:
        with ExitStack() as stack:
            store = SQLJobStore(database_url)
            stack.callback(store.close)
            yield store

    @pytest.fixture
    @override
    def make_store(self, database_url: str) -> Iterator[Callable[[], SQLJobStore]]:
        with ExitStack() as stack:

            def make() -> SQLJobStore:
                store = SQLJobStore(database_url)
                stack.callback(store.close)
                return store

            yield make


class _Table(SingleWorkerJobStore):
    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}

    @override
    def load(self, job_id: str) -> Job | None:
        row = self.rows.get(job_id)
        return row and Job(id=job_id, status=row["status"], processed_records=row["processed_records"])

    @override
    def save(self, job: Job, lease: Lease) -> Any:
        self.rows[job.id] = {"status": job.status.value, "processed_records": job.processed_records}

    @override
    def delete(self, job_id: str) -> None:
        self.rows.pop(job_id, None)


class TestSingleWorkerJobStore(SingleWorkerSuite):
    @pytest.fixture
    @override
    def store(self) -> SingleWorkerJobStore:
        return _Table()
