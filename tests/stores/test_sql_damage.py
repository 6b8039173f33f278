"""A row that the library cannot have written is an error that names job and field, and stays as it is."""

from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, create_engine, text

from doubles import Numbers
from resumable_sync import run_full_sync
from resumable_sync._attempts import recorder as _recorder
from resumable_sync._errors import ConfigurationError, StateCorruptError, StoreError
from resumable_sync._model import DeadLetter, Job, JobStatus
from resumable_sync.stores.sql import SQLJobStore

RUN_ID = "0a1b2c3d-0000-4000-8000-0123456789ab"
JOB = Job(id="job", status=JobStatus.RUNNING, run=1, run_id=RUN_ID, cursor=[1], processed_records=1, fingerprint="f")

COUNTS = (
    "run",
    "attempt",
    "processed_records",
    "processed_batches",
    "total_records",
    "dead_letters",
    "stalled_attempts",
)
TIMES = ("created_at", "started_at", "updated_at", "finished_at", "lease_expires_at")

# field, value: what every database lets somebody put there.
DAMAGES: list[tuple[str, Any]] = [
    *((field, -1) for field in COUNTS),
    *((field, 9_000_000_000_000_000_000) for field in TIMES),
    *(("status", value) for value in ("", "Running", "running ", "done")),
    *(("run_id", value) for value in ("", RUN_ID.upper(), RUN_ID[:-1], "x" * 36)),
    *(
        ("cursor", value)
        for value in ("", "[1,", "[1,null]", "[2,[1]]", "[1, [1]]", "42", '[1,{"$nope":1}]', "NaN", "[1,[1]] ", "é")
    ),
    ("fingerprint", "[1,5]"),
    ("error", "[1,"),
    ("fencing_token", -1),
    ("fencing_token", 9_223_372_036_854_775_807),
    ("stop_requested", 2),
    ("stop_requested", -1),
    ("lease_owner", None),
    ("lease_owner", ""),
    ("lease_expires_at", None),
    ("lease_ttl", None),
    ("lease_ttl", 0),
    ("lease_ttl", -5),
]
# SQLite keeps any type in any column, and bytes that are no text.
SQLITE_DAMAGES: list[tuple[str, Any]] = [
    *((field, value) for field in (*COUNTS, *TIMES) for value in (1.5, "x", b"1")),
    *((field, b"\xff") for field in ("status", "run_id", "cursor", "fingerprint", "error", "lease_owner")),
    ("lease_owner", b"me"),
    ("fencing_token", "x"),
    ("stop_requested", "yes"),
    ("lease_ttl", "long"),
]


# MariaDB's are run by `nox -s crash`.
mostly = pytest.mark.parametrize(
    "database_url", ["sqlite", "postgresql", pytest.param("mariadb", marks=pytest.mark.crash)], indirect=True
)


@pytest.fixture
def store(database_url: str) -> Iterator[SQLJobStore]:
    with SQLJobStore(database_url) as store:
        yield store


@pytest.fixture
def engine(store: SQLJobStore, database_url: str) -> Iterator[Engine]:
    store.acquire("other", owner="one", ttl=60.0)
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


def row(engine: Engine) -> tuple[Any, ...]:
    with engine.connect() as connection:
        return tuple(connection.execute(text("SELECT * FROM resumable_sync_jobs WHERE id = 'job'")).one())


def damage(engine: Engine, field: str, value: Any) -> None:
    column = engine.dialect.identifier_preparer.quote(field)
    with engine.begin() as connection:
        statement = text(f"UPDATE resumable_sync_jobs SET {column} = :value WHERE id = 'job'")
        assert connection.execute(statement, {"value": value}).rowcount == 1


def check_refused(store: SQLJobStore, engine: Engine, field: str) -> None:
    before = row(engine)
    calls = (
        lambda: store.load("job"),
        lambda: list(store.jobs()),
        lambda: store.acquire("job", owner="two", ttl=60.0),
        lambda: store.acquire("job", owner="two", ttl=60.0, replacing=1),
    )
    for call in calls:
        with pytest.raises(StateCorruptError, match="repair the field") as caught:
            call()
        assert (caught.value.job_id, caught.value.field) == ("job", field)
    assert row(engine) == before


@mostly
def test_any_damaged_field_is_named_and_left(store: SQLJobStore, engine: Engine) -> None:
    for field, value in DAMAGES:
        lease = store.acquire("job", owner="one", ttl=60.0)
        store.save(JOB, lease)
        damage(engine, field, value)
        # A lease of which a part is missing is found by that part, or by the one that it is checked against.
        check_refused(store, engine, field)
        store.delete("job")
    assert [job.id for job in store.jobs()] == ["other"]


