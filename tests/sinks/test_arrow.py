"""`ArrowSink`: exact values or a refusal, any driver whose transactions hold, and no credentials in sight."""

import json
import pickle
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sqlalchemy import create_engine

from resumable_sync import ConfigurationError, Page, registry, run_full_sync
from resumable_sync.connectors.arrow import ArrowConnector
from resumable_sync.sinks.arrow import ArrowSink
from resumable_sync.sinks.files import CSVSink, JSONLinesSink
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.memory import MemoryJobStore
from resumable_sync.stores.sql import SQLJobStore

MOMENT = datetime(2026, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)
TYPES = {
    "small": ("smallint", pa.array([7], pa.int64()), 7),
    "whole": ("integer", pa.array([7], pa.int16()), 7),
    "double": ("double precision", pa.array([3], pa.int64()), 3.0),
    "short": ("real", pa.array([0.5], pa.float64()), 0.5),
    "exact": ("numeric(12, 2)", pa.array([12.5], pa.float64()), Decimal("12.50")),
    "free": ("numeric", pa.array([Decimal("1.123")], pa.decimal128(5, 3)), Decimal("1.123")),
    "many": ("numeric[]", pa.array([[Decimal("1.5"), None]], pa.list_(pa.decimal128(5, 1))), [Decimal("1.5"), None]),
    "ints": ("integer[]", pa.array([[1, 2]], pa.list_(pa.int64())), [1, 2]),
    "uuid": ("uuid", pa.array([str(UUID(int=7))]), UUID(int=7)),
    "doc": ("json", pa.array(['{"a": 1}']), {"a": 1}),
    "docb": ("jsonb", pa.array(['{"a": 1}']), {"a": 1}),
    "zoned": ("timestamptz", pa.array([MOMENT], pa.timestamp("ns", "Europe/Berlin")), MOMENT),
    "plain": ("timestamp", pa.array([MOMENT.replace(tzinfo=None)], pa.timestamp("ms")), MOMENT.replace(tzinfo=None)),
    "day": ("date", pa.array([date(2026, 1, 31)]), date(2026, 1, 31)),
    "hour": ("time", pa.array([time(1, 2)]), time(1, 2)),
    "span": ("interval", pa.array([timedelta(days=1)]), timedelta(days=1)),
    "raw": ("bytea", pa.array([b"\0\xff"], pa.large_binary()), b"\0\xff"),
    "yes": ("boolean", pa.array([True]), True),
    "text": ("varchar(20)", pa.array(["ü\\N\t"]).dictionary_encode(), "ü\\N\t"),
    "mood": ("mood", pa.array(["fine"]), "fine"),
}


class Records:
    """Pages that are given."""

    fingerprint = None

    def __init__(self, *pages: Any) -> None:
        self.pages = pages

    def read(self, cursor: Any, batch_size: int) -> Iterator[Page[Any]]:
        for number, page in enumerate(self.pages[cursor or 0 :], (cursor or 0) + 1):
            yield Page(page, number)

    def count(self) -> None:
        return None


@pytest.fixture
def made() -> Iterator[list[Any]]:
    sinks: list[Any] = []
    yield sinks
    for sink in sinks:
        sink.close()


def copy(sink: Any, *pages: Any) -> Any:
    return run_full_sync("job", Records(*pages), sink, store=MemoryJobStore())


def execute(url: str, *statements: str) -> list[Any]:
    engine = create_engine(url)
    with engine.begin() as connection:
        results = [connection.exec_driver_sql(statement) for statement in statements]
        rows = results[-1].all() if results[-1].returns_rows else []
    engine.dispose()
    return [tuple(row) for row in rows]


