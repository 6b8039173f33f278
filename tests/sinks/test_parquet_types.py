"""What becomes of values in Parquet files: each arrives exactly, in a type that can hold it, or is refused."""

import datetime as dt
import json
import math
import re
import uuid
from collections.abc import Sequence
from decimal import Decimal
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pyarrow as pa
import pytest
from pyarrow import parquet
from sqlalchemy import create_engine, types
from sqlalchemy.dialects import mysql, postgresql
from typing_extensions import override

from resumable_sync import Column, ConfigurationError, CopyText, Format, Job, run_full_sync
from resumable_sync._formats import COPY_TEXT, POSTGRESQL_ARROW
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.parquet import ParquetSink
from resumable_sync.stores.memory import MemoryJobStore
from sinks.driving import batch, job

BERLIN = dt.timezone(dt.timedelta(hours=2))
MOMENT = dt.datetime(2026, 3, 29, 1, 30, 0, 123456)  # noqa: DTZ001 - the point
ZONED = MOMENT.replace(tzinfo=BERLIN)
UTC = ZONED.astimezone(dt.UTC)
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")
DOCUMENT = {"a": [1, 2.5, None, "ü"]}
JSON = '{"a":[1,2.5,null,"ü"]}'
INSTANT, NAIVE = pa.timestamp("us", tz="UTC"), pa.timestamp("us")


def written(sink: ParquetSink, path: Path, *batches: Any, columns: Sequence[Column] | None = None) -> pa.Table:
    if columns is not None:
        sink.prepare(columns)
    sink.checkpoint(job())
    sink.begin(job(), None)
    for number, (names, rows) in enumerate(batches):
        sink.write(batch(rows, names, number=number), None)
    sink.complete(job(), None)
    return pa.concat_tables([parquet.read_table(file) for file in sorted(path.glob("*.parquet"))])


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    BIG = 7


# Type of the source, value, type and value in the file.
KEPT: dict[str, tuple[Any, Any, Any, Any]] = {
    "integer": (types.Integer(), 2**62, pa.int64(), 2**62),
    "enumerated number": (types.SmallInteger(), Size.BIG, pa.int64(), 7),
    "unsigned": (mysql.BIGINT(unsigned=True), 2**64 - 1, pa.uint64(), 2**64 - 1),
    "boolean": (types.Boolean(), True, pa.bool_(), True),
    "boolean of a driver without any": (types.Boolean(), 0, pa.bool_(), False),
    "float": (types.Float(), 0.1 + 0.2, pa.float64(), 0.1 + 0.2),
    "infinity": (types.Double(), -math.inf, pa.float64(), -math.inf),
    "money": (types.Numeric(12, 2), Decimal("19.9"), pa.decimal128(12, 2), Decimal("19.90")),
    "money of SQLite": (types.Numeric(12, 2), 19.9, pa.decimal128(12, 2), Decimal("19.90")),
    "whole money of SQLite": (types.Numeric(12, 2), 20, pa.decimal128(12, 2), Decimal("20.00")),
    "decimal of SQLite as text": (types.Numeric(12, 2), "0.10", pa.decimal128(12, 2), Decimal("0.10")),
    "long decimal": (types.Numeric(50, 10), Decimal(10) ** 39, pa.decimal256(50, 10), Decimal(10) ** 39),
    "free decimal": (types.Numeric(), Decimal("-0.10"), pa.decimal128(38, 18), Decimal("-0.10")),
    "rounded decimal": (types.Numeric(3, -2), Decimal(12300), pa.decimal128(5, 0), Decimal(12300)),
    "small decimal": (types.Numeric(2, 5), Decimal("0.00012"), pa.decimal128(5, 5), Decimal("0.00012")),
    "text": (types.String(3), "naïve ☃ 🎉 \\ \t\n'", pa.string(), "naïve ☃ 🎉 \\ \t\n'"),
    "enumeration": (types.Enum("red", name="colours"), Colour.RED, pa.string(), "red"),
    "bytes": (types.LargeBinary(), b"\0\xff", pa.binary(), b"\0\xff"),
    "buffer": (types.LargeBinary(), bytearray(b"ab"), pa.binary(), b"ab"),
    "datetime": (types.DateTime(), MOMENT, NAIVE, MOMENT),
    "datetime of SQLite": (types.DateTime(), "2026-03-29 01:30:00.123456", NAIVE, MOMENT),
    "datetime of nine digits": (types.DateTime(), "2026-03-29 01:30:00.123456000", NAIVE, MOMENT),
    "old datetime": (types.DateTime(), MOMENT.replace(year=1), NAIVE, MOMENT.replace(year=1)),
    "instant": (types.DateTime(timezone=True), ZONED, INSTANT, UTC),
    "date": (types.Date(), dt.date(1, 2, 3), pa.date32(), dt.date(1, 2, 3)),
    "date of SQLite": (types.Date(), "2026-01-31", pa.date32(), dt.date(2026, 1, 31)),
    "time": (types.Time(), dt.time(23, 59, 58, 7), pa.time64("us"), dt.time(23, 59, 58, 7)),
    "time of nine digits": (types.Time(), "23:59:58.000007000", pa.time64("us"), dt.time(23, 59, 58, 7)),
    "time of MySQL": (types.Time(), dt.timedelta(hours=1), pa.time64("us"), dt.time(1)),
    "time with a zone": (types.Time(timezone=True), dt.time(1, tzinfo=BERLIN), pa.string(), "01:00:00+02:00"),
    "interval": (postgresql.INTERVAL(), dt.timedelta(-1, 1), pa.duration("us"), dt.timedelta(-1, 1)),
    "uuid": (types.Uuid(), ID, pa.string(), str(ID)),
    "JSON decoded": (postgresql.JSONB(), DOCUMENT, pa.string(), JSON),
    "JSON text decoded": (postgresql.JSON(), "null", pa.string(), '"null"'),
    "JSON as text": (types.JSON(), '{"a": 1}', pa.string(), '{"a": 1}'),
    "array": (types.ARRAY(types.Integer()), [1, None], pa.list_(pa.int64()), [1, None]),
    "unknown": (types.NullType(), ID, pa.string(), str(ID)),
}


