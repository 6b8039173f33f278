"""Ranges of a key on real databases: checksums that see every change, and keys that come from another database."""

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from itertools import islice
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event, types

from engine.test_verify_pairs import CHANGED, COMMON, OWN, fill, opened
from proxies import TCPProxy
from resumable_sync import (
    BatchCommitted,
    Difference,
    KeyRanges,
    MemoryJobStore,
    VerifyResult,
    run_full_sync,
    verify_full_sync,
)
from resumable_sync.connectors._digest import digest_of
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore

NewDatabase = Callable[[str], str]
SERVERS = ["postgresql", "mariadb"]


@pytest.fixture
def engines() -> Iterator[Callable[..., sa.Engine]]:
    with ExitStack() as stack:

        def make(url: str, **options: Any) -> sa.Engine:
            engine = sa.create_engine(url.replace("mariadb://", "mariadb+pymysql://"), **options)
            stack.callback(engine.dispose)
            return engine

        yield make


def digested(ranges: KeyRanges) -> tuple[int, str]:
    found = ranges.digest(None, None)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", SERVERS)
def test_a_checksum_sees_every_cell(new_database: NewDatabase, kind: str, engines: Callable[..., sa.Engine]) -> None:
    url = new_database(kind)
    names = fill(url, kind)
    engine = engines(url)
    connector = SQLConnector(engine, "source")
    every = [name for name in ("id", *names) if not (kind == "mariadb" and name == "single")]
    ranges = connector.ranges("id").only(every)
    columns = {name: declared for name, declared, _ in [*COMMON, *OWN[kind]]}
    seen = {digested(ranges)}

    def change(key: int, name: str, value: Any) -> None:
        before = len(seen)
        table = sa.table("source", sa.column("id"), sa.column(name, columns[name]))
        with engine.begin() as connection:
            connection.execute(sa.update(table).where(table.c.id == key).values({name: value}))
        seen.add(digested(ranges))
        assert len(seen) == before + 1, name

    for name in every[1:]:
        change(0, name, sa.null())
    for name in every[1:]:
        if name in CHANGED:
            change(0, name, CHANGED[name] if name != "zoned" else dt.time(1, tzinfo=dt.UTC))


@pytest.mark.parametrize("kind", SERVERS)
def test_a_checksum_sees_where_columns_begin_and_how_often_a_row_is_there(
    new_database: NewDatabase, kind: str, engines: Callable[..., sa.Engine]
) -> None:
    url = new_database(kind)
    ranges = None
    found = set()
    tables: list[list[tuple[Any, ...]]] = [
        [(1, "ab", "c")],
        [(1, "a", "bc")],
        [(1, "abc", "")],
        [(1, "abc", None)],
        [(1, None, "abc")],
        [(1, None, None)],
        [(1, "", "")],
        [(1, "-", "-")],
        [(1, "1:a", "1:b")],
        [(1, "a", "b"), (1, "a", "b")],
        [(1, "a", "b")] * 3,
        [(1, "a", "b"), (2, "c", "d")],
        [(1, "a", "d"), (2, "c", "b")],
        [],
    ]
    for rows in tables:
        with opened(url) as connection:
            connection.exec_driver_sql("DROP TABLE IF EXISTS t")
            connection.exec_driver_sql("CREATE TABLE t (id INTEGER, x VARCHAR(9), y VARCHAR(9))")
            for row in rows:
                connection.exec_driver_sql("INSERT INTO t VALUES (%s, %s, %s)", row)
        ranges = ranges or SQLConnector(engines(url), "t", key="id").ranges()
        count, checksum = digested(ranges)
        assert count == len(rows)
        found.add(checksum)
    assert len(found) == len(tables)
    assert ranges is not None
    with opened(url) as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (2, 'c', 'd'), (1, 'a', 'b')")
    assert digested(ranges)[1] in found  # another order


def test_a_checksum_that_hides_digits_is_none(postgres_url: str, engines: Callable[..., sa.Engine]) -> None:
    with opened(postgres_url) as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY, x FLOAT8)")
    engine = engines(postgres_url, connect_args={"options": "-c extra_float_digits=0"})
    assert SQLConnector(engine, "t").ranges().digest(None, None) is None
    assert digest_of((2, 1, "5", "UTC", "1")) is None
    assert digest_of((2, 2, "5", "UTC", "1")) == (2, "5 UTC")


