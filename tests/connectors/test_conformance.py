"""The conformance suite, against every connector that the library brings."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool
from typing_extensions import override

from resumable_sync.connectors import KeysetConnector, OffsetConnector, TokenConnector
from resumable_sync.connectors.sql import SQLConnector, SQLQueryTemplate
from resumable_sync.testing import ConnectorSuite

RECORDS = [(number * 7, f"name {number % 5}") for number in range(25)]


class Offsets(OffsetConnector[tuple[int, str]]):
    column_names = ("id", "name")

    @override
    def fetch(self, offset: int, limit: int) -> Sequence[tuple[int, str]]:
        return RECORDS[offset : offset + min(limit, 6)]


class Keys(KeysetConnector[tuple[int, str], int]):
    column_names = ("id", "name")

    @override
    def fetch(self, after: int | None, limit: int) -> Sequence[tuple[int, str]]:
        return [record for record in RECORDS if after is None or record[0] > after][: min(limit, 6)]

    @override
    def key_of(self, record: tuple[int, str]) -> int:
        return record[0]


class Tokens(TokenConnector[tuple[int, str], str]):
    column_names = ("id", "name")

    @override
    def fetch(self, token: str | None, limit: int) -> tuple[Sequence[tuple[int, str]], str | None]:
        page = int(token or 0)
        # Every third page is empty.
        records = [] if page % 3 == 1 else RECORDS[5 * page : 5 * page + 5]
        return records, str(page + 1) if page < 4 else None


class TestOffsetConnector(ConnectorSuite):
    @pytest.fixture
    @override
    def connector(self) -> Offsets:
        return Offsets()

    @pytest.fixture
    @override
    def expected(self) -> Sequence[Any]:
        return RECORDS


class TestKeysetConnector(ConnectorSuite):
    @pytest.fixture
    @override
    def connector(self) -> Keys:
        return Keys()

    @pytest.fixture
    @override
    def bad_cursors(self) -> Sequence[Any]:
        return [[], [None], [1, 2], (1,), "x", 3, {"key": 1}, True]

    @pytest.fixture
    @override
    def expected(self) -> Sequence[Any]:
        return RECORDS


class TestTokenConnector(ConnectorSuite):
    @pytest.fixture
    @override
    def connector(self) -> Tokens:
        return Tokens()

    @pytest.fixture
    @override
    def bad_cursors(self) -> Sequence[Any]:
        return [["token"], ["token", None], ["token", "1", -1], ["end", "x"], [], "end"]


class SQLSuite(ConnectorSuite):
    """A table whose key is two columns, on each kind of database."""

    must_pickle = True
    columns = "a, b, name"

    @pytest.fixture
    def source(self, database_url: str) -> str:
        mark = "?" if make_url(database_url).get_backend_name() == "sqlite" else "%s"
        engine = create_engine(database_url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TABLE items (a int NOT NULL, b varchar(20) NOT NULL, name varchar(20), PRIMARY KEY (a, b))"
            )
            rows = [(number % 4, f"k{number}", f"name {number}") for number in range(25)]
            connection.exec_driver_sql(f"INSERT INTO items VALUES ({mark}, {mark}, {mark})", rows)
        return database_url

    @pytest.fixture
    @override
    def expected(self, source: str) -> Sequence[Any]:
        with create_engine(source, poolclass=NullPool).connect() as connection:
            rows = connection.exec_driver_sql(f"SELECT {self.columns} FROM items ORDER BY a, b")
            return [tuple(row) for row in rows]

    @pytest.fixture
    @override
    def bad_cursors(self) -> Sequence[Any]:
        keys = [[1, "k"], [1, "k"]]
        bad = [[1], [-1], [[1, "k"]], [[1, "k"], [2]], [[1, 2, 3], [1, 2, 3]], [[None, None], [None, None]], "x", 7]
        return [*bad, [*keys, "short"], [*keys, 12345678], tuple(keys)]

    @pytest.fixture
    @override
    def change_record(self, source: str) -> Callable[[Any], object] | None:
        def change(record: Any) -> None:
            name = next(value for value in record if str(value).startswith("name"))
            with create_engine(source, poolclass=NullPool).begin() as connection:
                connection.exec_driver_sql(f"UPDATE items SET name = 'other' WHERE name = '{name}'")

        return change


# By key and in a stream MariaDB reads in its own way; these are the same text on every database.
less_often_on_mariadb = pytest.mark.parametrize(
    "database_url", ["sqlite", "postgresql", pytest.param("mariadb", marks=pytest.mark.crash)], indirect=True
)


class TestSQLConnectorByKey(SQLSuite):
    @pytest.fixture
    @override
    def connector(self, source: str) -> Iterator[SQLConnector]:
        with closing(SQLConnector(source, "items")) as connector:
            yield connector


class TestSQLConnectorStream(SQLSuite):
    @pytest.fixture
    @override
    def connector(self, source: str) -> Iterator[SQLConnector]:
        with closing(SQLConnector(source, "items", paging="stream")) as connector:
            yield connector


@less_often_on_mariadb
class TestSQLConnectorByOffset(SQLSuite):
    @pytest.fixture
    @override
    def connector(self, source: str) -> Iterator[SQLConnector]:
        with closing(SQLConnector(source, "items", paging="offset")) as connector:
            yield connector

    @pytest.fixture
    @override
    def bad_cursors(self) -> Sequence[Any]:
        return [[-1], ["1"], [True], [1, 2], [[1, "k"], [1, "k"]], "x", 7, (5,), [5, "short"], [0, "12345678"]]


@less_often_on_mariadb
class TestSQLConnectorOnQuery(SQLSuite):
    columns = "name, b, a"

    @pytest.fixture
    @override
    def connector(self, source: str) -> Iterator[SQLConnector]:
        query = "SELECT name, b, a FROM items WHERE a >= :least"
        with closing(SQLConnector(source, query, ("a", "b"), params={"least": 0})) as connector:
            yield connector


@less_often_on_mariadb
class TestSQLQueryTemplate(SQLSuite):
    @pytest.fixture
    @override
    def connector(self, source: str) -> Iterator[SQLQueryTemplate]:
        query = "SELECT a, b, name FROM items ORDER BY a, b LIMIT :limit OFFSET :offset"
        with closing(SQLQueryTemplate(source, query, "SELECT count(*) FROM items")) as connector:
            yield connector

    @pytest.fixture
    @override
    def bad_cursors(self) -> Sequence[Any]:
        return [[-1], ["1"], [True], [1, 2], [[1, "k"], [1, "k"]], "x", 7, (5,)]
