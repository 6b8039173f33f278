"""The conformance suite, against every store and every database."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from sqlalchemy import make_url
from typing_extensions import override

from resumable_sync._cursor import encode_cursor
from resumable_sync._model import Job, JobStatus, Lease
from resumable_sync.stores._durability import Durability
from resumable_sync.stores.memory import MemoryJobStore
from resumable_sync.stores.single_worker import SingleWorkerJobStore
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import JobStoreSuite, SingleWorkerSuite


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One database for all tests of a kind: making one costs more than most of the tests."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('stores') / 'jobs.db'}"
        return
    server = request.getfixturevalue({"postgresql": "postgres", "mariadb": "mariadb"}[request.param])
    url = server.create_database()
    yield url
    server.drop_database(url)


class TestSQLJobStore(JobStoreSuite):
    must_pickle = True
    durability: Durability = "full"

    @pytest.fixture
    @override
    def make_store(self, database: str) -> Iterator[Callable[[], SQLJobStore]]:
        made: list[SQLJobStore] = []

        def make() -> SQLJobStore:
            made.append(SQLJobStore(database, durability=self.durability))
            return made[-1]

        yield make
        for store in made:
            store.close()

    @pytest.fixture
    @override
    def store(self, database: str) -> Iterator[SQLJobStore]:
        with SQLJobStore(database, durability=self.durability) as store:
            for job in store.jobs():
                store.delete(job.id)
            yield store

    @pytest.fixture
    @override
    def broken_store(self, database: str, tmp_path: Path) -> Iterator[SQLJobStore]:
        url = make_url(database)
        # A folder where the file should be, a port where nobody listens.
        nowhere = url.set(database=str(tmp_path)) if url.host is None else url.set(port=1)
        with SQLJobStore(nowhere) as store:
            yield store


@pytest.mark.crash
@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
class TestSQLJobStoreRelaxed(TestSQLJobStore):
    durability: Durability = "relaxed"


class Clock:
    """A clock that stands still until a test moves it, but for a microsecond at each look."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(microseconds=1)
        return self.now

    def expire(self, lease: Lease) -> None:
        self.now = max(self.now, lease.expires_at)


class TestMemoryJobStore(JobStoreSuite):
    own_clock = False

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    @override
    def store(self, clock: Clock) -> MemoryJobStore:
        return MemoryJobStore(clock=clock)

    @pytest.fixture
    @override
    def expire(self, clock: Clock) -> Callable[[Lease], None]:
        return clock.expire


class Rows(SingleWorkerJobStore):
    """The smallest table there is."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[str, int]] = {}

    @override
    def load(self, job_id: str) -> Job | None:
        row = self.rows.get(job_id)
        return None if row is None else Job(id=job_id, status=JobStatus(row[0]), processed_records=row[1])

    @override
    def save(self, job: Job, lease: Lease) -> Lease:
        self.rows[job.id] = (job.status.value, job.processed_records)
        return lease

    @override
    def delete(self, job_id: str) -> None:
        self.rows.pop(job_id, None)


class TestSingleWorkerJobStore(SingleWorkerSuite):
    @pytest.fixture
    @override
    def store(self) -> Rows:
        return Rows()


class FullRows(Rows):
    """A table that keeps everything."""

    def __init__(self) -> None:
        self.jobs_by_id: dict[str, Job] = {}

    @override
    def load(self, job_id: str) -> Job | None:
        return self.jobs_by_id.get(job_id)

    @override
    def save(self, job: Job, lease: Lease) -> Lease:
        encode_cursor(job.cursor)
        self.jobs_by_id[job.id] = attrs.evolve(job, lease=None)
        return lease

    @override
    def delete(self, job_id: str) -> None:
        self.jobs_by_id.pop(job_id, None)


class TestSingleWorkerJobStoreThatKeepsAll(SingleWorkerSuite):
    kept_fields = frozenset(field.name for field in attrs.fields(Job) if field.name != "lease")

    @pytest.fixture
    @override
    def store(self) -> FullRows:
        return FullRows()