def test_values_of_columns_that_the_source_knows(tmp_path: Path) -> None:
    columns = [Column(name=name, type=kept[0]) for name, kept in KEPT.items()]
    names = list(KEPT)
    # In the first batch no column but the unknown has a value.
    nothing = [*[None] * (len(KEPT) - 1), ID]
    values = [kept[1] for kept in KEPT.values()]
    table = written(ParquetSink(tmp_path), tmp_path, (names, [nothing]), (names, [values, nothing]), columns=columns)
    assert {name: table.schema.field(name).type for name in names} == {name: kept[2] for name, kept in KEPT.items()}
    _, row, _ = table.to_pylist()
    assert row == {name: kept[3] for name, kept in KEPT.items()}


INFERRED: dict[str, tuple[list[Any], Any]] = {
    "flag": ([True, None], pa.bool_()),
    "number": ([1, None], pa.int64()),
    "float": ([1, 0.5], pa.float64()),
    "decimal": ([Decimal("1.50"), 2], pa.decimal128(38, 18)),
    "fine decimal": ([Decimal("1E-25"), None], pa.decimal128(38, 25)),
    "long decimal": ([Decimal(10**30), None], pa.decimal128(38, 7)),
    "wide decimal": ([Decimal(10**30), Decimal("1E-30")], pa.decimal256(61, 30)),
    "text": (["a", ID], pa.string()),
    "bytes": ([b"a", None], pa.binary()),
    "instant": ([ZONED, UTC], INSTANT),
    "datetime": ([MOMENT, None], NAIVE),
    "date": ([dt.date(2026, 1, 31), None], pa.date32()),
    "time": ([dt.time(1), None], pa.time64("us")),
    "interval": ([dt.timedelta(1), None], pa.duration("us")),
    "document": ([DOCUMENT, [1]], pa.string()),
    "nothing": ([None, None], pa.string()),
}


def test_the_first_batch_decides_where_the_source_knows_no_columns(tmp_path: Path) -> None:
    rows = [{name: values[place] for name, (values, _) in INFERRED.items()} for place in range(2)]
    del rows[0]["nothing"]
    sink = ParquetSink(tmp_path)
    table = written(sink, tmp_path, (None, rows), (None, [{}]))
    assert {name: table.schema.field(name).type for name in INFERRED} == {
        name: kind for name, (_, kind) in INFERRED.items()
    }
    first, second, third = table.to_pylist()
    assert [first["document"], second["document"]] == [JSON, "[1]"]
    assert [second["text"], second["instant"], second["decimal"]] == [str(ID), UTC, 2]
    assert set(third.values()) == {None}


