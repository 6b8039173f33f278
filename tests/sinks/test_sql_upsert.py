"""`SQLSink(mode="upsert")`: one row for each key, the last one, on every database."""

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Integer, String, create_engine, text

from resumable_sync import Column, ConfigurationError
from resumable_sync.sinks.sql import SQLSink
from sinks.driving import Target, batch, run

TABLE = "CREATE TABLE orders (a INTEGER NOT NULL, b VARCHAR(20) NOT NULL, name VARCHAR(20), PRIMARY KEY (a, b))"
NAMES = ["a", "b", "name"]


def test_the_last_record_of_a_key_stays_within_a_batch_and_over_batches(target: Target) -> None:
    target.execute(TABLE)
    sink = target.sink("orders", "upsert")
    target.write(
        sink,
        batch([(1, "x", "first"), (2, "x", "only"), (1, "x", "second"), (1, "y", "other"), (1, "x", "third")], NAMES),
        batch([(2, "x", "changed"), (2, "x", "last")], NAMES, number=1),
    )
    expected = [(1, "x", "third"), (1, "y", "other"), (2, "x", "last")]
    assert target.rows("SELECT a, b, name FROM orders ORDER BY a, b") == expected
    sink.close()


def test_a_batch_that_is_written_again_changes_nothing(target: Target) -> None:
    target.execute(TABLE)
    rows = [(number, "x", f"name {number}") for number in range(50)]
    for run_id in ("run 1", "run 2"):
        sink = target.sink("orders", "upsert")
        target.write(sink, batch(rows[:30], NAMES), batch(rows[30:], NAMES, number=1), run_id=run_id)
        sink.close()
    assert sorted(target.rows("SELECT a, b, name FROM orders")) == rows


def test_columns_that_the_records_lack_keep_their_values(target: Target) -> None:
    target.execute(TABLE, "INSERT INTO orders VALUES (1, 'x', 'kept')")
    sink = target.sink("orders", "upsert")
    target.write(sink, batch([(1, "x"), (2, "x"), (2, "x")], ["a", "b"]))
    assert target.rows("SELECT a, b, name FROM orders ORDER BY a") == [(1, "x", "kept"), (2, "x", None)]
    sink.close()


def test_the_key_may_be_another_unique_index_and_the_columns_in_any_order(target: Target) -> None:
    if target.kind in ("mysql", "mariadb"):
        target.execute("CREATE TABLE orders (a INTEGER, b VARCHAR(20), name VARCHAR(20), UNIQUE (b, a))")
    else:
        target.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, a INTEGER, b VARCHAR(20), name VARCHAR(20))")
        target.execute("CREATE UNIQUE INDEX by_key ON orders (b, a)", "INSERT INTO orders VALUES (7, 1, 'x', 'old')")
    names = ["name", "b", "a"] if target.kind not in {"postgresql", "sqlite"} else ["name", "b", "a", "id"]
    sink = target.sink("orders", "upsert", ["a", "b"])
    target.write(sink, batch([("new", "x", 1, 8)[: len(names)], ("newer", "x", 1, 9)[: len(names)]], names))
    assert target.rows("SELECT a, b, name FROM orders") == [(1, "x", "newer")]
    sink.close()


def test_a_record_without_key_is_refused(target: Target) -> None:
    target.execute("CREATE TABLE orders (a INTEGER, name VARCHAR(20), UNIQUE (a))")
    sink = target.sink("orders", "upsert", "a")
    with pytest.raises(ConfigurationError, match="lack 'a' of the key"):
        target.write(sink, batch([{"name": "x"}]))
    with pytest.raises(ValueError, match="key column 'a' was given None"):
        target.again(sink, batch([(1, "x"), (None, "y")], ["a", "name"]))
    assert target.rows("SELECT * FROM orders") == []
    sink.close()


def test_a_made_target_tells_keys_apart_exactly(target: Target) -> None:
    columns = [Column(name="k", type=String(10), primary_key=True), Column(name="n", type=Integer())]
    keys = ["a", "A", "a ", "ä", "Ä", "é", "e\u0301", "ß", "ss", "", " ", "z" * 300, "z" * 300 + "!"]
    sink = target.sink("orders", "upsert")
    rows = list(zip(keys, range(len(keys)), strict=True))
    target.write(sink, batch(rows, ["k", "n"]), columns=columns)
    assert sorted(target.rows("SELECT k, n FROM orders")) == sorted(rows)
    sink.close()


