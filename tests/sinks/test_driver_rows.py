"""Rows of SQLite that go from its driver to its driver are not looked at again, and all others are."""

import copy
import math
import pickle
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.pool import NullPool
from typing_extensions import override

from resumable_sync import Page, run_full_sync
from resumable_sync._driver_rows import DriverRows
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks import _writer
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore

ROWS = [(1, 0.5, "a"), (2, None, "b"), (3, 1.5, b"c"), (4, 7, 8)]


class Changing(SQLConnector):
    """Puts another value into the third row of every page, in the list it got."""

    value: Any = None

    @override
    def read(self, cursor: Any, batch_size: int) -> Iterator[Page[Any]]:
        for page in super().read(cursor, batch_size):
            rows: Any = page.records
            rows[2] = (3, self.value, "c")
            yield page


@pytest.fixture
def urls(tmp_path: Path) -> tuple[str, str]:
    """URLs of a source with a table, and of the store's database with another one like it."""
    source, target = f"sqlite:///{tmp_path}/source.db", f"sqlite:///{tmp_path}/target.db"
    for url, rows in ((source, ROWS), (target, [])):
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY, x REAL, y)")
            if rows:
                connection.exec_driver_sql("INSERT INTO t VALUES (?, ?, ?)", rows)
    return source, target


def written(url: str) -> list[Any]:
    with closing(SQLConnector(url, "t")) as connector:
        return [row for page in connector.read(None, 9) for row in page.records]


def sync(connector: SQLConnector, target: str, **options: Any) -> None:
    with closing(connector), SQLJobStore(target) as store:
        run_full_sync("job", connector, SQLSink("t", "append"), store=store, fast_path=False, **options)


@pytest.mark.parametrize("paging", ["keyset", "stream", "offset"])
def test_the_drivers_rows_are_written_as_they_are(
    urls: tuple[str, str], paging: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_writer, "convert", None)
    sync(SQLConnector(urls[0], "t", paging=paging), urls[1])
    assert written(urls[1]) == ROWS


@pytest.mark.parametrize(("value", "found"), [(Decimal("1.5"), 1.5), (True, 1.0), (math.nan, "NaN")], ids=str)
def test_what_was_put_among_them_is_converted_or_refused(urls: tuple[str, str], value: Any, found: Any) -> None:
    connector = Changing(urls[0], "t")
    connector.value = value
    if found == "NaN":
        with pytest.raises(ValueError, match="column 'x' was given NaN"):
            sync(connector, urls[1])
        return
    sync(connector, urls[1])
    assert written(urls[1])[2] == (3, found, "c")


def test_whoever_converts_in_the_driver_gives_rows_like_any_other(urls: tuple[str, str]) -> None:
    engine = create_engine(urls[0], poolclass=NullPool)
    for source in (engine, f"{urls[0]}?detect_types=1"):
        with closing(SQLConnector(source, "t")) as connector:
            assert type(next(connector.read(None, 2)).records) is list
    with closing(SQLConnector(urls[0], "t")) as connector:
        assert type(next(connector.read(None, 2)).records) is DriverRows


def put_at(rows: DriverRows) -> None:
    rows[1] = (2, None, chr(98))  # equal, and not known to be


def put_between(rows: DriverRows) -> None:
    rows[1:1] = [(5, None, None)]


def put_behind(rows: DriverRows) -> None:
    rows += [(5, None, None)]


@pytest.mark.parametrize(
    "put",
    [
        put_at,
        put_between,
        put_behind,
        lambda rows: rows.append((5, None, None)),
        lambda rows: rows.extend([(5, None, None)]),
        lambda rows: rows.insert(0, (5, None, None)),
    ],
)
def test_it_is_known_that_another_row_was_put_in(put: Callable[[DriverRows], None]) -> None:
    rows, expected = DriverRows(ROWS), list(ROWS)
    assert rows == ROWS
    assert rows.untouched
    put(rows)
    put(expected)  # type: ignore[arg-type]
    assert rows == expected
    assert not rows.untouched


def test_rows_may_be_taken_out_and_put_in_order() -> None:
    rows = DriverRows(ROWS)
    rows.reverse()
    rows.pop()
    del rows[0]
    assert rows == [ROWS[2], ROWS[1]]
    assert rows.untouched


def test_copies_are_anybodys() -> None:
    rows = DriverRows(ROWS)
    assert [type(each) for each in (pickle.loads(pickle.dumps(rows)), copy.copy(rows), rows[:2])] == [list] * 3


def test_whoever_listens_to_an_engine_hears_of_every_statement(urls: tuple[str, str]) -> None:
    source, target = (create_engine(url, poolclass=NullPool) for url in urls)
    heard: list[str] = []
    for engine in (source, target):
        event.listen(engine, "before_cursor_execute", lambda *args: heard.append(args[2]))
    with SQLJobStore(target) as store:
        run_full_sync(
            "job", SQLConnector(source, "t"), SQLSink("t", "append"), store=store, batch_size=2, fast_path=False
        )
    assert sum("LIMIT" in statement and "y FROM t" in " ".join(statement.split()) for statement in heard) == 2
    assert sum(statement.startswith('INSERT INTO "t"') for statement in heard) == 2