def test_every_type_of_postgresql_is_made_that_of_its_column(postgres_url: str, made: list[Any]) -> None:
    columns = ", ".join(f"{name} {declared}" for name, (declared, *_) in TYPES.items())
    execute(postgres_url, "CREATE TYPE mood AS ENUM ('fine')", f"CREATE TABLE t ({columns}, more int DEFAULT 5)")
    made.append(ArrowSink("t", "append", postgres_url))
    given = pa.table({name: values for name, (_, values, _) in TYPES.items()})
    nulls = pa.table({name: pa.nulls(1, values.type) for name, (_, values, _) in TYPES.items()})
    dicts = [dict(row) for row in given.drop_columns(["exact", "double"]).to_pylist()]
    dicts[0] |= {"exact": Decimal("12.5"), "double": 3.0, "doc": {"a": 1}, "uuid": UUID(int=7)}
    assert copy(made[0], given, nulls, dicts).guarantee == "exactly_once"
    rows = execute(postgres_url, "SELECT * FROM t ORDER BY small")
    expected = tuple(value for *_, value in TYPES.values())
    assert rows == [(*expected, 5), (*expected, 5), (*[None] * len(TYPES), 5)]


@pytest.mark.parametrize(
    ("declared", "values"),
    [
        ("smallint", pa.array([70_000])),
        ("bigint", pa.array([0.5])),
        ("numeric(12, 2)", pa.array([0.125])),
        ("numeric(12, 2)", pa.array([Decimal("0.125")])),
        ("timestamptz", pa.array([MOMENT.replace(tzinfo=None)])),
        ("timestamp", pa.array([MOMENT])),
        ("uuid", pa.array(["secret"])),
        ("inet", pa.array(["10.0.0.1"])),
    ],
    ids=str,
)
def test_what_a_column_of_postgresql_cannot_hold_is_refused(
    postgres_url: str, made: list[Any], declared: str, values: Any
) -> None:
    execute(postgres_url, f"CREATE TABLE t (x {declared})")
    made.append(ArrowSink("t", "append", postgres_url))
    with pytest.raises((ValueError, ConfigurationError), match="column 'x'") as caught:
        copy(made[0], pa.table({"x": values}))
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="no column 'y'"):
        copy(made[0], pa.table({"y": values}))


def test_sqlite_gets_what_sqlsink_writes(tmp_path: Path, made: list[Any]) -> None:
    pytest.importorskip("adbc_driver_sqlite", reason="ADBC's driver for SQLite is not installed")
    declared = {"i": "INT", "n": "NUMERIC(12, 2)", "d": "", "at": "DATETIME", "day": "DATE", "t": "TIME", "j": "TEXT"}
    with closing(sqlite3.connect(tmp_path / "t.db")) as database:
        database.execute(f"CREATE TABLE t ({', '.join(f'{name} {kind}' for name, kind in declared.items())})")
    numbers = [Decimal("12.99"), Decimal("3.00")]
    rows = [
        {"i": True, "n": number, "d": number, "at": MOMENT, "day": MOMENT.date(), "t": time(1, 2), "j": [1, "é"]}
        for number in numbers
    ]
    made.append(registry.sink({"type": "arrow", "table": "t", "mode": "append", "uri": f"sqlite:///{tmp_path}/t.db"}))
    copy(made[0], rows)
    with closing(sqlite3.connect(tmp_path / "t.db")) as database:
        found = database.execute("SELECT * FROM t").fetchall()
    rest = ("2026-01-31 12:00:00.500000", "2026-01-31", "01:02:00.000000", '[1,"é"]')
    # The decimals of an Arrow column have one number of digits.
    assert found == [(1, 12.99, f"12.99{'0' * 16}", *rest), (1, 3, f"3.{'0' * 18}", *rest)]
    for values in (pa.array([float("nan")]), pa.array([2**63], pa.uint64()), pa.array([Decimal("0." + "1" * 25)])):
        with pytest.raises(ValueError, match="column 'n'"):
            copy(made[0], pa.table({"n": values}))


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (2**63 - 1, pa.timestamp("us")),
        (-(2**63), pa.timestamp("us", "UTC")),
        (2**62, pa.timestamp("s")),
        (253_402_300_800, pa.timestamp("s")),
        (86_400_000_000, pa.time64("us")),
        (-1, pa.time32("ms")),
        (2**31 - 1, pa.date32()),
        (2**60, pa.date64()),
    ],
    ids=str,
)
def test_times_that_sqlite_has_no_text_for_are_refused(tmp_path: Path, made: list[Any], number: int, kind: Any) -> None:
    pytest.importorskip("adbc_driver_sqlite", reason="ADBC's driver for SQLite is not installed")
    with closing(sqlite3.connect(tmp_path / "t.db")) as database:
        database.execute("CREATE TABLE t (x)")
    made.append(ArrowSink("t", "append", f"sqlite:///{tmp_path}/t.db"))
    values = pa.array([number], pa.int64() if kind.bit_width == 64 else pa.int32()).cast(kind)
    with pytest.raises(ValueError, match="column 'x' holds") as caught:
        copy(made[0], pa.table({"x": values}))
    assert str(number) not in str(caught.value)
    with closing(sqlite3.connect(tmp_path / "t.db")) as database:
        assert database.execute("SELECT count(*) FROM t").fetchone() == (0,)


