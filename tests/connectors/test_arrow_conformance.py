"""The conformance suite, against `ArrowConnector` on real databases."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from typing_extensions import override

from resumable_sync.connectors.arrow import ArrowConnector
from resumable_sync.testing import ConnectorSuite

ROWS = [(number % 4, f"k{number}", f"name {number}") for number in range(25)]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "sqlite":
        pytest.importorskip("adbc_driver_sqlite", reason="ADBC's driver for SQLite is not installed")
        url, mark = f"sqlite:///{tmp_path_factory.mktemp('arrow')}/shop.db", "?"
    else:
        url, mark = request.getfixturevalue("postgres").create_database(), "%s"
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE items (a int NOT NULL, b varchar(20) NOT NULL, name varchar(20), PRIMARY KEY (a, b))"
        )
        connection.exec_driver_sql(f"INSERT INTO items VALUES ({mark}, {mark}, {mark})", ROWS)
    return str(url)


@pytest.fixture(scope="module")
def whole(source: str) -> Iterator[ArrowConnector]:
    with closing(ArrowConnector(source, "items")) as connector:
        yield connector


@pytest.fixture(scope="module")
def queried(source: str) -> Iterator[ArrowConnector]:
    query = "SELECT name, b, a FROM items WHERE a >= :least AND name LIKE '%%'"
    with closing(ArrowConnector(source, query, ("a", "b"), params={"least": 0})) as connector:
        yield connector


class ArrowSuite(ConnectorSuite):
    """A table whose key is two columns, and a connector for all tests: to open one takes most of their time."""

    must_pickle = True
    columns = "a, b, name"

    @pytest.fixture
    @override
    def expected(self, source: str) -> Sequence[Any]:
        with create_engine(source, poolclass=NullPool).connect() as connection:
            rows = connection.exec_driver_sql(f"SELECT {self.columns} FROM items ORDER BY a, b")
            return [dict(row) for row in rows.mappings()]

    @pytest.fixture
    @override
    def bad_cursors(self) -> Sequence[Any]:
        keys = [[1, "k"], [1, "k"]]
        bad = [[1], [-1], [[1, "k"]], [[1, "k"], [2]], [[1, 2, 3], [1, 2, 3]], [[None, None], [None, None]], "x", 7]
        return [*bad, [*keys, "short"], [*keys, 12345678], tuple(keys)]

    @pytest.fixture
    @override
    def change_record(self, source: str) -> Iterator[Callable[[Any], object] | None]:
        changed: list[str] = []

        def execute(statement: str) -> None:
            with create_engine(source, poolclass=NullPool).begin() as connection:
                connection.exec_driver_sql(statement)

        def change(record: Any) -> None:
            changed.append(record["name"])
            execute(f"UPDATE items SET name = 'other' WHERE name = '{record['name']}'")

        yield change
        for name in changed:
            execute(f"UPDATE items SET name = '{name}' WHERE name = 'other'")

    @pytest.mark.parametrize("parts", [1, 3, pytest.param(1_000, marks=pytest.mark.crash)])
    @override
    def test_parts_are_the_whole(self, connector: Any, expected: Sequence[Any], parts: int) -> None:
        super().test_parts_are_the_whole(connector, expected, parts)


class TestArrowConnector(ArrowSuite):
    @pytest.fixture
    @override
    def connector(self, whole: ArrowConnector) -> ArrowConnector:
        return whole


class TestArrowConnectorOnQuery(ArrowSuite):
    columns = "name, b, a"

    @pytest.fixture
    @override
    def connector(self, queried: ArrowConnector) -> ArrowConnector:
        return queried
