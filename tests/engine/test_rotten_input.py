"""What a run may leave behind as dead letters: how many, of which types, and what is published without them."""

import math
import pickle
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError
from typing_extensions import override

from doubles import Numbers, Picky, delivered, saved
from resumable_sync import (
    Batch,
    ConfigurationError,
    DeadLetterLimitError,
    Job,
    JobStatus,
    OffsetConnector,
    replay_dead_letters,
    run_full_sync,
    transactional,
)
from resumable_sync._cursor import encode_value
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore


@pytest.fixture
def store(engine: Engine) -> Iterator[SQLJobStore]:
    with SQLJobStore(engine) as made:
        yield made


# What does not depend on the database is shown on one of them.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Counting(Picky):
    """Counts how often it is asked to write."""

    tries = 0

    @override
    def write(self, batch: Batch[int], connection: Connection | None) -> None:
        self.tries += 1
        super().write(batch, connection)


def test_the_batch_that_would_exceed_the_limit_is_not_committed(store: SQLJobStore, engine: Engine) -> None:
    sink = Picky(1, 2, 13, 14, 15)
    with pytest.raises(DeadLetterLimitError, match="max_dead_letters=4") as caught:
        run_full_sync("j", Numbers(30), sink, store=store, batch_size=10, on_refused="dead_letter", max_dead_letters=4)
    assert (caught.value.job_id, caught.value.limit) == ("j", 4)
    assert isinstance(caught.value.__cause__, ValueError)
    assert str(caught.value.__cause__) == "refused 13"
    assert "batch 1" in caught.value.__notes__[0]
    job = saved(store)
    assert (job.status, job.cursor, job.dead_letters, job.processed_records) == (JobStatus.FAILED, [10], 2, 8)
    assert (job.error or "").startswith("DeadLetterLimitError: ")
    assert [letter.record for letter in store.dead_letters("j")] == [1, 2]
    assert delivered(engine) == [0, 3, 4, 5, 6, 7, 8, 9]

    result = run_full_sync(
        "j", Numbers(30), sink, store=store, batch_size=10, on_refused="dead_letter", max_dead_letters=5
    )
    assert (result.action, result.status, result.job.dead_letters) == ("resume", "incomplete", 5)
    assert replay_dead_letters("j", Picky(), store=store).status == "completed"
    assert delivered(engine) == list(range(30))


@on_sqlite
def test_the_limit_counts_over_the_run_and_not_over_the_attempt(store: SQLJobStore) -> None:
    options: Any = {"store": store, "batch_size": 10, "on_refused": "dead_letter", "max_dead_letters": 2}
    sink = Picky(1, 12, 23)
    assert run_full_sync("j", Numbers(30), sink, **options, max_records=5).job.dead_letters == 1
    assert run_full_sync("j", Numbers(30), sink, **options, max_records=5).job.dead_letters == 2
    with pytest.raises(DeadLetterLimitError):
        run_full_sync("j", Numbers(30), sink, **options)
    assert (saved(store).cursor, saved(store).dead_letters) == ([20], 2)


@on_sqlite
def test_letters_that_were_replayed_make_room(store: SQLJobStore, engine: Engine) -> None:
    options: Any = {"store": store, "batch_size": 10, "on_refused": "dead_letter", "max_dead_letters": 1}
    sink = Picky(1, 12)
    with pytest.raises(DeadLetterLimitError):
        run_full_sync("j", Numbers(30), sink, **options)
    result = replay_dead_letters("j", Picky(), store=store)
    assert (result.status, result.job.dead_letters) == ("failed", 0)
    assert run_full_sync("j", Numbers(30), sink, **options).status == "incomplete"
    assert replay_dead_letters("j", Picky(), store=store).status == "completed"
    assert delivered(engine) == list(range(30))


@on_sqlite
def test_a_new_run_begins_to_count_anew(store: SQLJobStore) -> None:
    options: Any = {"store": store, "on_refused": "dead_letter", "max_dead_letters": 2}
    for _ in range(3):
        assert run_full_sync("j", Numbers(30), Picky(1, 2), **options).job.dead_letters == 2


