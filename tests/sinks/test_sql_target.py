"""The target of `SQLSink`: making it, looking at it, and refusing what does not fit, with the remedy."""

import pickle
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy import (
    Column as SQLColumn,
)

from resumable_sync import Column, ConfigurationError, Job
from resumable_sync.sinks.sql import SQLSink
from sinks.driving import Target, batch, job, kept, run

COLUMNS = [
    Column(name="id", type=Integer(), nullable=False, primary_key=True),
    Column(name="name", type=String(20), nullable=False),
]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"mode": "merge"}, "'append', 'upsert' or 'replace'"),
        ({"mode": None}, "'append', 'upsert' or 'replace'"),
        ({"mode": "upsert", "publish_incomplete": True}, "no meaning"),
        ({"mode": "append", "key": "id"}, "no meaning"),
        ({"mode": "upsert", "key": []}, "is no key"),
        ({"mode": "upsert", "key": ["id", "id"]}, "each once"),
        ({"mode": "upsert", "key": [1]}, "is no key"),
        ({"mode": "append", "table": ""}, "is no name"),
        ({"mode": "append", "table": "schema."}, "is no name"),
        ({"mode": "append", "table": ".name"}, "is no name"),
        ({"mode": "append", "table": None}, "is no name"),
        ({"mode": "append", "url": "no url, password secret"}, "cannot be parsed"),
        ({"mode": "append", "url": "oracle://scott:tiger@db/x"}, "not supported"),
    ],
)
def test_arguments_that_cannot_work(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        SQLSink(**{"table": "orders", **arguments})
    assert "secret" not in str(caught.value)


def test_mode_has_no_default() -> None:
    with pytest.raises(TypeError, match="mode"):
        SQLSink("orders")  # type: ignore[call-arg]


def test_it_says_what_it_is() -> None:
    assert (SQLSink("o", "append").transactional, SQLSink("o", "append").idempotent) == (True, False)
    assert SQLSink("o", "upsert").idempotent
    assert not SQLSink("o", "append", url="sqlite://").transactional
    sink = SQLSink("sales.orders", "upsert", ["a", "b"], "postgresql://etl:secret@warehouse/dw")
    assert (
        repr(sink) == "SQLSink('sales.orders', mode='upsert', key=('a', 'b'), url='postgresql://etl:***@warehouse/dw')"
    )


def test_made_from_a_url_it_pickles_and_made_from_an_engine_it_says_why_not(sqlite_url: str) -> None:
    sink = SQLSink("orders", "append", url=sqlite_url)
    copy = pickle.loads(pickle.dumps(sink))
    run(copy, create_engine(sqlite_url), batch([{"id": 1, "name": "a"}]), columns=COLUMNS)
    copy.close()
    engine = create_engine(sqlite_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT * FROM orders")).all() == [(1, "a")]
    from_engine = SQLSink("orders", "append", url=engine)
    with pytest.raises(ConfigurationError, match="URL"):
        pickle.dumps(from_engine)
    from_engine.checkpoint(job())
    from_engine.close()
    with engine.connect() as connection:  # not disposed of
        assert connection.execute(text("SELECT COUNT(*) FROM orders")).scalar_one() == 1
    engine.dispose()
    sink.close()


def test_a_password_travels_with_the_pickle_and_not_with_the_repr() -> None:
    sink = SQLSink("orders", "append", url="postgresql+psycopg://etl:secret@warehouse/dw")
    copy = pickle.loads(pickle.dumps(sink))
    assert copy._url.password == "secret"
    assert "secret" not in repr(copy) + str(vars(copy))


def test_without_connection_and_url_it_needs_a_transactional_store() -> None:
    sink = SQLSink("orders", "append")
    for call in (sink.begin, sink.complete):
        with pytest.raises(ConfigurationError, match=r"SQLJobStore.*url="):
            call(job(), None)
    with pytest.raises(ConfigurationError, match=r"SQLJobStore.*url="):
        sink.write(batch([{"id": 1}]), None)


def test_with_url_it_needs_the_lease(sqlite_url: str) -> None:
    sink = SQLSink("orders", "append", url=sqlite_url)
    with pytest.raises(ConfigurationError, match="fencing token"):
        sink.checkpoint(Job(id="job"))
    sink.close()


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_a_missing_target_is_made_with_the_source_s_key_and_begin_bears_repetition(target: Target, mode: str) -> None:
    sink = target.sink("orders", mode)
    target.write(sink, batch([(1, "a"), (2, "b")], ["id", "name"]), columns=COLUMNS)
    target.write(target.sink("orders", mode), columns=COLUMNS)
    assert target.rows("SELECT id, name FROM orders ORDER BY id") == [(1, "a"), (2, "b")]
    with pytest.raises(Exception, match=r"(?i)unique|duplicate|null"):
        target.execute("INSERT INTO orders (id, name) VALUES (1, NULL)")
    sink.close()


def test_what_stands_in_the_target_stays(target: Target) -> None:
    target.execute("CREATE TABLE orders (id INTEGER, name VARCHAR(20))", "INSERT INTO orders VALUES (1, 'mine')")
    sink = target.sink("orders", "append")
    target.write(sink, batch([{"name": "a", "id": 1}]))
    assert sorted(target.rows("SELECT id, name FROM orders")) == [(1, "a"), (1, "mine")]
    sink.close()


def test_a_missing_target_without_known_columns_is_refused_before_anything_is_read(target: Target) -> None:
    sink = target.sink("orders", "append")
    with pytest.raises(ConfigurationError, match=r"'orders'.*create the table"):
        target.write(sink)
    sink.close()


@pytest.mark.parametrize(
    ("definition", "key", "says"),
    [
        ("id INTEGER, name VARCHAR(20)", None, "no primary key to upsert by"),
        ("id INTEGER PRIMARY KEY, name VARCHAR(20)", "name", r"no unique index on exactly \(name\)"),
        ("id INTEGER PRIMARY KEY, name VARCHAR(20)", "number", "no key column 'number'"),
        ("a INTEGER, b INTEGER, UNIQUE (a, b)", "a", r"no unique index on exactly \(a\)"),
    ],
)
def test_a_key_that_finds_no_row_again_is_refused(target: Target, definition: str, key: Any, says: str) -> None:
    target.execute(f"CREATE TABLE orders ({definition})")
    sink = target.sink("orders", "upsert", key)
    with pytest.raises(ConfigurationError, match=says):
        target.write(sink)
    sink.close()


def test_a_source_without_key_is_no_model_for_an_upsert(target: Target) -> None:
    for key, says in [(None, "no key to upsert by"), ("number", "no column 'number'")]:
        sink = target.sink("orders", "upsert", key)
        with pytest.raises(ConfigurationError, match=says):
            target.write(sink, columns=[Column(name="id", type=Integer())])
        sink.close()


def test_columns_of_the_source_that_the_target_lacks_are_named_at_once(target: Target) -> None:
    target.execute("CREATE TABLE orders (id INTEGER, title VARCHAR(20))")
    sink = target.sink("orders", "append")
    with pytest.raises(
        ConfigurationError, match=r"no column 'name'. The source has 'id', 'name', the table 'id', 'title'"
    ):
        target.write(sink, columns=COLUMNS)
    sink.close()


@pytest.mark.parametrize(
    ("records", "columns", "says"),
    [
        ([{"id": 1, "nam": "a"}], None, r"no column 'nam'; the records have 'id', 'nam', the table 'id', 'name'"),
        ([{"id": 1, "name": "a"}, {"id": 2}], None, "record 1 lacks 'name'"),
        ([{"id": 1}, {"id": 2, "name": "a"}], None, "record 0 lacks 'name'"),
        ([{"id": 1, "name": "a"}, (2, "b")], None, "mixes dicts"),
        ([(1, "a")], None, "without column names"),
        ([(1, "a")], ["id", "id"], "a column twice"),
        ([1, 2], None, "a record of type int"),
        (["ab"], ["id", "name"], "a record of type str"),
    ],
)
def test_records_that_do_not_fit_are_refused(sqlite_url: str, records: Any, columns: Any, says: str) -> None:
    engine = create_engine(sqlite_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER, name TEXT)"))
    with pytest.raises(ConfigurationError, match=says):
        run(SQLSink("orders", "append"), engine, batch(records, columns))
    engine.dispose()


def test_a_tuple_of_another_length_is_no_record_of_the_batch(target: Target) -> None:
    sink = target.sink("orders", "append")
    with pytest.raises(ValueError, match="record 1 of batch 0 has 1 values for 2 columns"):
        target.write(sink, batch([(1, "a"), (2,)], ["id", "name"]), columns=COLUMNS)
    assert target.rows("SELECT * FROM orders") == []
    sink.close()


def test_tuples_without_names_take_those_of_the_connector(target: Target) -> None:
    sink = target.sink("orders", "append")
    target.write(sink, batch([[1, "a"], (2, "b")]), columns=COLUMNS)
    assert target.rows("SELECT id, name FROM orders ORDER BY id") == [(1, "a"), (2, "b")]
    sink.close()


class Arrow:
    """What `SQLSink` asks of Arrow data."""

    def __init__(self, **columns: list[Any]) -> None:
        self.schema = type("Schema", (), {"names": list(columns)})
        self.columns = [
            type("Array", (), {"to_pylist": lambda _, values=values: values})() for values in columns.values()
        ]

    def __len__(self) -> int:
        return len(self.columns[0].to_pylist())

    def to_pylist(self) -> list[Any]:
        raise AssertionError("dicts are slower")


def test_arrow_data_is_written_by_column(target: Target) -> None:
    sink = target.sink("orders", "append")
    target.write(sink, batch(Arrow(name=["a", "b"], id=[1, 2])), columns=COLUMNS)
    assert target.rows("SELECT id, name FROM orders ORDER BY id") == [(1, "a"), (2, "b")]
    sink.close()


ODD = [
    "order items",
    "100%",
    "%s",
    "%(x)s",
    'say "hi"',
    "it's",
    "back`tick",
    "Größe",
    "select",
    "UPPER",
    ":colon",
    "a,b",
]


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_names_are_quoted_whatever_they_hold(target: Target, mode: str) -> None:
    table = Table(
        "order items %s \"'`", MetaData(), SQLColumn("the key %", BigInteger, primary_key=True, autoincrement=False)
    )
    for name in ODD:
        table.append_column(SQLColumn(name, String(20)))
    columns = [
        Column(name=c.name, type=c.type, nullable=not c.primary_key, primary_key=c.primary_key) for c in table.columns
    ]
    rows = [(number, *[f"{name} {number}" for name in ODD]) for number in (1, 2)]
    sink = target.sink(table.name, mode)
    target.write(sink, batch(rows, [column.name for column in columns]), columns=columns)
    # Not by SQLAlchemy's select(), which before 2.1 stumbles over such names itself.
    everything = f"SELECT * FROM {target.engine.dialect.identifier_preparer.quote(table.name)} ORDER BY 1"
    with target.engine.connect() as connection:
        assert [tuple(row) for row in connection.exec_driver_sql(everything)] == rows
    if mode == "upsert":
        changed = [(1, *["changed"] * len(ODD)), (3, *["new"] * len(ODD))]
        target.again(sink, batch(changed, [column.name for column in columns], number=1))
        with target.engine.connect() as connection:
            found = [tuple(row) for row in connection.exec_driver_sql(everything)]
        assert found == [changed[0], rows[1], changed[1]]
    sink.close()


def test_a_schema_holds_the_target_and_its_checkpoint(target: Target) -> None:
    if target.kind == "sqlite":
        pytest.skip("SQLite has no schemas but attached files")
    schema = f"other_{target.engine.url.database}"
    target.execute(f"CREATE SCHEMA {schema}")
    try:
        sink = target.sink(f"{schema}.orders", "append")
        target.write(sink, batch([(1, "a")], ["id", "name"]), columns=COLUMNS)
        assert target.rows(f"SELECT id, name FROM {schema}.orders") == [(1, "a")]
        if target.own:
            assert target.rows(f"SELECT processed_records FROM {schema}.resumable_sync_checkpoints") == [(1,)]
        sink.close()
        dotted = target.sink("a.b", "append", schema=schema)
        target.write(dotted, columns=COLUMNS)
        dotted.close()
    finally:
        target.engine.dispose()
        target.execute(f"DROP SCHEMA {schema}{' CASCADE' if target.kind == 'postgresql' else ''}")


def test_only_the_target_and_the_checkpoints_are_made(target: Target) -> None:
    target.execute("CREATE TABLE mine (id INTEGER)")
    sink = target.sink("orders", "upsert")
    target.write(sink, batch([(1, "a")], ["id", "name"]), columns=COLUMNS)
    sink.close()
    names = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
        "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
    }.get(target.kind, "SHOW TABLES")
    expected = {"mine", "orders", "resumable_sync_checkpoints"} if target.own else {"mine", "orders"}
    assert {name for (name,) in target.rows(names)} == expected


def test_errors_of_the_database_hold_no_values(target: Target) -> None:
    sink = target.sink("orders", "append")
    with pytest.raises(Exception, match=r"(?i)unique|duplicate") as caught:
        target.write(sink, batch([(1, "Erna Schabiewsky"), (1, "Erna Schabiewsky")], ["id", "name"]), columns=COLUMNS)
    error: Any = caught.value
    told = [
        str(error),
        repr(error),
        str(error.orig),
        repr(error.orig),
        str(error.__cause__),
        *getattr(error, "__notes__", []),
    ]
    assert not [part for part in told if "Schabiewsky" in part or "'1'" in part or "(1)" in part or "INSERT" in part]
    sink.close()


def test_a_batch_that_fails_leaves_the_connection_fit_for_the_next(target: Target) -> None:
    sink = target.sink("orders", "append")
    target.write(sink, columns=COLUMNS)
    for bad in ([(1, "a"), (1, "b")], [(2, object())], [(None, "a")] if target.kind != "sqlite" else [(1, None)]):
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the driver says
            target.again(sink, batch(bad, ["id", "name"]))
    target.again(sink, batch([(1, "a")], ["id", "name"]))
    assert target.rows("SELECT id, name FROM orders") == [(1, "a")]
    sink.close()


def test_a_role_that_must_not_create_tables_is_told_what_to_create(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER, name TEXT)"))
        connection.execute(text("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
        role = f"role_{engine.url.database}"
        connection.execute(text(f"CREATE ROLE {role} LOGIN"))
        connection.execute(text(f"GRANT INSERT, SELECT ON orders TO {role}"))
    own = engine.url.set(username=role)
    sink = SQLSink("orders", "append", url=own)
    try:
        with pytest.raises(ConfigurationError, match="CREATE TABLE IF NOT EXISTS resumable_sync_checkpoints") as caught:
            sink.checkpoint(job())
        with engine.begin() as connection:
            connection.execute(text(str(caught.value).partition("\n")[2]))
            connection.execute(text(f"GRANT INSERT, SELECT, UPDATE ON resumable_sync_checkpoints TO {role}"))
        run(sink, engine, batch([{"id": 1, "name": "a"}]))
        assert kept(engine)[0].processed_records == 1
    finally:
        sink.close()
        with engine.begin() as connection:
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))
        engine.dispose()


def test_a_session_that_cuts_values_silently_is_refused(mariadb_url: str) -> None:
    sink = SQLSink("orders", "append", url=make_url(mariadb_url).update_query_dict({"sql_mode": "ANSI"}))
    engine = create_engine(mariadb_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER, name VARCHAR(3))"))
    with pytest.raises(ConfigurationError, match="STRICT_TRANS_TABLES"):
        run(sink, engine, columns=COLUMNS)
    sink.close()
    engine.dispose()


def test_views_and_row_security_are_written_without_copy(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER, name TEXT)"))
        connection.execute(text("CREATE VIEW latest AS SELECT id, name FROM orders"))
    run(SQLSink("latest", "append"), engine, batch([{"id": 1, "name": "a"}, {"id": 2, "name": None}]))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT * FROM orders")).all() == [(1, "a"), (2, None)]
    engine.dispose()


def test_the_table_may_be_read_back_by_sqlalchemy(target: Target) -> None:
    table = Table("orders", MetaData(), SQLColumn("id", Integer, primary_key=True), SQLColumn("name", String(20)))
    table.create(target.engine)
    with target.engine.begin() as connection:
        connection.execute(insert(table), [{"id": 1, "name": "a"}])
    sink = target.sink("orders", "upsert")
    target.write(sink, batch([(1, "b")], ["id", "name"]))
    with target.engine.connect() as connection:
        assert connection.execute(select(table)).all() == [(1, "b")]
    sink.close()
