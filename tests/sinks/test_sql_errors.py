"""No value of a record is in what is told, logged and stored of a database's error."""

import itertools
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import adbc_driver_sqlite.dbapi
import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool
from typing_extensions import override

from resumable_sync import OffsetConnector, run_full_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.arrow import ArrowSink
from resumable_sync.sinks.parquet import ParquetSink
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.memory import MemoryJobStore
from resumable_sync.stores.sql import SQLJobStore


def made(url: str, *statements: str) -> Engine:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    return engine


class Cards(OffsetConnector[dict[str, Any]]):
    """Two records of one value, of which nobody knows the type before they are written."""

    def __init__(self, value: str) -> None:
        self._records = [{"id": number, "card": value} for number in (1, 2)]

    @override
    def fetch(self, offset: int, limit: int) -> list[dict[str, Any]]:
        return self._records[offset : offset + limit]


def chain(error: BaseException | None) -> list[str]:
    """Give the texts of an error and of all behind it."""
    texts: list[str] = []
    while error is not None:
        texts += [str(error), repr(error), str(getattr(error, "orig", ""))]
        error = error.__cause__ or error.__context__
    return texts


@pytest.mark.parametrize("how", list(itertools.product([True, False], ["fail", "dead_letter"])), ids=str)
@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("bigint > integer", "4111111111111111"),
        ("numeric > double precision", f"4{'1' * 400}"),
        ("text > date", "2041-13-11"),
        ("text > date", 'hunter2"x'),
    ],
)
def test_values_that_do_not_fit_on_postgresql(
    new_database: Callable[[str], str], caplog: Any, declared: str, value: str, *, how: tuple[bool, Any]
) -> None:
    fast_path, on_refused = how
    there, here = declared.split(" > ")
    source, target = new_database("postgresql"), new_database("postgresql")
    made(source, f"CREATE TABLE cards (id int PRIMARY KEY, card {there})", "INSERT INTO cards (id) VALUES (2)")
    made(source, f"INSERT INTO cards VALUES (1, '{value}')")
    made(target, f"CREATE TABLE cards (id int PRIMARY KEY, card {here})")
    caplog.set_level(logging.DEBUG, "resumable_sync")
    with SQLJobStore(target) as store, closing(SQLConnector(source, "cards")) as connector:
        told = []
        try:
            run_full_sync(
                "j", connector, SQLSink("cards", "append"), store=store, fast_path=fast_path, on_refused=on_refused
            )
        except Exception as error:
            told += chain(error)
        job = store.load("j")
        letters = [letter.error for letter in store.dead_letters("j")]
    assert job is not None
    assert job.status == ("failed" if on_refused == "fail" else "incomplete")
    assert told or letters
    assert not [part for part in (*told, *letters, str(job.error), caplog.text) if value[:7] in part]


@pytest.mark.parametrize("language", ["en_US", "de_DE", "fr_FR", "ja_JP"])
@pytest.mark.parametrize(
    ("narrow", "value"), [("date", "hunter2"), ("int", "it's hunter2"), ("varchar(20) UNIQUE", "1' for key 'hunter2")]
)
def test_values_that_mariadb_refuses(
    new_database: Callable[[str], str], language: str, narrow: str, value: str
) -> None:
    plain = new_database("mariadb")
    made(plain, f"CREATE TABLE cards (id int PRIMARY KEY, card {narrow})")
    target = make_url(plain).update_query_dict({"init_command": f"SET lc_messages='{language}'"})
    with SQLJobStore(target) as store:
        with pytest.raises(Exception, match=r"\*\*\*") as caught:
            run_full_sync("j", Cards(value), SQLSink("cards", "append"), store=store)
        job = store.load("j")
    assert job is not None
    assert not [part for part in (*chain(caught.value), str(job.error)) if "hunter2" in part]
    if language == "en_US":
        assert "card" in str(caught.value)


SAYING = {
    "postgresql": "RAISE EXCEPTION 'no card %', NEW.card",
    "postgresql check": "RAISE EXCEPTION 'no card %', NEW.card USING ERRCODE = '23514'",
    "postgresql assert": "ASSERT false, 'no card ' || NEW.card",
    "postgresql other": "RAISE EXCEPTION 'no card %', NEW.card USING ERRCODE = '38123'",
    "mariadb": "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = @said",
    "mariadb absent": "SIGNAL SQLSTATE '02000' SET MESSAGE_TEXT = @said",
    "mariadb numbered": "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = @said, MYSQL_ERRNO = 30001",
    "sqlite": "SELECT RAISE(ABORT, 'no card ' || NEW.card)",
    "sqlite rollback": "SELECT RAISE(ROLLBACK, 'no card ' || NEW.card)",
}
"""What a trigger does; by SQLite's own only the one that comes with ADBC takes more than a literal there."""


