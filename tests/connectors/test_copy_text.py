"""Rows of PostgreSQL as COPY's text: the same pages as of Python values, whatever is in them."""

from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from typing_extensions import override

from resumable_sync import Page
from resumable_sync._database import driver_cursor
from resumable_sync._formats import COPY_TEXT, CopyText
from resumable_sync.connectors.sql import SQLConnector

TYPES = {
    "smallint": "7",
    "numeric(20, 4)": "12345.6700",
    "real": "0.1",
    "double precision": "1e-300",
    "boolean": "true",
    "text": r"E'tab\t newline\n back\\slash \r \b \v \f ''quote'' %s %% ☃ \\N \\.'",
    "character(5)": "'ab'",
    "bytea": r"'\x00ff5c0a09'",
    "uuid": "'12345678-1234-5678-1234-567812345678'",
    "date": "'2026-01-31'",
    "time": "'23:59:59.999999'",
    "timestamp": "'2026-03-29 01:30:00.123456'",
    "timestamptz": "'2026-03-29 01:30:00.123456+02'",
    "interval": "'-1 mon +2 days -03:04:05.678'",
    "json": """'{"a":  [1, "\\\\n"]}'""",
    "jsonb": "'null'",
    "integer[]": "'{1,NULL,3}'",
    "text[]": r"""ARRAY['a,b', '"', E'\\', NULL, '']""",
    "inet": "'10.0.0.1/8'",
    "bit(3)": "B'101'",
}
KEYS = {
    "bigint": "i",
    "numeric": "i / 4.0",
    "text": r"E'k\t\\' || chr(64 + i) || E'\n''%s'",
    "uuid": "md5(CAST(i AS text))::uuid",
    "timestamptz": "TIMESTAMPTZ '2026-10-25 01:00:00+00' + i * INTERVAL '7 min'",
    "bytea": r"decode(to_hex(i + 16), 'hex') || '\x5c09'",
    "real": "CAST(i / 3.0 AS real)",
    "boolean, i integer": "i % 2 = 0, i",
}
ROWS = 12


@pytest.fixture
def source(postgres_url: str) -> Any:
    engine = create_engine(postgres_url)
    yield engine
    engine.dispose()


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement.replace(":", r"\:")))


def formatted(connector: SQLConnector) -> Any:
    (copied,) = connector.formats()
    assert copied.name == COPY_TEXT
    return connector.in_format(copied)


def places(connector: Any, size: int, cursor: Any = None) -> list[tuple[int, Any, Any]]:
    return [(len(page), page.cursor, page.columns) for page in connector.read(cursor, size)]


def lines(pages: list[Page[Any]]) -> list[bytes]:
    assert all(type(page.records) is CopyText for page in pages)
    return [line for page in pages for line in page.records]


@pytest.mark.parametrize("size", [1, 5, 12, 100])
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_pages_and_cursors_are_those_of_python_values(source: Engine, key: str, size: int) -> None:
    name = key.partition(", ")[2].partition(" ")[0]
    run(
        source,
        f"CREATE TABLE t (k {key}, label text, PRIMARY KEY (k{f', {name}' if name else ''}))",
        f"INSERT INTO t SELECT {KEYS[key]}, 'row ' || i FROM generate_series(1, {ROWS}) AS i",
    )
    plain = SQLConnector(source, "t")
    copied = formatted(SQLConnector(source, "t"))
    assert places(copied, size) == places(plain, size)
    # Either goes on where the other stopped.
    pages = list(copied.read(None, size))
    everything = lines(pages)
    for page in plain.read(None, size):
        done = len(everything) - len(lines(list(copied.read(page.cursor, 3))))
        assert places(copied, 3, page.cursor) == places(plain, 3, page.cursor)
        assert plain.moved(page.cursor) is None
        assert done % size == 0 or done == ROWS
    assert [line.rsplit(b"\t", 1)[1] for line in everything] == [
        f"{row[-1]}\n".encode() for page in plain.read(None, 100) for row in page.records
    ]


def test_every_type_is_the_servers_own_text(source: Engine) -> None:
    columns = ", ".join(f"c{place} {declared}" for place, declared in enumerate(TYPES))
    nulls = ", ".join(["NULL"] * len(TYPES))
    run(
        source,
        f"CREATE TABLE t (id int PRIMARY KEY, {columns})",
        f"INSERT INTO t VALUES (1, {', '.join(TYPES.values())}), (2, {nulls})",
    )
    with source.connect() as connection, driver_cursor(connection) as cursor, cursor.copy("COPY t TO STDOUT") as copy:
        expected = b"".join(bytes(data) for data in copy)
    plain, copied = SQLConnector(source, "t"), formatted(SQLConnector(source, "t"))
    assert b"".join(lines(list(copied.read(None, 1)))) == expected
    assert places(copied, 1) == places(plain, 1)


