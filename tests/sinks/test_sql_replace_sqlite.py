"""A table of SQLite is replaced by one that is the same in everything but its rows, or it is refused."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import IntegrityError

from resumable_sync import Column, ConfigurationError
from sinks.replacing import COLUMNS, Attempt, loaded, rows, stagings, tables

SHAPES = [
    "CREATE TABLE target (id INTEGER PRIMARY KEY, name TEXT)",
    "CREATE TABLE target (id INTEGER PRIMARY KEY AUTOINCREMENT, name VARCHAR(20) DEFAULT 'it''s (new)' COLLATE NOCASE)",
    'CREATE TABLE "target" (id INT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (id)) WITHOUT ROWID',
    "CREATE TABLE [target](id INT PRIMARY KEY, name TEXT) STRICT",
    "CREATE TABLE `target`(id INT, name TEXT, more TEXT GENERATED ALWAYS AS (name || '!') STORED, UNIQUE (id, name))",
    "CREATE TABLE 'target' (id INT CHECK (id > 0), name TEXT CONSTRAINT short CHECK (length(name) < 9) UNIQUE) -- end",
    "CREATE TABLE IF NOT EXISTS main.target/* of ours */(id INT REFERENCES parent (id), name TEXT DEFAULT (1 + 1))",
    "CREATE TABLE Target (id INTEGER PRIMARY KEY, name TEXT, target TEXT)",
]


@pytest.fixture(params=[False, True], ids=["store's", "own"])
def own(request: Any) -> Any:
    return request.param


@pytest.fixture(params=[False, True], ids=["", "foreign keys"])
def engine(request: Any, sqlite_url: str) -> Iterator[Engine]:
    """With and without foreign keys enforced."""
    made = create_engine(sqlite_url)
    if request.param:
        event.listen(made, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON"))
    run(made, "CREATE TABLE parent (id INTEGER PRIMARY KEY)", "INSERT INTO parent VALUES (1), (2), (3), (4)")
    yield made
    made.dispose()


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def ask(engine: Engine, statement: str) -> list[Any]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def schema(engine: Engine) -> list[Any]:
    """Everything in the schema but the library's own; the name of a table is quoted when it was renamed."""
    found = ask(engine, "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'resumable_sync_%'")
    found = [row for row in found if not row[2].startswith("resumable_sync_")]
    return sorted((*row[:3], row[3] and row[3].replace("[target]", '"target"')) for row in found)


def enforced(engine: Engine) -> bool:
    return bool(ask(engine, "PRAGMA foreign_keys")[0][0])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_new_table_is_like_the_old_one(engine: Engine, shape: str) -> None:
    run(
        engine,
        shape,
        "CREATE INDEX by_name ON target (name DESC, id)",
        'CREATE UNIQUE INDEX "by id" ON target/* x */(id) WHERE id > 0',
        "CREATE INDEX by_sum ON target (id + 1) WHERE name IS NOT NULL",
        "CREATE VIEW seen AS SELECT id, name FROM target",
        "CREATE VIEW broken AS SELECT no FROM nowhere_at_all",
        "CREATE TABLE log (what TEXT)",
        "CREATE TRIGGER on_insert AFTER INSERT ON target BEGIN INSERT INTO log VALUES ('got ' || new.name); END",
        "CREATE TRIGGER of_log AFTER DELETE ON log BEGIN DELETE FROM target WHERE id = 99; END",
        "INSERT INTO target (id, name) VALUES (3, 'old'), (4, 'old 4')",
        "DELETE FROM log",
    )
    before, columns = schema(engine), ask(engine, "PRAGMA table_xinfo(target)")
    attempt = Attempt(engine, own=False).begin().write(1).next().begin().write(1)
    assert ask(engine, "SELECT count(*) FROM seen") == [(2,)]
    attempt.complete()
    assert rows(engine, "seen") == loaded(2)
    after = schema(engine)
    assert [row[:3] for row in after] == [row[:3] for row in before]
    assert [row[3] for row in after if row[0] != "table"] == [row[3] for row in before if row[0] != "table"]
    assert [_without_name(row[3]) for row in after] == [_without_name(row[3]) for row in before]
    assert ask(engine, "PRAGMA table_xinfo(target)") == columns
    assert ask(engine, "PRAGMA integrity_check") == [("ok",)]
    assert ask(engine, "SELECT what FROM log") == []
    run(engine, "INSERT INTO target (id, name) VALUES (3, 'new')")
    assert ask(engine, "SELECT what FROM log") == [("got new",)]