def guarded(url: str, saying: str) -> None:
    """Make a table that takes no cards."""
    body, on_insert = SAYING[saying], "CREATE TRIGGER guard BEFORE INSERT ON cards FOR EACH ROW"
    if saying.startswith("postgresql"):
        function = f"CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; END $$"
        statements = [function, f"{on_insert} EXECUTE FUNCTION guard()"]
    elif saying.startswith("mariadb"):
        statements = [f"{on_insert} BEGIN SET @said = CONCAT('no card ', NEW.card); {body}; END"]
    else:
        statements = [f"{on_insert} BEGIN {body}; END"]
    made(url, "CREATE TABLE cards (id bigint PRIMARY KEY, card varchar(30))")
    if saying.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        with adbc_driver_sqlite.dbapi.connect(path, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(statements[0])
    else:
        made(url, *statements)


@pytest.mark.parametrize(
    ("saying", "by_arrow"),
    [(one, False) for one in SAYING if not one.startswith("sqlite")]
    + [(one, True) for one in SAYING if not one.startswith("mariadb")],
)
def test_what_a_trigger_says_of_a_value(
    new_database: Callable[[str], str], caplog: Any, saying: str, *, by_arrow: bool
) -> None:
    url = new_database(saying.partition(" ")[0])
    guarded(url, saying)
    caplog.set_level(logging.DEBUG, "resumable_sync")
    uri = url.replace("+psycopg", "")
    target: Any = ArrowSink("cards", "append", uri) if by_arrow else SQLSink("cards", "append")
    opened: Any = nullcontext(MemoryJobStore()) if saying.startswith("sqlite") else SQLJobStore(url)
    with opened as store:
        with pytest.raises(Exception, match="raised by a function or trigger") as caught:
            run_full_sync("j", Cards("hunter2 secret"), target, store=store)
        job = store.load("j")
    assert job is not None
    told = [*chain(caught.value), str(job), caplog.text]
    assert [text for text in told if "hunter2" in text] == []


def test_what_sqlite_itself_says_of_a_value_by_arrow(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'target.db'}"
    made(url, "CREATE TABLE cards (id int, card text CHECK (card <> 'hunter2'))")
    with pytest.raises(Exception, match="CHECK constraint failed: card"):
        run_full_sync("j", Cards("hunter2"), ArrowSink("cards", "append", url), store=MemoryJobStore())


def test_what_a_trigger_of_sqlite_says_is_a_literal(tmp_path: Path, monkeypatch: Any) -> None:
    url = f"sqlite:///{tmp_path / 'target.db'}"
    says = "BEGIN SELECT RAISE(ABORT, 'no cards here'); END"
    made(url, "CREATE TABLE cards (id int, card text)", f"CREATE TRIGGER guard BEFORE INSERT ON cards {says}")

    def sync() -> None:
        with SQLJobStore(url) as store:
            run_full_sync("j", Cards("hunter2"), SQLSink("cards", "append"), store=store)

    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 46, 1))
    with pytest.raises(IntegrityError, match="no cards here"):
        sync()
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 47, 0))
    with pytest.raises(IntegrityError, match="raised by a function or trigger"):
        sync()


@pytest.mark.parametrize("fast_path", [True, False])
def test_values_that_the_source_cannot_read(
    new_database: Callable[[str], str], tmp_path: Path, caplog: Any, fast_path: bool
) -> None:
    source = new_database("postgresql")
    made(
        source,
        "CREATE TABLE cards (id int PRIMARY KEY, card text)",
        "INSERT INTO cards VALUES (1, '1'), (2, 'hunter2')",
    )
    made(source, "CREATE VIEW numbers AS SELECT id, CAST(card AS int) AS card FROM cards")
    caplog.set_level(logging.DEBUG, "resumable_sync")
    told = []
    with (
        SQLJobStore(f"sqlite:///{tmp_path}/jobs.db") as store,
        closing(SQLConnector(source, "SELECT * FROM numbers", "id")) as connector,
    ):
        try:
            run_full_sync(
                "j",
                connector,
                ParquetSink(tmp_path / "out"),
                store=store,
                batch_size=1,
                fast_path=fast_path,
                prefetch=0,
            )
        except Exception as error:
            told = chain(error)
        job = store.load("j")
    assert job is not None
    assert 'invalid input syntax for type integer: "***"' in str(job.error)
    assert told
    assert not [part for part in (*told, str(job.error), caplog.text) if "hunter2" in part]