def test_values_that_python_has_not_are_read_without_an_anchor(source: Engine) -> None:
    run(
        source,
        "CREATE TABLE t (id int PRIMARY KEY, at timestamp)",
        "INSERT INTO t VALUES (1, 'infinity'), (2, '0044-03-15 BC'), (3, '2026-01-01')",
    )
    copied = formatted(SQLConnector(source, "t"))
    first, second, third = copied.read(None, 1)
    assert [first.cursor, second.cursor] == [[[1], [3]], [[2], [3]]]
    assert len(third.cursor) == 3
    assert copied.moved(first.cursor) is None
    assert [len(page) for page in copied.read(first.cursor, 10)] == [2]


def test_a_query_with_parameters_and_a_pinned_list_of_columns(source: Engine) -> None:
    run(
        source,
        "CREATE TABLE t (id int PRIMARY KEY, name text, more text)",
        "INSERT INTO t SELECT i, 'n%' || i, 'x' FROM generate_series(1, 9) AS i",
    )
    query = "SELECT id, name FROM t WHERE id % 2 = :odd AND name LIKE 'n%'"
    connector = SQLConnector(source, query, key="-id", params={"odd": 1})
    assert lines(list(formatted(connector).read(None, 2))) == [b"%d\tn%%%d\n" % (i, i) for i in (9, 7, 5, 3, 1)]
    pinned = SQLConnector(source, "t").pin(("id", "name"))
    assert lines(list(formatted(pinned).read(None, 9)))[0] == b"1\tn%1\n"


def test_the_text_is_read_further_ahead_than_values(source: Engine) -> None:
    run(source, "CREATE TABLE t (id int PRIMARY KEY)")
    connector = SQLConnector(source, "t")
    assert (connector.preferred_prefetch, formatted(connector).preferred_prefetch) == (1, 4)


def test_an_empty_source_has_no_pages(source: Engine) -> None:
    run(source, "CREATE TABLE t (id int PRIMARY KEY)")
    assert list(formatted(SQLConnector(source, "t")).read(None, 5)) == []


def test_the_run_stays_within_its_bound(source: Engine) -> None:
    run(source, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2), (3)")
    connector = SQLConnector(source, "t")
    copied = formatted(connector)
    pages = copied.read(None, 2)
    next(pages)
    run(source, "INSERT INTO t VALUES (4)")
    assert connector.count() == 3
    assert [len(page) for page in pages] == [1]


@pytest.mark.parametrize(
    "setting",
    ["DateStyle = 'German'", "IntervalStyle = 'sql_standard'", "extra_float_digits = 0", "client_encoding = 'LATIN1'"],
)
def test_text_that_depends_on_the_session_is_not_offered(source: Engine, postgres_url: str, setting: str) -> None:
    run(source, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    name, _, value = setting.partition(" = ")
    options = {"options": f"-c {name}={value.strip(chr(39))}"}
    engine = create_engine(postgres_url, connect_args=options)
    try:
        assert list(SQLConnector(engine, "t").formats()) == []
    finally:
        engine.dispose()


@pytest.mark.parametrize("paging", ["stream", "offset"])
def test_other_ways_of_paging_have_no_format(source: Engine, paging: Any) -> None:
    run(source, "CREATE TABLE t (id int PRIMARY KEY)")
    assert list(SQLConnector(source, "t", paging=paging).formats()) == []


def test_a_subclass_that_changes_the_rows_is_not_passed_by(source: Engine) -> None:
    class Upper(SQLConnector):
        @override
        def read(self, cursor: Any, batch_size: int) -> Any:
            return super().read(cursor, batch_size)

    run(source, "CREATE TABLE t (id int PRIMARY KEY)")
    assert list(Upper(source, "t").formats()) == []


def test_sqlite_has_no_format(sqlite_url: str, request: pytest.FixtureRequest) -> None:
    engine = create_engine(sqlite_url)
    request.addfinalizer(engine.dispose)
    run(engine, "CREATE TABLE t (id INTEGER PRIMARY KEY)")
    assert list(SQLConnector(engine, "t").formats()) == []


def test_an_error_of_the_server_is_one_of_sqlalchemy_without_values(source: Engine) -> None:
    run(
        source,
        "CREATE TABLE t (id int PRIMARY KEY, secret text)",
        "INSERT INTO t VALUES (1, 'hunter2')",
    )
    query = "SELECT id, CAST(secret AS integer) AS n FROM t"
    copied = formatted(SQLConnector(source, query, key="id"))
    with pytest.raises(Exception, match="invalid input syntax") as raised:
        list(copied.read(None, 1))
    assert type(raised.value).__module__.startswith("sqlalchemy")
    assert "hunter2" not in str(raised.value)


def test_what_it_holds_is_not_shown() -> None:
    block = CopyText(b"1\tsecret\n2\tmore\n", 2)
    assert repr(block) == "CopyText(rows=2)"
    assert (len(block), block[1], block[:1], list(block)) == (
        2,
        b"2\tmore\n",
        [b"1\tsecret\n"],
        [b"1\tsecret\n", b"2\tmore\n"],
    )
