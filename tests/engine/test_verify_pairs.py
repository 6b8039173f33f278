"""What `SQLSink` wrote verifies as equal to its source, on every pair of databases; a cell that changed does not."""

import contextlib
import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import types
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.pool import NullPool
from typing_extensions import override

from resumable_sync import Difference, VerifyResult, run_full_sync, verify_full_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore

KINDS = ["sqlite", "postgresql", "mariadb"]
NewDatabase = Callable[[str], str]

MOMENT = dt.datetime(2026, 3, 29, 1, 30, 0, 123456)  # noqa: DTZ001 - the point
BERLIN = dt.timezone(dt.timedelta(hours=2))
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")
DOCUMENT = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}


class Untyped(types.UserDefinedType[Any]):
    """A column of SQLite that is declared without a type."""

    cache_ok = True

    @override
    def get_col_spec(self, **_: Any) -> str:
        return ""


# Column, its type in the source, and its values there: those that every database has.
COMMON: list[tuple[str, types.TypeEngine[Any], list[Any]]] = [
    ("whole", types.BigInteger(), [0, -(2**62), 2**62, None, 7]),
    ("truth", types.Boolean(), [True, False, True, None, False]),
    ("real", types.Double(), [0.1 + 0.2, -0.0, 5e-324, None, 1e300]),
    ("money", types.Numeric(12, 2), [Decimal("19.90"), Decimal("-0.01"), Decimal(20), None, Decimal("1e3")]),
    ("word", types.String(40), ["naïve ☃ 🎉", "", "a ", None, "A"]),
    ("long", types.Text(), ["x" * 5_000, "\\N", "\t\n'%s", None, "1.50"]),
    ("raw", types.LargeBinary(), [b"\0\xff", b"", b"a ", None, b"\\x"]),
    ("at", types.DateTime().with_variant(mysql.DATETIME(fsp=6), "mariadb", "mysql"), [MOMENT] * 3 + [None, MOMENT]),
    (
        "day",
        types.Date(),
        [dt.date(1001, 2, 3), dt.date(9999, 12, 31), dt.date(2024, 2, 29), None, dt.date(2026, 1, 1)],
    ),
    (
        "hour",
        types.Time().with_variant(mysql.TIME(fsp=6), "mariadb", "mysql"),
        [dt.time(23, 59, 58, 7)] * 3 + [None] * 2,
    ),
]
OWN: dict[str, list[tuple[str, types.TypeEngine[Any], list[Any]]]] = {
    "sqlite": [
        ("anything", Untyped(), ["text", "007", "", None, "1e5"]),
        ("digits", Untyped(), ["12345678901234567890.5", "1", "-0.10", None, "5"]),
    ],
    "postgresql": [
        ("ident", postgresql.UUID(), [ID, uuid.UUID(int=0), ID, None, ID]),
        ("doc", postgresql.JSONB(), [DOCUMENT, [1, "2"], "123", None, 1.5]),
        ("text_doc", postgresql.JSON(), [{"b": 1, "a": 2}, [], "x", None, True]),
        ("names", postgresql.ARRAY(types.Text()), [["a", None, 'b"'], [], ["1"], None, ["ü"]]),
        ("instant", types.DateTime(timezone=True), [MOMENT.replace(tzinfo=BERLIN)] * 3 + [None] * 2),
        ("zoned", types.Time(timezone=True), [dt.time(1, 2, 3, tzinfo=BERLIN)] * 3 + [None] * 2),
        ("span", postgresql.INTERVAL(), [dt.timedelta(days=-1, microseconds=5)] * 3 + [None] * 2),
        ("exact", types.Numeric(), [Decimal("12345678901234567890.0123456789"), Decimal("-0.10"), Decimal(1), None, 2]),
        ("single", types.REAL(), [0.1, 1.5, -2.25, None, 3.4e38]),
        ("address", postgresql.INET(), ["::1", "10.0.0.0/8", "192.168.0.1", None, "::"]),
        ("padded", types.CHAR(5), ["a", "ab", "", None, "abcde"]),
        ("small", types.SmallInteger(), [1, -1, 0, None, 32767]),
    ],
    "mariadb": [
        ("doc", types.JSON(), [DOCUMENT, [1, "2"], "123", None, 1.5]),
        ("unsigned", mysql.BIGINT(unsigned=True), [2**63 - 1, 0, 1, None, 2]),
        ("single", mysql.FLOAT(), [0.1, 1.5, -2.25, None, 3e38]),
        ("year", mysql.YEAR(), [2026, 1999, 2000, None, 2001]),
        ("letter", mysql.ENUM("a", "b"), ["a", "b", "a", None, "b"]),
        ("bits", mysql.BIT(4), [b"\x05", b"\x00", b"\x0f", None, b"\x01"]),
        ("stamp", mysql.TIMESTAMP(fsp=6), [MOMENT] * 3 + [None, MOMENT]),
        ("padded", types.CHAR(5), ["a", "ab", "", None, "abcde"]),
        ("medium", mysql.MEDIUMTEXT(), ["x", "y ", "", None, "z"]),
    ],
}


