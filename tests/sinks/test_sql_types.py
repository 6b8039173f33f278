"""What becomes of values: made columns keep them; what a column cannot keep is converted as documented, or refused."""

import datetime as dt
import decimal
import enum
import ipaddress
import json
import math
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Column as SQLColumn
from sqlalchemy import MetaData, Numeric, Table, TypeDecorator, create_engine, make_url, select, text, types
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.pool import NullPool

from resumable_sync import Column
from resumable_sync.sinks.sql import SQLSink
from sinks.driving import Target, batch, run

BERLIN = dt.timezone(dt.timedelta(hours=2))
MOMENT = dt.datetime(2026, 3, 29, 1, 30, 0, 123456)  # noqa: DTZ001 - the point
ZONED = MOMENT.replace(tzinfo=BERLIN)
UTC = ZONED.astimezone(dt.UTC)
NAIVE_UTC = UTC.replace(tzinfo=None)
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")
DOCUMENT = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}


def iso(value: Any) -> str:
    return str(
        value.isoformat(" ", "microseconds") if isinstance(value, dt.datetime) else value.isoformat("microseconds")
    )


# Type of the source, value, and what SQLite, PostgreSQL and MariaDB give back.
KEPT: dict[str, tuple[Any, ...]] = {
    "integer": (types.Integer(), 2**62, 2**62, 2**62, 2**62),
    "smallint": (types.SmallInteger(), -(2**40), -(2**40), -(2**40), -(2**40)),
    "unsigned": (mysql.BIGINT(unsigned=True), 2**63 - 1, 2**63 - 1, Decimal(2**63 - 1), 2**63 - 1),
    "boolean": (types.Boolean(), True, 1, True, 1),
    "boolean of a driver without any": (types.Boolean(), 0, 0, False, 0),
    "float": (types.Float(), 0.1 + 0.2, 0.1 + 0.2, 0.1 + 0.2, 0.1 + 0.2),
    "tiny float": (types.Double(), 5e-324, 5e-324, 5e-324, 5e-324),
    "money": (types.Numeric(12, 2), Decimal("19.90"), 19.9, Decimal("19.90"), Decimal("19.90")),
    "whole money": (types.Numeric(12, 2), Decimal("20.00"), 20, Decimal("20.00"), Decimal("20.00")),
    "long decimal": (
        types.Numeric(30, 10),
        Decimal("12345678901234567890.0123456789"),
        "12345678901234567890.0123456789",
        Decimal("12345678901234567890.0123456789"),
        Decimal("12345678901234567890.0123456789"),
    ),
    "decimal": (types.Numeric(), Decimal("-0.10"), "-0.10", Decimal("-0.10"), Decimal("-0.1")),
    "decimal of SQLite": (types.Numeric(), 1.5, 1.5, Decimal("1.5"), Decimal("1.5")),
    "text": (types.String(3), "naïve ☃ 🎉 \\ \t\n' %s", *["naïve ☃ 🎉 \\ \t\n' %s"] * 3),
    "number as text": (types.Text(), "007", "007", "007", "007"),
    "enumeration": (types.Enum("a", "b", name="letters"), "a", "a", "a", "a"),
    "bytes": (types.LargeBinary(), b"\0\xff\\x'%s", *[b"\0\xff\\x'%s"] * 3),
    "buffer": (types.LargeBinary(), bytearray(b"ab"), b"ab", b"ab", b"ab"),
    "datetime": (types.DateTime(), MOMENT, iso(MOMENT), MOMENT, MOMENT),
    "whole second": (
        types.DateTime(),
        MOMENT.replace(microsecond=0),
        "2026-03-29 01:30:00.000000",
        *[MOMENT.replace(microsecond=0)] * 2,
    ),
    "instant": (types.DateTime(timezone=True), ZONED, iso(NAIVE_UTC), UTC, NAIVE_UTC),
    "instant in a plain column": (types.DateTime(), ZONED, iso(NAIVE_UTC), NAIVE_UTC, NAIVE_UTC),
    "old date": (types.Date(), dt.date(1, 2, 3), "0001-02-03", dt.date(1, 2, 3), dt.date(1, 2, 3)),
    "time": (
        types.Time(),
        dt.time(23, 59, 58, 7),
        "23:59:58.000007",
        dt.time(23, 59, 58, 7),
        dt.timedelta(seconds=86398, microseconds=7),
    ),
    "time of MariaDB": (
        mysql.TIME(fsp=6),
        dt.timedelta(seconds=1),
        "00:00:01.000000",
        dt.time(0, 0, 1),
        dt.timedelta(seconds=1),
    ),
    "interval": (
        postgresql.INTERVAL(),
        dt.timedelta(days=-1, microseconds=5),
        -86399999995,
        dt.timedelta(days=-1, microseconds=5),
        -86399999995,
    ),
    "uuid": (types.Uuid(), ID, str(ID), ID, str(ID)),
    "uuid as text": (postgresql.UUID(), str(ID), str(ID), ID, str(ID)),
    "json": (
        types.JSON(),
        DOCUMENT,
        json.dumps(DOCUMENT, ensure_ascii=False),
        DOCUMENT,
        json.dumps(DOCUMENT, ensure_ascii=False),
    ),
    "json text": (types.JSON(), '{"a":1}', '{"a":1}', {"a": 1}, '{"a":1}'),
    "json list": (postgresql.JSONB(), [1, "2"], '[1, "2"]', [1, "2"], '[1, "2"]'),
    "json string, decoded": (postgresql.JSONB(), "123", '"123"', "123", '"123"'),
    "json number, decoded": (postgresql.JSON(), 1.5, "1.5", 1.5, "1.5"),
    "array": (
        postgresql.ARRAY(types.Text()),
        ["a", None, 'b"'],
        '["a", null, "b\\""]',
        ["a", None, 'b"'],
        '["a", null, "b\\""]',
    ),
    "tuple as array": (postgresql.ARRAY(types.Integer()), (1, 2), "[1, 2]", [1, 2], "[1, 2]"),
    "address": (postgresql.INET(), ipaddress.ip_address("::1"), "::1", ipaddress.ip_address("::1"), "::1"),
    "bits of MariaDB": (mysql.BIT(4), b"\x05", b"\x05", b"\x05", b"\x05"),
    "no type": (types.NullType(), "x", "x", "x", "x"),
    "domain": (postgresql.DOMAIN("d", types.Integer()), 5, 5, 5, 5),
    "decorated": (type("Tag", (TypeDecorator[Any],), {"impl": types.Text, "cache_ok": True})(), "x", "x", "x", "x"),
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def made(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Any:
    """The row that a made target gives back for all of `KEPT`, in one sync."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('types')}/target.db"
    else:
        url = request.getfixturevalue({"postgresql": "postgres"}.get(request.param, "mariadb")).create_database()
    found: Any = ()
    columns = [Column(name="id", type=types.Integer(), primary_key=True)]
    columns += [Column(name=name, type=case[0]) for name, case in KEPT.items()]
    names = [column.name for column in columns]
    engine = create_engine(url, poolclass=NullPool)
    for mode in ("append", "upsert"):
        sink = SQLSink("target", mode, url=url)
        rows: list[Any] = [(1, *[case[1] for case in KEPT.values()]), (2, *[None] * len(KEPT))]
        run(sink, engine, batch(rows, names), columns=columns, run_id=mode)
        sink.close()
        with engine.begin() as connection:
            found = connection.exec_driver_sql("SELECT * FROM target ORDER BY id").all()
            if mode == "append":
                connection.exec_driver_sql("DELETE FROM target WHERE id = 2")
    return dict(zip(names, zip(*found, strict=True), strict=True)), ["sqlite", "postgresql", "mariadb"].index(
        request.param
    )


@pytest.mark.parametrize("name", KEPT)
def test_a_made_column_keeps_the_value(made: Any, name: str) -> None:
    found, place = made
    expected = KEPT[name][2 + place]
    assert found[name][0] == expected
    assert type(found[name][0]) is type(expected)
    assert found[name][1] is None


# Database, declaration of the column, value, what is told.
REFUSED: dict[str, tuple[str, str, Any, str]] = {
    "NaN on SQLite": ("sqlite", "REAL", math.nan, "NaN"),
    "digits on SQLite": ("sqlite", "NUMERIC", Decimal("0.12345678901234567890"), "TEXT"),
    "Decimal NaN on SQLite": ("sqlite", "NUMERIC(10, 2)", Decimal("nan"), "TEXT"),
    "unknown type": ("sqlite", "TEXT", object(), "builtins.object"),
    "a set": ("sqlite", "TEXT", {1}, "builtins.set"),
    "a set, MariaDB": ("mariadb", "TEXT", {1}, "builtins.set"),
    "time with zone": ("sqlite", "TIME", dt.time(1, tzinfo=BERLIN), "time zone"),
    "time with zone, PostgreSQL": ("postgresql", "TIME", dt.time(1, tzinfo=BERLIN), "time zone"),
    "time with zone, MariaDB": ("mariadb", "TIME", dt.time(1, tzinfo=BERLIN), "time zone"),
    "not a time of day": ("postgresql", "TIME", dt.timedelta(days=1), "24 hours"),
    "timedelta": ("sqlite", "TEXT", dt.timedelta(1), "microseconds"),
    "timedelta, MariaDB": ("mariadb", "TEXT", dt.timedelta(1), "microseconds"),
    "zoned into TIMESTAMP": ("mariadb", "TIMESTAMP", ZONED, "UTC"),
    "decimals on MariaDB": ("mariadb", "DECIMAL(65, 30)", Decimal("1e-31"), "30 decimals"),
    "Decimal NaN on MariaDB": ("mariadb", "DECIMAL(10, 2)", Decimal("nan"), "no number"),
    "bytes into text": ("postgresql", "TEXT", b"abc", "decode"),
    "NaN in JSON": ("postgresql", "JSON", {"a": math.nan}, "JSON"),
    "no JSON": ("sqlite", "TEXT", {"a": object()}, "JSON serializable"),
}


def with_time_zone(url: str, offset: str) -> str:
    query = {"init_command": f"SET time_zone='{offset}'"}
    return make_url(url).update_query_dict(query).render_as_string(hide_password=False)


@pytest.mark.parametrize(("kind", "name"), [(case[0], name) for name, case in REFUSED.items()])
def test_what_a_column_cannot_keep_is_refused_and_nothing_written(
    kind: str, name: str, new_database: Callable[[str], str]
) -> None:
    _, declaration, value, says = REFUSED[name]
    url = new_database(kind)
    if declaration == "TIMESTAMP":
        url = with_time_zone(url, "+03:00")
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE target (id INTEGER, x {declaration} NULL)"))
    with pytest.raises(ValueError, match=f"column 'x'.*{says}") as caught:
        run(SQLSink("target", "append"), engine, batch([(1, None), (2, value)], ["id", "x"]))
    assert repr(value) not in str(caught.value) or len(repr(value)) < 4
    with engine.connect() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM target")).scalar_one() == 0


# Database, declaration of the column, value, what is found.
CONVERTED: dict[str, tuple[str, str, Any, Any]] = {
    "Decimal as text": ("sqlite", "TEXT", Decimal("1.50"), "1.50"),
    "Decimal anywhere": ("sqlite", "", Decimal("1.50"), "1.50"),
    "Decimal as integer": ("sqlite", "INTEGER", Decimal("5.0"), 5),
    "UUID of SQLAlchemy": ("sqlite", "CHAR(32)", ID, ID.hex),
    "UUID as bytes": ("sqlite", "BLOB", ID, ID.bytes),
    "UUID as bytes, MariaDB": ("mariadb", "BINARY(16)", ID, ID.bytes),
    "UUID of MariaDB": ("mariadb", "UUID", ID, ID),
    "UUID as text, PostgreSQL": ("postgresql", "TEXT", ID, str(ID)),
    "enumeration of int": ("sqlite", "INTEGER", enum.IntEnum("E", "a b").b, 2),  # type: ignore[attr-defined]
    "enumeration of str": ("mariadb", "TEXT", enum.StrEnum("E", "a b").b, "b"),  # type: ignore[attr-defined]
    "zoned into TIMESTAMP": ("mariadb", "TIMESTAMP(6) NULL", ZONED, NAIVE_UTC),
    "negative TIME": ("mariadb", "TIME(6)", -dt.timedelta(microseconds=1), -dt.timedelta(microseconds=1)),
    "TIME of many hours": ("mariadb", "TIME(6)", dt.timedelta(hours=800), dt.timedelta(hours=800)),
    "time with zone as text": ("sqlite", "TEXT", dt.time(1, tzinfo=BERLIN), "01:00:00+02:00"),
    "bool into integer": ("postgresql", "INTEGER", True, 1),
    "dict as text": ("postgresql", "TEXT", {"a": 1}, '{"a": 1}'),
    "NaN on PostgreSQL": ("postgresql", "NUMERIC", Decimal("nan"), Decimal("nan")),
    "zoned as it is": ("postgresql", "TIMESTAMPTZ", ZONED, UTC),
    "interval": ("postgresql", "BIGINT", dt.timedelta(seconds=1), 1_000_000),
    "JSON text": ("mariadb", "JSON", {"ü": [1]}, '{"ü": [1]}'),
}


@pytest.mark.parametrize(("kind", "name"), [(case[0], name) for name, case in CONVERTED.items()])
def test_what_a_driver_cannot_bind_is_converted(kind: str, name: str, new_database: Callable[[str], str]) -> None:
    _, declaration, value, expected = CONVERTED[name]
    url = new_database(kind)
    if declaration.startswith("TIMESTAMP("):
        url = with_time_zone(url, "+00:00")
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE target (id INTEGER, x {declaration})"))
    run(SQLSink("target", "append"), engine, batch([(1, value), (2, None), (3, value)], ["id", "x"]))
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT x FROM target ORDER BY id").scalars().all()
    if isinstance(expected, uuid.UUID):
        found = [None if each is None else uuid.UUID(str(each)) for each in found]
    assert str(found[0]) == str(expected)
    assert type(found[0]) is type(expected)
    assert found[1] is None


def test_columns_of_mixed_values_are_converted_one_by_one(target: Target) -> None:
    target.execute("CREATE TABLE target (id INTEGER, x TEXT)")
    rows = [(1, "a"), (2, None), (3, {"a": 1}), (4, ID), (5, "b"), (6, [1])]
    sink = target.sink("target", "append")
    target.write(sink, batch(rows, ["id", "x"]))
    found = [(1, "a"), (2, None), (3, '{"a": 1}'), (4, str(ID)), (5, "b"), (6, "[1]")]
    assert sorted(target.rows("SELECT id, x FROM target")) == found
    sink.close()


def test_decimals_come_back_through_sqlalchemy_as_they_were(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url, poolclass=NullPool)
    table = Table("target", MetaData(), SQLColumn("x", Numeric(15, 2)))
    with decimal.localcontext(prec=15):
        values = [Decimal(cents) / 100 for cents in range(-(10**14), 10**14, 10**12 + 7)]
    run(
        SQLSink("target", "append"),
        engine,
        batch([(each,) for each in values], ["x"]),
        columns=[Column(name="x", type=Numeric(15, 2))],
    )
    with engine.connect() as connection:
        assert connection.execute(select(table.c.x)).scalars().all() == values


def test_not_null_is_kept_but_for_json(target: Target) -> None:
    columns = [
        Column(name="id", type=types.Integer(), primary_key=True),
        Column(name="x", type=types.Text(), nullable=False),
        Column(name="j", type=types.JSON(), nullable=False),
    ]
    sink = target.sink("target", "append")
    target.write(sink, batch([(1, "x", None)], ["id", "x", "j"]), columns=columns)
    with pytest.raises(Exception, match=r"(?i)null"):
        target.again(sink, batch([(2, None, {})], ["id", "x", "j"], number=1))
    sink.close()


@pytest.mark.parametrize("value", ["a\0b", "lone \ud800"])
def test_text_that_a_database_cannot_keep_is_an_error_or_kept(target: Target, value: str) -> None:
    target.execute("CREATE TABLE target (x TEXT)")
    sink = target.sink("target", "append")
    kept = target.kind != "postgresql" if value == "a\0b" else False
    if kept:
        target.write(sink, batch([("a",), (value,)], ["x"]))
        assert target.rows("SELECT x FROM target") == [("a",), (value,)]
    else:
        with pytest.raises(Exception, match=r"NUL|surrogates") as caught:
            target.write(sink, batch([("a",), (value,)], ["x"]))
        assert value not in str(caught.value)
        assert target.rows("SELECT x FROM target") == []
    sink.close()