@pytest.mark.parametrize(("field", "value"), SQLITE_DAMAGES)
def test_any_type_in_any_column(sqlite_url: str, field: str, value: Any) -> None:
    with SQLJobStore(sqlite_url) as store:
        store.save(JOB, store.acquire("job", owner="one", ttl=60.0))
        engine = create_engine(sqlite_url)
        with engine.begin() as connection:
            column = f'"{field}"'
            connection.exec_driver_sql(
                f"UPDATE resumable_sync_jobs SET {column} = CAST(? AS TEXT)"
                if value == b"\xff"
                else f"UPDATE resumable_sync_jobs SET {column} = ?",
                (value,),
            )
        for call in (
            lambda: store.load("job"),
            lambda: list(store.jobs()),
            lambda: store.acquire("job", owner="two", ttl=60.0),
        ):
            with pytest.raises(StateCorruptError) as caught:
                call()
            assert caught.value.field == field
            assert caught.value.job_id in ("job", None)
        store.delete("job")
        token = store.acquire("job", owner="one", ttl=60.0).fencing_token
        assert token < 2**60
        engine.dispose()


DAMAGED_LETTERS = [
    ("record", "["),
    ("columns", "x"),
    ("columns", "[1,5]"),
    ("columns", "[1,[5]]"),
    ("cursor", "[1,null]"),
    ("run", -1),
    ("error", "[1,2]"),
    ("key", "é"),
]


def test_a_damaged_dead_letter(store: SQLJobStore, engine: Engine) -> None:
    lease = store.acquire("job", owner="one", ttl=60.0)
    letter = DeadLetter(job_id="job", run=1, record=[1], columns=["n"], error="e", cursor=[0], key="k")
    for field, value in DAMAGED_LETTERS:
        with store.transaction() as transaction:
            store.add_dead_letters([letter], transaction)
            transaction.save(JOB, lease)
        column = engine.dialect.identifier_preparer.quote(field)
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE resumable_sync_dead_letters SET {column} = :value"), {"value": value})
        with pytest.raises(StateCorruptError) as caught:
            store.dead_letters("job")
        assert (caught.value.job_id, caught.value.field) == ("job", field)
        with store.transaction() as transaction:
            store.purge_dead_letters("job", transaction)
            transaction.save(JOB, lease)


def test_a_large_record_is_kept_whole(store: SQLJobStore) -> None:
    store.acquire("job", owner="one", ttl=60.0)
    record = {"text": "é" * 300_000}
    with store.transaction() as transaction:
        store.add_dead_letters([DeadLetter(job_id="job", run=1, record=record, error="e", key="k")], transaction)
    (letter,) = store.dead_letters("job")
    assert letter.record == record
    assert letter.created_at is not None


@pytest.mark.parametrize("field", ["run", "processed_records", "total_records"])
def test_what_a_column_cannot_hold_is_a_store_error(store: SQLJobStore, field: Any) -> None:
    lease = store.acquire("job", owner="one", ttl=60.0)
    huge: dict[str, Any] = {field: 2**63}
    with pytest.raises(StoreError):
        store.save(attrs.evolve(JOB, **huge), lease)
    store.save(JOB, lease)


def test_a_file_that_is_no_database(tmp_path: Any) -> None:
    path = tmp_path / "notes.db"
    path.write_text("not a database, but long enough to be looked at as one\n" * 100)
    before = path.read_bytes()
    with SQLJobStore(f"sqlite:///{path}") as store:
        for call in (
            lambda: store.load("job"),
            lambda: store.acquire("job", owner="one", ttl=60.0),
            lambda: store.delete("job"),
            lambda: store.request_stop("job"),
            store.jobs,
        ):
            with pytest.raises(StoreError) as caught:
                call()
            assert caught.value.__cause__ is not None
    assert path.read_bytes() == before


class Odd:
    """A type that no store can keep."""


@pytest.mark.parametrize(
    ("record", "told"), [({"n", "m"}, "set"), ({"n": Odd()}, "Odd"), ({1: "n"}, "key that is not a str")]
)
def test_a_record_that_cannot_be_kept_is_told_with_its_job_and_batch(
    store: SQLJobStore, record: Any, told: str
) -> None:
    lease = store.acquire("job", owner="one", ttl=60.0)
    letter = DeadLetter(job_id="job", run=1, record=record, error="ValueError: no", key="k" * 32)
    with pytest.raises(ConfigurationError, match=told) as caught, store.transaction() as transaction:
        store.add_dead_letters([letter], transaction)
    message = str(caught.value)
    assert "job 'job'" in message
    assert "k" * 32 in message
    assert "on_refused='fail'" in message
    assert "cursor" not in message
    assert list(store.dead_letters("job")) == []
    store.release(lease)


