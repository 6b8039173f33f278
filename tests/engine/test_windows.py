"""From a file to a file of SQLite: rows that do not leave SQLite are the same ones, and nothing else is touched."""

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from typing_extensions import override

from resumable_sync import Retry, TransientError, TryFailed, plan_full_sync, run_full_sync
from resumable_sync._formats import RECORDS, SQLITE_WINDOW, WINDOW_SCHEMA, SQLiteWindow
from resumable_sync.connectors._split import Probes
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks import _attach
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore

ORDERS = "CREATE TABLE orders (id INTEGER PRIMARY KEY, note VARCHAR(40), total REAL, doc BLOB, x)"
ROWS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 95) INSERT INTO orders "
    "SELECT i * 2, CASE WHEN i % 7 > 0 THEN 'note ' || i END, i / 4.0, CAST(i AS BLOB), i FROM n"
)
EVERYTHING = "SELECT id, quote(note), quote(total), quote(doc), quote(x) FROM orders ORDER BY id"


class Files:
    """A source and a target, each a file of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source, self.target = folder / "the source%20.db", folder / "target.db"
        self.run(self.source, ORDERS, ROWS)

    def run(self, path: Path, *statements: str) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    def rows(self, path: Path, query: str = EVERYTHING) -> list[Any]:
        with closing(sqlite3.connect(path)) as connection:
            return connection.execute(query).fetchall()

    def url(self, path: Path) -> URL:
        return URL.create("sqlite", database=str(path))

    def sync(self, sink: SQLSink | None = None, connector: SQLConnector | None = None, **options: Any) -> Any:
        options = {"batch_size": 10, **options}
        with (
            SQLJobStore(self.url(self.target)) as store,
            closing(connector or SQLConnector(self.url(self.source), "orders")) as reading,
            closing(sink or SQLSink("orders", "append")) as writing,
        ):
            return run_full_sync("orders", reading, writing, store=store, **options)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize("own", [False, True], ids=["store's", "own url"])
@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
def test_rows_stay_within_sqlite_in_every_mode(files: Files, mode: Any, own: bool) -> None:
    files.run(files.target, ORDERS, "INSERT INTO orders VALUES (4, 'old', NULL, NULL, NULL), (5, 'mine', 1, 1, 1)")
    files.run(files.target, *(["DELETE FROM orders"] if mode == "append" else []))
    before = files.rows(files.source)
    url = files.url(files.target) if own else None
    with SQLJobStore(files.url(files.target)) as store:
        sink, connector = SQLSink("orders", mode, url=url), SQLConnector(files.url(files.source), "orders")
        planned = plan_full_sync("orders", connector, sink, store=store)
    result = files.sync(SQLSink("orders", mode, url=url))
    assert (planned.format, result.format) == (SQLITE_WINDOW, SQLITE_WINDOW)
    assert (result.status, result.records, result.batches, result.guarantee) == ("completed", 95, 10, "exactly_once")
    assert files.rows(files.source) == before
    mine = [(5, "'mine'", "1.0", "1", "1")] if mode == "upsert" else []
    assert files.rows(files.target) == sorted([*before, *mine])


def test_windows_are_found_ahead_and_rows_are_not_read_ahead(files: Files) -> None:
    plain = SQLConnector(files.url(files.source), "orders")
    (window,) = plain.formats()
    assert (plain.preferred_prefetch, plain.in_format(window).preferred_prefetch) == (0, 1)


def test_a_table_is_made_and_replaced_though_the_source_has_one_of_the_same_name(files: Files) -> None:
    """What has no schema in a statement is never looked for in the source."""
    files.run(files.source, "CREATE TABLE resumable_sync_jobs (mine)", "CREATE INDEX by_note ON orders (note)")
    before = files.rows(files.source, "SELECT * FROM sqlite_master")
    for _ in range(2):
        assert files.sync(SQLSink("orders", "replace")).format == SQLITE_WINDOW
        assert files.rows(files.target) == files.rows(files.source)
    assert files.rows(files.source, "SELECT * FROM sqlite_master") == before


def test_a_target_that_is_gone_is_not_looked_for_in_the_source(files: Files) -> None:
    def drop() -> float:
        files.run(files.target, "DROP TABLE orders")
        return 0

    with pytest.raises(DBAPIError, match=r"no such table: main\.orders"):
        files.sync(throttle=drop)


VALUES = ["5", "5.0", "-0.0", "1e300", "9e999", "9223372036854775807", "'5'", "'5.50'", "' 7 '", "'0x1f'", "'1e3'"]
VALUES += ["'text'", "''", "'a' || char(0) || 'b'", "x'35'", "x''", "NULL", "'2026-01-31 12:00:00'", "1234567890.5"]
TYPES = ["", "INTEGER", "TEXT", "REAL", "NUMERIC(10, 2)", "BLOB", "BOOLEAN", "DATETIME", "CHAR(36)", "STRING"]
STRICT = ["INTEGER", "TEXT", "REAL", "BLOB", "ANY"]


@pytest.mark.parametrize("strict", [False, True])
def test_every_value_is_stored_as_if_python_had_seen_it(files: Files, strict: bool) -> None:
    """Every value, as columns of every type keep it, into columns of every type."""
    pairs = [(one, other) for one in TYPES for other in (STRICT if strict else TYPES)]
    columns = [f"c{place}" for place in range(len(pairs))]
    kept: list[Any] = []
    names = ", ".join(f"{name} {one}" for name, (one, _) in zip(columns, pairs, strict=True))
    files.run(files.source, "DROP TABLE orders", f"CREATE TABLE orders (id INTEGER PRIMARY KEY, {names})")
    for value in VALUES:
        files.run(files.source, f"INSERT INTO orders ({', '.join(columns)}) VALUES ({', '.join([value] * len(pairs))})")
    if strict:
        # What does not fit is refused, either way.
        fits = {"INTEGER": "integer", "TEXT": "text", "REAL": "real", "BLOB": "blob"}
        for name, (_, other) in zip(columns, pairs, strict=True):
            if other in fits:
                files.run(files.source, f"UPDATE orders SET {name} = NULL WHERE typeof({name}) <> '{fits[other]}'")
    made = ", ".join(f"{name} {other}" for name, (_, other) in zip(columns, pairs, strict=True))
    for fast_path in (True, False):
        files.run(files.target, "DROP TABLE IF EXISTS orders")
        files.run(files.target, f"CREATE TABLE orders (id INTEGER PRIMARY KEY, {made}){' STRICT' if strict else ''}")
        assert files.sync(fast_path=fast_path).format == (SQLITE_WINDOW if fast_path else RECORDS)
        facts = ", ".join(f"typeof({name}), hex({name}), {name} IS -0.0" for name in columns)
        kept.append(files.rows(files.target, f"SELECT id, {facts} FROM orders ORDER BY id"))
    assert kept[0] == kept[1]
    assert len(kept[0]) == len(VALUES)


def test_what_a_strict_table_refuses_is_refused(files: Files) -> None:
    files.run(files.target, ORDERS.replace(" VARCHAR(40)", " INT").replace("x)", "x ANY) STRICT"))
    for fast_path in (True, False):
        with pytest.raises(DBAPIError, match=r"cannot store TEXT value in INT column orders\.note"):
            files.sync(fast_path=fast_path)
    assert files.rows(files.target) == []


def test_text_that_python_cannot_have_is_kept(files: Files) -> None:
    files.run(files.source, "UPDATE orders SET note = CAST(x'ff00' AS TEXT) WHERE id IN (20, 24)")
    assert files.sync().format == SQLITE_WINDOW
    query = "SELECT id, typeof(note), hex(note) FROM orders ORDER BY id"
    assert files.rows(files.target, query) == files.rows(files.source, query)


KEYS: dict[str, tuple[str, str, Any]] = {
    "text": ("(k TEXT NOT NULL)", "printf('%c', 64 + i % 60) || i", "k"),
    "two columns, mixed directions": ("(k REAL NOT NULL, l INT NOT NULL)", "i / 3 / 2.0, i", ["k", ("l", "desc")]),
    "without rowid": ("(k BLOB NOT NULL PRIMARY KEY) WITHOUT ROWID", "CAST(i * 7 AS BLOB)", None),
    "a name to be quoted": ('("the ""key""%s" INTEGER PRIMARY KEY)', "i * 7", '-the "key"%s'),
}


@pytest.mark.parametrize("name", KEYS)
def test_pages_are_those_of_python_values_for_every_key(files: Files, name: str) -> None:
    declared, values, key = KEYS[name]
    files.run(
        files.source,
        "DROP TABLE orders",
        f'CREATE TABLE "ord""ers" {declared}',
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 23) "
        f'INSERT INTO "ord""ers" SELECT {values} FROM n',
        *(['CREATE UNIQUE INDEX u ON "ord""ers" (k)'] if key == "k" else []),
    )
    plain = SQLConnector(files.url(files.source), 'ord"ers', key)
    (window,) = plain.formats()
    for size in (1, 5, 23, 100):
        pages = list(plain.read(None, size))
        windows = list(plain.in_format(window).read(None, size))
        assert [(page.cursor, page.columns, list(page.records)) for page in windows] == [
            (page.cursor, page.columns, page.records) for page in pages
        ]
        assert all(isinstance(page.records, SQLiteWindow) and page.records[:] == list(page.records) for page in windows)
        rest = list(plain.in_format(window).read(pages[0].cursor, 4))
        assert [row for page in rest for row in page.records] == [row for page in pages[1:] for row in page.records]
    plain.close()
    result = files.sync(SQLSink('ord"ers', "append"), SQLConnector(files.url(files.source), 'ord"ers', key))
    assert result.format == SQLITE_WINDOW
    everything = (
        'SELECT * FROM "ord""ers" ORDER BY 1, 2 DESC' if "," in declared else 'SELECT * FROM "ord""ers" ORDER BY 1'
    )
    assert files.rows(files.target, everything) == files.rows(files.source, everything)


def meddle(files: Files, changes: Sequence[str]) -> Callable[[], float]:
    """Change the source between looking for the rows of a batch and writing them."""
    left = iter(changes)

    def throttle() -> float:
        files.run(files.source, *filter(None, [next(left, "")]))
        return 0

    return throttle


CHANGES = {
    "a row comes": "INSERT INTO orders (id, note) VALUES (25, 'new')",
    "a row goes": "DELETE FROM orders WHERE id = 26",
    "the last row goes": "DELETE FROM orders WHERE id = 40",
    "the last row changes": "UPDATE orders SET note = 'changed' WHERE id = 40",
    "one comes and one goes": "UPDATE orders SET id = 25 WHERE id = 24",
    "all go": "DELETE FROM orders WHERE id BETWEEN 21 AND 40",
    "one within changes": "UPDATE orders SET x = 'changed' WHERE id = 30",
}


@pytest.mark.parametrize("change", CHANGES)
def test_rows_that_change_before_they_are_written_are_read_anew(files: Files, change: str) -> None:
    number = list(CHANGES).index(change)
    journal, own = ("wal", "delete")[number % 2], number % 3 == 0
    files.run(files.source, f"PRAGMA journal_mode={journal}")
    sink = SQLSink("orders", "append", url=files.url(files.target) if own else None)
    result = files.sync(sink, throttle=meddle(files, [CHANGES[change]]))
    assert (result.status, result.format) == ("completed", SQLITE_WINDOW)
    assert files.rows(files.target) == files.rows(files.source)
    assert result.records == result.job.processed_records == len(files.rows(files.source))


@pytest.mark.parametrize("change", ["INSERT INTO orders (id) VALUES (1)", "DELETE FROM orders WHERE id = 190"])
def test_rows_that_change_while_the_last_page_is_counted_cost_none(
    files: Files, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, left = Probes.count, iter([change])

    def meddling(*arguments: Any) -> int:
        counted = count(*arguments)
        files.run(files.source, *left)
        return counted

    monkeypatch.setattr(Probes, "count", meddling)
    result = files.sync(batch_size=100, count=False)
    assert (result.status, result.format) == ("completed", SQLITE_WINDOW)
    assert files.rows(files.target) == files.rows(files.source)


KILLED = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size=1")
connection.execute("BEGIN")
connection.execute("UPDATE orders SET note = 'of a transaction that never commits' || zeroblob(2000)")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_of_the_source_left_is_undone(files: Files) -> None:
    def kill() -> None:
        subprocess.run([sys.executable, "-c", KILLED, files.source], check=False)
        assert Path(f"{files.source}-journal").stat().st_size > 0

    files.run(files.source, "PRAGMA journal_mode=delete")
    before = files.rows(files.source)
    left = iter([kill])

    def throttle() -> float:
        for once in left:
            once()
        return 0

    result = files.sync(throttle=throttle)
    assert (result.status, result.format) == ("completed", SQLITE_WINDOW)
    assert files.rows(files.target) == files.rows(files.source) == before


@pytest.mark.parametrize("passing_over", ["a trigger", "a constraint"])
def test_rows_that_the_target_passes_over_are_counted_as_delivered(files: Files, passing_over: str) -> None:
    files.run(files.target, ORDERS.replace("40)", "40) UNIQUE ON CONFLICT IGNORE" if "con" in passing_over else "40)"))
    if passing_over == "a trigger":
        condition = "WHEN new.note LIKE '%5' BEGIN SELECT RAISE(IGNORE); END"
        files.run(files.target, f"CREATE TRIGGER passes BEFORE INSERT ON orders {condition}")
    files.run(files.source, "UPDATE orders SET note = 'note 5' WHERE id % 10 = 0")
    result = files.sync(throttle=meddle(files, [CHANGES["a row comes"]]))
    assert (result.status, result.format, result.job.processed_records) == ("completed", SQLITE_WINDOW, 96)
    by_windows = files.rows(files.target)
    files.run(files.target, "DELETE FROM orders")
    assert files.sync(fast_path=False).job.processed_records == 96
    assert 60 < len(by_windows) < 90
    assert files.rows(files.target) == by_windows


def test_a_file_that_is_still_read_from_is_detached_at_another_try(files: Files) -> None:
    files.run(files.target, ORDERS)
    engine = create_engine(files.url(files.target), connect_args={"uri": True})
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        _attach._attach(connection, f"{files.source.as_uri()}?mode=ro")
        reading = driver.execute(f"SELECT * FROM {WINDOW_SCHEMA}.orders")
        assert reading.fetchone()
        with pytest.raises(TransientError, match="still attached"):
            _attach.detach(connection)
        reading.close()
        connection.rollback()
        _attach.detach(connection)
        _attach._attach(connection, f"{files.source.as_uri()}?mode=ro")
        reading = driver.execute(f"SELECT * FROM {WINDOW_SCHEMA}.orders")
    with engine.connect() as connection:
        assert connection.connection.driver_connection is not driver
    engine.dispose()


def test_a_source_that_never_stands_still_is_read_as_python_values(files: Files) -> None:
    restless = meddle(files, [f"UPDATE orders SET x = x + {number} WHERE id = 40" for number in range(1, 9)])
    result = files.sync(throttle=restless)
    assert (result.status, result.format, result.records) == ("completed", RECORDS, 95)
    changed = [row for row in files.rows(files.target) if row not in files.rows(files.source)]
    assert [row[0] for row in changed] in ([], [40])


def test_a_source_that_is_locked_is_waited_for(files: Files) -> None:
    engine = create_engine(files.url(files.target), connect_args={"timeout": 0.05})
    holder = sqlite3.connect(files.source, isolation_level=None, check_same_thread=False)
    locked = iter([True])

    def lock() -> float:
        if next(locked, False):
            holder.execute("BEGIN EXCLUSIVE")
        return 0

    failed: list[Any] = []

    def release(event: object) -> None:
        if isinstance(event, TryFailed):
            failed.append(event.call)
            holder.execute("COMMIT")

    with SQLJobStore(engine) as store, closing(SQLConnector(files.url(files.source), "orders")) as connector:
        sink = SQLSink("orders", "append")
        result = run_full_sync(
            "orders",
            connector,
            sink,
            store=store,
            batch_size=50,
            count=False,
            throttle=lock,
            observers=[release],
            retry=Retry(wait_initial=0.01),
        )
    holder.close()
    engine.dispose()
    assert (failed, result.format, result.records) == (["write"], SQLITE_WINDOW, 95)
    assert files.rows(files.target) == files.rows(files.source)


class _Changing(SQLConnector):
    @override
    def read(self, cursor: Any, batch_size: int) -> Any:
        return super().read(cursor, batch_size)


def _utf16(files: Files) -> SQLConnector:
    path = files.folder / "utf16.db"
    files.run(path, "PRAGMA encoding='UTF-16'", ORDERS)
    with closing(sqlite3.connect(path)) as connection:
        connection.executemany(
            "INSERT INTO orders VALUES (?, ?, ?, ?, ?)", files.rows(files.source, "SELECT * FROM orders")
        )
        connection.commit()
    return SQLConnector(files.url(path), "orders")


def _view(files: Files) -> SQLConnector:
    files.run(files.source, "CREATE VIEW v AS SELECT * FROM orders")
    return SQLConnector(files.url(files.source), "v", key="id")


OTHERS: dict[str, Callable[[Files], SQLConnector]] = {
    "a query": lambda files: SQLConnector(files.url(files.source), "SELECT * FROM orders", key="id"),
    "a view": _view,
    "an engine": lambda files: SQLConnector(create_engine(files.url(files.source)), "orders"),
    "options": lambda files: SQLConnector(files.url(files.source).update_query_dict({"timeout": "1"}), "orders"),
    "a stream": lambda files: SQLConnector(files.url(files.source), "orders", paging="stream"),
    "a subclass": lambda files: _Changing(files.url(files.source), "orders"),
    "another encoding": _utf16,
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_another_connection_might_read_otherwise_comes_as_python_values(files: Files, name: str) -> None:
    result = files.sync(SQLSink("orders", "append"), OTHERS[name](files))
    assert (result.status, result.format) == ("completed", RECORDS)
    assert files.rows(files.target) == files.rows(files.source)


def test_within_one_file_and_with_a_column_that_converts_python_values_are_written(files: Files) -> None:
    connector = SQLConnector(files.url(files.source), "orders")
    with SQLJobStore(files.url(files.source)) as store:
        assert run_full_sync("orders", connector, SQLSink("copy", "append"), store=store).format == RECORDS
    connector.close()
    assert files.rows(files.source, EVERYTHING.replace("orders", "copy")) == files.rows(files.source)
    files.run(files.target, ORDERS.replace("x)", "x JSON)"))
    assert files.sync().format == RECORDS
    files.run(files.target, "DROP TABLE orders", ORDERS.replace("40)", "40) UNIQUE"))
    with pytest.raises(ValueError, match="key column 'note' was given None"):
        files.sync(SQLSink("orders", "upsert", key="note"))
    assert files.sync(SQLSink("orders", "replace"), on_refused="dead_letter").format == RECORDS


def test_where_no_file_can_be_attached_python_values_are_written(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    # As where SQLite takes a URI for a path.
    monkeypatch.setattr(_attach, "_PROBE", str(files.folder / "nowhere" / "probe"))
    assert files.sync().format == RECORDS
    assert files.rows(files.target) == files.rows(files.source)
    assert sorted(path.name for path in files.folder.iterdir()) == ["target.db", files.source.name]


@pytest.mark.parametrize("end", ["completed", "interrupted", "failed"])
def test_the_source_is_attached_read_only_and_not_for_longer_than_it_takes(files: Files, end: str) -> None:
    engine = create_engine(files.url(files.target))
    seen: list[Any] = []

    def look(event: Any) -> None:
        if type(event).__name__ == "BatchCommitted" and not seen:
            connection: Any = store._connections.working().connection.connection.driver_connection
            seen.append({name for _, name, _ in connection.execute("PRAGMA database_list")})
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                connection.execute("DELETE FROM resumable_sync_source.orders")
            connection.rollback()

    if end == "failed":
        files.run(files.target, ORDERS, "INSERT INTO orders VALUES (100, 'mine', 1, 1, 1)")
    options: dict[str, Any] = {"max_records": 20} if end == "interrupted" else {}
    with SQLJobStore(engine) as store, closing(SQLConnector(files.url(files.source), "orders")) as connector:
        sink = SQLSink("orders", "append")
        with pytest.raises(DBAPIError, match="UNIQUE") if end == "failed" else contextlib.nullcontext():
            run_full_sync("orders", connector, sink, store=store, batch_size=10, observers=[look], **options)
        assert store.load("orders").status == end  # type: ignore[union-attr]
        with engine.connect() as one, engine.connect() as other:
            for connection in (one, other):
                assert {row.name for row in connection.execute(text("PRAGMA database_list"))} <= {"main", "temp"}
    engine.dispose()
    assert seen == [{"main", "temp", "resumable_sync_source"}]


def test_the_source_is_detached_where_another_pool_was(files: Files, monkeypatch: Any) -> None:
    # As SQLAlchemy says of a pool at the address of one that is gone, whose engine was disposed of and is there still.
    monkeypatch.setattr(event, "contains", lambda *_: True)
    engine = create_engine(files.url(files.target))
    with SQLJobStore(engine) as store, closing(SQLConnector(files.url(files.source), "orders")) as connector:
        run_full_sync("orders", connector, SQLSink("orders", "append"), store=store, batch_size=10)
        with engine.connect() as one, engine.connect() as other:
            for connection in (one, other):
                assert {row.name for row in connection.execute(text("PRAGMA database_list"))} <= {"main", "temp"}
    engine.dispose()


def test_an_attempt_goes_on_in_another_form(files: Files) -> None:
    """Cursors do not depend on the form."""
    for fast_path in (True, False, True):
        result = files.sync(fast_path=fast_path, max_records=20)
        assert (result.format == SQLITE_WINDOW) is fast_path
    result = files.sync(if_held="raise")
    assert (result.action, result.records) == ("resume", 35)
    assert files.rows(files.target) == files.rows(files.source)