@contextlib.contextmanager
def opened(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url.replace("mariadb://", "mariadb+pymysql://"), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            if engine.dialect.name in ("mysql", "mariadb"):
                connection.exec_driver_sql("SET time_zone = '+00:00'")
            yield connection
    finally:
        engine.dispose()


def fill(url: str, kind: str) -> list[str]:
    columns = [*COMMON, *OWN[kind]]
    table = sa.Table(
        "source",
        sa.MetaData(),
        sa.Column("id", types.Integer(), primary_key=True, autoincrement=False),
        *(sa.Column(name, declared, nullable=True) for name, declared, _ in columns),
        mariadb_charset="utf8mb4",
        mysql_charset="utf8mb4",
    )
    with opened(url) as connection:
        table.create(connection)
        for number in range(5):
            # NULL and not the document null, which drivers do not tell apart.
            given = {name: values[number] for name, _, values in columns if values[number] is not None}
            connection.execute(table.insert(), [{"id": number, **given}])
    return [name for name, *_ in columns]


def verified(source: str, target: str, **options: Any) -> VerifyResult:
    with SQLJobStore(target) as store:
        ours, theirs = SQLConnector(source, "source"), SQLConnector(target, "target", key="id")
        try:
            return verify_full_sync(ours, theirs, key="id", store=store, **options)
        finally:
            ours.close()
            theirs.close()


def synced(source: str, target: str, mode: Any) -> None:
    connector = SQLConnector(source, "source")
    with SQLJobStore(target) as store:
        run_full_sync("sync", connector, SQLSink("target", mode), store=store, batch_size=2)
    connector.close()


@pytest.mark.parametrize("target_kind", KINDS)
@pytest.mark.parametrize("source_kind", KINDS)
def test_what_a_sync_wrote_is_equal_and_what_was_changed_is_not(
    new_database: NewDatabase, source_kind: str, target_kind: str
) -> None:
    source, target = new_database(source_kind), new_database(target_kind)
    names = fill(source, source_kind)
    synced(source, target, "append" if source_kind == target_kind else "upsert")
    result = verified(source, target, batch_size=2)
    assert result.differences == ()
    assert result.ok
    assert (result.equal, result.source_records, result.target_records) == (5, 5, 5)
    # Row 3 is NULL throughout: what is NULL is nothing else. Row 0 has a value throughout: a value is not NULL.
    with opened(target) as connection:
        quote = connection.dialect.identifier_preparer.quote
        assigned = ", ".join(f"{quote(name)} = NULL" for name in names)
        connection.exec_driver_sql(f"UPDATE target SET {assigned} WHERE id = 0")
    result = verified(source, target, batch_size=2)
    assert result.differences == (Difference(kind="different", key=(0,), columns=tuple(names)),)
    assert not result.ok


CHANGED: dict[str, Any] = {
    "whole": 1,
    "truth": False,
    "real": 0.3,
    "money": Decimal("19.91"),
    "word": "naïve ☃",
    "long": "x",
    "raw": b"\0\xfe",
    "at": MOMENT.replace(microsecond=123457),
    "day": dt.date(1001, 2, 4),
    "hour": dt.time(23, 59, 58, 8),
    "ident": uuid.UUID(int=1),
    "doc": {**DOCUMENT, "b": {"c": 1}},
    "text_doc": {"b": 1, "a": 3},
    "names": ["a", None, "b"],
    "instant": MOMENT.replace(tzinfo=dt.UTC),
    "zoned": "01:02:03+01:00",
    "span": dt.timedelta(days=-1, microseconds=6),
    "exact": Decimal("12345678901234567890.0123456788"),
    "single": 0.1001,
    "small": 2,
}


@pytest.mark.server
@pytest.mark.parametrize("target_kind", KINDS)
def test_the_least_change_of_a_cell_is_found(new_database: NewDatabase, target_kind: str) -> None:
    source, target = new_database("postgresql"), new_database(target_kind)
    fill(source, "postgresql")
    synced(source, target, "append")
    # The sink itself makes of the changed value what the target holds.
    changed = new_database("postgresql")
    fill(changed, "postgresql")
    with opened(changed) as connection:
        for name, value in CHANGED.items():
            kind = next(declared for column, declared, _ in [*COMMON, *OWN["postgresql"]] if column == name)
            bound = value if name != "zoned" else dt.time(1, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=1)))
            table = sa.table("source", sa.column("id"), sa.column(name, kind))
            connection.execute(sa.update(table).where(table.c.id == 0).values({name: bound}))
    result = verified(changed, target)
    assert [(each.kind, each.key) for each in result.differences] == [("different", (0,))]
    assert sorted(result.differences[0].columns) == sorted(CHANGED)


