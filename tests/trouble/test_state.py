"""Stored jobs that were damaged by hand: said with job and field, and left as they are."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Engine, column, create_engine, literal, table, text

from resumable_sync import Batch, SourceChangedError, StateCorruptError, plan_full_sync, run_full_sync
from resumable_sync.stores.sql import SQLJobStore
from trouble.mutations import BATCH_SIZE, Mutator, Source, State, try_out
from trouble.parts import JOB_ID, Insert, Numbers, check_exact, engine_of, make_target

TOTAL = 50
TOO_GREAT = 10**18
"""No clock shows so many microseconds, and every database can store it."""

COUNTS = [
    "run",
    "attempt",
    "processed_records",
    "processed_batches",
    "total_records",
    "dead_letters",
    "stalled_attempts",
    "batch_size",
]
TIMES = ["created_at", "started_at", "updated_at", "finished_at"]
EVERYWHERE: list[tuple[str, Any]] = [
    *((field, -1) for field in COUNTS),
    ("batch_size", 0),
    *((field, TOO_GREAT) for field in TIMES),
    *((field, -TOO_GREAT) for field in TIMES),
    *(("status", value) for value in ["", "done", "RUNNING", "running "]),
    *(("run_id", value) for value in ["", "x", "00000000-0000-0000-0000-00000000000", "{urn}"]),
    *(
        ("cursor", value)
        for value in ["", " ", "20", "[20]", "[1,20", "[9,[20]]", '[1,{"no such tag":1}]', "[1,null]", "x'20"]
    ),
    *((field, value) for field in ["fingerprint", "error"] for value in ["[1,", '[1,{"x":', "[1,20]"]),
    *((field, value) for field in ["fencing_token", "saved_token"] for value in [-1, TOO_GREAT]),
    *(("stop_requested", value) for value in [-1, 2]),
]
"""Damage that any database's column can hold."""
ONLY_SQLITE: list[tuple[str, Any]] = [
    *(
        (field, value)
        for field in [*COUNTS, *TIMES, "fencing_token", "saved_token"]
        for value in ["x", "", 1.5, b"\x01", float("inf")]
    ),
    *((field, b"\xff\x00") for field in ["status", "run_id", "cursor", "fingerprint", "error"]),
    ("stop_requested", "no"),
]
LEASES: list[tuple[str, dict[str, Any]]] = [
    ("lease_owner", {"lease_owner": "", "lease_expires_at": 1, "lease_ttl": 1}),
    ("lease_owner", {"lease_expires_at": 1, "lease_ttl": 1}),
    ("lease_expires_at", {"lease_owner": "somebody", "lease_ttl": 1}),
    ("lease_expires_at", {"lease_owner": "somebody", "lease_expires_at": TOO_GREAT, "lease_ttl": 1}),
    ("lease_ttl", {"lease_owner": "somebody", "lease_expires_at": 1, "lease_ttl": 0}),
    ("lease_ttl", {"lease_owner": "somebody", "lease_expires_at": 1, "lease_ttl": -1}),
    ("lease_ttl", {"lease_owner": "somebody", "lease_expires_at": 1}),
]


def begin(url: str) -> None:
    """Leave a job that is half done."""
    make_target(url)
    with SQLJobStore(url) as store:
        run_full_sync(JOB_ID, Numbers(TOTAL), Insert(), store=store, batch_size=10, max_records=20)


class Vandal:
    """Damages the row of a job, and sees that the library notices."""

    def __init__(self, engine: Engine, store: SQLJobStore) -> None:
        self._engine = engine
        self._store = store

    def row(self) -> Any:
        """Give the row as the driver does."""
        with self._engine.connect() as connection:
            return connection.execute(text("SELECT * FROM resumable_sync_jobs")).mappings().one()

    def write(self, **values: Any) -> None:
        """Write values into the row."""
        jobs = table("resumable_sync_jobs", *(column(name) for name in values))
        with self._engine.begin() as connection:
            connection.execute(jobs.update().values({name: literal(value) for name, value in values.items()}))

    def check_refused(self, field: str, **values: Any) -> None:
        """Damage the row, see every way to the job refused, and put the row back."""
        before = self.row()
        self.write(**values)
        damaged = repr(self.row())
        for function in (plan_full_sync, run_full_sync):
            with pytest.raises(StateCorruptError) as caught:
                function(JOB_ID, Numbers(TOTAL), Insert(refuse), store=self._store)
            assert (caught.value.job_id, caught.value.field) == (JOB_ID, field), values
            assert repr(JOB_ID) in str(caught.value)
            assert repr(field) in str(caught.value)
            assert "store.delete(job_id)" in str(caught.value)
            assert repr(self.row()) == damaged, "the row was changed"
        self.write(**{name: before[name] for name in values})


def refuse(_batch: Batch[int]) -> None:
    pytest.fail("a batch was delivered")


@pytest.fixture
def vandal(database_url: str) -> Iterator[Vandal]:
    begin(database_url)
    engine = create_engine(database_url)
    with SQLJobStore(database_url) as store:
        yield Vandal(engine, store)
    engine.dispose()