def test_rotten_rows_are_not_bisected_to_the_end(sqlite_url: str) -> None:
    with SQLJobStore(sqlite_url) as store:
        with store.transaction() as transaction:
            transaction.connection.execute(text("CREATE TABLE numbers (n INTEGER)"))
        sink = Counting(*range(10, 10_010))
        with pytest.raises(DeadLetterLimitError):
            run_full_sync("j", Numbers(10_010), sink, store=store, batch_size=10_010, on_refused="dead_letter")
    # 101 letters, the halves above them, and the ten good ones: far from the 20,000 tries of a whole bisection.
    assert sink.tries < 400


@on_sqlite
def test_without_a_limit_every_record_may_become_a_letter(store: SQLJobStore) -> None:
    sink = Picky(*range(1, 150))
    result = run_full_sync(
        "j", Numbers(150), sink, store=store, batch_size=75, on_refused="dead_letter", max_dead_letters=None
    )
    assert (result.status, result.job.dead_letters, result.job.processed_records) == ("incomplete", 149, 1)


@on_sqlite
def test_a_limit_of_zero_lets_nothing_pass(store: SQLJobStore) -> None:
    with pytest.raises(DeadLetterLimitError, match="max_dead_letters=0"):
        run_full_sync("j", Numbers(10), Picky(7), store=store, on_refused="dead_letter", max_dead_letters=0)
    assert (saved(store).dead_letters, saved(store).cursor) == (0, None)


@on_sqlite
def test_where_nothing_was_ever_accepted_the_refusal_itself_is_raised(store: SQLJobStore) -> None:
    with pytest.raises(ValueError, match="refused 0"):
        run_full_sync("j", Numbers(50), Picky(*range(50)), store=store, on_refused="dead_letter", max_dead_letters=10)


def test_the_error_pickles() -> None:
    error = pickle.loads(pickle.dumps(DeadLetterLimitError("orders", 100)))
    assert (error.job_id, error.limit) == ("orders", 100)
    assert str(error) == str(DeadLetterLimitError("orders", 100))
    assert "raise max_dead_letters" in str(error)


EVERY_TYPE: list[Any] = [
    {
        "none": None,
        "bools": [True, False],
        "ints": (0, -1, 2**70),
        "floats": [0.1, -0.0, math.inf, math.nan],
        "texts": ["", "é\U0001f600", "a\0b", "\ud800", "'; DROP TABLE numbers; --"],
        "bytes": b"\x00\xff",
        "decimals": [Decimal("1.10"), Decimal("-1E+3"), Decimal("NaN")],
        "datetimes": [
            datetime(2026, 1, 2, 3, 4, 5, 678901),  # noqa: DTZ001 - sources have them
            datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
        ],
        "date": date(1, 1, 1),
        "time": time(23, 59, 59, 999999, fold=1),
        "timedelta": timedelta(days=-1, microseconds=1),
        "uuid": UUID(int=7),
        "nested": {"a": [(1, {"b": ()})]},
    },
    (1, "a tuple stays a tuple"),
    [1, "and a list a list"],
    "text alone",
]


class Values(OffsetConnector[Any]):
    def __init__(self, *values: Any) -> None:
        self.values = values

    @override
    def fetch(self, offset: int, limit: int) -> list[Any]:
        return list(self.values[offset : offset + limit])


def test_records_of_every_type_of_the_codec_come_back_as_they_were(store: SQLJobStore) -> None:
    replayed: list[Any] = []

    @transactional
    def refusing(batch: Batch[Any], connection: Connection) -> None:
        connection.execute(text("INSERT INTO numbers VALUES (1)"))
        if list(batch.records) != ["good"]:
            raise ValueError("no")

    @transactional
    def accepting(batch: Batch[Any], connection: Connection) -> None:
        replayed.extend(batch.records)

    source = Values("good", *EVERY_TYPE)
    result = run_full_sync("j", source, refusing, store=store, on_refused="dead_letter")
    assert (result.status, result.job.dead_letters) == ("incomplete", len(EVERY_TYPE))
    # Compared as stored: NaN equals itself there, 1 is not True, and every fold and offset counts.
    kept = [letter.record for letter in store.dead_letters("j")]
    assert list(map(encode_value, kept)) == list(map(encode_value, EVERY_TYPE))
    assert replay_dead_letters("j", accepting, store=store).status == "completed"
    assert list(map(encode_value, replayed)) == list(map(encode_value, EVERY_TYPE))


