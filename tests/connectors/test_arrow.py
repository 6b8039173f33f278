"""`ArrowConnector`: exact types or a refusal, any driver, and errors that tell neither rows nor credentials."""

import gc
import os
import pickle
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from resumable_sync import ConfigurationError, Retry, registry, run_full_sync
from resumable_sync._retry import is_transient
from resumable_sync.connectors.arrow import ArrowConnector
from resumable_sync.sinks.parquet import ParquetSink
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.memory import MemoryJobStore

TYPES = {
    "id": ("bigint", "7", "int64", 7),
    "exact": ("numeric(12, 2)", "'12.50'", "decimal128(12, 2)", Decimal("12.50")),
    "tiny": ("numeric(3, 5)", "0.00125", "decimal128(5, 5)", Decimal("0.00125")),
    "round": ("numeric(3, -2)", "12300", "decimal128(5, 0)", Decimal(12300)),
    "wide": ("numeric(50, 1)", "1e48", "decimal256(50, 1)", Decimal(10**48)),
    "free": ("numeric", "-1.5", "decimal128(38, 18)", Decimal("-1.5")),
    "many": ("numeric[]", "'{1.5,NULL}'", "list<item: decimal128(38, 18)>", [Decimal("1.5"), None]),
    "uuid": ("uuid", "'5a9eab9e-09ef-4891-b0b4-c66ab64f2fb8'", "string", "5a9eab9e-09ef-4891-b0b4-c66ab64f2fb8"),
    "uuids": ("uuid[]", "'{}'", "list<item: string>", []),
    "json": ("jsonb", "'{\"a\": [1]}'", "string", '{"a": [1]}'),
    "mood": ("mood", "'fine'", "string", "fine"),
    "short": ("real", "0.5", "float", 0.5),
    "span": ("interval", "'1 day 2 seconds'", "duration[us]", None),
    "zoned": ("timestamptz", "'2026-01-31 12:00:00.5+01'", "timestamp[us, tz=UTC]", None),
    "hex": ("bytea", r"'\xff00'", "binary", b"\xff\0"),
}


@pytest.fixture
def made() -> Iterator[list[ArrowConnector]]:
    connectors: list[ArrowConnector] = []
    yield connectors
    for connector in connectors:
        connector.close()


@pytest.fixture
def shop(tmp_path: Path) -> Callable[..., str]:
    pytest.importorskip("adbc_driver_sqlite")

    def make(declared: str, *rows: Any) -> str:
        with closing(sqlite3.connect(tmp_path / "shop.db")) as database, database:
            database.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, {declared})")
            database.executemany(f"INSERT INTO t VALUES (?{', ?' * (len(rows[0]) - 1)})", rows)
        return f"sqlite:///{tmp_path}/shop.db"

    return make


def tables(connector: ArrowConnector, size: int = 2) -> list[Any]:
    return [page.records for page in connector.read(None, size)]


def execute(url: str, *statements: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("%", "%%"))
    engine.dispose()


def test_types_of_postgresql_are_exact(postgres_url: str, made: list[ArrowConnector]) -> None:
    columns = ", ".join(f"{name} {declared}" for name, (declared, *_) in TYPES.items())
    values = ", ".join(value for _, value, *_ in TYPES.values())
    execute(postgres_url, "CREATE TYPE mood AS ENUM ('fine')", f"CREATE TABLE t ({columns}, PRIMARY KEY (exact, uuid))")
    execute(postgres_url, f"INSERT INTO t VALUES ({values})", "INSERT INTO t (exact, uuid) SELECT 13, uuid FROM t")
    for source, key in (("t", None), ("SELECT * FROM t", ["uuid", "-exact"])):
        made.append(ArrowConnector(postgres_url, source, key))
        first, second = sorted((table.to_pylist()[0] for table in tables(made[-1], 1)), key=lambda row: row["exact"])
        schemas = {str(table.schema) for table in tables(made[-1], 1)}
        assert len(schemas) == 1, "a page of NULL alone has the types of all others"
        schema = tables(made[-1])[0].schema
        for name, (_, _, kind, value) in TYPES.items():
            assert str(schema.field(name).type) == kind, name
            assert value is None or first[name] == value, name
        assert second["free"] is None
        told = {column.name: str(column.type) for column in made[-1].columns()}
        assert told["json"] == "JSON", "as the text of documents"


