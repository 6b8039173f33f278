"""Stored jobs that were damaged by hand: said with job and field, and left as they are."""

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, column, create_engine, literal, table, text

from resumable_sync import (
    Batch,
    CrashLoopError,
    CursorError,
    SourceChangedError,
    StateCorruptError,
    plan_full_sync,
    run_full_sync,
)
from resumable_sync.stores.sql import SQLJobStore
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
]
TIMES = ["created_at", "started_at", "updated_at", "finished_at"]
EVERYWHERE: list[tuple[str, Any]] = [
    *((field, -1) for field in COUNTS),
    *((field, TOO_GREAT) for field in TIMES),
    *((field, -TOO_GREAT) for field in TIMES),
    *(("status", value) for value in ["", "done", "RUNNING", "running "]),
    *(("run_id", value) for value in ["", "x", "00000000-0000-0000-0000-00000000000", "{urn}"]),
    *(
        ("cursor", value)
        for value in ["", " ", "20", "[20]", "[1,20", "[9,[20]]", '[1,{"no such tag":1}]', "[1,null]", "x'20"]
    ),
    *((field, value) for field in ["fingerprint", "error"] for value in ["[1,", '[1,{"x":', "[1,20]"]),
    *(("fencing_token", value) for value in [-1, TOO_GREAT]),
    *(("stop_requested", value) for value in [-1, 2]),
]
"""Damage that any database's column can hold."""
ONLY_SQLITE: list[tuple[str, Any]] = [
    *(
        (field, value)
        for field in [*COUNTS, *TIMES, "fencing_token"]
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


class Row:
    """The row of a job in a SQLite file, to be damaged again and again."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        begin(self.url)
        self.store = SQLJobStore(self.url)
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._columns = [row[1] for row in self._connection.execute("PRAGMA table_info(resumable_sync_jobs)")]
        self._whole = self._connection.execute("SELECT * FROM resumable_sync_jobs").fetchone()

    def write(self, field: str, value: Any) -> None:
        """Put the row back as it was, but for one field."""
        assignments = ", ".join(f"{name} = ?" for name in self._columns)
        values = dict(zip(self._columns, self._whole, strict=True)) | {field: value}
        self._connection.execute(f"UPDATE resumable_sync_jobs SET {assignments}", list(values.values()))
        self._connection.execute("DELETE FROM target WHERE number >= 20")

    def read(self) -> list[str]:
        """Give every column as SQLite writes it down, type and all."""
        columns = ", ".join(f"quote({name})" for name in self._columns)
        return list(self._connection.execute(f"SELECT {columns} FROM resumable_sync_jobs").fetchone())

    def value(self, field: str) -> Any:
        """Give what the field held at first."""
        return self._whole[self._columns.index(field)]

    def close(self) -> None:
        """Close what is open."""
        self._connection.close()
        self.store.close()


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Row(tmp_path_factory.mktemp("state") / "jobs.db")
    yield made
    made.close()


FIELDS = ["status", "run", "run_id", "attempt", "cursor", "processed_records", "processed_batches", "total_records"]
FIELDS += ["dead_letters", "fingerprint", "stalled_attempts", "error", *TIMES, "fencing_token", "stop_requested"]
ANYTHING = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.binary(max_size=20),
)


@st.composite
def bent(draw: st.DrawFn, original: str) -> str:
    """Text with one character changed, dropped or doubled."""
    place = draw(st.integers(0, max(0, len(original) - 1)))
    instead = draw(st.sampled_from(["", original[place : place + 1] * 2, "0", "9", "[", "]", '"', ",", "$", "é"]))
    return original[:place] + instead + original[place + 1 :]


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data(), field=st.sampled_from(FIELDS))
def test_random_damage_is_refused_or_makes_a_job_that_could_be(row: Row, data: st.DataObject, field: str) -> None:
    original = row.value(field)
    value = data.draw(ANYTHING if not isinstance(original, str) else ANYTHING | bent(original))
    try:
        row.write(field, value)
    except (sqlite3.IntegrityError, OverflowError):
        return  # NOT NULL
    damaged = row.read()
    for function in (plan_full_sync, run_full_sync):
        error = error_of(partial(function, JOB_ID, Numbers(TOTAL), Insert(), store=row.store, **OPTIONS))
        if isinstance(error, StateCorruptError):
            assert (error.job_id, error.field) == (JOB_ID, field)
            assert row.read() == damaged, "the row was changed"
        elif error is not None:
            assert isinstance(error, (CursorError, CrashLoopError, SourceChangedError)), repr(error)
            assert field in {"cursor", "stalled_attempts", "fingerprint"}


OPTIONS: Any = {"batch_size": 10, "count": False, "max_records": 10}


def error_of(function: Callable[[], object]) -> Exception | None:
    try:
        function()
    except Exception as error:
        return error
    return None