class Counter:
    """Counts what is sent to an engine."""

    def __init__(self, engine: sa.Engine) -> None:
        self.statements: list[str] = []
        event.listen(engine, "before_cursor_execute", self._count)

    def _count(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.statements.append(statement)

    def sent(self, part: str) -> int:
        return sum(part in statement for statement in self.statements)


def numbers(url: str, count: int) -> None:
    with opened(url) as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY, name VARCHAR(30), at TIMESTAMP(6) NULL)")
        rows = [(number, f"name {number}", dt.datetime(2026, 1, 1)) for number in range(count)]  # noqa: DTZ001
        connection.exec_driver_sql("INSERT INTO t VALUES (%s, %s, %s)", rows)


def verified(*engines: sa.Engine, **options: Any) -> VerifyResult:
    source, target = (SQLConnector(engine, "t") for engine in engines)
    return verify_full_sync(source, target, key="id", store=MemoryJobStore(), **options)


@pytest.mark.parametrize("kind", SERVERS)
def test_no_rows_travel_where_the_checksums_are_equal(
    new_database: NewDatabase, kind: str, engines: Callable[..., sa.Engine]
) -> None:
    urls = [new_database(kind), new_database(kind)]
    for url in urls:
        numbers(url, 2_000)
    sides = [engines(url) for url in urls]
    counters = [Counter(side) for side in sides]
    result = verified(*sides, batch_size=100)
    assert result.ok
    assert result.equal == 2_000
    pages = [counter.sent("ORDER BY t.id, ") + counter.sent("t.name, t.at \nFROM t") for counter in counters]
    assert pages == [0, 0]
    assert [counter.sent("ount(*)") > 0 for counter in counters] == [True, True]
    with opened(urls[1]) as connection:
        connection.exec_driver_sql("UPDATE t SET name = 'x' WHERE id = 1234")
        connection.exec_driver_sql("DELETE FROM t WHERE id = 5")
    result = verified(*sides, batch_size=100)
    assert [(each.kind, *each.key) for each in result.differences] == [("missing", 5), ("different", 1234)]
    # Both a page and a look by the key, for either difference.
    assert all(2 <= counter.sent("t.name, t.at \nFROM t") <= 6 for counter in counters)


@pytest.mark.parametrize("kind", SERVERS)
def test_sessions_with_other_settings_fall_back_to_reading_rows(
    new_database: NewDatabase, kind: str, engines: Callable[..., sa.Engine]
) -> None:
    urls = [new_database(kind), new_database(kind)]
    for url in urls:
        numbers(url, 300)
    other = (
        {"options": "-c DateStyle=German"}
        if kind == "postgresql"
        else {"init_command": "SET sql_mode='STRICT_ALL_TABLES'"}
    )
    sides = engines(urls[0]), engines(urls[1], connect_args=other)
    counters = [Counter(side) for side in sides]
    assert verified(*sides, batch_size=50).ok
    # One range shows that the databases do not compute the same; then nobody asks them again.
    assert [counter.sent("WHERE t.id > ") > 3 for counter in counters] == [True, True]
    assert all(counter.sent("ount(*)") <= 2 for counter in counters)


@pytest.mark.parametrize("kind", SERVERS)
def test_a_connection_that_is_cut_in_the_middle_is_opened_again(
    new_database: NewDatabase, kind: str, tcp_proxy: Callable[[str], TCPProxy]
) -> None:
    urls = [new_database(kind), new_database(kind)]
    for url in urls:
        numbers(url, 300)
    with opened(urls[1]) as connection:
        connection.exec_driver_sql("DELETE FROM t WHERE id IN (7, 288)")
    proxies = [tcp_proxy(url) for url in urls]
    cuts = iter([*proxies, *proxies])

    def cut(event: Any) -> None:
        if isinstance(event, BatchCommitted):
            for proxy in islice(cuts, 1):
                proxy.cut()

    source, target = (SQLConnector(proxy.url, "t") for proxy in proxies)
    result = verify_full_sync(source, target, store=MemoryJobStore(), batch_size=20, observers=[cut])
    assert [each.key for each in result.differences] == [(7,), (288,)]
    assert (result.missing, result.equal) == (2, 298)
    assert next(cuts, None) is None
    source.close()
    target.close()


ODD = ["per%cent", "two words", 'quo"te', "colon:x", "Case", "select", "ünïcödé"]
if not sa.__version__.startswith("2.0."):
    ODD.append("a%(b)s")  # SQLAlchemy 2.0 takes it for a parameter