def test_key_columns_of_a_source_that_has_others_are_those_named(target: Target) -> None:
    columns = [Column(name="id", type=Integer(), primary_key=True), Column(name="k", type=String(10), nullable=False)]
    sink = target.sink("orders", "upsert", "k")
    target.write(sink, batch([(1, "x"), (2, "x")], ["id", "k"]), columns=columns)
    assert target.rows("SELECT id, k FROM orders") == [(2, "x")]
    sink.close()


def test_equal_is_what_the_database_says_is_equal(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE DOMAIN code AS CHAR(5)"))
        connection.execute(text('CREATE TABLE orders (k code COLLATE "C", n NUMERIC, name TEXT, PRIMARY KEY (k, n))'))
    # CHAR does not see trailing blanks, NUMERIC no trailing zeros.
    rows = [("abc", Decimal("1.0"), "first"), ("abc ", Decimal("1.00"), "second"), ("abc", 1, "third")]
    run(SQLSink("orders", "upsert"), engine, batch(rows, ["k", "n", "name"]))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT name FROM orders")).all() == [("third",)]
    engine.dispose()


@pytest.mark.parametrize(
    "definition",
    ["a INTEGER PRIMARY KEY, name VARCHAR(20) UNIQUE", "a INTEGER PRIMARY KEY, name TEXT, UNIQUE (name(3))"],
)
def test_mariadb_would_replace_by_any_unique_index_and_is_refused(mariadb_url: str, definition: str) -> None:
    engine = create_engine(mariadb_url)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE orders ({definition})"))
    with pytest.raises(ConfigurationError, match=r"another unique index \(name\)"):
        run(SQLSink("orders", "upsert"), engine)
    engine.dispose()


def test_mariadb_an_auto_increment_key_is_fine_where_the_records_leave_it_out(mariadb_url: str) -> None:
    engine = create_engine(mariadb_url)
    with engine.begin() as connection:
        connection.execute(
            text("CREATE TABLE orders (id INTEGER AUTO_INCREMENT PRIMARY KEY, k INTEGER UNIQUE, name VARCHAR(20))")
        )
    sink = SQLSink("orders", "upsert", "k")
    run(sink, engine, batch([(5, "a"), (6, "b"), (5, "c")], ["k", "name"]))
    with engine.begin() as connection:
        assert connection.execute(text("SELECT k, name FROM orders ORDER BY k")).all() == [(5, "c"), (6, "b")]
        with pytest.raises(ConfigurationError, match=r"another unique index \(id\)"):
            sink.write(batch([(1, 7, "a")], ["id", "k", "name"], number=1), connection)
    engine.dispose()


def test_postgresql_identity_columns_take_the_source_s_values(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(
            text("CREATE TABLE orders (id INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name TEXT, c INT[])")
        )
    for mode in ("append", "upsert"):
        sink: Any = SQLSink("orders", mode)
        number = 40 + len(mode) if mode == "upsert" else 7
        run(sink, engine, batch([(number, mode, (1, 2)), (number + 1, mode, [])], ["id", "name", "c"]))
    with engine.connect() as connection:
        found = connection.execute(text("SELECT * FROM orders ORDER BY id")).all()
    expected = [(7, "append", [1, 2]), (8, "append", []), (46, "upsert", [1, 2]), (47, "upsert", [])]
    assert found == expected
    engine.dispose()


def test_postgresql_several_batches_in_one_transaction_do_not_mix(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT NOT NULL)"))
    sink = SQLSink("orders", "upsert")
    run(sink, engine)
    with engine.begin() as connection:
        sink.write(batch([(1, "a")], ["id", "name"]), connection)
        connection.execute(text("DELETE FROM orders"))
        # As when refused records are looked for: some in savepoints that are rolled back.
        savepoint = connection.begin_nested()
        with pytest.raises(Exception, match="null value"):
            sink.write(batch([(2, "b"), (3, None)], ["id", "name"]), connection)
        savepoint.rollback()
        with connection.begin_nested():
            sink.write(batch([(2, "b")], ["id", "name"]), connection)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT * FROM orders")).all() == [(2, "b")]
    engine.dispose()