def _without_name(statement: str | None) -> str | None:
    for name in ('"target"', "'target'", "[target]", "`target`", '"Target"', "Target", "target"):
        if statement and statement.startswith(f"CREATE TABLE {name}"):
            return statement.removeprefix(f"CREATE TABLE {name}")
    return statement


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE target (id INTEGER PRIMARY KEY CHECK (id <> 3), name TEXT)"],
        [SHAPES[0], "CREATE UNIQUE INDEX one_name ON target (substr(name, 1, 1)) WHERE id > 1"],
    ],
)
def test_what_the_target_would_refuse_is_refused_while_loading(engine: Engine, statements: list[str]) -> None:
    run(engine, *statements)
    attempt = Attempt(engine, own=False).begin().write(2)
    with pytest.raises(IntegrityError):
        attempt.write()
    attempt.complete()
    assert rows(engine) == loaded(2)


def test_numbers_are_never_given_twice(engine: Engine, *, own: bool) -> None:
    run(
        engine,
        "CREATE TABLE target (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT)",
        "INSERT INTO target VALUES (50, 'old')",
    )
    attempt = Attempt(engine, own).begin()
    run(engine, "INSERT INTO target VALUES (60, 'while it was loaded')")
    attempt.complete()  # an empty table has no number of its own
    run(engine, "INSERT INTO target (name) VALUES ('next')")
    assert rows(engine) == [(61, "next")]
    Attempt(engine, own, run_id="run 2").begin().write(2).complete()
    run(engine, "INSERT INTO target (name) VALUES ('next')")
    assert rows(engine) == [*loaded(2), (62, "next")]
    Attempt(engine, own, run_id="run 3", columns=None).begin().complete()
    assert ask(engine, "SELECT name, seq FROM sqlite_sequence ORDER BY 1") == [("target", 62)]


def test_a_table_that_others_refer_to(engine: Engine) -> None:
    """Where foreign keys are not enforced they stand by name alone, and stay."""
    run(
        engine,
        "CREATE TABLE target (id INTEGER PRIMARY KEY, name TEXT, next INTEGER REFERENCES target (id))",
        "CREATE TABLE child (of INTEGER REFERENCES Target (id) ON DELETE CASCADE)",
        "INSERT INTO target VALUES (1, 'old', 1)",
        "INSERT INTO child VALUES (1)",
    )
    before = ask(engine, "SELECT sql FROM sqlite_master WHERE name = 'child'")
    if enforced(engine):
        with pytest.raises(ConfigurationError, match="'child', 'target' refer to it; drop those foreign keys"):
            Attempt(engine, own=False).begin()
        assert tables(engine) == {"target", "parent", "child"}
        return
    Attempt(engine, own=False).begin().write(2).complete()
    assert rows(engine) == loaded(2)
    assert ask(engine, "SELECT of FROM child") == [(1,)]
    assert ask(engine, "SELECT sql FROM sqlite_master WHERE name = 'child'") == before
    assert ask(engine, "PRAGMA foreign_key_check") == []
    assert [row[2] for row in ask(engine, "PRAGMA foreign_key_list(target)")] == ["target"]


def test_a_foreign_key_that_comes_while_it_is_loaded(engine: Engine, *, own: bool) -> None:
    run(engine, SHAPES[0], "INSERT INTO target VALUES (1, 'old')")
    attempt = Attempt(engine, own).begin().write()
    run(
        engine,
        "CREATE TABLE child (of INTEGER REFERENCES target (id) ON DELETE CASCADE)",
        "INSERT INTO child VALUES (1)",
    )
    if enforced(engine):
        with pytest.raises(ConfigurationError, match="'child' refer to it"):
            attempt.complete()
        assert rows(engine) == [(1, "old")]
        run(engine, "DROP TABLE child")
    attempt.complete()
    assert rows(engine) == loaded(1)