@pytest.mark.parametrize(
    ("declared", "value", "why"),
    [
        ("numeric", "'NaN'", "does not fit decimal128"),
        ("numeric", "1e25", "does not fit decimal128"),
        ("timestamp", "'infinity'", "times that Python has not"),
        ("timestamp[]", "'{infinity}'", "times that Python has not"),
        ("time", "'24:00'", "times that Python has not"),
        ("time[]", "'{24:00}'", "times that Python has not"),
        ("interval", "'1 month'", "interval of months"),
        ("inet", "'10.0.0.1'", "does not give in a form"),
        ("oid", "1", "does not give in a form"),
        ("money", "1", "does not give in a form"),
    ],
)
def test_what_postgresqls_driver_would_lose_is_refused(
    postgres_url: str, made: list[ArrowConnector], declared: str, value: str, why: str
) -> None:
    execute(postgres_url, f"CREATE TABLE t (id int PRIMARY KEY, x {declared})", f"INSERT INTO t VALUES (1, {value})")
    made.append(ArrowConnector(postgres_url, "t"))
    with pytest.raises((ValueError, ConfigurationError), match=f"column 'x'.*{why}.*CAST|column 'x'.*{why}"):
        tables(made[0])


def test_types_of_sqlite_are_those_declared(shop: Callable[..., str], made: list[ArrowConnector]) -> None:
    declared = "n NUMERIC(12, 2), at TIMESTAMP, day DATE, yes BOOLEAN, r REAL, t TEXT, b BLOB, j JSON, any"
    rows = [
        (1, 12.99, "2026-01-31 12:00:00", "2026-01-31", 1, 1.5, "7", b"\xff", '{"a": 1}', "x"),
        (2, 3, "2026-01-31T12:00:00.25+01:00", None, 0, 2, None, None, 5, None),
        (3, 10**9, None, None, None, None, None, None, None, None),
    ]
    made.append(ArrowConnector(shop(declared, *rows), "t"))
    pages = tables(made[0], 1)
    assert len({str(page.schema) for page in pages}) == 1
    kinds = "int64 decimal128(12, 2)|timestamp[us]|date32[day]|bool|double|string|binary|string|string"
    assert "|".join(str(field.type) for field in pages[0].schema).replace("int64|", "int64 ", 1) == kinds
    assert [page.to_pylist()[0]["n"] for page in pages] == [Decimal("12.99"), Decimal(3), Decimal(10**9)]
    assert str(pages[1].to_pylist()[0]["at"]) == "2026-01-31 11:00:00.250000"
    assert (pages[1]["j"].to_pylist(), tables(made[0], 9)[0]["j"].to_pylist()[1]) == (["5"], "5")


@pytest.mark.parametrize(
    ("declared", "values"),
    [
        ("INTEGER", (1, 0.5)),
        ("INTEGER", (1, "x")),
        ("NUMERIC(20, 2)", (2**53 + 1, 0.5)),
        ("NUMERIC(12, 2)", (0.125, 1)),
        ("REAL", (0.5, "x")),
        ("DATE", ("2026-01-31", 20260131)),
        ("BOOLEAN", (1, 2)),
        ("BLOB", (b"x", "x")),
        ("", ("1", 1)),
        ("", (b"x", "x")),
        # A text that is no number to SQLite, and one to Python.
        ("NUMERIC(14, 9)", ("1_000", 2.718281828)),
        ("JSON", (2.718281828459045, "{}")),
        ("JSON", (1, 0.5)),
        ("JSON", (1, 2.718281828459045, "{}")),
        ("JSON", (float("inf"), "{}")),
        ("JSON", (b"{}", "{}")),
    ],
    ids=str,
)
def test_what_sqlites_driver_would_merge_is_refused(
    shop: Callable[..., str], made: list[ArrowConnector], declared: str, values: tuple[Any, ...]
) -> None:
    made.append(ArrowConnector(shop(f"x {declared}", *enumerate(values, 1)), "t"))
    with pytest.raises(ValueError, match="column 'x' holds") as caught:
        tables(made[0], 3)
    assert not any(value in str(caught.value) for value in ("20260131", "2.718"))


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        ("DATETIME", "2026-01-31 12:00:00.123456789"),
        ("DATETIME", "2026-01-31T12:00:00.0000001+01:00"),
        ("TIME", "12:00:00.1234567"),
    ],
)
def test_parts_of_a_microsecond_are_refused(
    shop: Callable[..., str], made: list[ArrowConnector], declared: str, text: str
) -> None:
    made.append(ArrowConnector(shop(f"x {declared}", (1, text)), "t"))
    with pytest.raises(ValueError, match="column 'x' holds a time of more than six decimals") as caught:
        tables(made[0])
    assert text not in str(caught.value)


