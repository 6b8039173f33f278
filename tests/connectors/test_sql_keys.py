"""Every type that can be a key is read exactly on every database, wherever the reading is cut; others are refused."""

import random
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from sqlalchemy import create_engine, event, make_url
from sqlalchemy.exc import NotSupportedError
from sqlalchemy.pool import NullPool

from resumable_sync._cursor import decode_cursor, encode_cursor
from resumable_sync._errors import ConfigurationError
from resumable_sync.connectors._keyset import KeyPart, parse_key
from resumable_sync.connectors.sql import SQLConnector

SIZES = (1, 2, 5, 1_000)


def execute(url: str, *statements: str, rows: Sequence[tuple[Any, ...]] = ()) -> None:
    """Run statements; the last one once for each of `rows`, if there are any."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements[: -1 if rows else None]:
            connection.exec_driver_sql(statement)
        if rows:
            connection.exec_driver_sql(statements[-1], list(rows))


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    engine = create_engine(url, poolclass=NullPool)
    if url.startswith("mysql"):

        @event.listens_for(engine, "connect")
        def utc(connection: Any, _record: Any) -> None:
            connection.cursor().execute("SET time_zone = '+00:00'")

    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(statement)]


def shown(rows: Sequence[Any]) -> list[str]:
    """Rows as text: NaN does not equal itself, and 1 equals 1.0."""
    return [repr(row) for row in rows]


def assert_exact(make: Callable[[], SQLConnector], expected: list[tuple[Any, ...]]) -> None:
    """Cut the reading after pages of every size, and go on with other sizes in a fresh connector."""
    rests: dict[str, int] = {}
    with closing(make()) as connector:
        for size in SIZES:
            position = 0
            for page in connector.read(None, size):
                assert shown(page.records) == shown(expected[position : position + len(page)])
                assert len(page) <= size
                position += len(page)
                rests[encode_cursor(page.cursor)] = position
            assert position == len(expected)
    assert len(rests) >= len(expected)
    with closing(make()) as resumed:
        few = len(expected) < 15
        for text, position in list(rests.items())[:: 1 if few else 3]:
            for size in (2, 1_000) if few else (7,):
                rest = [row for page in resumed.read(decode_cursor(text), size) for row in page.records]
                assert shown(rest) == shown(expected[position:]), text
        for offset in (0, 1, len(expected) // 2, len(expected), len(expected) + 1):
            cursor = resumed.cursor_at(offset)
            if 0 < offset <= len(expected):
                rest = [row for page in resumed.read(cursor, 4) for row in page.records]
                assert shown(rest) == shown(expected[offset:])
            else:
                assert cursor is None
        assert resumed.count() == len(expected)
        # Every part looks at the table again: not as many as there are words.
        parts = min(4, len(expected))
        split = [connector.part(part.place) for connector in (make(),) for part in resumed.split(parts)]
        read = [[row for page in part.read(None, 2) for row in page.records] for part in split]
        assert shown([row for rows in read for row in rows]) == shown(expected)
        sizes = [len(rows) for rows in read]
        assert len(sizes) == parts
        assert max(sizes) - min(sizes) <= 1
        assert [part.count() for part in split] == sizes


RANDOM = random.Random(20261124)
WORDS = [
    "",
    "a",
    "A",
    "b",
    "B",
    "a b",
    "a'b",
    'a"b',
    "a\\b",
    "a%b",
    "a:b",
    "ä",
    "Ä",
    "ß",
    "ss",
    "z",
    "Z",
    "é",
    "e\u0301",
]
WORDS += ["日本", "\U0001f600", "a\nb", "null", "1", "10", "2", "_", "%s", "%(x)s", "?", "~", "aa", "AA", "x" * 100]
UUIDS = sorted(str(uuid.UUID(int=RANDOM.getrandbits(128), version=4)) for _ in range(12))
BLOBS = [bytes([byte]) for byte in range(0, 256, 5)] + [
    b"\x00\x00",
    b"\x00a",
    b"'",
    b"\\",
    b"%s",
    b"\xff\xfe",
    bytes(range(256)),
]
FLOATS = [
    0.1,
    1 / 3,
    2 / 3,
    1e-300,
    5e-324,
    1.7976931348623157e308,
    -1.5,
    0.0,
    1e16 + 2,
    123456789.123456789,
    -1e-5,
    2.5e-8,
]
FLOATS += [RANDOM.uniform(-1e6, 1e6) for _ in range(10)]
DECIMALS = [
    "0",
    "-1.5",
    "0.00001",
    "12345678901234.56789",
    "12345678901234.56788",
    "99999999999999.99999",
    "0.1",
    "0.10001",
]
DATES = ["0001-01-01", "0099-12-31", "1582-10-10", "1969-12-31", "1970-01-01", "2000-02-29", "2026-11-24", "9999-12-31"]
STAMPS = [
    "0001-01-01 00:00:00",
    "1969-12-31 23:59:59.999999",
    "2026-10-25 02:30:00.000001",
    "2026-10-25 02:30:00.000002",
]
STAMPS += ["2026-10-25 02:30:00", "2026-03-29 02:30:00", "2026-11-24 12:00:00.123", "9999-12-31 23:59:59.999999"]
# In UTC: the hour that comes twice in Europe and in New York, and the one before the epoch.
ZONED = [f"2026-10-25 {hour:02}:{minute:02}:00+00" for hour in (0, 1, 2) for minute in (0, 15, 30)]
ZONED += [f"2026-11-01 {hour:02}:30:00+00" for hour in (4, 5, 6, 7)] + ["1999-12-31 23:59:59.999999+00"]
INTEGERS = [0, 1, -1, 2**31 - 1, 2**31, -(2**31) - 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 42, 43]

Case = tuple[str, list[Any]]
POSTGRES: dict[str, Case] = {
    "bigint": ("bigint", INTEGERS),
    "smallint": ("smallint", [-32768, -1, 0, 1, 32767]),
    "text": ("text", WORDS),
    "text C": ('text COLLATE "C"', WORDS),
    "text ICU": ('text COLLATE "und-x-icu"', WORDS),
    "text case-insensitive": ("text COLLATE caseless", ["a", "B", "c", "Ä", "b2", "", "Z"]),
    "varchar": ("varchar(200)", WORDS),
    "char": ("char(5)", ["", "a", "ab", "abc", "b", "B", "abcde"]),
    "enum": ("mood", ["sad", "ok", "happy"]),
    "uuid": ("uuid", UUIDS),
    "numeric": ("numeric", [*DECIMALS, "NaN", "Infinity", "-Infinity", "1e50", "1.50", "0.000000000000000000000001"]),
    "numeric(20,5)": ("numeric(20,5)", DECIMALS),
    "double": ("double precision", [*FLOATS, "NaN", "Infinity", "-Infinity"]),
    "real": ("real", [0.1, 0.2, 1 / 3, 16777216.0, 16777218.0, 1e-40, 3.4e38, "NaN", "Infinity", "-Infinity"]),
    "date": ("date", DATES),
    "timestamp": ("timestamp", STAMPS),
    "timestamp(3)": ("timestamp(3)", ["2026-01-01 00:00:00.001", "2026-01-01 00:00:00.002", "2026-01-01"]),
    "timestamptz": ("timestamptz", ZONED),
    "time": ("time", ["00:00", "23:59:59.999999", "12:00:00.000001"]),
    "bytea": ("bytea", BLOBS),
    "boolean": ("boolean", [False, True]),
    "inet": ("inet", ["10.0.0.1", "10.0.0.0/8", "::1"]),
}
MARIADB: dict[str, Case] = {
    "bigint": ("bigint", INTEGERS),
    "bigint unsigned": ("bigint unsigned", [0, 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1]),
    "text bin": ("varchar(150) COLLATE utf8mb4_bin", WORDS),
    "text case-insensitive": (
        "varchar(150) COLLATE utf8mb4_general_ci",
        ["a", "B", "c", "ä b", "b2", "", "Z", "'", "\\", "%"],
    ),
    "text nopad": ("varchar(20) COLLATE utf8mb4_nopad_bin", ["a", "a ", "a  ", "b", " ", ""]),
    "text latin1": ("varchar(20) CHARACTER SET latin1", ["a", "ö", "ü", "z", "é1", "%"]),
    "char": ("char(5)", ["", "a", "ab", "abc", "b", "abcde"]),
    "uuid": ("uuid", UUIDS),
    "decimal": ("decimal(20,5)", DECIMALS),
    "double": ("double", FLOATS),
    "date": ("date", [*DATES, "0000-00-00", "2024-00-15"]),
    "datetime(6)": ("datetime(6)", STAMPS),
    "datetime": ("datetime", ["2026-10-25 02:30:00", "2026-10-25 02:30:01", "0001-01-01", "0000-00-00 00:00:00"]),
    "timestamp(6)": ("timestamp(6)", [text.removesuffix("+00") for text in ZONED]),
    "varbinary": ("varbinary(300)", BLOBS),
    "binary": ("binary(4)", [b"\x00\x00\x00\x00", b"a\x00\x00\x00", b"ab\x00\x00", b"\xff\xff\xff\xff", b"'\\%s"]),
    "boolean": ("boolean", [False, True]),
    "inet6": ("inet6", ["::1", "10::2", "ffff::"]),
}
SQLITE: dict[str, Case] = {
    "integer": ("integer", INTEGERS),
    "text": ("text", WORDS),
    "text nocase": ("text collate nocase", ["a", "B", "c", "ä", "b2", "", "Z", "'"]),
    "text rtrim": ("text collate rtrim", ["a", "b  ", "c ", "", "a b"]),
    "real": ("real", [*FLOATS, float("inf"), float("-inf")]),
    "numeric": ("numeric(20,5)", [1, 1.5, 2**63 - 1, 1e30, "text", b"blob", "10x"]),
    "uuid": ("char(36)", UUIDS),
    "date": ("date", DATES),
    "datetime": ("datetime", STAMPS),
    "blob": ("blob", BLOBS),
    "any": ("", [1, 1.5, "1", "a", b"1", b"", "", -7, 2**63 - 1, 1e300, "10", "9"]),
    "mixed in int": ("int", [1, 2, "x", "y", b"\x00", 1.5]),
    "mixed in text": ("text", ["1", "2", "x", b"\x00", b"1"]),
}
CASES = [
    pytest.param(kind, column, values, id=f"{kind} {name}")
    for kind, cases in (("sqlite", SQLITE), ("postgresql", POSTGRES), ("mariadb", MARIADB))
    for name, (column, values) in cases.items()
]
COLLATION = "CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
ZERO_DATES = "SET SESSION sql_mode = ''"


def fill(url: str, column: str, values: Sequence[Any], *, nullable: bool = False) -> None:
    mark = "?" if url.startswith("sqlite") else "%s"
    if "icu" in column or "caseless" in column:
        try:
            execute(url, COLLATION)
        except NotSupportedError:
            pytest.skip("this PostgreSQL was built without ICU")
    before = {"postgresql": ["CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')"], "mysql": [ZERO_DATES]}
    constraint = "" if nullable else "NOT NULL PRIMARY KEY"
    rows = [(value, number) for number, value in enumerate(values)]
    RANDOM.shuffle(rows)
    execute(
        url,
        *before.get(make_url(url).get_backend_name(), []),
        f"CREATE TABLE t (k {column} {constraint}, payload int)",
        f"INSERT INTO t VALUES ({mark}, {mark})",
        rows=rows,
    )


@pytest.mark.filterwarnings("ignore:Did not recognize type 'inet6'")
@pytest.mark.parametrize(("kind", "column", "values"), CASES)
def test_key_type_is_read_exactly(
    new_database: Callable[[str], str], kind: str, column: str, values: list[Any]
) -> None:
    url = new_database(kind)
    if kind == "postgresql":
        url += "?options=-c%20timezone%3DEurope/Berlin"
    fill(url, column, values)
    for direction, key in (("ASC", "k"), ("DESC", "-k")):
        expected = query(url, f"SELECT k, payload FROM t ORDER BY k {direction}")
        assert len(expected) == len(values)
        assert_exact(partial(SQLConnector, url, "t", key), expected)
    expected = query(url, "SELECT k, payload FROM t ORDER BY k")
    assert_exact(partial(SQLConnector, url, "t", paging="stream"), expected)


REFUSED = [
    ("postgresql", "json", "json"),
    ("postgresql", "interval", "interval"),
    ("postgresql", "int[]", "_int4"),
    ("postgresql", "int4range", "int4range"),
    ("mariadb", "float", "FLOAT"),
    ("mariadb", "enum('b', 'a')", "ENUM"),
    ("mariadb", "set('b', 'a')", "SET"),
    ("mariadb", "time", "TIME"),
    ("mariadb", "year", "YEAR"),
    ("mariadb", "bit(3)", "BIT"),
]


@pytest.mark.parametrize(("kind", "column", "named"), REFUSED, ids=[column for _, column, _ in REFUSED])
def test_key_type_that_is_not_exact_is_refused(
    new_database: Callable[[str], str], kind: str, column: str, named: str
) -> None:
    url = new_database(kind)
    execute(url, f"CREATE TABLE t (k {column} NOT NULL, payload int)")
    with closing(SQLConnector(url, "t", "k")) as connector:
        with pytest.raises(ConfigurationError, match="key column 'k' is of type") as caught:
            next(connector.read(None, 10), None)
        assert named in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value"), [("timestamp", "infinity"), ("timestamptz", "-infinity"), ("date", "0044-03-15 BC")]
)
def test_time_that_python_has_not_is_refused_before_the_first_page(postgres_url: str, column: str, value: str) -> None:
    execute(
        postgres_url,
        f"CREATE TABLE t (k {column} PRIMARY KEY)",
        "INSERT INTO t VALUES (%s)",
        rows=[("2026-01-01",), (value,)],
    )
    with (
        closing(SQLConnector(postgres_url, "t")) as connector,
        pytest.raises(ConfigurationError, match="times that Python has not"),
    ):
        next(connector.read(None, 1))


def test_timestamp_in_a_zone_with_summer_time_is_refused(mariadb_url: str) -> None:
    execute(mariadb_url, "CREATE TABLE t (k timestamp PRIMARY KEY)", "INSERT INTO t VALUES ('2026-01-01')")
    engine = create_engine(mariadb_url, poolclass=NullPool, connect_args={"init_command": "SET time_zone = 'SYSTEM'"})
    with pytest.raises(ConfigurationError, match="time_zone is 'SYSTEM'"):
        next(SQLConnector(engine, "t").read(None, 1))


def test_union_in_sqlite_whose_parts_differ_in_affinity(sqlite_url: str) -> None:
    execute(
        sqlite_url,
        "CREATE TABLE one (k text)",
        "CREATE TABLE other (k integer)",
        "INSERT INTO other VALUES (?)",
        rows=[(number,) for number in range(1, 31)],
    )
    for statement in (
        "SELECT k FROM one UNION ALL SELECT k FROM other",
        "SELECT k FROM other UNION ALL SELECT k FROM one",
    ):
        assert_exact(partial(SQLConnector, sqlite_url, statement, "k"), [(number,) for number in range(1, 31)])
    execute(sqlite_url, "INSERT INTO one VALUES ('7')")
    with (
        closing(SQLConnector(sqlite_url, "SELECT k FROM one UNION ALL SELECT k FROM other", "k")) as connector,
        pytest.raises(ConfigurationError, match="numbers as well as text"),
    ):
        next(connector.read(None, 5))


COMPOSITE = [["a", "b"], ["-a", "-b"], ["a", "-b"], [("a", "desc"), ("b", "asc"), ("c", "desc")], ["c", "b", "a"]]


@pytest.mark.parametrize("key", COMPOSITE, ids=lambda key: ",".join(map(str, key)))
def test_key_of_several_columns(database_url: str, key: Sequence[Any]) -> None:
    text = {"sqlite": "text", "postgresql": "text", "mysql": "varchar(10)"}[make_url(database_url).get_backend_name()]
    mark = "?" if text == "text" and database_url.startswith("sqlite") else "%s"
    rows = [(RANDOM.randrange(3), f"b{RANDOM.randrange(4)}", number) for number in range(40)]
    # Two columns are unique where only two are in the key.
    if len(key) == 2:
        rows = list({row[:2]: row for row in rows}.values())
    execute(
        database_url,
        f"CREATE TABLE t (a int NOT NULL, b {text} NOT NULL, c int NOT NULL, PRIMARY KEY (a, b, c))",
        f"INSERT INTO t VALUES ({mark}, {mark}, {mark})",
        rows=rows,
    )
    order = ", ".join(
        f"{part[0]} {part[1]}" if isinstance(part, tuple) else f"{part.lstrip('-')} {'DESC' * part.startswith('-')}"
        for part in key
    )
    expected = query(database_url, f"SELECT a, b, c FROM t ORDER BY {order}")
    assert_exact(partial(SQLConnector, database_url, "t", key), expected)
    assert_exact(partial(SQLConnector, database_url, "SELECT * FROM t", key, paging="stream"), expected)


def test_key_forms() -> None:
    assert parse_key("id") == (KeyPart("id"),)
    assert parse_key("-id") == (KeyPart("id", descending=True),)
    assert parse_key(("a", "b")) == (KeyPart("a"), KeyPart("b"))
    assert parse_key([("a", "DESC"), "-b", ("c", "asc")]) == (
        KeyPart("a", descending=True),
        KeyPart("b", descending=True),
        KeyPart("c"),
    )


@pytest.mark.parametrize("key", [["a", "b"], ["-a", "-b"], [("a", "desc"), "b"]], ids=str)
def test_what_comes_beyond_the_bound_is_not_counted(sqlite_url: str, key: Any) -> None:
    rows = [(number // 3, number) for number in range(20)]
    table = "CREATE TABLE pairs (a INTEGER NOT NULL, b INTEGER NOT NULL, PRIMARY KEY (a, b))"
    execute(sqlite_url, table, "INSERT INTO pairs VALUES (?, ?)", rows=rows)
    with closing(SQLConnector(sqlite_url, "pairs", key=key)) as connector:
        pages = connector.read(None, 4)
        next(pages)
        execute(sqlite_url, "INSERT INTO pairs VALUES (?, ?)", rows=[(-1, 0), (100, 0), (101, 0)])
        assert connector.count() == (21 if key == ["a", "b"] else 22)
        pages.close()  # type: ignore[attr-defined]
