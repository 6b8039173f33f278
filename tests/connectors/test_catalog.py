"""What is read from PostgreSQL's catalog is what SQLAlchemy finds there."""

from typing import Any

import pytest
import sqlalchemy as sa

from resumable_sync import ConfigurationError
from resumable_sync.connectors._catalog import Found, look_up
from resumable_sync.connectors.sql import SQLConnector

pytestmark = [pytest.mark.server, pytest.mark.adapter]

PLAIN = [
    *(
        "smallint",
        "integer",
        "bigint",
        "real",
        "double precision",
        "numeric",
        "numeric(12, 2)",
        "numeric(3, -2)",
        "boolean",
        "date",
        "text",
    ),
    *("varchar", "varchar(60)", "char", "char(36)", "uuid", "bytea", "json", "jsonb"),
    *(
        "timestamp",
        "timestamp(3)",
        "timestamptz",
        "timestamptz(0)",
        "time",
        "time(3)",
        "timetz",
        "interval",
        "integer NOT NULL",
    ),
]
ODD = ["interval day to second(3)", "integer[]", "digit", "email", "filled", 'text COLLATE "C"', "inet", "bit(3)"]
MADE = """
CREATE TYPE digit AS ENUM ('1', '2');
CREATE DOMAIN email AS varchar(20);
CREATE DOMAIN filled AS numeric(9, 2) NOT NULL;
CREATE SCHEMA other;
"""
KEYS = """
CREATE TABLE b (x int PRIMARY KEY, "y %" int UNIQUE, z text UNIQUE DEFERRABLE, v int, w int, UNIQUE (v, w));
CREATE UNIQUE INDEX b1 ON b (w) WHERE w > 3;
CREATE UNIQUE INDEX b2 ON b (lower(z));
CREATE UNIQUE INDEX b3 ON b (w) INCLUDE (v);
CREATE UNIQUE INDEX b4 ON b (w, x);
CREATE UNIQUE INDEX b5 ON b (z, x);
CREATE INDEX b6 ON b (v);
CREATE TABLE other.b (x int, y int, PRIMARY KEY (y, x));
CREATE VIEW c AS SELECT * FROM b;
CREATE MATERIALIZED VIEW d AS SELECT * FROM b;
CREATE UNIQUE INDEX d1 ON d (x);
"""


PARTITIONED = """
CREATE TABLE p (id int NOT NULL) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
ALTER TABLE ONLY p ADD PRIMARY KEY (id);
"""

INHERITED = """
CREATE TABLE q (id int PRIMARY KEY, n int NOT NULL, v digit);
CREATE TABLE q1 () INHERITS (q);
"""


@pytest.fixture
def connection(postgres_url: str) -> Any:
    engine = sa.create_engine(postgres_url)
    with engine.connect() as opened:
        opened.exec_driver_sql(MADE)
        yield opened
    engine.dispose()


def shown(found: Found | None) -> list[tuple[str, str, bool]]:
    assert found is not None
    return [(column.name, repr(column.type), column.nullable) for column in found.columns]


def inspected(connection: sa.Connection, name: str) -> list[tuple[str, str, bool]]:
    columns = sa.inspect(connection).get_columns(name)
    return [(column["name"], repr(column["type"]), column["nullable"]) for column in columns]


@pytest.mark.parametrize("types", [PLAIN, [*PLAIN, *ODD]], ids=["plain", "odd"])
def test_columns_are_those_that_sqlalchemy_finds(connection: sa.Connection, types: list[str]) -> None:
    columns = ", ".join(f'"c {place}" {kind}' for place, kind in enumerate(types))
    connection.exec_driver_sql(f'CREATE TABLE a ({columns}); ALTER TABLE a DROP COLUMN "c 3"')
    assert shown(look_up(connection, "a", None)) == inspected(connection, "a")


def test_keys_are_those_that_sqlalchemy_finds(connection: sa.Connection) -> None:
    connection.exec_driver_sql(KEYS.replace("%", "%%"))
    found = look_up(connection, "b", None)
    assert found is not None
    assert found.primary_key == ("x",)
    assert sorted(found.constraints) == [("v", "w"), ("x",), ("y %",), ("z",)]
    assert sorted(found.indexes) == [("w",), ("w", "x"), ("z", "x")]
    unique = [tuple(one["column_names"]) for one in sa.inspect(connection).get_unique_constraints("b")]
    assert sorted(found.constraints) == sorted([("x",), *unique])