@on_sqlite
def test_a_record_that_cannot_be_kept_fails_the_run_and_says_so(store: SQLJobStore, engine: Engine) -> None:
    @transactional
    def refusing(batch: Batch[Any], connection: Connection) -> None:
        connection.execute(text("INSERT INTO numbers VALUES (1)"))
        if any(isinstance(record, complex) for record in batch.records):
            raise ValueError("no")

    with pytest.raises(ConfigurationError, match=r"job 'j'.*cannot be kept.*on_refused='fail'"):
        run_full_sync("j", Values("good", 3 + 4j), refusing, store=store, on_refused="dead_letter")
    assert (saved(store).status, saved(store).cursor, list(store.dead_letters("j"))) == ("failed", None, [])
    assert delivered(engine) == []


def test_what_the_database_refuses_is_set_aside_row_by_row(store: SQLJobStore, engine: Engine) -> None:
    tables = MetaData()
    source = Table("source", tables, Column("id", Integer, primary_key=True), Column("name", String(20)))
    target = Table(
        "target",
        tables,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("name", String(20), nullable=False),
        CheckConstraint("id <> 17"),
    )
    tables.create_all(engine)
    rows = [{"id": number, "name": None if number % 10 == 4 else f"name {number}"} for number in range(1, 41)]
    with engine.begin() as connection:
        connection.execute(source.insert(), rows)
    result = run_full_sync(
        "j",
        SQLConnector(engine, "source"),
        SQLSink("target", mode="append"),
        store=store,
        batch_size=16,
        on_refused="dead_letter",
    )
    assert (result.status, result.job.dead_letters, result.job.processed_records) == ("incomplete", 5, 35)
    letters = list(store.dead_letters("j"))
    assert [letter.record[0] for letter in letters] == [4, 14, 17, 24, 34]
    assert {tuple(letter.columns or ()) for letter in letters} == {("id", "name")}
    with engine.connect() as connection:
        there = connection.execute(select(target.c.id).order_by(target.c.id)).scalars().all()
    assert there == [row["id"] for row in rows if row["id"] not in {4, 14, 17, 24, 34}]


class Publishing(Picky):
    """Publishes a run that left dead letters too."""

    publishes_incomplete = True

    def __init__(self, *refused: int, store: SQLJobStore) -> None:
        super().__init__(*refused)
        self.seen: list[tuple[str, str]] = []
        self._store = store

    @override
    def complete(self, job: Job, connection: Connection | None) -> None:
        assert connection is not None
        self.seen.append((job.status, saved(self._store).status))
        connection.execute(text("INSERT INTO numbers VALUES (-1)"))


def test_a_sink_may_publish_an_incomplete_run(store: SQLJobStore, engine: Engine) -> None:
    sink = Publishing(3, 5, store=store)
    result = run_full_sync("j", Numbers(10), sink, store=store, on_refused="dead_letter")
    assert (result.status, result.job.dead_letters) == ("incomplete", 2)
    # In the same transaction: the store still shows the job as running while the sink publishes.
    assert sink.seen == [("incomplete", "running")]
    assert delivered(engine) == [-1, 0, 1, 2, 4, 6, 7, 8, 9]

    replaying = Publishing(5, store=store)
    assert replay_dead_letters("j", replaying, store=store).status == "incomplete"
    assert replaying.seen == []
    replaying = Publishing(store=store)
    assert replay_dead_letters("j", replaying, store=store).status == "completed"
    assert replaying.seen == [("completed", "incomplete")]
    assert delivered(engine) == [-1, -1, *range(10)]


@on_sqlite
def test_publishing_fails_with_the_run_and_is_done_by_the_next_call(store: SQLJobStore, engine: Engine) -> None:
    class Failing(Publishing):
        @override
        def complete(self, job: Job, connection: Connection | None) -> None:
            super().complete(job, connection)
            raise OSError("no")

    with pytest.raises(OSError, match="no"):
        run_full_sync("j", Numbers(10), Failing(3, store=store), store=store, on_refused="dead_letter")
    assert (saved(store).status, saved(store).dead_letters) == ("failed", 1)
    assert -1 not in delivered(engine)
    result = run_full_sync("j", Numbers(10), Publishing(3, store=store), store=store, on_refused="dead_letter")
    assert (result.action, result.status) == ("resume", "incomplete")
    assert delivered(engine) == [-1, 0, 1, 2, 4, 5, 6, 7, 8, 9]