class Other:
    """A driver of a database that says it is another one than it is, and may forget what transactions are."""

    def __init__(self, *, forgets: bool = False) -> None:
        self.forgets = forgets

    def __call__(self, uri: str, **_: Any) -> Any:
        from adbc_driver_sqlite import dbapi

        connection: Any = dbapi.connect(uri, autocommit=True)
        connection.adbc_get_info = lambda: {"vendor_name": "Other"}
        return Forgetful(connection) if self.forgets else connection


class Forgetful:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.adbc_connection = self

    def set_autocommit(self, _enabled: bool) -> None:
        pass

    def rollback(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_a_driver_whose_transactions_do_not_hold_is_refused(tmp_path: Path, made: list[Any]) -> None:
    pytest.importorskip("adbc_driver_sqlite", reason="ADBC's driver for SQLite is not installed")
    with closing(sqlite3.connect(tmp_path / "t.db")) as database:
        database.execute("CREATE TABLE t (id INTEGER)")
    path = str(tmp_path / "t.db")
    made += [
        ArrowSink("t", "append", path, driver=Other(forgets=True)),
        ArrowSink("t", "replace", path, driver=Other()),
    ]
    page = pa.table({"id": [1]})
    with pytest.raises(ConfigurationError, match="cannot be kept together"):
        copy(made[0], page)
    with pytest.raises(ConfigurationError, match="mode='replace' is for PostgreSQL and SQLite"):
        copy(made[1], page)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("t",)]
    with pytest.raises(ConfigurationError, match="'append' or 'replace'"):
        ArrowSink("t", "upsert", path, driver=Other())  # type: ignore[arg-type]


def test_credentials_are_shown_nowhere(made: list[Any]) -> None:
    made.append(ArrowSink("t", "append", "postgresql://etl:p%40ss@127.0.0.1:1/dw", options={"x": "p@ss"}))
    assert "etl:***@127.0.0.1:1/dw" in repr(made[0])
    made.append(pickle.loads(pickle.dumps(made[0])))
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of the server that is not there
        copy(made[1], pa.table({"id": [1]}))
    assert "ss" not in str(caught.value).replace("password", "").replace("address", "").replace("class", "")


def test_from_a_connector_into_a_sink_of_arrow(postgres_url: str, made: list[Any]) -> None:
    execute(
        postgres_url,
        "CREATE TABLE source (id bigint PRIMARY KEY, total numeric(12, 2), u uuid, j jsonb, at timestamptz, note text)",
        "INSERT INTO source SELECT i, i / 100.0, md5(i::text)::uuid, '{}', now(), NULL FROM generate_series(1, 50) i",
    )
    made += [ArrowConnector(postgres_url, "source"), ArrowSink("target", "replace", postgres_url)]
    for _ in range(2):
        result = run_full_sync("copy", made[0], made[1], store=MemoryJobStore(), batch_size=20)
        assert (result.records, result.batches, result.guarantee) == (50, 3, "exactly_once")
    difference = "(TABLE source EXCEPT TABLE target) UNION ALL (TABLE target EXCEPT TABLE source)"
    same = difference.replace("TABLE source", "SELECT id, total, u, at, note FROM source")
    assert execute(postgres_url, same.replace("TABLE target", "SELECT id, total, u, at, note FROM target")) == []