def test_decimals_of_a_time_that_are_zero_are_none(shop: Callable[..., str], made: list[ArrowConnector]) -> None:
    row = (1, "2026-01-31 12:00:00.123456000", "12:00:00.123456000")
    made.append(ArrowConnector(shop("at DATETIME, t TIME", row), "t"))
    (found,) = tables(made[0])[0].to_pylist()
    assert (str(found["at"]), str(found["t"])) == ("2026-01-31 12:00:00.123456", "12:00:00.123456")


def test_a_key_of_text_and_params_come_back_exactly(postgres_url: str, made: list[ArrowConnector]) -> None:
    keys = ["a'b", "a\\", "a\\'; --", "a%s", "ü", " "]
    execute(postgres_url, "CREATE TABLE t (k text PRIMARY KEY, n int)")
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (%s, 1)", [(key,) for key in keys])
    engine.dispose()
    query = "SELECT k, n, '%' AS \"a%b\" FROM t WHERE k <> :one AND n IN (:two, -5)"
    made.append(ArrowConnector(postgres_url, query, "k", params={"one": "x'\\", "two": 1}))
    pages: list[Any] = list(made[0].read(None, 1))
    assert sorted(page.records["k"][0].as_py() for page in pages) == sorted(keys)
    for number, page in enumerate(pages, 1):
        assert sum(len(rest) for rest in made[0].read(page.cursor, 4)) == len(keys) - number
        assert made[0].moved(page.cursor) is None


def test_errors_tell_neither_rows_nor_credentials(postgres_url: str, made: list[ArrowConnector]) -> None:
    execute(postgres_url, "CREATE TABLE t (k text PRIMARY KEY)", "INSERT INTO t VALUES ('a secret'), ('b secret')")
    made.append(ArrowConnector(postgres_url, "SELECT k, 1 / (length(k) - 8) AS x FROM t WHERE k <> 'secret'", key="k"))
    with pytest.raises(DBAPIError, match="division by zero") as caught:
        tables(made[0], 1)
    assert not is_transient(caught.value)
    lost = make_url(postgres_url).set(username="nobody", password="secret", database="secret", port=1)
    made.append(ArrowConnector(lost.render_as_string(hide_password=False), "t"))
    with pytest.raises(OperationalError) as unreachable:
        tables(made[1])
    assert is_transient(unreachable.value)
    assert ":***@" in repr(made[1])
    for error in (caught.value, unreachable.value):
        assert "a secret" not in f"{error!r} {error.__cause__!r}"
    assert "password" not in repr(unreachable.value)


def test_credentials_of_other_drivers_are_shown_nowhere(made: list[ArrowConnector]) -> None:
    connect = Remembering()
    for uri in ("etl:p@ss?w/rd@account/shop?token=xyz", "flight://etl:p@ss?w/rd@account/shop?token=xyz"):
        made.append(ArrowConnector(uri, "t", driver=connect, options={"adbc.x": "p@ss"}))
        made[-1]._database._kind, made[-1]._database._url = "other", made[-1]._database._url_of("other")
        shown = repr(made[-1]) + made[-1]._database.identity
        assert "account/shop" in shown
        assert not any(word in shown for word in ("p@ss", "ss?w", "rd@", "xyz", "etl"))


class Remembering:
    """A driver that pickles, of a database that says it is another one than it is."""

    vendor = "Other"

    def __call__(self, uri: str, **_: Any) -> Any:
        from adbc_driver_sqlite import dbapi

        connection: Any = dbapi.connect(uri)
        connection.adbc_get_info = lambda: {"vendor_name": self.vendor}
        return connection


