"""Connectors and sinks in memory that remember what happened to them, for tests of the engine."""

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Engine, text
from typing_extensions import override

from resumable_sync import Batch, Job, JobStore, OffsetConnector, Page, Retry

FAST = Retry(wait_initial=0.001, wait_max=0.002)


class Numbers(OffsetConnector[int]):
    """The numbers from 0; remembers what was asked for."""

    def __init__(self, total: int, fingerprint: str | None = None) -> None:
        self.total = total
        self.fingerprint = fingerprint
        self.asked: list[tuple[int, int]] = []

    @override
    def fetch(self, offset: int, limit: int) -> list[int]:
        self.asked.append((offset, limit))
        return list(range(offset, min(offset + limit, self.total)))

    @override
    def count(self) -> int | None:
        return self.total


class Pages:
    """Yields the pages it was given, from wherever it is asked to read."""

    fingerprint = None

    def __init__(self, *pages: Any) -> None:
        self.pages = pages

    def read(self, cursor: Any, batch_size: int) -> Iterator[Page[int]]:
        del cursor, batch_size
        yield from self.pages

    def count(self) -> int | None:
        return None


class Target:
    """A sink that keeps what it gets, and fails or acts when told."""

    transactional = False
    idempotent = False

    def __init__(self, act: Callable[[Batch[int]], object] = lambda _: None) -> None:
        self.records: list[int] = []
        self.batches: list[Batch[int]] = []
        self.begun: list[Job] = []
        self.completed: list[Job] = []
        self.act = act

    def begin(self, job: Job, connection: object) -> None:
        assert connection is None
        self.begun.append(job)

    def write(self, batch: Batch[int], connection: object) -> None:
        assert connection is None
        self.act(batch)
        self.batches.append(batch)
        self.records.extend(batch.records)

    def complete(self, job: Job, connection: object) -> None:
        assert connection is None
        self.completed.append(job)


def fail_at(sequence: int, error: BaseException, times: int = 1) -> Callable[[Batch[int]], None]:
    left = [times]

    def act(batch: Batch[int]) -> None:
        if batch.sequence == sequence and left[0]:
            left[0] -= 1
            raise error

    return act


def saved(store: JobStore, job_id: str = "j") -> Job:
    job = store.load(job_id)
    assert job is not None
    return job


class Picky:
    """A sink that writes on the store's connection, and refuses some numbers once it has written them."""

    transactional = True
    idempotent = False

    def __init__(self, *refused: int) -> None:
        self.refused = set(refused)
        self.completed = 0

    def begin(self, job: Job, connection: Connection | None) -> None:
        assert connection is not None

    def write(self, batch: Batch[int], connection: Connection | None) -> None:
        assert connection is not None
        for number in batch.records:
            connection.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": number})
            if number in self.refused:
                raise ValueError(f"refused {number}")

    def complete(self, job: Job, connection: Connection | None) -> None:
        self.completed += 1


def delivered(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return sorted(connection.execute(text("SELECT n FROM numbers")).scalars())
