"""Refused records: set aside in the batch's transaction, and delivered later, each exactly once."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, create_engine, text

from doubles import Numbers
from resumable_sync import (
    Batch,
    ConfigurationError,
    Event,
    Job,
    JobStatus,
    MemoryJobStore,
    RecordRefused,
    replay_dead_letters,
    run_full_sync,
    transactional,
)
from resumable_sync.stores.sql import SQLJobStore


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = create_engine(database_url)
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (n INTEGER)"))
    yield made
    made.dispose()


@pytest.fixture
def store(engine: Engine) -> Iterator[SQLJobStore]:
    with SQLJobStore(engine) as made:
        yield made


class Picky:
    """A sink that refuses some numbers."""

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


def test_refused_records_are_set_aside_and_replayed(store: SQLJobStore, engine: Engine) -> None:
    refused = {3, 17, 18, 99}
    events: list[Event] = []
    sink = Picky(*refused)
    result = run_full_sync(
        "j", Numbers(100), sink, store=store, batch_size=20, on_refused="dead_letter", observers=[events.append]
    )
    assert (result.status, result.job.dead_letters, result.job.processed_records) == ("incomplete", 4, 96)
    assert sink.completed == 0
    assert delivered(engine) == sorted(set(range(100)) - refused)
    letters = list(store.dead_letters("j"))
    assert [letter.record for letter in letters] == sorted(refused)
    assert letters[0].error == "ValueError: refused 3"
    assert [letter.cursor for letter in letters] == [None, None, None, [80]]
    assert len([event for event in events if isinstance(event, RecordRefused)]) == 4

    result = replay_dead_letters("j", Picky(18), store=store)
    assert (result.status, result.records, result.job.dead_letters) == ("incomplete", 3, 1)
    assert "1 " in (result.reason or "")
    last = Picky()
    result = replay_dead_letters("j", last, store=store)
    assert (result.status, result.job.dead_letters, result.job.processed_records) == ("completed", 0, 100)
    assert (last.completed, delivered(engine), list(store.dead_letters("j"))) == (1, list(range(100)), [])


def test_a_new_run_drops_old_letters(store: SQLJobStore) -> None:
    run_full_sync("j", Numbers(10), Picky(3), store=store, on_refused="dead_letter")
    result = run_full_sync("j", Numbers(10), Picky(), store=store, on_refused="dead_letter")
    assert (result.status, result.job.run, list(store.dead_letters("j"))) == ("completed", 2, [])


def test_a_batch_of_which_nothing_is_accepted_at_the_start_is_a_failure(store: SQLJobStore, engine: Engine) -> None:
    with pytest.raises(ValueError, match="refused 0"):
        run_full_sync("j", Numbers(10), Picky(*range(10)), store=store, on_refused="dead_letter")
    job = store.load("j")
    assert job is not None
    assert (job.status, job.cursor, list(store.dead_letters("j"))) == (JobStatus.FAILED, None, [])
    assert delivered(engine) == []


def test_without_consent_a_refusal_fails_the_job(store: SQLJobStore, engine: Engine) -> None:
    with pytest.raises(ValueError, match="refused 15"):
        run_full_sync("j", Numbers(20), Picky(15), store=store, batch_size=10)
    assert delivered(engine) == list(range(10))


def test_what_cannot_keep_letters_is_refused_before_anything_is_read(store: SQLJobStore) -> None:
    numbers = Numbers(10)
    with pytest.raises(ConfigurationError, match="transactional sink"):
        run_full_sync("j", numbers, lambda _: None, store=store, on_refused="dead_letter")
    with pytest.raises(ConfigurationError, match="dead letters"):
        run_full_sync("j", numbers, Picky(), store=MemoryJobStore(), on_refused="dead_letter")
    with pytest.raises(ConfigurationError, match="no job 'nobody'"):
        replay_dead_letters("nobody", Picky(), store=store)
    with pytest.raises(ConfigurationError, match="transactional sink"):
        replay_dead_letters("j", lambda _: None, store=store)
    assert numbers.asked == []
    assert list(store.jobs()) == []


def test_transactional_functions_have_dead_letters_too(store: SQLJobStore, engine: Engine) -> None:
    @transactional
    def write(batch: Batch[int], connection: Connection) -> None:
        if 7 in batch.records:
            raise ValueError("seven")
        connection.execute(text("INSERT INTO numbers VALUES (:n)"), [{"n": n} for n in batch.records])

    result = run_full_sync("j", Numbers(10), write, store=store, on_refused="dead_letter")
    assert (result.status, delivered(engine)) == ("incomplete", [0, 1, 2, 3, 4, 5, 6, 8, 9])