def test_any_driver_will_do(shop: Callable[..., str], made: list[ArrowConnector], tmp_path: Path) -> None:
    path = shop("name TEXT", *((number, f"name {number}") for number in range(10))).removeprefix("sqlite:///")
    made.append(ArrowConnector(path, "t", driver=Remembering()))
    made.append(pickle.loads(pickle.dumps(ArrowConnector(path, "SELECT * FROM t", "id", driver=Remembering()))))
    for connector in made:
        assert connector._database.engine.dialect.name == "adbc"
        first, *_ = connector.read(None, 4)
        pages: Any = connector.read(first.cursor, 5)
        assert [page.records["id"].to_pylist() for page in pages] == [[4, 5, 6, 7, 8], [9]]
        assert (connector.count(), connector.moved(first.cursor), len(connector.split(3))) == (10, None, 3)
        assert [column.name for column in connector.columns()] == ["id", "name"]
    made.append(ArrowConnector(path, "nothing", "id", driver=Remembering()))
    with pytest.raises(ConfigurationError, match="no table 'nothing'"):
        tables(made[2])
    for uri, driver in (("mysql://h/d", None), ("x", None), ("x", "adbc_driver_of_nobody")):
        with pytest.raises(ConfigurationError, match="driver="):
            tables(ArrowConnector(uri, "t", driver=driver))


def test_its_tables_go_into_every_sink(shop: Callable[..., str], made: list[ArrowConnector], tmp_path: Path) -> None:
    rows = [(number, number / 100, "2026-01-31 12:00:00") for number in range(25)]
    data = {"type": "arrow", "uri": shop("total NUMERIC(12, 2), at TIMESTAMP", *rows), "table": "t"}
    connector: Any = registry.connector(data)
    made.append(connector)
    assert isinstance(registry.connector({**data, "key": ["id"], "if_moved": "raise"}), ArrowConnector)
    store, target = MemoryJobStore(), tmp_path / "target.db"
    run_full_sync("a", connector, ParquetSink(tmp_path / "files"), store=store, batch_size=10)
    run_full_sync("b", connector, SQLSink("t", "replace", url=f"sqlite:///{target}"), store=store, batch_size=10)
    dicts: list[Any] = []
    run_full_sync("c", connector, lambda batch: dicts.extend(batch.dicts()), store=store, batch_size=10)
    files = parquet.read_table(tmp_path / "files")
    assert files.to_pylist() == dicts
    assert (str(files.schema.field("total").type), dicts[7]["total"]) == ("decimal128(12, 2)", Decimal("0.07"))
    with closing(sqlite3.connect(target)) as database:
        assert database.execute("SELECT * FROM t").fetchall() == [(*row[:2], f"{row[2]}.000000") for row in rows]


def test_a_connection_that_broke_is_made_anew(postgres_url: str, made: list[ArrowConnector]) -> None:
    execute(postgres_url, "CREATE TABLE t (k int PRIMARY KEY)", "INSERT INTO t SELECT * FROM generate_series(1, 12)")
    made.append(ArrowConnector(postgres_url, "t"))
    cut: list[int] = []
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = "

    def cut_once(event: Any) -> None:
        if not cut and type(event).__name__ == "BatchCommitted":
            execute(postgres_url, end + "current_database()")
            cut.append(1)

    ids: list[int] = []
    result = run_full_sync(
        "copy",
        made[0],
        lambda batch: ids.extend(row["k"] for row in batch.dicts()),
        store=MemoryJobStore(),
        batch_size=5,
        prefetch=0,
        count=False,
        retry=Retry(wait_initial=0.01),
        observers=[cut_once],
    )
    assert (result.records, ids, cut) == (12, list(range(1, 13)), [1])


def test_a_forked_process_has_connections_of_its_own(shop: Callable[..., str], made: list[ArrowConnector]) -> None:
    made.append(ArrowConnector(shop("name TEXT", (1, "x")), "t"))
    tables(made[0])
    engine = made[0]._database.engine
    made[0]._database._made = (os.getpid() + 1, engine)
    assert made[0]._database.engine is not engine
    assert len(tables(made[0])) == 1
    gc.collect()
    # Closing what was inherited would end connections of the parent.
    pool: Any = engine.pool
    assert pool.checkedin() == 1
    engine.dispose()


def test_the_end_of_a_day_as_a_key_is_not_its_beginning(postgres_url: str, made: list[ArrowConnector]) -> None:
    execute(postgres_url, "CREATE TABLE t (k time PRIMARY KEY)", "INSERT INTO t VALUES ('0:00'), ('12:00'), ('24:00')")
    made.append(ArrowConnector(postgres_url, "t"))
    pages = made[0].read(None, 2)
    assert len(next(pages).records) == 2
    with pytest.raises(ValueError, match="column 'k' holds times that Python has not"):
        next(pages)