MISFITS = [
    (1, "secret", r"column 'x' was given a str, and is int64; .* types=\{'x': ...\}"),
    (1, 2**63, "holds a value that does not fit int64"),
    (1, Decimal("1.5"), "was given a number that is not whole"),
    (True, 7777, "was given a number other than 0 and 1"),
    (0.5, 2**60 + 1, "does not fit double"),
    (0.5, Decimal("0.1"), "was given a Decimal, and is double"),
    (Decimal(1), Decimal("1E-30"), r"does not fit decimal128\(38, 18\)"),
    (Decimal(1), Decimal("NaN"), r"does not fit decimal128\(38, 18\)"),
    (Decimal(1), math.nan, "was given NaN or an infinity"),
    (Decimal(1), "secret", r"does not fit decimal128\(38, 18\)"),
    ("a", b"secret", "was given a bytes, and is string"),
    ("a", "secret\ud83d", "does not fit string"),
    ({"a": 1}, {"a": math.nan}, "does not fit string"),
    (b"a", "secret", "was given a str, and is binary"),
    (UTC, MOMENT, "was given a time without a zone"),
    (MOMENT, ZONED, "was given a time with a zone, and has none"),
    (MOMENT, "2026-03-29T01:30:00+02:00", "was given a time with a zone, and has none"),
    (MOMENT, 7777, r"was given a int, and is timestamp\[us\]"),
    (MOMENT, "secret", r"does not fit timestamp\[us\]"),
    (dt.date(2026, 1, 1), MOMENT, "was given a time of a day"),
    (dt.time(1), dt.time(1, tzinfo=BERLIN), "was given a time of day with a zone"),
    (dt.time(1), dt.timedelta(2), "outside of 0 to 24 hours"),
]