def in_list(kind: Any, value: int) -> Any:
    return pa.array([[value]], pa.list_(kind))


NO_VALUES_OF_PYTHON = {
    "24:00": in_list(pa.time64("us"), 86_400_000_000),
    "before 00:00": in_list(pa.time32("s"), -86_399),
    "parts of a microsecond": in_list(pa.timestamp("ns"), 1_769_860_800_000_000_001),
    "parts of a time": in_list(pa.time64("ns"), 43_200_000_000_001),
    "parts of a duration": in_list(pa.duration("ns"), 43_200_000_000_001),
    "year 33658": in_list(pa.timestamp("s", "UTC"), 999_999_999_999),
    "far": in_list(pa.timestamp("us"), 2**62),
    "part of a day": in_list(pa.date64(), 86_400_001),
    "in a map": pa.array([[("a", 86_400_000_000)]], pa.map_(pa.string(), pa.time64("us"))),
    "in a struct": pa.array([{"a": [86_400_000_000]}], pa.struct([("a", pa.list_(pa.time64("us")))])),
    "in a dictionary": pa.array([86_400_000_000], pa.time64("us")).dictionary_encode(),
    "long": in_list(pa.duration("s"), 86_400_000_000_000_000),
}


@pytest.mark.parametrize("kind", ["SQLSink", "ArrowSink", "JSONLinesSink", "CSVSink"])
@pytest.mark.parametrize("value", NO_VALUES_OF_PYTHON)
def test_nested_values_that_python_has_not_are_refused_without_being_told(
    tmp_path: Path, caplog: Any, value: str, kind: str
) -> None:
    path = tmp_path / "target.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x TEXT)")
    sinks: dict[str, Callable[[], Any]] = {
        "SQLSink": lambda: SQLSink("t", mode="append", url=f"sqlite:///{path}"),
        "ArrowSink": lambda: ArrowSink("t", "append", f"sqlite:///{path}"),
        "JSONLinesSink": lambda: JSONLinesSink(tmp_path / "out.jsonl"),
        "CSVSink": lambda: CSVSink(tmp_path / "out.csv"),
    }
    store = MemoryJobStore()
    source = Records(pa.table({"x": NO_VALUES_OF_PYTHON[value]}))
    with pytest.raises(ValueError, match="column 'x'") as caught:
        run_full_sync("j", source, sinks[kind](), store=store)
    told = f"{caught.value!r} {store.load('j')} {caplog.text}"
    assert [digits for digits in ("864000", "86399", "00001", "99999", "46116") if digits in told] == []


def test_batches_as_python_values_do_not_tell_what_python_has_not() -> None:
    source, store = Records(pa.table({"x": in_list(pa.timestamp("us"), 2**62)})), MemoryJobStore()
    with pytest.raises(ValueError, match=r"column 'x' .*that Python has not"):
        run_full_sync("j", source, lambda batch: batch.dicts(), store=store)
    assert "4611686" not in str(store.load("j"))


def test_nested_values_that_python_has_arrive(tmp_path: Path) -> None:
    kinds = pa.map_(pa.string(), pa.time64("ns"))
    maps = pa.array([[("a", 86_400_000_000_000)], None, [], [("b", 5_000)]], kinds).slice(1)
    path = tmp_path / "out.jsonl"
    table = pa.table({"x": maps, "y": in_list(pa.timestamp("ns"), 1_000).take(pa.array([0, 0, 0]))})
    run_full_sync("j", Records(table, table.slice(3)), JSONLinesSink(path), store=MemoryJobStore())
    stamp = '"y":["1970-01-01T00:00:00.000001"]'
    rows = ["null", "[]", '[["b","00:00:00.000005"]]']
    assert path.read_text("utf-8").splitlines() == [f'{{"x":{row},{stamp}}}' for row in rows]