def test_damage_in_every_field_is_named_and_left_untouched(database_url: str, vandal: Vandal) -> None:
    for field, value in EVERYWHERE + (ONLY_SQLITE if database_url.startswith("sqlite") else []):
        vandal.check_refused(field, **{field: value})
    for field, values in LEASES:
        vandal.check_refused(field, **values)
    with SQLJobStore(database_url) as store:
        run_full_sync(JOB_ID, Numbers(TOTAL), Insert(), store=store, batch_size=10)
    check_exact(database_url, TOTAL)


def test_text_that_is_no_text_is_named_too(sqlite_url: str) -> None:
    begin(sqlite_url)
    with engine_of(sqlite_url) as engine, SQLJobStore(sqlite_url) as store:
        vandal = Vandal(engine, store)
        for field in ["status", "run_id", "cursor", "fingerprint", "error"]:
            before = vandal.row()[field]
            with engine.begin() as connection:
                connection.exec_driver_sql(f"UPDATE resumable_sync_jobs SET {field} = CAST(x'ff20' AS TEXT)")
            with pytest.raises(StateCorruptError) as caught:
                run_full_sync(JOB_ID, Numbers(TOTAL), Insert(refuse), store=store)
            assert caught.value.field == field
            vandal.write(**{field: before})


MUTATIONS = int(os.environ.get("RESUMABLE_SYNC_MUTATIONS", "10000"))
"""How many damaged rows of each kind of database the long test tries out."""


def try_many(url: str, count: int) -> None:
    """Damage the rows again and again; each time a sync must be right, or say that it is damaged and write nothing."""
    came_to: Counter[str] = Counter()
    with closing(State(url)) as state:
        mutator = Mutator(f"{state.engine.dialect.name} {count}", state)
        while came_to.total() < count:
            rows, damage = mutator.next()
            if not state.put(rows):  # the database does not take it
                continue
            try:
                came_to[try_out(state, "auto" if came_to.total() % 4 == 0 else BATCH_SIZE)] += 1
            except BaseException as error:
                error.add_note(f"number {came_to.total()}: {damage}")
                raise
    print(state.engine.dialect.name, dict(came_to))
    assert came_to["StateCorruptError"] > 0
    assert any(what.startswith(("resume", "new")) for what in came_to)


@pytest.mark.parametrize(("kind", "count"), [("sqlite", 150), ("postgresql", 25), ("mariadb", 25)])
def test_damage_at_random(new_database: Callable[[str], str], kind: str, count: int) -> None:
    try_many(new_database(kind), count)


@pytest.mark.crash
@pytest.mark.timeout(7200)
def test_damage_at_random_ten_thousand_times(database_url: str) -> None:
    try_many(database_url, MUTATIONS)


LAST_TOKEN = 253_402_300_800_000_000
NO_ROOM = {
    "fencing_token": f"UPDATE resumable_sync_jobs SET fencing_token = {LAST_TOKEN}",
    "newest deleted token": f"UPDATE resumable_sync_meta SET value = {LAST_TOKEN} WHERE name = 'newest_deleted_token'",
    **{
        field: f"UPDATE resumable_sync_jobs SET {field} = {2**63 - 1}"
        for field in COUNTS
        if field not in {"total_records", "batch_size", "stalled_attempts"}
    },
}


@pytest.mark.parametrize("what", list(NO_ROOM))
def test_what_leaves_no_room_to_go_on_is_refused(sqlite_url: str, what: str) -> None:
    """An attempt that would damage the row itself, or overflow it, does not begin."""
    begin(sqlite_url)
    with engine_of(sqlite_url) as engine, SQLJobStore(sqlite_url) as store:
        with engine.begin() as connection:
            connection.execute(text(NO_ROOM[what]))
        vandal = Vandal(engine, store)
        before = repr(vandal.row())
        with pytest.raises(StateCorruptError) as caught:
            run_full_sync(JOB_ID, Numbers(TOTAL), Insert(refuse), store=store)
        assert caught.value.field == (what if what in COUNTS else "fencing_token")
        assert repr(vandal.row()) == before


@pytest.mark.parametrize("fingerprint", ["[" * 5_000, '{"table":' * 5_000, "[]", "5", '{"table":5}', "é\0"])
def test_a_fingerprint_that_is_none_is_that_of_another_source(sqlite_url: str, fingerprint: str) -> None:
    begin(sqlite_url)
    with engine_of(sqlite_url) as engine, SQLJobStore(sqlite_url) as store:
        vandal = Vandal(engine, store)
        vandal.write(fingerprint=fingerprint)
        before = repr(vandal.row())
        assert plan_full_sync(JOB_ID, Source(TOTAL), Insert(refuse), store=store).action == "refuse"
        with pytest.raises(SourceChangedError):
            run_full_sync(JOB_ID, Source(TOTAL), Insert(refuse), store=store)
        assert repr(vandal.row()) == before