@pytest.mark.parametrize(("first", "second", "message"), MISFITS)
def test_a_later_value_that_does_not_fit(tmp_path: Path, first: Any, second: Any, message: str) -> None:
    sink = ParquetSink(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        written(sink, tmp_path, (["x"], [(first,)]), (["x"], [(second,)]))
    shown = "".join([str(caught.value), repr(caught.value.__context__)])
    assert "secret" not in shown
    assert "7777" not in shown


@pytest.mark.parametrize(
    ("names", "rows", "message"),
    [
        (["a"], [(1,), ("secret",)], r"column 'a' holds values of the types int, str; .* types=\{'a': ...\}"),
        (["a"], [(object(),)], "column 'a' holds values of the types object"),
        (["a"], [(MOMENT,), (UTC,)], "times with and without a zone"),
        (["a", "a"], [(1, 2)], "two columns of the same name"),
        (["a"], [(1, 2)], "a record has not 1 values"),
        (None, [(1, 2)], "takes dicts, tuples with column names"),
        (None, ["secret"], "takes dicts, tuples with column names"),
        (None, [{}, {}], "the records have no columns"),
        ([], [(), ()], "the records have no columns"),
        (None, pa.table({"a": [1]}).select([]), "the records have no columns"),
        (None, [{7: 1}], "a column whose name is a int; name columns by texts"),
    ],
)
def test_records_that_make_no_columns(tmp_path: Path, names: Any, rows: Any, message: str) -> None:
    with pytest.raises((ValueError, ConfigurationError), match=message) as caught:
        written(ParquetSink(tmp_path), tmp_path, (names, rows))
    assert "secret" not in str(caught.value)


def test_a_later_record_with_another_column(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has the column 'b', which the files of this run lack"):
        written(ParquetSink(tmp_path), tmp_path, (None, [{"a": 1}]), (None, [{"a": 1, "b": 2}]))


def test_arrow_data(tmp_path: Path) -> None:
    first = pa.table({"a": pa.array(["x", "y"]).dictionary_encode(), "b": pa.array([[1], None])})
    second = pa.table({"b": pa.array([[2]]), "a": ["z"]}).to_batches()[0]
    sink = ParquetSink(tmp_path / "t", compression="zstd")
    table = written(sink, tmp_path / "t", (None, first), (None, second))
    assert table.schema.types == [pa.string(), pa.list_(pa.int64())]
    assert table.to_pydict() == {"a": ["x", "y", "z"], "b": [[1], None, [2]]}
    with pytest.raises(ValueError, match="column 'a' holds list<item: int64> where the files of this run hold string"):
        written(ParquetSink(tmp_path / "u"), tmp_path / "u", (None, first), (None, pa.table({"a": [[1]], "b": [[1]]})))


def test_types_by_name(tmp_path: Path) -> None:
    named = {"a": "int16", "b": "decimal(9, 3)", "c": "timestamp[ms, Europe/Berlin]", "d": "string", "e": "double"}
    rows = [(1, "1.5", UTC.replace(microsecond=0), 7, None)]
    table = written(ParquetSink(tmp_path, types=named), tmp_path, (list("abcde"), rows))
    expected = [pa.int16(), pa.decimal128(9, 3), pa.timestamp("ms", "Europe/Berlin"), pa.string(), pa.float64()]
    assert table.schema.types == expected
    assert list(table.to_pylist()[0].values()) == [1, Decimal("1.5"), UTC.replace(microsecond=0), "7", None]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("timestamp[s]", MOMENT, r"was given a part of a second that timestamp\[s\] has no place for"),
        ("timestamp[ms, UTC]", ZONED, "was given a part of a second that timestamp"),
        ("time32[ms]", MOMENT.time(), r"was given a part of a second that time32\[ms\] has no place for"),
        ("duration[s]", dt.timedelta(-1, microseconds=1), "was given a part of a second"),
        ("timestamp[us]", ZONED, "was given a time with a zone, and has none"),
        ("float", 1e300, "was given a number that float has no room for"),
        # Which takes no numbers of Python's in earlier versions of pyarrow.
        ("halffloat", 1e30, "was given a number that halffloat has no room for|a value that does not fit halffloat"),
    ],
)
def test_a_named_type_drops_nothing(tmp_path: Path, name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        written(ParquetSink(tmp_path, types={"a": name}), tmp_path, (["a"], [(value,)]))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([MOMENT]), pa.array([ZONED], INSTANT)),
        (pa.array([ZONED], INSTANT), pa.array([MOMENT])),
        (pa.array([dt.date(2026, 1, 31)]), pa.array([MOMENT])),
        (pa.array([dt.time(1)]), pa.array([MOMENT])),
        (pa.array([True]), pa.array([2])),
        (pa.array([1.5], pa.float32()), pa.array([0.1, math.nan])),
        (pa.array([Decimal("1.5")]), pa.array([1.26])),
        (pa.array([1.5]), pa.array([Decimal("0.1234567890123456789")])),
    ],
    ids=str,
)
def test_arrow_data_of_another_type_that_would_lose_something(tmp_path: Path, first: Any, second: Any) -> None:
    tables = [(None, pa.table({"a": one})) for one in (first, second)]
    with pytest.raises(ValueError, match=f"column 'a' holds {re.escape(str(second.type))} where the files of this run"):
        written(ParquetSink(tmp_path), tmp_path, *tables)


def test_arrow_data_of_another_type_that_fits(tmp_path: Path) -> None:
    first = pa.table({"a": [1.5], "b": [Decimal("10.25")], "c": pa.array([1], pa.int64()), "d": [MOMENT]})
    second = pa.table({
        "a": pa.array([0.5, math.nan], pa.float32()),
        "b": [1.5, None],
        "c": [2.0, None],
        "d": [MOMENT, None],
    })
    found = written(ParquetSink(tmp_path), tmp_path, (None, first), (None, second)).to_pydict()
    assert math.isnan(found["a"].pop())
    assert found == {
        "a": [1.5, 0.5],
        "b": [Decimal("10.25"), Decimal("1.50"), None],
        "c": [1, 2, None],
        "d": [MOMENT, MOMENT, None],
    }


POSTGRES = """CREATE TABLE t (id integer PRIMARY KEY, big bigint, flag boolean, real4 real, real8 double precision,
    money numeric(12,2), free numeric, letters text, fixed char(3), raw bytea, at timestamp, instant timestamptz,
    day date, moment time, zoned timetz, span interval, uid uuid, doc json, docb jsonb, nums integer[],
    words text[], addr inet);
INSERT INTO t VALUES (1, 9223372036854775807, true, 0.1, 0.1, 12.30, 0.123456789012345678, E'a\\tb\\\\n\\n""', 'x',
    '\\x00ff', '2026-03-29 01:30:00.5', '2026-03-29 01:30:00.5+02', '0001-02-03', '23:59:59.000001', '01:00+02',
    '1 day -1 second', '12345678-1234-5678-1234-567812345678', '{"a" : 1.50}', '{"a": "ü"}', '{1,NULL}', '{"a,b",NULL}',
    '10.0.0.1/8');
INSERT INTO t VALUES (2), (3);
"""