@on_sqlite
def test_a_sink_with_write_alone_may_publish_too(store: SQLJobStore) -> None:
    class Small:
        transactional = True
        publishes_incomplete = True
        completed = 0

        def write(self, batch: Batch[int], connection: Connection) -> None:
            if 3 in batch.records:
                raise ValueError("no")

        def complete(self, job: Job, connection: Connection) -> None:
            self.completed += 1

    sink: Any = Small()
    assert run_full_sync("j", Numbers(10), sink, store=store, on_refused="dead_letter").status == "incomplete"
    assert sink.completed == 1


class RefusingSQL(SQLSink):
    """Replaces a table, and refuses some ids once it has written them."""

    def __init__(self, *refused: int, publish_incomplete: bool) -> None:
        super().__init__("target", mode="replace", publish_incomplete=publish_incomplete)
        self.refused = set(refused)

    @override
    def write(self, batch: Batch[Any], connection: Connection | None) -> None:
        super().write(batch, connection)
        if any(row[0] in self.refused for row in batch.records):
            raise ValueError("no")


@pytest.mark.parametrize("publish", [False, True])
def test_a_table_that_is_replaced_waits_for_its_dead_letters_or_not(
    store: SQLJobStore, engine: Engine, publish: bool
) -> None:
    tables = MetaData()
    source = Table("source", tables, Column("id", Integer, primary_key=True, autoincrement=False))
    target = Table("target", tables, Column("id", Integer, primary_key=True, autoincrement=False))
    tables.create_all(engine)
    with engine.begin() as connection:
        connection.execute(source.insert(), [{"id": number} for number in range(1, 21)])
        connection.execute(target.insert(), [{"id": -1}])

    def ids() -> list[int]:
        with engine.connect() as connection:
            return list(connection.execute(select(target.c.id).order_by(target.c.id)).scalars())

    def sync(*refused: int) -> str:
        sink = RefusingSQL(*refused, publish_incomplete=publish)
        connector = SQLConnector(engine, "source")
        return run_full_sync("j", connector, sink, store=store, batch_size=6, on_refused="dead_letter").status

    assert sync(3, 5, 17) == "incomplete"
    good = [number for number in range(1, 21) if number not in {3, 5, 17}]
    assert ids() == (good if publish else [-1])
    again = RefusingSQL(5, publish_incomplete=publish)
    assert replay_dead_letters("j", again, store=store).status == "incomplete"
    assert ids() == (sorted([*good, 3, 17]) if publish else [-1])
    last = RefusingSQL(publish_incomplete=publish)
    assert replay_dead_letters("j", last, store=store).status == "completed"
    assert ids() == list(range(1, 21))
    assert sync() == "completed"
    assert ids() == list(range(1, 21))


def test_a_refusal_that_ends_the_transaction_fails_the_run(sqlite_url: str) -> None:
    """No savepoint is left to go back to, and what was written before would no longer be part of a transaction."""
    engine = create_engine(sqlite_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (n INTEGER)"))
        connection.execute(
            text(
                "CREATE TRIGGER refuse BEFORE INSERT ON numbers WHEN NEW.n = 17 "
                "BEGIN SELECT RAISE(ROLLBACK, 'rolled back'); END"
            )
        )
    with SQLJobStore(engine) as store:
        with pytest.raises(IntegrityError, match="rolled back"):
            run_full_sync("j", Numbers(30), Picky(3), store=store, batch_size=10, on_refused="dead_letter")
        job = saved(store)
        assert (job.status, job.cursor, job.dead_letters, job.processed_records) == ("failed", [10], 1, 9)
        assert "rolled back" in (job.error or "")
        assert [letter.record for letter in store.dead_letters("j")] == [3]
    assert delivered(engine) == [number for number in range(10) if number != 3]
    engine.dispose()
