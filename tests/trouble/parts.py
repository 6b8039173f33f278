"""What the tests of this folder share: a source of numbers, a target that shows what is lost or repeated."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import BigInteger, Column, Connection, Engine, MetaData, Table, create_engine, make_url, select
from sqlalchemy.pool import NullPool
from typing_extensions import override

from resumable_sync import Batch, Job, OffsetConnector, Retry
from resumable_sync.stores.sql import SQLJobStore

JOB_ID = "orders"
PATIENT = Retry(max_tries=20, wait_initial=0.01, wait_max=0.2, timeout=60.0)
# No unique key: a record that is delivered again shall be seen.
TARGET = Table("target", MetaData(), Column("number", BigInteger, nullable=False))

Write = Callable[[Batch[int], Connection], object]


class Numbers(OffsetConnector[int]):
    """The numbers from 0 to `total` - 1."""

    def __init__(self, total: int) -> None:
        self.total = total

    @override
    def fetch(self, offset: int, limit: int) -> list[int]:
        return list(range(offset, min(offset + limit, self.total)))

    @override
    def count(self) -> int | None:
        return self.total


class Insert:
    """A transactional sink that inserts into the target, and may act between its two halves."""

    transactional = True
    idempotent = False

    def __init__(self, act: Callable[[Batch[int]], object] = lambda _: None) -> None:
        self.act = act

    def begin(self, job: Job, connection: Connection | None) -> None:
        pass

    def write(self, batch: Batch[int], connection: Connection | None) -> None:
        assert connection is not None
        rows = [{"number": number} for number in batch.records]
        half = len(rows) // 2
        if rows[:half]:
            connection.execute(TARGET.insert(), rows[:half])
        self.act(batch)
        connection.execute(TARGET.insert(), rows[half:])

    def complete(self, job: Job, connection: Connection | None) -> None:
        pass


@contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    """Give an engine that keeps nothing open."""
    engine = create_engine(url, poolclass=NullPool)
    try:
        yield engine
    finally:
        engine.dispose()


def make_target(url: str) -> None:
    """Make the empty target table."""
    with engine_of(url) as engine:
        TARGET.create(engine)


def empty_target(url: str) -> None:
    """Remove all that was delivered, and the job."""
    with engine_of(url) as engine, engine.begin() as connection:
        connection.execute(TARGET.delete())
    with SQLJobStore(url) as store:
        store.delete(JOB_ID)


def delivered(url: str) -> list[int]:
    """Give the numbers in the target, in order."""
    with engine_of(url) as engine, engine.connect() as connection:
        return sorted(connection.execute(select(TARGET.c.number)).scalars())


def check_exact(url: str, total: int) -> None:
    """Check that each number arrived once."""
    counts = Counter(delivered(url))
    lost = [number for number in range(total) if number not in counts]
    repeated = [number for number, count in counts.items() if count > 1]
    assert not lost, f"{len(lost)} lost: {lost[:5]}"
    assert not repeated, f"{len(repeated)} repeated: {repeated[:5]}"


def check_consistent(url: str) -> Job | None:
    """Check that the target holds exactly what the checkpoint says; give the job."""
    with SQLJobStore(url) as store:
        job = store.load(JOB_ID)
    assert delivered(url) == list(range(0 if job is None else job.processed_records))
    return job


def with_query(url: str, **parameters: str) -> str:
    """Give a URL with more query parameters."""
    return make_url(url).update_query_dict(parameters).render_as_string(hide_password=False)


def is_stopped(pid: int) -> bool:
    """Whether every thread of a process has come to a stop; that takes until its system call ends."""
    try:
        states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return False
    return set(states) == {"T"}