def test_from_postgresql(postgres_url: str, tmp_path: Path) -> None:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        for statement in POSTGRES.split(";\n")[:-1]:
            connection.exec_driver_sql(statement)
    engine.dispose()
    sink = ParquetSink(tmp_path)
    source = SQLConnector(postgres_url, "t")
    assert run_full_sync("copy", source, sink, store=MemoryJobStore(), batch_size=2).format == "records"
    source.close()
    table = pa.concat_tables([parquet.read_table(file) for file in sorted(tmp_path.glob("*.parquet"))])
    assert table.schema.field("money").type == pa.decimal128(12, 2)
    assert [table.schema.field(name).type for name in ("at", "instant")] == [NAIVE, INSTANT]
    first, *others = table.to_pylist()
    assert others == [{**dict.fromkeys(first), "id": number} for number in (2, 3)]
    assert (json.loads(first.pop("doc")), json.loads(first.pop("docb"))) == ({"a": 1.5}, {"a": "ü"})
    assert first == {
        "id": 1,
        "big": 2**63 - 1,
        "flag": True,
        "real4": 0.1,
        "real8": 0.1,
        "money": Decimal("12.30"),
        "free": Decimal("0.123456789012345678"),
        "letters": 'a\tb\\n\n""',
        "fixed": "x  ",
        "raw": b"\x00\xff",
        "at": dt.datetime(2026, 3, 29, 1, 30, 0, 500000),  # noqa: DTZ001 - it has none
        "instant": dt.datetime(2026, 3, 28, 23, 30, 0, 500000, tzinfo=dt.UTC),
        "day": dt.date(1, 2, 3),
        "moment": dt.time(23, 59, 59, 1),
        "zoned": "01:00:00+02:00",
        "span": dt.timedelta(1, -1),
        "uid": str(ID),
        "nums": [1, None],
        "words": ["a,b", None],
        "addr": "10.0.0.1/8",
    }


EDGES: dict[str, list[str]] = {
    "smallint": ["-32768"],
    "bigint": ["9223372036854775807", "-9223372036854775808"],
    "boolean": ["true", "false"],
    "real": ["0.1", "'NaN'", "'-Infinity'", "'-0'", "1e-45"],
    "double precision": ["0.1", "5e-324", "1.7976931348623157e308", "'NaN'", "'Infinity'", "'-0'"],
    "numeric(12,2)": ["-9999999999.99", "0", "0.01"],
    "numeric(38,0)": ["99999999999999999999999999999999999999"],
    "numeric(38,38)": ["-0.99999999999999999999999999999999999999"],
    "numeric(60,20)": ["1234567890123456789012345678901234567890.00000000000000000001"],
    "numeric": ["99999999999999999999.999999999999999999", "-9999999999999999999.5", "0.000000000000000001"],
    "text": ["''", r"E'\\N'", r"E'\\\\N\t\r\n\x08\x0b\x0c\"'", "'NULL'", "' ü🎉 '", r"E'\\.'", "'t'"],
    "character(3)": ["'x'"],
    "character varying(3)": ["''", "'abc'"],
    "bytea": ["''", r"'\x00ff5c0a'", r"'\x'"],
    "timestamp": ["'0001-01-01 00:00:00'", "'9999-12-31 23:59:59.999999'", "'1969-12-31 23:59:59.5'"],
    "timestamptz": ["'0002-01-01 00:00:00Z'", "'9999-12-30 23:59:59.999999Z'", "'1969-12-31 23:59:59.5+05:30'"],
    "date": ["'0001-01-01'", "'9999-12-31'"],
    "time": ["'00:00'", "'23:59:59.999999'"],
    "uuid": ["'12345678-1234-5678-1234-567812345678'"],
    "json": ['\'{"a" : [1.50, null, "\\u00fc\\n"]}\'', "'\"text\"'", "'null'", "'7'", "'1e2'"],
    "jsonb": ['\'{"b": 1.50, "a": "ü"}\'', "'\"\"'", "'[]'", "'true'"],
}


