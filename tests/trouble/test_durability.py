"""A server that crashes undoes the newest commits of a store that did not wait for its disk."""

from collections.abc import Callable, Iterator

import attrs
import pytest
from sqlalchemy import Connection, create_engine, text
from typing_extensions import override

from resumable_sync import Batch, StoreError, run_full_sync
from resumable_sync._model import JobStatus
from resumable_sync.stores.sql import SQLJobStore
from servers import ManagedServer, ServerUnavailableError, postgres_server
from trouble.parts import JOB_ID, PATIENT, Insert, Numbers, check_consistent, check_exact, make_target

TOTAL, BATCH_SIZE, CRASH = 1_000, 10, 50


class Crashing(Numbers):
    """Numbers, before the fiftieth batch of which something happens, once."""

    def __init__(self, total: int, act: Callable[[], object]) -> None:
        super().__init__(total)
        self._act = [act]

    @override
    def fetch(self, offset: int, limit: int) -> list[int]:
        if offset == CRASH * BATCH_SIZE and self._act:
            self._act.pop()()
        return super().fetch(offset, limit)


@pytest.fixture(scope="module")
def server() -> Iterator[ManagedServer]:
    """A PostgreSQL for this module alone, which writes nothing to the disk that it need not."""
    try:
        with postgres_server(own=True) as made:
            assert isinstance(made, ManagedServer)
            made.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
            made.execute("SELECT pg_reload_conf()")
            yield made
    except ServerUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def url(server: ManagedServer) -> Iterator[str]:
    """A new database with the target."""
    made = server.create_database()
    make_target(made)
    yield made
    server.drop_database(made)


def test_rows_and_checkpoint_are_undone_together(server: ManagedServer, url: str) -> None:
    connector = Crashing(TOTAL, server.restart)
    with SQLJobStore(url, durability="relaxed") as store:
        with pytest.raises(StoreError, match=r"stands at batch \d+ in its store, and not at 50: the server crashed"):
            run_full_sync(JOB_ID, connector, Insert(), store=store, batch_size=BATCH_SIZE, prefetch=0, retry=PATIENT)
        job = check_consistent(url)
        assert job is not None
        assert job.processed_batches < CRASH
        assert job.lease is None
        assert run_full_sync(JOB_ID, connector, Insert(), store=store, batch_size=BATCH_SIZE).status == "completed"
    check_exact(url, TOTAL)


def test_nothing_that_is_full_is_undone(server: ManagedServer, url: str) -> None:
    connector = Crashing(TOTAL, server.restart)
    with SQLJobStore(url, durability="full") as store:
        result = run_full_sync(
            JOB_ID, connector, Insert(), store=store, batch_size=BATCH_SIZE, prefetch=0, retry=PATIENT
        )
    assert (result.status, result.records) == ("completed", TOTAL)
    check_exact(url, TOTAL)


def test_a_plain_callable_gets_again_what_the_store_lost(server: ManagedServer, url: str) -> None:
    got: list[int] = []

    def sink(batch: Batch[int]) -> None:
        got.extend(batch.records)

    connector = Crashing(TOTAL, server.restart)
    with SQLJobStore(url, durability="relaxed") as store:
        with pytest.raises(StoreError, match="durability='relaxed'"):
            run_full_sync(JOB_ID, connector, sink, store=store, batch_size=BATCH_SIZE, prefetch=0, retry=PATIENT)
        assert run_full_sync(JOB_ID, connector, sink, store=store, batch_size=BATCH_SIZE).status == "completed"
    assert sorted(set(got)) == list(range(TOTAL))


def test_a_job_that_has_ended_stays_so(server: ManagedServer, url: str) -> None:
    with SQLJobStore(url, durability="relaxed") as store:
        run_full_sync(JOB_ID, Numbers(TOTAL), Insert(), store=store, batch_size=BATCH_SIZE)
        server.restart()
        job = store.load(JOB_ID)
    assert job is not None
    assert (job.status, job.processed_records) == ("completed", TOTAL)
    check_exact(url, TOTAL)


def test_only_batches_of_the_store_are_relaxed(url: str) -> None:
    engine = create_engine(url)
    with SQLJobStore(engine, durability="relaxed") as store:
        lease = store.acquire(JOB_ID, owner="one", ttl=60.0)
        job = store.load(JOB_ID)
        assert job is not None
        for status, expected in ((JobStatus.RUNNING, "off"), (JobStatus.COMPLETED, "on")):
            with store.transaction() as transaction:
                lease = transaction.save(attrs.evolve(job, status=status), lease)
                assert _setting(transaction.connection) == expected
        with engine.begin() as connection:
            store.enlist(connection).save(attrs.evolve(job, status=JobStatus.RUNNING), lease)
            assert _setting(connection) == "on"
    engine.dispose()


def _setting(connection: Connection) -> str:
    return str(connection.execute(text("SHOW synchronous_commit")).scalar_one())
