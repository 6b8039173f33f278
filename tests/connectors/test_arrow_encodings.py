"""ADBC on a database of PostgreSQL that does not keep its text in UTF-8: Arrow gets and gives the same characters."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pyarrow as pa
import pytest
from adbc_driver_postgresql import dbapi
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import DBAPIError

from resumable_sync import run_full_sync
from resumable_sync._retry import is_transient
from resumable_sync.connectors.arrow import ArrowConnector
from resumable_sync.sinks.arrow import ArrowSink
from resumable_sync.stores.memory import MemoryJobStore
from servers import Server

NUMBERS = count()
ROWS = [{"k": key, "größe": value} for key, value in [("a", "ß"), ("é", "x"), ("ÿ", None)]]
SOURCE = [
    'CREATE TABLE t (k text PRIMARY KEY, "größe" text)',
    "INSERT INTO t VALUES ('a', 'ß'), ('é', 'x'), ('ÿ', NULL)",
]
SETTINGS: dict[str, tuple[str, Any]] = {
    "": ("", None),
    "another": ("?client_encoding=LATIN1", None),
    "function": ("", dbapi.connect),
}


@pytest.fixture
def encoded(postgres: Server) -> Iterator[Callable[[str], str]]:
    """Makes an empty database of an encoding and gives its URL, without a driver."""
    urls: list[str] = []

    def make(encoding: str) -> str:
        name = f"encoded_{next(NUMBERS)}"
        postgres.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        url = make_url(postgres.url(name)).set(drivername="postgresql")
        urls.append(url.render_as_string(hide_password=False))
        return urls[-1]

    yield make
    for url in urls:
        postgres.drop_database(url)


@pytest.fixture
def made() -> Iterator[list[Any]]:
    adapters: list[Any] = []
    yield adapters
    for adapter in adapters:
        adapter.close()


def execute(url: str, *statements: str) -> list[Any]:
    engine = create_engine(f"{url}?client_encoding=utf8")
    with engine.begin() as connection:
        results = [connection.exec_driver_sql(statement) for statement in statements]
        rows = results[-1].all() if results[-1].returns_rows else []
    engine.dispose()
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("setting", SETTINGS)
def test_text_is_read_as_what_it_is(encoded: Callable[[str], str], made: list[Any], setting: str) -> None:
    url = encoded("LATIN1")
    execute(url, *SOURCE)
    query, driver = SETTINGS[setting]
    made.append(ArrowConnector(url + query, "t", driver=driver))
    pages: list[Any] = list(made[0].read(None, 1))
    assert [page.records.to_pylist() for page in pages] == [[row] for row in ROWS]
    for number, page in enumerate(pages, 1):
        assert sum(len(rest) for rest in made[0].read(page.cursor, 5)) == len(ROWS) - number
        assert made[0].moved(page.cursor) is None


def test_names_in_composites_are_read_as_what_they_are(encoded: Callable[[str], str], made: list[Any]) -> None:
    url = encoded("LATIN1")
    execute(url, 'CREATE TYPE pair AS ("ö" text)', "CREATE TABLE t (id int PRIMARY KEY, x pair)")
    execute(url, "INSERT INTO t VALUES (1, '(é)')")
    made.append(ArrowConnector(url, "SELECT * FROM t", "id"))
    (page,) = made[0].read(None, 5)
    assert page.records["x"].to_pylist() == [{"ö": "é"}]


@pytest.mark.parametrize("setting", SETTINGS)
def test_text_is_written_as_what_it_is(encoded: Callable[[str], str], made: list[Any], setting: str) -> None:
    source, target = encoded("UTF8"), encoded("LATIN1")
    execute(source, *SOURCE)
    query, driver = SETTINGS[setting]
    made += [ArrowConnector(source, "t"), ArrowSink("übrig", "replace", target + query, driver=driver)]
    assert run_full_sync("copié", made[0], made[1], store=MemoryJobStore(), batch_size=2).records == len(ROWS)
    assert execute(target, 'SELECT * FROM "übrig" ORDER BY k') == [tuple(row.values()) for row in ROWS]


def test_what_the_target_has_no_character_for_is_refused(encoded: Callable[[str], str], made: list[Any]) -> None:
    source, target = encoded("UTF8"), encoded("LATIN1")
    execute(source, *SOURCE, "INSERT INTO t VALUES ('☃')")
    made += [ArrowConnector(source, "t"), ArrowSink("t", "replace", target)]
    with pytest.raises(DBAPIError, match="no equivalent in encoding"):
        run_full_sync("copy", made[0], made[1], store=MemoryJobStore())


def test_text_of_an_unknown_encoding_is_read_where_it_is_utf_8(encoded: Callable[[str], str], made: list[Any]) -> None:
    url = encoded("SQL_ASCII")
    execute(url, *SOURCE)
    made.append(ArrowConnector(url, "t"))
    (page,) = made[0].read(None, 5)
    assert page.records == pa.Table.from_pylist(ROWS)
    execute(url, "SET client_encoding = SQL_ASCII", r"INSERT INTO t VALUES (E'b\351')")
    with pytest.raises(DBAPIError, match="invalid byte sequence") as caught:
        list(made[0].read(None, 5))
    assert not is_transient(caught.value)