class Only(ParquetSink):
    """Takes one form alone."""

    def __init__(self, path: Path, form: str) -> None:
        super().__init__(path)
        self._form = form

    @override
    def takes(self, format_: Format, job: Job, /) -> bool:
        return format_.name == self._form and super().takes(format_, job)


@pytest.mark.parametrize(
    ("form", "settings"),
    [
        (COPY_TEXT, "TimeZone=UTC"),
        (COPY_TEXT, "TimeZone=Africa/Monrovia"),
        (COPY_TEXT, "bytea_output=escape"),
        (POSTGRESQL_ARROW, "TimeZone=Africa/Monrovia"),
    ],
)
def test_other_forms_of_records_make_the_same_files(
    postgres_url: str, tmp_path: Path, form: str, settings: str
) -> None:
    engine = create_engine(postgres_url)
    columns = {
        f"c{place}": (kind, values)
        for place, (kind, values) in enumerate(EDGES.items())
        if kind != "real" or form == COPY_TEXT
    }
    with engine.begin() as connection:
        definitions = ", ".join(f"{name} {kind}" for name, (kind, _) in columns.items())
        connection.exec_driver_sql(f"CREATE TABLE t (id integer PRIMARY KEY, {definitions})")
        for number in range(8):
            row = ", ".join((values[number : number + 1] or ["NULL"])[0] for _, values in columns.values())
            connection.exec_driver_sql(f"INSERT INTO t VALUES ({number}, {row})".replace("%", "%%"))
    engine.dispose()
    made = []
    source = SQLConnector(f"{postgres_url}?options=-c%20{settings}", "t")
    for each in ("records", form):
        folder = tmp_path / each
        result = run_full_sync("copy", source, Only(folder, each), store=MemoryJobStore(), batch_size=3)
        assert result.format == each
        tables = [parquet.read_table(file) for file in sorted(folder.glob("*.parquet"))]
        assert len(tables) == 3
        made.append(pa.concat_tables(tables))
    source.close()
    records, copied = made
    assert copied.schema == records.schema
    for name in records.schema.names:
        # As texts: NaN is not equal to itself, and -0 is to 0.
        assert list(map(repr, copied[name].to_pylist())) == list(map(repr, records[name].to_pylist())), columns[name]


@pytest.mark.parametrize("value", ["12345678901234567890123", "1e-19", "'NaN'"])
def test_a_number_that_no_column_has_room_for(postgres_url: str, tmp_path: Path, value: str) -> None:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id integer PRIMARY KEY, x numeric)")
        connection.exec_driver_sql(f"INSERT INTO t VALUES (1, {value})")
    engine.dispose()
    source = SQLConnector(postgres_url, "t")
    for form in ("records", COPY_TEXT, POSTGRESQL_ARROW):
        with pytest.raises(ValueError, match=r"column 'x' .* name a type in types=") as caught:
            run_full_sync("copy", source, Only(tmp_path / "t", form), store=MemoryJobStore())
        assert "12345" not in str(caught.value)
    source.close()


@pytest.mark.parametrize(
    "moment", ["timestamp 'infinity'", "timestamptz '-infinity'", "date 'infinity'", "date '10000-1-1'", "time '24:00'"]
)
def test_times_that_python_has_not(postgres_url: str, tmp_path: Path, moment: str) -> None:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE t AS SELECT 1 AS id, {moment} AS x")
        connection.exec_driver_sql("ALTER TABLE t ADD PRIMARY KEY (id)")
    engine.dispose()
    source = SQLConnector(postgres_url, "t")
    with pytest.raises(psycopg.DataError):
        run_full_sync("copy", source, Only(tmp_path / "t", "records"), store=MemoryJobStore())
    for form in (COPY_TEXT, POSTGRESQL_ARROW):
        with pytest.raises(ValueError, match="column 'x' holds"):
            run_full_sync("copy", source, Only(tmp_path / "t", form), store=MemoryJobStore())
    source.close()