def test_a_table_that_refers_to_others(engine: Engine) -> None:
    run(
        engine,
        "CREATE TABLE target (id INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED, name TEXT)",
        "INSERT INTO target VALUES (4, 'old')",
    )
    attempt = Attempt(engine, own=False).begin().write(4)
    if enforced(engine):
        with pytest.raises(IntegrityError):
            attempt.write()
        attempt = attempt.next(done=4).begin()
    attempt.complete()
    assert rows(engine) == loaded(4)
    assert [row[2] for row in ask(engine, "PRAGMA foreign_key_list(target)")] == ["parent"]
    assert ask(engine, "SELECT count(*) FROM parent") == [(4,)]


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (["CREATE VIRTUAL TABLE target USING fts5 (id, name)"], "'target' is a virtual table"),
        (
            ["CREATE TABLE target (id INT CHECK (target.id > 0), name TEXT)"],
            "no second table can be made",
        ),
        (
            ["CREATE TABLE target (id INT, name TEXT)", "CREATE UNIQUE INDEX i ON target (id) WHERE target.id > 0"],
            "no second table can be made",
        ),
    ],
)
def test_what_cannot_be_replaced(engine: Engine, statements: list[str], says: str) -> None:
    run(engine, *statements)
    with pytest.raises(ConfigurationError, match=says):
        Attempt(engine, own=False, columns=None).begin()
    assert stagings(engine) == []


def test_a_table_of_an_attached_file(tmp_path: Any) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/main.db")
    aside = f"{tmp_path}/aside.db"
    event.listen(engine, "connect", lambda connection, _: connection.execute(f"ATTACH '{aside}' AS \"an:aside\""))
    run(
        engine,
        'CREATE TABLE "an:aside".target (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT)',
        'CREATE INDEX "an:aside".by_name ON target (name)',
        'CREATE UNIQUE INDEX "an:aside".one_name ON target (name)',
        'CREATE TRIGGER "an:aside".fires AFTER DELETE ON target BEGIN SELECT 1; END',
        "CREATE TABLE by_name (x)",
    )
    before = ask(engine, 'SELECT type, name, tbl_name FROM "an\\:aside".sqlite_master ORDER BY 1, 2')
    for number, table in enumerate(["an:aside.target", "target"]):
        Attempt(engine, own=False, table=table, run_id=f"run {number}").begin().write(2).complete()
        assert rows(engine, '"an\\:aside".target') == loaded(2)
    after = ask(engine, 'SELECT type, name, tbl_name FROM "an\\:aside".sqlite_master ORDER BY 1, 2')
    assert [row for row in after if "resumable_sync_staging" not in row[2]] == before
    assert ask(engine, "SELECT name FROM sqlite_master WHERE type = 'table'") == [("by_name",)]
    engine.dispose()


@pytest.mark.parametrize("name", ['a "b" [c] 100% `d`', "orders.2024", "ORDER", "x(y", "ünï:cøde -- no"])
def test_names_may_hold_anything(sqlite_url: str, name: str) -> None:
    engine = create_engine(sqlite_url)
    table = f"main.{name}" if "." not in name else name
    quoted = '"' + name.replace('"', '""') + '"'
    columns = [Column(name=name, type=COLUMNS[1].type), *COLUMNS]
    for exists in (False, True):
        options = {"schema": "main"} if "." in name else {}
        attempt = Attempt(engine, own=False, table=table, run_id=f"run {exists}", columns=columns, options=options)
        attempt.begin().write(2).complete()
        with engine.connect() as connection:
            found = connection.exec_driver_sql(f"SELECT id, name FROM {quoted}").all()
        assert [tuple(row) for row in found] == loaded(2)
        if not exists:
            run(engine, f'CREATE UNIQUE INDEX {quoted[:-1]}i" ON {quoted}({quoted}, id)')
    assert len(ask(engine, "SELECT * FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")) == 1
    engine.dispose()


def test_the_rows_are_not_written_a_second_time(sqlite_url: str) -> None:
    """The swap of a large table writes a few pages."""
    engine = create_engine(sqlite_url)
    run(engine, "PRAGMA journal_mode=WAL")
    run(engine, "CREATE TABLE target (id INTEGER PRIMARY KEY, name TEXT)")
    attempt = Attempt(engine, own=False).begin()
    staging = stagings(engine)[0]
    run(
        engine,
        f"INSERT INTO {staging} WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
        "SELECT i, printf('%0200d', i) FROM n",
    )
    size = ask(engine, "PRAGMA page_count")[0][0]
    written = []

    def look(connection: Any) -> None:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    with engine.connect() as connection:
        look(connection)
    attempt.complete()
    with engine.connect() as connection:
        written = connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").one()[1]
    assert size > 900
    assert written < 50
    engine.dispose()