def test_a_key_that_not_all_partitions_have_proves_nothing(connection: sa.Connection) -> None:
    connection.exec_driver_sql(PARTITIONED)
    found = look_up(connection, "p", None)
    assert found is not None
    assert (found.primary_key, found.constraints, found.indexes) == (("id",), [], [])
    connection.exec_driver_sql("ALTER TABLE p1 ADD PRIMARY KEY (id); ALTER INDEX p_pkey ATTACH PARTITION p1_pkey")
    found = look_up(connection, "p", None)
    assert found is not None
    assert (found.primary_key, found.constraints) == (("id",), [("id",)])


def test_and_is_checked_before_it_is_read_by(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(PARTITIONED)
        connection.exec_driver_sql("INSERT INTO p VALUES (1), (2)")
    connector = SQLConnector(engine, "p")
    assert [page.records for page in connector.read(None, 5)] == [[(1,), (2,)]]
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO p VALUES (2)")
    with pytest.raises(ConfigurationError, match=r"the key \(id\) of the table 'p' is not unique"):
        next(connector.read(None, 5))
    engine.dispose()


def test_nor_does_what_tables_that_inherit_have_not(connection: sa.Connection) -> None:
    connection.exec_driver_sql(INHERITED + "CREATE UNIQUE INDEX q2 ON q (n)")
    found = look_up(connection, "q", None)
    assert found is not None
    assert (found.primary_key, found.constraints, found.indexes) == (("id",), [], [])
    assert [column.nullable for column in found.columns] == [True, True, True]
    found = look_up(connection, "q1", None)
    assert found is not None
    assert found.primary_key == ()


def test_rows_of_tables_that_inherit_are_not_lost(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(MADE + INHERITED)
        connection.exec_driver_sql("INSERT INTO q VALUES (1, 1), (2, 2); INSERT INTO q1 VALUES (3, 3)")
    connector = SQLConnector(engine, "q")
    pages = [page.records for page in connector.read(None, 2)]
    assert pages == [[(1, 1, None), (2, 2, None)], [(3, 3, None)]]
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO q1 VALUES (2, 4)")
    with pytest.raises(ConfigurationError, match=r"the key \(id\) of the table 'q' is not unique"):
        next(connector.read(None, 2))
    engine.dispose()


def test_a_null_in_a_table_that_inherits_is_found(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE q (id int UNIQUE); CREATE TABLE q1 () INHERITS (q)")
        connection.exec_driver_sql("ALTER TABLE ONLY q ALTER id SET NOT NULL; INSERT INTO q VALUES (1)")
        connection.exec_driver_sql("INSERT INTO q1 VALUES (NULL)")
    with pytest.raises(ConfigurationError, match=r"the key \(id\) of the table 'q' holds NULL"):
        next(SQLConnector(engine, "q", key="id").read(None, 2))
    engine.dispose()


@pytest.mark.parametrize(
    ("name", "schema", "key", "indexes"),
    [("b", "other", ("y", "x"), []), ("c", None, (), []), ("d", "public", (), [("x",)])],
)
def test_a_table_is_looked_for_in_its_schema(
    connection: sa.Connection, name: str, schema: str | None, key: tuple[str, ...], indexes: list[tuple[str, ...]]
) -> None:
    connection.exec_driver_sql(KEYS.replace("%", "%%"))
    found = look_up(connection, name, schema)
    assert found is not None
    assert (found.primary_key, found.indexes) == (key, indexes)


@pytest.mark.parametrize(("name", "schema"), [("pg_class", None), ("nothing", None), ("b", "nowhere"), ("b1", None)])
def test_what_is_no_table_is_not_found(connection: sa.Connection, name: str, schema: str | None) -> None:
    connection.exec_driver_sql(KEYS.replace("%", "%%"))
    assert look_up(connection, name, schema) is None