def test_text_of_copy_that_begins_like_a_file(postgres_url: str, tmp_path: Path) -> None:
    words = ["\ufeff", "\ufeff\ufeff", "\ufeffa\t\\b", "\ufeffc"]
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql('CREATE TABLE t (word text COLLATE "C" PRIMARY KEY)')
        connection.exec_driver_sql("INSERT INTO t VALUES (%s)", [(word,) for word in words])
    engine.dispose()
    source = SQLConnector(postgres_url, "t")
    for form in ("records", COPY_TEXT, POSTGRESQL_ARROW):
        run_full_sync("copy", source, Only(tmp_path / form, form), store=MemoryJobStore(), batch_size=1)
        assert sorted(parquet.read_table(tmp_path / form)["word"].to_pylist()) == sorted(words), form
    source.close()


def test_text_of_copy_that_does_not_fit(tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path, types={"a": "int16"})
    columns = [Column(name="a", type=types.Integer()), Column(name="b", type=types.Numeric(4, 2))]
    form = Format(name="postgresql-copy-text", columns=("a", "b"), types=("integer", "numeric"))
    with pytest.raises(ValueError, match="column 'a' holds a value that does not fit int16"):
        written(sink, tmp_path, (["a", "b"], CopyText(b"40000\t1.00\n", 1)), columns=columns)
    assert sink.takes(form, job())
    # The table was altered meanwhile.
    with pytest.raises(ValueError, match=r"column 'b' holds a value that does not fit decimal128\(4, 2\)"):
        written(sink, tmp_path, (["a", "b"], CopyText(b"1\t123\n", 1)), columns=columns)
    with pytest.raises(ValueError, match="text has 1 rows, and 2 were counted"):
        written(sink, tmp_path, (["a", "b"], CopyText(b"1\t1.00\n", 2)), columns=columns)
    for other in (("integer", "interval"), ("text", "numeric"), ("integer", "")):
        assert not sink.takes(attrs.evolve(form, types=other), job())
    assert not sink.takes(attrs.evolve(form, name="another"), job())
    assert not sink.takes(attrs.evolve(form, columns=("a", "c")), job())


def test_from_sqlite(sqlite_url: str, tmp_path: Path) -> None:
    engine = create_engine(sqlite_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, flag BOOLEAN, price DECIMAL(10, 2), at DATETIME, day DATE,"
            " raw BLOB, note VARCHAR(9), weight REAL, doc JSON)"
        )
        connection.exec_driver_sql(
            "INSERT INTO t VALUES (1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (9223372036854775807, 1, 19.9,"
            " '2026-03-29 01:30:00.123456', '2026-01-31', x'00ff', 'é', 2, '{\"a\": 1}')"
        )
    engine.dispose()
    source = SQLConnector(sqlite_url, "t")
    run_full_sync("copy", source, ParquetSink(tmp_path), store=MemoryJobStore(), batch_size=1)
    source.close()
    table = pa.concat_tables([parquet.read_table(file) for file in sorted(tmp_path.glob("*.parquet"))])
    assert list(table.to_pylist()[1].values()) == [
        2**63 - 1,
        True,
        Decimal("19.90"),
        MOMENT,
        dt.date(2026, 1, 31),
        b"\x00\xff",
        "é",
        2.0,
        '{"a": 1}',
    ]


@pytest.mark.parametrize(
    ("declared", "text"),
    [("DATETIME", "2026-01-31 12:00:00.123456789"), ("TIME", "12:00:00.1234567"), ("TIME", "12:00:00,0000001")],
)
def test_parts_of_a_microsecond_from_sqlite(sqlite_url: str, tmp_path: Path, declared: str, text: str) -> None:
    engine = create_engine(sqlite_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE t (id INTEGER PRIMARY KEY, x {declared})")
        connection.exec_driver_sql("INSERT INTO t VALUES (1, ?)", (text,))
    engine.dispose()
    source = SQLConnector(sqlite_url, "t")
    with pytest.raises(ValueError, match="column 'x' was given a time of more than six decimals") as caught:
        run_full_sync("copy", source, ParquetSink(tmp_path), store=MemoryJobStore())
    source.close()
    assert text not in str(caught.value)


def test_parts_of_a_microsecond_of_an_instant(tmp_path: Path) -> None:
    columns = [Column(name="a", type=types.DateTime(timezone=True))]
    with pytest.raises(ValueError, match="column 'a' was given a time of more than six decimals"):
        written(ParquetSink(tmp_path), tmp_path, (["a"], [("2026-01-31T12:00:00.1234567Z",)]), columns=columns)