class Clock(pa.ExtensionType):  # type: ignore[misc]
    """Times with a name of their own."""

    def __init__(self) -> None:
        super().__init__(pa.time64("us"), "tests.clock")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, _storage: Any, _serialized: bytes) -> "Clock":
        return cls()


def clocks(*microseconds: int | None) -> Any:
    return pa.ExtensionArray.from_storage(Clock(), pa.array(microseconds, pa.time64("us")))


NOON, NONE_OF_PYTHON = 43_200_000_000, 86_400_000_000
TIMES = pa.array([NOON, NONE_OF_PYTHON], pa.time64("us"))
OTHER_KINDS = {
    "run-end-encoded": lambda place: pc.run_end_encode(TIMES).slice(place, 1),
    "dictionary": lambda place: pa.DictionaryArray.from_arrays([place], TIMES),
    "dictionary of lists": lambda place: pa.DictionaryArray.from_arrays(
        [place], pa.array([[NOON], [NONE_OF_PYTHON]], pa.list_(pa.time64("us")))
    ),
    "extension": lambda place: clocks([NOON, NONE_OF_PYTHON][place]),
    "list of extension": lambda place: pa.ListArray.from_arrays([0, 1], clocks([NOON, NONE_OF_PYTHON][place])),
    "union": lambda place: pa.UnionArray.from_dense(
        pa.array([0], pa.int8()), pa.array([0], pa.int32()), [TIMES.slice(place, 1), pa.array(["x"])]
    ),
    "map": lambda place: pa.MapArray.from_arrays([0, 1, 2], pa.array(["a", "b"]), TIMES).slice(place, 1),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_times_of_any_kind_of_array_are_python_s_or_refused(tmp_path: Path, kind: str) -> None:
    path, store = tmp_path / "out.jsonl", MemoryJobStore()
    run_full_sync("j", Records(pa.table({"x": OTHER_KINDS[kind](0)})), JSONLinesSink(path), store=store)
    assert "12:00:00" in path.read_text("utf-8")
    with pytest.raises(ValueError, match="column 'x' holds times that Python has not"):
        run_full_sync("k", Records(pa.table({"x": OTHER_KINDS[kind](1)})), lambda batch: batch.dicts(), store=store)


def test_arrays_without_times_are_not_looked_into(tmp_path: Path) -> None:
    texts = pa.array(["word", "other"])
    lists = pa.array([["word"], ["other"]])
    columns = {
        "a": pa.RunEndEncodedArray.from_arrays([1, 2], texts),
        "b": pa.DictionaryArray.from_arrays([1, 0], lists),
        "c": pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [texts, pa.array([1, 2])]),
        "d": pa.array([None, None], pa.map_(pa.string(), pa.time64("us"))),
        "e": pa.array([None, None], pa.null()),
    }
    path = tmp_path / "out.jsonl"
    run_full_sync("j", Records(pa.table(columns)), JSONLinesSink(path), store=MemoryJobStore())
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == [
        {"a": "word", "b": ["other"], "c": "word", "d": None, "e": None},
        {"a": "other", "b": ["word"], "c": 2, "d": None, "e": None},
    ]


def test_what_python_has_not_becomes_no_dead_letter(tmp_path: Path) -> None:
    path = tmp_path / "target.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x TEXT)")
    with SQLJobStore(f"sqlite:///{path}") as store:
        with pytest.raises(ValueError, match="column 'x' holds times that Python has not"):
            run_full_sync(
                "j", Records(pa.table({"x": TIMES})), SQLSink("t", "append"), store=store, on_refused="dead_letter"
            )
        assert list(store.dead_letters("j")) == []


def test_what_a_type_lacks_is_told_by_its_name() -> None:
    strange = pa.array([[0]], pa.list_(pa.timestamp("us", "Nowhere/Atall")))
    with pytest.raises(ValueError, match=r"column 'x' .*Nowhere/Atall"):
        run_full_sync("j", Records(pa.table({"x": strange})), lambda batch: batch.dicts(), store=MemoryJobStore())
