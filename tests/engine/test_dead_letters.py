"""Refused records: set aside in the batch's transaction, and delivered later, each exactly once."""

import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from typing_extensions import override

from doubles import Numbers, Picky, delivered, saved
from resumable_sync import (
    Batch,
    ConfigurationError,
    DeadLetter,
    Event,
    JobStatus,
    LeaseLostError,
    MemoryJobStore,
    RecordRefused,
    TransientError,
    replay_dead_letters,
    run_full_sync,
    transactional,
)
from resumable_sync.stores.sql import SQLJobStore


@pytest.fixture
def store(engine: Engine) -> Iterator[SQLJobStore]:
    with SQLJobStore(engine) as made:
        yield made


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


@pytest.fixture
def letters(store: SQLJobStore) -> list[int]:
    """The records that a sync of ten left behind as dead letters."""
    run_full_sync("j", Numbers(10), Picky(3, 5, 7), store=store, on_refused="dead_letter")
    return [3, 5, 7]


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Presses Ctrl-C, as in a terminal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def acting(at: int, act: Callable[[], object]) -> Picky:
    class Acting(Picky):
        @override
        def write(self, batch: Batch[int], connection: Connection | None) -> None:
            super().write(batch, connection)
            if at in batch.records:
                act()

    return Acting()


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def test_failed_tries_of_a_replay_are_logged(
    store: SQLJobStore, engine: Engine, letters: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    failures = [TransientError("busy", retry_after=0.001)] * 2
    result = replay_dead_letters("j", acting(5, lambda: failures and raising(failures.pop())()), store=store)
    assert (result.status, delivered(engine)) == ("completed", list(range(10)))
    tried = [message for message in caplog.messages if "write failed (try" in message]
    assert len(tried) == 2
    assert all("'j'" in message and "busy" in message for message in tried)


def test_a_letter_that_is_refused_again_is_logged(
    store: SQLJobStore, letters: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    replay_dead_letters("j", Picky(5), store=store)
    assert "job 'j': dead letter 2 was refused again: ValueError: refused 5" in caplog.text


def test_an_error_of_a_replay_names_job_and_letter_and_how_to_go_on(
    store: SQLJobStore, engine: Engine, letters: list[int]
) -> None:
    with pytest.raises(ConfigurationError, match="no") as caught:
        replay_dead_letters("j", acting(5, raising(ConfigurationError("no"))), store=store)
    (note,) = caught.value.__notes__
    assert all(words in note for words in ("job 'j', run 1, dead letter 2", "1 of 3", "replay_dead_letters again"))
    job = saved(store)
    assert (job.status, job.dead_letters, job.lease) == ("incomplete", 2, None)
    assert replay_dead_letters("j", Picky(), store=store).records == 2
    assert delivered(engine) == list(range(10))


def test_the_first_ctrl_c_stops_a_replay_after_the_letter_in_hand(
    store: SQLJobStore, engine: Engine, letters: list[int], ctrl_c: Callable[[], None]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        replay_dead_letters("j", acting(5, ctrl_c), store=store)
    assert delivered(engine) == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert (saved(store).status, saved(store).dead_letters, saved(store).lease) == ("incomplete", 1, None)
    assert replay_dead_letters("j", Picky(), store=store).status == "completed"
    assert delivered(engine) == list(range(10))


def test_a_second_ctrl_c_strikes_at_once(
    store: SQLJobStore, engine: Engine, letters: list[int], ctrl_c: Callable[[], None]
) -> None:
    def twice() -> None:
        ctrl_c()
        ctrl_c()
        pytest.fail("the second one did not strike")

    with pytest.raises(KeyboardInterrupt):
        replay_dead_letters("j", acting(5, twice), store=store)
    assert delivered(engine) == [0, 1, 2, 3, 4, 6, 8, 9]
    assert (saved(store).dead_letters, saved(store).lease) == (2, None)


def test_ctrl_c_ends_the_wait_for_the_next_try(
    store: SQLJobStore, engine: Engine, letters: list[int], ctrl_c: Callable[[], None]
) -> None:
    def act() -> None:
        ctrl_c()
        raise TransientError("busy", retry_after=50.0)

    with pytest.raises(KeyboardInterrupt):
        replay_dead_letters("j", acting(5, act), store=store)
    assert (saved(store).dead_letters, saved(store).lease) == (2, None)


class Meddling(SQLJobStore):
    """A store in which something happens once the letters were read."""

    meddle: Callable[[], object] | None = None

    @override
    def dead_letters(self, job_id: str) -> Iterable[DeadLetter]:
        found = list(super().dead_letters(job_id))
        if self.meddle is not None:
            self.meddle()
        return found


def test_a_requested_stop_ends_a_replay_after_the_letter_in_hand(engine: Engine, letters: list[int]) -> None:
    with Meddling(engine) as store:
        store.meddle = lambda: store.request_stop("j")
        result = replay_dead_letters("j", Picky(), store=store)
    assert (result.status, result.records, result.job.dead_letters) == ("incomplete", 1, 2)
    assert result.reason == "stopped: a stop was requested"
    assert delivered(engine) == [0, 1, 2, 3, 4, 6, 8, 9]


def test_a_replay_that_was_overtaken_ends_with_an_error(engine: Engine, letters: list[int]) -> None:
    with Meddling(engine) as store:

        def overtake() -> None:
            job = saved(store)
            assert job.lease is not None
            store.acquire("j", owner="successor", ttl=60, replacing=job.lease.fencing_token)

        store.meddle = overtake
        with pytest.raises(LeaseLostError):
            replay_dead_letters("j", Picky(), store=store)
        job = saved(store)
    assert job.lease is not None
    assert (job.dead_letters, job.lease.owner) == (3, "successor")
    assert delivered(engine) == [0, 1, 2, 4, 6, 8, 9]


def test_a_replay_without_a_store_uses_the_default_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'default.db'}"
    monkeypatch.setenv("RESUMABLE_SYNC_STORE", url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (n INTEGER)"))
    run_full_sync("j", Numbers(10), Picky(3), on_refused="dead_letter")
    assert replay_dead_letters("j", Picky()).status == "completed"
    assert delivered(engine) == list(range(10))
    engine.dispose()