@pytest.mark.server
def test_a_type_that_holds_fewer_digits_is_equal_as_far_as_it_goes(new_database: NewDatabase) -> None:
    for kind in ("postgresql", "mariadb"):
        source, target = new_database("postgresql"), new_database(kind)
        with opened(source) as connection:
            connection.exec_driver_sql(
                "CREATE TABLE source (id INT PRIMARY KEY, d NUMERIC, f FLOAT8, s FLOAT8, t TIMESTAMP)"
            )
            connection.exec_driver_sql(
                "INSERT INTO source VALUES (1, 1.005, 2.675, 0.123456789, '2026-01-02 03:04:05.678901'), "
                "(2, -1.005, 1e10, -1e-3, '1999-12-31 23:59:59.999999'), (3, 0.994999, 0.5, 1e30, '2026-01-02')"
            )
        with opened(target) as connection:
            times = "DATETIME(3)" if kind == "mariadb" else "TIMESTAMP(3)"
            connection.exec_driver_sql(
                f"CREATE TABLE target (id INT PRIMARY KEY, d DECIMAL(10, 2), f DECIMAL(20, 1), s FLOAT(24), t {times})"
            )
        synced(source, target, "append")
        result = verified(source, target)
        assert result.differences == ()
        with opened(target) as connection:
            connection.exec_driver_sql("UPDATE target SET d = d + 0.01 WHERE id = 3")
        assert verified(source, target).differences == (Difference(kind="different", key=(3,), columns=("d",)),)


@pytest.mark.server
def test_json_is_compared_by_structure(new_database: NewDatabase) -> None:
    source, target = new_database("postgresql"), new_database("sqlite")
    with opened(source) as connection:
        connection.exec_driver_sql("CREATE TABLE source (id INT PRIMARY KEY, j JSON)")
        connection.execute(sa.text("INSERT INTO source VALUES (1, :one), (2, :two)"), {"one": '{"a":1}', "two": '"5"'})
    with opened(target) as connection:
        connection.exec_driver_sql("CREATE TABLE target (id INT PRIMARY KEY, j TEXT)")
        rows = [{"id": 1, "j": json.dumps({"a": 1}, indent=4)}, {"id": 2, "j": "5"}]
        connection.execute(sa.text("INSERT INTO target VALUES (:id, :j)"), rows)
    assert verified(source, target).differences == (Difference(kind="different", key=(2,), columns=("j",)),)


def test_parts_of_a_microsecond_are_compared(tmp_path: Path) -> None:
    source, target = (f"sqlite:///{tmp_path / name}" for name in ("source.db", "target.db"))
    declared = "(id INTEGER PRIMARY KEY, at TIMESTAMP, hour TIME)"
    same = ("2026-01-02 03:04:05.1234567", "03:04:05.1234567")
    for url, table in ((source, "source"), (target, "target")):
        with opened(url) as connection:
            connection.exec_driver_sql(f"CREATE TABLE {table} {declared}")
            connection.exec_driver_sql(
                f"INSERT INTO {table} VALUES (?, ?, ?)", [(number, *same) for number in range(4)]
            )
    with opened(target) as connection:
        connection.exec_driver_sql("UPDATE target SET at = replace(at, ' ', 'T') || '00' WHERE id = 1")
        connection.exec_driver_sql("UPDATE target SET at = at || '1', hour = hour || '1' WHERE id = 2")
        connection.exec_driver_sql("UPDATE target SET at = substr(at, 1, 26), hour = substr(hour, 1, 15) WHERE id = 3")
    columns = ("at", "hour")
    expected = [Difference(kind="different", key=(number,), columns=columns) for number in (2, 3)]
    assert list(verified(source, target).differences) == expected


@pytest.mark.server
@pytest.mark.parametrize(("kind", "declared"), [("postgresql", "timestamp"), ("mariadb", "datetime(6)")])
def test_what_a_server_makes_of_parts_of_a_microsecond_is_equal(
    new_database: NewDatabase, kind: str, declared: str
) -> None:
    source, target = new_database("sqlite"), new_database(kind)
    texts = [f"2026-01-02 03:04:05.{digits}" for digits in ("1234563", "1234567", "9999997", "1234561")]
    with opened(source) as connection:
        connection.exec_driver_sql("CREATE TABLE source (id INTEGER PRIMARY KEY, at TIMESTAMP)")
        connection.exec_driver_sql("INSERT INTO source VALUES (?, ?)", list(enumerate(texts)))
    with opened(target) as connection:
        connection.exec_driver_sql(f"CREATE TABLE target (id INT PRIMARY KEY, at {declared})")
    synced(source, target, "append")
    assert verified(source, target).ok
    with opened(target) as connection:
        connection.exec_driver_sql("UPDATE target SET at = '2026-01-02 03:04:05.123459' WHERE id = 1")
    assert verified(source, target).differences == (Difference(kind="different", key=(1,), columns=("at",)),)