@pytest.mark.parametrize("kind", ["sqlite", *SERVERS])
def test_columns_of_odd_names(new_database: NewDatabase, kind: str) -> None:
    urls = [new_database(kind), new_database(kind)]
    for url in urls:
        engine = sa.create_engine(url)
        mark = engine.dialect.identifier_preparer.final_quote
        names = ", ".join(f"{mark}{name.replace(mark, mark * 2)}{mark} INTEGER" for name in ODD)
        statement = f"CREATE TABLE t ({names}, PRIMARY KEY ({mark}{ODD[0]}{mark}))"
        with engine.begin() as connection:
            connection.exec_driver_sql(statement if kind == "sqlite" else statement.replace("%", "%%"))
            values = ", ".join("7" for _ in ODD)
            connection.exec_driver_sql(f"INSERT INTO t VALUES ({values})")
        engine.dispose()
    source, target = (SQLConnector(url, "t") for url in urls)
    assert verify_full_sync(source, target, store=MemoryJobStore()).ok
    engine = sa.create_engine(urls[1])
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM t")
        connection.exec_driver_sql(f"INSERT INTO t VALUES (7, {', '.join('8' for _ in ODD[1:])})")
    engine.dispose()
    (difference,) = verify_full_sync(source, target, store=MemoryJobStore()).differences
    assert (difference.kind, sorted(difference.columns)) == ("different", sorted(ODD[1:]))
    source.close()
    target.close()


KEYS: dict[str, tuple[Any, list[Any]]] = {
    "uuid": (types.Uuid(), [uuid.UUID(int=number << 64) for number in range(1, 6)]),
    "datetime": (
        types.DateTime(),
        [dt.datetime(2026, 1, 1, 0, 0, 0, number) for number in (0, 1, 10, 999_999, 5)],  # noqa: DTZ001
    ),
    "instant": (
        types.DateTime(timezone=True),
        [dt.datetime(2026, 1, number, tzinfo=dt.timezone(dt.timedelta(hours=2))) for number in range(1, 6)],
    ),
    "date": (types.Date(), [dt.date(2026, 1, number) for number in range(1, 6)]),
    "decimal": (types.Numeric(30, 10), [Decimal(number) / 8 for number in (-5, 0, 1, 80, 10**12)]),
    "bytes": (types.LargeBinary(), [b"\0", b"a", b"\xff\xfe", b"\\x41", b"z" * 20]),
    "boolean": (types.Boolean(), [True, False]),
}


@pytest.mark.server
@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
def test_keys_of_every_type_find_their_row_on_the_other_side(new_database: NewDatabase, kind: str) -> None:
    source, target = new_database("postgresql"), new_database(kind)
    for name, (declared, values) in KEYS.items():
        # Else SQLAlchemy 2.0 makes a serial column of the Numeric.
        key = sa.Column("k", declared, primary_key=True, autoincrement=False)
        table = sa.Table(f"{name}_keys", sa.MetaData(), key, sa.Column("n", sa.Integer))
        with opened(source) as connection:
            table.create(connection)
            connection.execute(table.insert(), [{"k": value, "n": place} for place, value in enumerate(values)])
        ours, theirs = SQLConnector(source, table.name), SQLConnector(target, table.name)
        with SQLJobStore(target) as store:
            run_full_sync(name, ours, SQLSink(table.name, "upsert"), store=store, count=False)
        with opened(target) as connection:
            connection.exec_driver_sql(f"UPDATE {table.name} SET n = 99 WHERE n = 0")
            connection.exec_driver_sql(f"DELETE FROM {table.name} WHERE n = 1")
        for one, other, what in ((ours, theirs, "missing"), (theirs, ours, "extra")):
            result = verify_full_sync(one, other, store=MemoryJobStore(), batch_size=2)
            kinds = sorted((each.kind, each.columns) for each in result.differences)
            assert (name, kinds) == (name, sorted([("different", ("n",)), (what, ())]))
        ours.close()
        theirs.close()


@pytest.mark.server
@pytest.mark.parametrize("kind", ["sqlite", *SERVERS])
def test_a_key_that_the_other_side_cannot_have_is_no_error(new_database: NewDatabase, kind: str) -> None:
    for declared, odd in (("TEXT", "no number"), ("NUMERIC(40)", Decimal(10**30)), ("BYTEA", b"\xff")):
        source, target = new_database("postgresql"), new_database(kind)
        with opened(source) as connection:
            connection.exec_driver_sql(f"CREATE TABLE t (id {declared} PRIMARY KEY)")
            connection.exec_driver_sql("INSERT INTO t VALUES (%s)", (odd,))
        with opened(target) as connection:
            connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY)")
            connection.exec_driver_sql("INSERT INTO t VALUES (5)")
        for one, other, first in ((source, target, odd), (target, source, 5)):
            ours, theirs = SQLConnector(one, "t"), SQLConnector(other, "t")
            result = verify_full_sync(ours, theirs, store=MemoryJobStore())
            assert result.differences[0] == Difference(kind="missing", key=(first,))
            assert (result.missing, result.extra) == (1, 1)
            ours.close()
            theirs.close()
