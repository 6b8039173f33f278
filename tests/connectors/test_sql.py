"""What the SQL connectors do beside reading exactly: checks, bounds, plans, connections, messages."""

import gc
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from resumable_sync._errors import ConfigurationError, CursorError
from resumable_sync._fingerprint import changes, fingerprint_text
from resumable_sync._model import Page
from resumable_sync.connectors._identity import query_identity
from resumable_sync.connectors._readers import KeysetReader
from resumable_sync.connectors.sql import Paging, SQLConnector, SQLQueryTemplate
from waiting import until


def kind_of(url: str) -> str:
    return make_url(url).get_backend_name()


def execute(url: str, *statements: str, rows: Sequence[tuple[Any, ...]] = ()) -> None:
    """Run statements; the last one once for each of `rows`, with `?` for their values, if there are any."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements[: -1 if rows else None]:
            connection.exec_driver_sql(statement)
        if rows:
            mark = "?" if kind_of(url) == "sqlite" else "%s"
            connection.exec_driver_sql(statements[-1].replace("?", mark), list(rows))


def make_items(url: str, count: int = 20) -> None:
    execute(
        url,
        "CREATE TABLE items (id int NOT NULL PRIMARY KEY, name varchar(20), price int)",
        "INSERT INTO items VALUES (?, ?, ?)",
        rows=[(number, f"name {number}", number % 3) for number in range(1, count + 1)],
    )


@pytest.fixture
def source(database_url: str) -> str:
    """URL of a database of each kind, with a table `items` of 20 rows."""
    make_items(database_url)
    return database_url


@pytest.fixture
def connect() -> Iterator[Callable[..., SQLConnector]]:
    """Makes connectors that are closed after the test."""
    made: list[SQLConnector] = []

    def make(*arguments: Any, **options: Any) -> SQLConnector:
        made.append(SQLConnector(*arguments, **options))
        return made[-1]

    yield make
    for connector in made:
        connector.close()


Connect = Callable[..., SQLConnector]


def ids(pages: Iterator[Page[Any]] | list[Page[Any]]) -> list[int]:
    return [row[0] for page in pages for row in page.records]


def test_rows_are_plain_tuples_with_column_names(source: str, connect: Connect) -> None:
    page = next(connect(source, "items").read(None, 2))
    assert page.records == [(1, "name 1", 1), (2, "name 2", 2)]
    assert type(page.records[0]) is tuple
    assert page.columns == ("id", "name", "price")
    assert page.cursor[:2] == [[2], [20]]
    assert re.fullmatch("[0-9a-f]{8}", page.cursor[2])


@pytest.mark.parametrize("paging", ["keyset", "stream"])
def test_rows_inserted_beyond_the_bound_belong_to_the_next_run(source: str, connect: Connect, paging: Paging) -> None:
    connector = connect(source, "items", paging=paging)
    pages = connector.read(None, 6)
    first = next(pages)
    pages.close()  # type: ignore[attr-defined]
    execute(source, "INSERT INTO items VALUES (?, ?, ?)", rows=[(21, "late", 0), (-5, "early", 0)])
    assert ids([first, *connector.read(first.cursor, 4)]) == list(range(1, 21))
    assert connector.count() == 21  # up to the bound, the one that came before the cursor included
    assert ids(connector.read(None, 100)) == [-5, *range(1, 22)]
    assert connector.count() == 22


def test_rows_that_come_and_go_move_no_others(source: str, connect: Connect) -> None:
    pages = connect(source, "items").read(None, 4)
    read = list(next(pages).records)
    # Before the place of reading, at it (the row of the cursor itself), the next row, and the row of the bound.
    execute(source, "DELETE FROM items WHERE id IN (1, 2, 4, 5, 20)")
    read += [row for page in pages for row in page.records]
    assert [row[0] for row in read] == [1, 2, 3, 4, *range(6, 20)]


def test_empty_source(database_url: str, connect: Connect) -> None:
    execute(database_url, "CREATE TABLE items (id int PRIMARY KEY)")
    for paging in ("keyset", "stream", "offset"):
        connector = connect(database_url, "items", paging=paging)
        assert list(connector.read(None, 5)) == []
        assert connector.count() == 0
        assert connector.cursor_at(1) is None


@pytest.mark.parametrize("key", ["price", ["price", "name"]])
def test_key_that_is_not_unique_is_refused(source: str, connect: Connect, key: Any) -> None:
    execute(source, "INSERT INTO items VALUES (?, ?, ?)", rows=[(21, "name 1", 1)])
    execute(source, "UPDATE items SET name = 'x' WHERE name IS NULL")
    connector = connect(source, "items", key)
    with pytest.raises(ConfigurationError, match=r"the key \(price.*is not unique.*give a key"):
        next(connector.read(None, 5))
    with pytest.raises(ConfigurationError, match="is not unique"):
        connector.check()
    with pytest.raises(ConfigurationError, match="is not unique"):
        next(connect(source, "SELECT * FROM items", key).read(None, 5))


@pytest.mark.parametrize("key", ["name", ["price", "name"]])
def test_key_that_holds_null_is_refused(source: str, connect: Connect, key: Any) -> None:
    execute(source, "INSERT INTO items VALUES (?, ?, ?)", rows=[(21, None, 1)])
    for what in ("items", "SELECT id, name, price FROM items"):
        with pytest.raises(ConfigurationError, match=r"name\) of .* holds NULL"):
            next(connect(source, what, key).read(None, 5))


def test_primary_key_of_sqlite_that_holds_null_is_refused(sqlite_url: str, connect: Connect) -> None:
    execute(
        sqlite_url, "CREATE TABLE t (k text PRIMARY KEY)", "INSERT INTO t VALUES (?)", rows=[(None,), ("a",), (None,)]
    )
    with pytest.raises(ConfigurationError, match=r"\(k\) of the table 't' holds NULL"):
        next(connect(sqlite_url, "t").read(None, 5))


def test_unproven_key_that_is_unique_is_read(source: str, connect: Connect) -> None:
    assert sorted(ids(connect(source, "items", "-name").read(None, 3))) == list(range(1, 21))


def test_key_is_checked_anew_for_every_run(source: str, connect: Connect) -> None:
    connector = connect(source, "items", "name")
    assert len(ids(connector.read(None, 5))) == 20
    execute(source, "INSERT INTO items VALUES (?, ?, ?)", rows=[(21, "name 1", 1)])
    with pytest.raises(ConfigurationError, match="not unique"):
        next(connector.read(None, 5))


@pytest.mark.parametrize("name", ["", " \n"])
def test_an_empty_name_is_no_table(source: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match="names no table"):
        SQLConnector(source, name)


def test_unknown_table_and_columns_are_named(source: str, connect: Connect) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no table 'item' in .*; it has 'items'"):
        next(connect(source, "item").read(None, 5))
    with pytest.raises(ConfigurationError, match=r"there is no table 'nowhere\.items'"):
        next(connect(source, "nowhere.items").read(None, 5))
    with pytest.raises(ConfigurationError, match="has no column 'ID' for the key; it has 'id', 'name', 'price'"):
        next(connect(source, "items", "ID").read(None, 5))
    with pytest.raises(ConfigurationError, match="has no column 'no' for the key; it has 'id'"):
        next(connect(source, "SELECT id FROM items", ["id", "no"]).read(None, 5))
    with pytest.raises(ConfigurationError, match="has no column 'no' for the key"):
        next(connect(source, "items", "no", paging="offset").read(None, 5))


def test_table_without_primary_key_needs_a_key(database_url: str, connect: Connect) -> None:
    execute(database_url, "CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    with pytest.raises(ConfigurationError, match="has no primary key; name unique columns"):
        next(connect(database_url, "t").read(None, 5))
    assert ids(connect(database_url, "t", paging="offset").read(None, 5)) == [1]


def test_arguments_that_do_not_fit() -> None:
    url = "sqlite:///x.db"
    for arguments, options, message in [
        (("SELECT 1 AS a",), {}, "a query has no primary key"),
        (("t",), {"paging": "pages"}, "is none of"),
        (("t",), {"params": {"a": 1}}, "params are for"),
        (("t", []), {}, "cannot be read"),
        (("t", ["a", "a"]), {}, "names a column twice"),
        (("t", [("a", "up")]), {}, "cannot be read"),
        (("t", 3), {}, "cannot be read"),
        (("t", ""), {}, "cannot be read"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            SQLConnector(url, *arguments, **options)  # type: ignore[arg-type]


def test_parameters_of_a_query(source: str, connect: Connect) -> None:
    text = "SELECT id, name FROM items WHERE price = :price AND name LIKE 'name%' AND name <> '\\:x' -- 100% sure\n ;"
    connector = connect(source, text, "id", params={"price": 2})
    assert ids(connector.read(None, 2)) == [2, 5, 8, 11, 14, 17, 20]
    assert connector.count() == 7
    with pytest.raises(ConfigurationError, match="no value for :price"):
        next(connect(source, text, "id").read(None, 2))
    with pytest.raises(ConfigurationError, match="values for unknown more"):
        next(connect(source, text, "id", params={"price": 2, "more": 1}).read(None, 2))


def test_query_with_common_table_expression(source: str, connect: Connect) -> None:
    text = "WITH cheap AS (SELECT id, price FROM items WHERE price = 0) SELECT * FROM cheap"
    assert ids(connect(source, text, "-id").read(None, 4)) == [18, 15, 12, 9, 6, 3]


def test_query_with_two_columns_of_a_name(sqlite_url: str, connect: Connect) -> None:
    make_items(sqlite_url)
    connector = connect(sqlite_url, sa.select(sa.column("id"), sa.column("id")).select_from(sa.table("items")), "id")
    with pytest.raises(ConfigurationError, match="several columns named id"):
        next(connector.read(None, 2))


@pytest.mark.parametrize("paging", ["keyset", "stream", "offset"])
def test_select_and_table_of_sqlalchemy(source: str, connect: Connect, paging: Paging) -> None:
    table = sa.Table("items", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))
    assert ids(connect(source, table, paging=paging).read(None, 3)) == list(range(1, 21))
    few = sa.select(table.c.name, (table.c.id * 2).label("twice")).where(
        table.c.id.in_(sa.bindparam("some", expanding=True))
    )
    connector = connect(source, few, "-twice", params={"some": [3, 4, 5]}, paging=paging)
    pages = list(connector.read(None, 2))
    assert [row for page in pages for row in page.records] == [("name 5", 10), ("name 4", 8), ("name 3", 6)]
    assert pages[0].columns == ("name", "twice")


def explain(connector: SQLConnector, *, first: bool) -> str:
    reader = connector._opened()
    assert isinstance(reader, KeysetReader)
    plan = reader._plan
    engine = connector._database.engine
    statement = plan.page_statement(first=first)
    width = len(reader.key)
    begin, end = (2_000, 10) if reader.key[0].descending else (10, 2_000)
    values = plan.values(None if first else [begin] * width, [end] * width) | {"resumable_sync_limit": 10}
    prefix = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(prefix + statement.text, statement.parameters(values)).all()
    return "\n".join(str(tuple(row)) for row in rows)


@pytest.mark.parametrize("key", ["id", "-id", ["a", "b"], ["-a", "-b"], ["a", "-b"], ["-a", "b"]], ids=str)
@pytest.mark.parametrize("what", ["t", "SELECT * FROM t WHERE id IS NOT NULL"], ids=["table", "query"])
def test_index_is_used(database_url: str, connect: Connect, key: Any, what: str) -> None:
    rows = [(number, number // 3, number % 3, "x" * 100) for number in range(1, 6_001)]
    execute(
        database_url,
        "CREATE TABLE t (id int NOT NULL PRIMARY KEY, a int NOT NULL, b int NOT NULL, payload varchar(200))",
        "INSERT INTO t VALUES (?, ?, ?, ?)",
        rows=rows,
    )
    execute(database_url, "CREATE UNIQUE INDEX by_a_b ON t (a, b)", "CREATE INDEX mixed ON t (a, b DESC)")
    execute(database_url, "ANALYZE TABLE t" if kind_of(database_url) == "mysql" else "ANALYZE")
    plan = explain(connect(database_url, what, key), first=False)
    if kind_of(database_url) == "sqlite":
        assert "SEARCH t USING" in plan
        assert "SCAN" not in plan
    elif kind_of(database_url) == "postgresql":
        assert "Index Scan" in plan
        assert "Seq Scan" not in plan
    else:
        assert "'range'" in plan
        assert "filesort" not in plan


@pytest.mark.parametrize("key", ["id", "-id", ["a", "b"], ["a", "-b"]], ids=str)
def test_a_page_goes_by_the_index_without_statistics(postgres_url: str, connect: Connect, key: Any) -> None:
    execute(
        postgres_url,
        "CREATE TABLE t (id int NOT NULL PRIMARY KEY, a int NOT NULL, b int NOT NULL, payload varchar(200))",
        "CREATE UNIQUE INDEX by_a_b ON t (a, b)",
        "CREATE INDEX mixed ON t (a, b DESC)",
        "INSERT INTO t SELECT n, n / 3, mod(n, 3), repeat('x', 100) FROM generate_series(1, 6000) AS n",
    )
    plan = explain(connect(postgres_url, "t", key), first=False)
    assert "Index Scan" in plan
    assert "Sort" not in plan
    assert "Bitmap" not in plan


def test_a_page_ends_at_the_bound(source: str, connect: Connect) -> None:
    connector = connect(source, "items")
    cursor = next(connector.read(None, 7)).cursor
    execute(source, "INSERT INTO items VALUES (21, 'later', 1)")
    assert [len(page.records) for page in connector.read(cursor, 7)] == [7, 6]
    assert [len(page.records) for page in connector.read(cursor, 100)] == [13]


def test_missing_sqlite_file_is_not_made(tmp_path: Path, connect: Connect) -> None:
    path = tmp_path / "no.db"
    for connector in (connect(f"sqlite:///{path}", "items"), connect(create_engine(f"sqlite:///{path}"), "items")):
        for call in (connector.check, connector.count, connector.columns):
            with pytest.raises(ConfigurationError, match=r"there is no SQLite file .*no\.db"):
                call()
    assert not path.exists()


def test_pickles_if_made_from_a_url(source: str, connect: Connect) -> None:
    connector = connect(source, "items")
    page = next(connector.read(None, 6))
    copy: SQLConnector = pickle.loads(pickle.dumps(connector))
    with closing(copy):
        assert ids(copy.read(page.cursor, 3)) == list(range(7, 21))
        assert copy.fingerprint == connector.fingerprint
    template = SQLQueryTemplate(source, "SELECT id FROM items ORDER BY id LIMIT :limit OFFSET :offset")
    with closing(template), closing(pickle.loads(pickle.dumps(template))) as twin:
        assert twin.fingerprint == template.fingerprint
    engine = create_engine(source, poolclass=NullPool)
    with pytest.raises(ConfigurationError, match="does not pickle; make it from a URL"):
        pickle.dumps(connect(engine, "items"))


def test_password_is_shown_nowhere(sqlite_url: str) -> None:
    url = "postgresql+psycopg://me:s3cret@127.0.0.1:1/shop"
    connector = SQLConnector(url, "SELECT 1 AS a", "a", params={})
    template = SQLQueryTemplate(url, "SELECT 1 LIMIT :limit OFFSET :offset")
    assert "s3cret" not in repr(connector) + repr(template) + repr(template.fingerprint)
    for call in (connector.count, lambda: connector.fingerprint):
        with pytest.raises(DBAPIError) as caught:
            call()
        assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigurationError) as refused:
        SQLConnector("postgresql:/me:s3cret@host/", "t")
    assert "s3cret" not in str(refused.value)


def test_fingerprint_names_what_changed(source: str, connect: Connect) -> None:
    text = "SELECT id, name FROM items WHERE price > :least"
    base = fingerprint_text(connect(source, text, "id", params={"least": 0}).fingerprint)

    def changed(*arguments: Any, **options: Any) -> list[str]:
        return [
            str(each) for each in changes(base, fingerprint_text(connect(source, *arguments, **options).fingerprint))
        ]

    for same in (
        "SELECT id, name\n FROM items  WHERE price > :least",
        "\tSELECT id,name -- all but the price\nFROM items /* of the shop */ WHERE price>:least ;\n",
    ):
        assert changed(same, ["id"], params={"least": 0}) == []
        assert changed(same, [("id", "ASC")], params={"least": 0}, paging="stream") == []
    assert changed(text, "id", params={"least": 1}) == ["params"]
    assert changed(text, "-id", params={"least": 0}) == ["key"]
    assert changed(text, "id", params={"least": 0}, paging="offset") == ["paging"]
    assert changed(text + " AND 1 = 1", "id", params={"least": 0}) == ["query"]
    assert changed("items") == ["columns (added 'price')", "params", "query", "table"]


def test_white_space_in_quotes_matters(source: str, connect: Connect) -> None:
    texts = [f"SELECT id, name FROM items WHERE name <> {quoted}" for quoted in ("'a  b'", "'a b'", "'a -- b'", "'a'")]
    found = {fingerprint_text(connect(source, text, "id").fingerprint) for text in texts}
    assert len(found) == len(texts)


def test_a_quote_behind_a_backslash_ends_no_text_of_postgresql() -> None:
    texts = [rf"SELECT a FROM t WHERE b = E'\' -- x' AND c < {number}" for number in (5, 500)]
    dialect = create_engine("postgresql+psycopg://").dialect
    assert len({query_identity(text, dialect) for text in texts}) == 2


@pytest.mark.parametrize("what", ["items", "SELECT * FROM items"])
def test_fingerprint_knows_the_columns_by_name(source: str, connect: Connect, what: str) -> None:
    before = fingerprint_text(connect(source, what, "id").fingerprint)
    execute(source, "ALTER TABLE items ADD COLUMN extra int")
    execute(source, "ALTER TABLE items DROP COLUMN price")
    (change,) = changes(before, fingerprint_text(connect(source, what, "id").fingerprint))
    assert (str(change), change.impossible) == ("columns (added 'extra'; gone 'price')", True)


@pytest.mark.parametrize("paging", ["keyset", "stream", "offset"])
@pytest.mark.parametrize("what", ["items", "SELECT * FROM items"])
def test_a_pinned_connector_reads_the_columns_of_before(
    source: str, connect: Connect, what: str, paging: Paging
) -> None:
    first = next(connect(source, what, "id", paging=paging).read(None, 5))
    execute(source, "ALTER TABLE items ADD COLUMN extra int")
    wide = connect(source, what, "id", paging=paging)
    pinned = wide.pin(["id", "name", "price"])
    with closing(pickle.loads(pickle.dumps(pinned))) as travelled:
        for connector in (pinned, travelled):
            pages = list(connector.read(first.cursor, 5))
            assert {page.columns for page in pages} == {("id", "name", "price")}
            assert ids(pages) == list(range(6, 21))
            assert [column.name for column in connector.columns()] == ["id", "name", "price"]
            assert connector.count() == 20
    assert next(wide.read(first.cursor, 5)).columns == ("id", "name", "price", "extra")
    with pytest.raises(ConfigurationError, match=r"has no column 'nome' any more.*if_changed='rerun'"):
        next(wide.pin(["id", "nome"]).read(None, 5))


def test_cursor_of_another_paging_is_refused(source: str, connect: Connect) -> None:
    with pytest.raises(CursorError, match=r"a cursor of the table 'items' is .*reset_job"):
        next(connect(source, "items").read([5], 3))
    with pytest.raises(CursorError, match=r"is an offset and a digest"):
        next(connect(source, "items", paging="offset").read([[5], [20]], 3))


def test_columns_of_a_table_and_of_a_query(source: str, connect: Connect) -> None:
    id_, name, price = connect(source, "items").columns()
    assert (id_.name, id_.primary_key, id_.nullable) == ("id", True, False)
    assert isinstance(id_.type, sa.Integer)
    assert (name.name, name.primary_key, name.nullable) == ("name", False, True)
    assert isinstance(name.type, sa.String)
    assert name.type.length == 20
    assert isinstance(price.type, sa.Integer)
    twice, text = connect(source, "SELECT id * 2 AS twice, name AS text FROM items", "twice").columns()
    assert isinstance(twice.type, sa.Integer)
    assert isinstance(text.type, sa.String)
    assert twice.primary_key
    assert not text.primary_key


def test_a_column_of_a_type_unknown_to_sqlalchemy_is_text_that_may_hold_anything(postgres_url: str) -> None:
    execute(postgres_url, "CREATE TYPE digit AS ENUM ('1', '2')")
    with closing(SQLConnector(postgres_url, "SELECT 1 AS id, CAST('1' AS digit) AS a, 'x' AS b", "id")) as connector:
        columns = connector.columns()
    assert [(type(column.type), column.exact) for column in columns] == [
        (sa.INTEGER, True),
        (sa.Text, False),
        (sa.TEXT, True),
    ]


def test_a_type_of_an_extension_is_read_as_sqlalchemy_does(postgres_url: str, connect: Connect) -> None:
    query = "SELECT 1 AS id, CAST(:pairs AS {}) AS pairs"
    text, pairs = connect(postgres_url, query.format("text"), "id", params={"pairs": "a=>1"}), {"a": "1"}
    assert [page.records for page in text.read(None, 5)] == [[(1, "a=>1")]]
    execute(postgres_url, "CREATE EXTENSION hstore")
    connector = connect(postgres_url, query.format("hstore"), "id", params={"pairs": "a=>1"})
    one, other = connector.read(None, 5), connector.read(None, 5)  # each on a connection of its own
    assert next(one).records == next(other).records == [(1, pairs)]


def open_connections(url: str) -> int:
    count = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        "mysql": "SELECT count(*) FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()",
    }[kind_of(url)]
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return int(connection.exec_driver_sql(count).scalar_one())


@pytest.mark.parametrize("end", ["close", "collect"])
@pytest.mark.parametrize("paging", ["keyset", "stream"])
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_connections_close_with_the_connector(
    new_database: Callable[[str], str], kind: str, paging: Paging, end: str
) -> None:
    url = new_database(kind)
    make_items(url)
    connector = SQLConnector(url, "items", paging=paging)
    pages = connector.read(None, 5)
    next(pages)
    until(lambda: open_connections(url) == 1)  # those of `make_items` may take a moment to end
    pages.close()  # type: ignore[attr-defined]
    if end == "close":
        connector.close()
    del connector, pages
    gc.collect()
    until(lambda: open_connections(url) == 0)


def test_no_transaction_stays_open_between_pages(postgres_url: str, connect: Connect) -> None:
    make_items(postgres_url)
    pages = connect(postgres_url, "items").read(None, 5)
    next(pages)
    until(lambda: open_connections(postgres_url) == 1)
    with create_engine(postgres_url, poolclass=NullPool).connect() as connection:
        states = connection.exec_driver_sql(
            "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert [state for (state,) in states] == ["idle"]


@pytest.mark.parametrize("paging", ["keyset", "stream"])
def test_engine_of_the_caller_is_left_as_it_was(source: str, connect: Connect, paging: Paging) -> None:
    engine = create_engine(source, pool_size=1, max_overflow=0)
    try:
        pages = connect(engine, "items", paging=paging).read(None, 5)
        next(pages)
        pages.close()  # type: ignore[attr-defined]
        with engine.connect() as connection:
            connection.exec_driver_sql("DELETE FROM items")
            connection.rollback()
            assert connection.exec_driver_sql("SELECT count(*) FROM items").scalar_one() == 20
    finally:
        engine.dispose()


def test_stream_is_given_up_early_without_reading_the_rest(mariadb_url: str, connect: Connect) -> None:
    execute(mariadb_url, "CREATE TABLE big AS SELECT seq AS id, REPEAT('x', 1000) AS payload FROM seq_1_to_200000")
    execute(mariadb_url, "ALTER TABLE big ADD PRIMARY KEY (id)")
    connector = connect(mariadb_url, "big", paging="stream")
    pages = connector.read(None, 10)
    assert ids([next(pages)]) == list(range(1, 11))
    until(lambda: open_connections(mariadb_url) == 1)
    pages.close()  # type: ignore[attr-defined]
    until(lambda: open_connections(mariadb_url) == 0)
    assert ids([next(connector.read([[199_990], [200_000]], 100))]) == list(range(199_991, 200_001))


def test_errors_of_the_driver_carry_no_values(postgres_url: str, sqlite_url: str, connect: Connect) -> None:
    execute(postgres_url, "CREATE TABLE t (id int PRIMARY KEY, at timestamp)", "INSERT INTO t VALUES (1, 'infinity')")
    with pytest.raises(Exception, match="timestamp too large") as caught:
        next(connect(postgres_url, "t").read(None, 5))
    assert "infinity" not in str(caught.value)
    query = "SELECT id, CAST(CAST('secret' || id AS text) AS int) AS n FROM t"
    with pytest.raises(DBAPIError) as failed:
        next(connect(postgres_url, query, "id").read(None, 5))
    assert "secret" not in str(failed.value)
    execute(
        sqlite_url,
        "CREATE TABLE t (id integer PRIMARY KEY, name text)",
        "INSERT INTO t VALUES (1, CAST(X'616263FF' AS text))",
    )
    with pytest.raises(Exception, match="decode") as undecodable:
        next(connect(sqlite_url, "t").read(None, 5))
    assert "abc" not in str(undecodable.value)


def test_offset_paging_goes_by_the_primary_key(source: str, connect: Connect) -> None:
    connector = connect(source, "items", "-id", paging="offset")
    pages = list(connector.read(None, 8))
    assert ids(pages) == list(range(20, 0, -1))
    assert [page.cursor[0] for page in pages] == [8, 16, 20]
    assert ids(connector.read([16], 8)) == ids(connector.read(pages[1].cursor, 8)) == [4, 3, 2, 1]
    assert [connector.moved(cursor) for cursor in ([16], [0], pages[1].cursor, [16, 5])] == [None] * 4
    assert connector.moved([21, "00000000"]) == "is gone"
    assert connector.cursor_at(20) == [20]
    assert connector.cursor_at(21) is None


def test_anchors_are_the_same_for_both_pagings_and_any_order_of_columns(source: str, connect: Connect) -> None:
    found = [
        [page.cursor for page in connector.read(None, 7)]
        for connector in (
            connect(source, "items"),
            connect(source, "items", paging="stream"),
            connect(source, "items").pin(["price", "id", "name"]),
            connect(source, "SELECT price, name, id FROM items", "id"),
        )
    ]
    assert len(found[0]) == 3
    assert all(cursors == found[0] for cursors in found)


def test_cursors_without_an_anchor_are_read_too(source: str, connect: Connect) -> None:
    connector = connect(source, "items")
    assert ids(connector.read([[15], [18]], 2)) == [16, 17, 18]
    assert connector.moved([[15], [18]]) is None
    assert connector.moved([[99], [18], "00000000"]) == "is gone"
    assert connector.moved(["nothing", "of", "mine"]) is None


def test_anchor_is_the_same_in_every_time_zone(postgres_url: str, connect: Connect) -> None:
    execute(
        postgres_url,
        "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, clock time, doc jsonb, tags text[], mac macaddr, "
        "net inet, amount numeric, span interval, raw bytea, uid uuid, flag bool, fraction float8)",
        "INSERT INTO t VALUES (1, '2026-03-29 01:30+02', '12:00', '{\"b\": [1, null], \"a\": 1.5}', '{x,NULL}', "
        "'08:00:2b:01:02:03', '10.0.0.1', 1.50, '1 day', 'abc', gen_random_uuid(), true, 'NaN')",
    )
    berlin = make_url(postgres_url).update_query_dict({"options": "-c timezone=Europe/Berlin"})
    (page,) = connect(postgres_url, "t").read(None, 5)
    assert page.records[0][1] is not None
    assert connect(berlin, "t", if_moved="raise").moved(page.cursor) is None
    execute(postgres_url, 'UPDATE t SET doc = \'{"b": [1], "a": 1.5}\'')
    assert connect(postgres_url, "t").moved(page.cursor) == "is not what it was"


def test_an_unknown_if_moved_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="if_moved='skip' is none of 'warn', 'raise' and 'rerun'"):
        SQLConnector("sqlite:///x.db", "t", if_moved="skip")  # type: ignore[arg-type]