DAMAGED_ATTEMPTS: list[tuple[str, Any]] = [
    ("run", -1),
    ("attempt", -1),
    ("from_records", -1),
    ("to_records", -1),
    ("fencing_token", -1),
    ("from_cursor", "["),
    ("to_cursor", "[1,null]"),
    ("error", "[1,2]"),
    ("started_at", 9_000_000_000_000_000_000),
    ("ended_at", 9_000_000_000_000_000_000),
    ("outcome", "done"),
]


@mostly
def test_damaged_lineage_is_named_and_stops_nothing(store: SQLJobStore, engine: Engine) -> None:
    for field, value in DAMAGED_ATTEMPTS:
        lease = store.acquire("job", owner="one", ttl=60.0)
        store.save(JOB, lease)
        store.release(lease)
        with engine.begin() as connection:
            statement = text(f"UPDATE resumable_sync_attempts SET {field} = :value WHERE job_id = 'job'")
            assert connection.execute(statement, {"value": value}).rowcount == 1
        with pytest.raises(StateCorruptError) as caught:
            store.attempts("job")
        assert (caught.value.job_id, caught.value.field) == ("job", field)
        assert store.load("job") == JOB
        lease = store.acquire("job", owner="two", ttl=60.0)
        store.release(store.save(JOB, store.renew(lease, 60.0)))
        store.delete("job")
        assert store.attempts("job") == []


@pytest.mark.parametrize("field", ["owner", "outcome", "error", "to_cursor", "run", "fencing_token", "started_at"])
def test_lineage_that_is_no_text_stops_nothing(sqlite_url: str, field: str) -> None:
    engine = create_engine(sqlite_url)
    with SQLJobStore(sqlite_url) as store:
        lease = store.acquire("job", owner="one", ttl=60.0)
        for _ in range(2):
            store.save(JOB, lease)
            with engine.begin() as connection:
                connection.exec_driver_sql(f"UPDATE resumable_sync_attempts SET {field} = CAST(x'ff20' AS TEXT)")
            lease = store.acquire("job", owner="one", ttl=60.0)
            store.save(JOB, lease)
            store.release(lease)
            store.delete("job")
            lease = store.acquire("job", owner="one", ttl=60.0)
        store.save(JOB, lease)
        store.release(lease)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE resumable_sync_attempts SET {field} = CAST(x'ff20' AS TEXT)")
        with pytest.raises(StateCorruptError):
            store.attempts("job")
        store.release(store.acquire("job", owner="two", ttl=60.0))
        store.delete("job")
        assert store.attempts("job") == []
    engine.dispose()


DAMAGED_HISTORIES = [
    "[",
    "[1,[]]",
    '[1,[1,"at_least_once","records","",[]]]',
    '[1,[null,"often","records","",[]]]',
    '[1,[null,"at_least_once","records","1,2",[]]]',
    '[1,[null,"at_least_once","records","1,2,3,4,5,6,7,8,9,x",[]]]',
    '[1,[null,"at_least_once","records","1,2,3,4,5,6,7,8,9,-1",[]]]',
    '[1,[null,"at_least_once","records",7,[]]]',
    '[1,[null,"at_least_once","records","",[1]]]',
    '[1,[null,"at_least_once","records","1,9223372036854775807,1,1,1,1,1,1,1,1",[]]]',
]


@mostly
@pytest.mark.parametrize("text_of", DAMAGED_HISTORIES)
def test_damaged_history_is_named_and_stops_nothing(
    store: SQLJobStore, engine: Engine, text_of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_recorder, "MIN_SECONDS", 3_600.0)  # one sample, however slow the machine is
    numbers = Numbers(20)
    run_full_sync("job", numbers, lambda _: None, store=store, max_records=10, batch_size=10)
    assert store.history("job") is not None
    with engine.begin() as connection:
        connection.execute(text("UPDATE resumable_sync_history SET samples = :value"), {"value": text_of})
    with pytest.raises(StateCorruptError) as caught:
        store.history("job")
    assert (caught.value.job_id, caught.value.field) == ("job", "samples")
    assert run_full_sync("job", numbers, lambda _: None, store=store, batch_size=10).status == "completed"
    history = store.history("job")
    assert history is not None
    assert [(sample.attempt, sample.records) for sample in history.samples] == [(2, 10)]
