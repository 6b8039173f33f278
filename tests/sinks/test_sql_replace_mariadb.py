"""A table of MySQL or MariaDB is replaced by one that is the same in everything but its rows, or it is refused."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from resumable_sync import ConfigurationError, LeaseLostError, StoreError
from resumable_sync._retry import is_transient
from resumable_sync.sinks import _swap_mysql
from sinks.replacing import Attempt, DiedError, loaded, rows, stagings, tables

TABLE = """CREATE TABLE target (
    id INTEGER NOT NULL AUTO_INCREMENT COMMENT 'the ''key''',
    name VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_german1_ci DEFAULT 'x' CHECK (name <> 'bad'),
    twice INTEGER GENERATED ALWAYS AS (length(name)) STORED,
    changed TIMESTAMP(3) NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
    kind ENUM('a', 'b'),
    PRIMARY KEY (id), UNIQUE KEY `one 100% name` (name(4), id), KEY by_kind (kind) COMMENT 'slow'
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC COMMENT='of ours'"""

OLD = ["CREATE TABLE target (id INTEGER PRIMARY KEY, name VARCHAR(20))", "INSERT INTO target VALUES (7, 'old')"]


@pytest.fixture(params=[False, True], ids=["store's", "own"])
def own(request: Any) -> Any:
    return request.param


@pytest.fixture
def engine(mariadb_url: str) -> Iterator[Engine]:
    made = create_engine(mariadb_url)
    yield made
    made.dispose()


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("%", "%%"))


def ask(engine: Engine, statement: str) -> list[Any]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def test_the_new_table_is_like_the_old_one(engine: Engine, *, own: bool) -> None:
    name = engine.url.database
    run(
        engine,
        TABLE,
        "INSERT INTO target (id, name) VALUES (70, 'old')",
        "CREATE VIEW seen AS SELECT id, name FROM target",
        f"CREATE OR REPLACE USER reader_{name}",
        f"GRANT SELECT (id, name) ON target TO reader_{name}",
    )
    grants = ask(engine, f"SHOW GRANTS FOR reader_{name}")
    before = ask(engine, "SHOW CREATE TABLE target")[0][1]
    attempt = Attempt(engine, own).begin().write(1).next().begin().write(1)
    with pytest.raises(DBAPIError):  # what the target would refuse is refused
        run(engine, f"INSERT INTO {stagings(engine)[0]} (name) VALUES ('bad')")
    attempt.complete()
    assert ask(engine, "SHOW CREATE TABLE target")[0][1] == before
    assert rows(engine, "seen") == loaded(2)
    assert ask(engine, f"SHOW GRANTS FOR reader_{name}") == grants
    run(engine, "INSERT INTO target (name) VALUES ('next')", f"DROP USER reader_{name}")
    assert rows(engine) == [*loaded(2), (71, "next")]


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (["CREATE TABLE target (id INTEGER) ENGINE=MyISAM"], "its engine MyISAM has no transactions; ALTER TABLE"),
        (["CREATE SEQUENCE target"], "is no plain table"),
        (["CREATE TABLE target (id INTEGER) WITH SYSTEM VERSIONING"], "is no plain table"),
        (
            ["CREATE TABLE target (id INTEGER)", "CREATE TRIGGER fires AFTER INSERT ON target FOR EACH ROW SET @x = 1"],
            "would lose its triggers 'fires'.*drop them",
        ),
        (
            ["CREATE TABLE p (id INTEGER PRIMARY KEY)", "CREATE TABLE target (id INTEGER REFERENCES p (id))"],
            "without breaking the foreign keys '[a-z_0-9]+' of 'target'; drop them",
        ),
        (
            [
                "CREATE TABLE target (id INTEGER PRIMARY KEY)",
                "CREATE TABLE child (id INTEGER, CONSTRAINT of_target FOREIGN KEY (id) REFERENCES target (id))",
            ],
            "without breaking the foreign keys 'of_target' of 'child'; drop them",
        ),
    ],
)
def test_what_cannot_be_replaced(engine: Engine, statements: list[str], says: str) -> None:
    run(engine, *statements)
    before = tables(engine)
    with pytest.raises(ConfigurationError, match=says):
        Attempt(engine, own=False, columns=None).begin()
    assert tables(engine) == before


def test_tables_whose_names_differ_by_case_are_not_mistaken(engine: Engine) -> None:
    run(
        engine,
        "CREATE TABLE target (id INTEGER PRIMARY KEY, name VARCHAR(20))",
        "CREATE TABLE Target (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child (id INTEGER REFERENCES Target (id))",
        "CREATE TRIGGER fires AFTER INSERT ON Target FOR EACH ROW SET @x = 1",
    )
    Attempt(engine, own=False).begin().write().complete()
    assert rows(engine) == loaded(1)
    assert tables(engine) == {"target", "Target", "child"}


def test_what_comes_while_it_is_loaded(engine: Engine, *, own: bool) -> None:
    run(engine, *OLD)
    attempt = Attempt(engine, own).begin().write()
    run(engine, "CREATE TRIGGER fires AFTER INSERT ON target FOR EACH ROW SET @x = 1")
    with pytest.raises(ConfigurationError, match="would lose its triggers 'fires'"):
        attempt.complete()
    run(engine, "DROP TRIGGER fires", "CREATE INDEX by_name ON target (name)")
    with pytest.raises(ConfigurationError, match=r"altered since the run began .*by_name"):
        attempt.complete()
    assert rows(engine) == [(7, "old")]
    run(engine, f"CREATE INDEX by_name ON {stagings(engine)[0]} (name)")
    attempt.complete()
    assert rows(engine) == loaded(1)


@pytest.mark.parametrize("patience", [1, 86_400])
def test_a_reader_that_holds_the_table_is_waited_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, *, patience: int, own: bool
) -> None:
    """For a bounded time; then the error is one that is tried again."""
    monkeypatch.setattr(_swap_mysql, "LOCK_TIMEOUT", 1)

    def limit(made: Any, _record: Any) -> None:
        with made.cursor() as cursor:
            cursor.execute(f"SET SESSION lock_wait_timeout = {patience}")

    event.listen(engine, "connect", limit)
    run(engine, *OLD)
    attempt = Attempt(engine, own).begin().write()
    with engine.connect() as reader:
        reader.execute(text("SELECT * FROM target")).all()
        with pytest.raises(DBAPIError) as caught:
            attempt.complete()
        assert is_transient(caught.value)
        assert reader.execute(text("SELECT id FROM target")).scalar_one() == 7
    attempt.complete()
    assert rows(engine) == loaded(1)
    assert ask(engine, "SELECT @@SESSION.lock_wait_timeout") == [(patience,)]


def at(engine: Engine, start: str, action: Any) -> None:
    """Do something once before a statement that starts so is sent."""

    todo = [action]

    def look(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if todo and statement.startswith(start):
            todo.pop()()

    event.listen(engine, "before_cursor_execute", look)


@pytest.fixture
def zombie(engine: Engine) -> Attempt:
    run(engine, *OLD)
    return Attempt(engine, own=False).begin().write(2)


def test_a_zombie_that_wakes_at_its_swap_finds_nothing(engine: Engine, zombie: Attempt) -> None:
    successor = Attempt(engine, own=False, done=2)
    at(engine, "RENAME", lambda: successor.begin().write())
    with pytest.raises(LeaseLostError):
        zombie.complete()
    assert rows(engine) == [(7, "old")]
    successor.complete()
    assert rows(engine) == loaded(3)
    assert tables(engine) == {"target"}


def test_a_zombie_that_wakes_after_its_swap_changes_nothing(engine: Engine, zombie: Attempt) -> None:
    """The successor finds the swap done, ends the run, and makes another; then the zombie notes what it did."""

    def meanwhile() -> None:
        Attempt(engine, own=False, done=2).begin().write().complete()
        assert rows(engine) == loaded(3)
        Attempt(engine, own=False, run_id="run 2").begin().write().complete()
        Attempt(engine, own=False, run_id="run 3").begin().write(4)

    at(engine, "UPDATE resumable_sync_staging", meanwhile)
    zombie.complete()
    assert rows(engine) == loaded(1)
    Attempt(engine, own=False, run_id="run 3", done=4).begin().complete()
    assert rows(engine) == loaded(4)
    assert tables(engine) == {"target"}


def test_a_zombie_swaps_while_its_successor_takes_over(engine: Engine, zombie: Attempt) -> None:
    """It is the same rows; the successor sees that, and goes on behind them."""
    staging, successor = stagings(engine)[0], zombie.next()
    at(engine, "RENAME", lambda: run(engine, f"RENAME TABLE target TO {staging}_old, {staging} TO target"))
    successor.begin()
    assert rows(engine) == loaded(2)
    successor.write().complete()
    assert rows(engine) == loaded(3)
    assert tables(engine) == {"target"}


def test_a_zombie_ends_while_its_successor_looks(engine: Engine, zombie: Attempt) -> None:
    """Neither staging table nor old table is there when the successor looks, and only the register knows why."""
    successor = Attempt(engine, own=False, done=2)
    at(engine, "\n    SELECT t.table_type", zombie.complete)
    successor.begin().write().complete()
    assert rows(engine) == loaded(3)
    assert tables(engine) == {"target"}


def test_a_zombie_begins_while_its_successor_does(engine: Engine, zombie: Attempt) -> None:
    late, successor = Attempt(engine, own=False, done=2), Attempt(engine, own=False, done=2)
    at(engine, "RENAME", successor.begin)
    with pytest.raises(LeaseLostError):
        late.begin()
    successor.write().complete()
    assert rows(engine) == loaded(3)
    assert tables(engine) == {"target"}
    del zombie


def test_a_zombie_makes_a_table_too_late(engine: Engine) -> None:
    """It drops it again."""
    run(engine, "CREATE TABLE target (id INTEGER PRIMARY KEY, name VARCHAR(20))")
    late = Attempt(engine, own=False)
    at(engine, "CREATE TABLE `resumable_sync_", lambda: Attempt(engine, own=False).begin().write(2).complete())
    with pytest.raises(LeaseLostError):
        late.begin()
    assert rows(engine) == loaded(2)
    assert tables(engine) == {"target"}


def test_half_a_swap_is_undone(engine: Engine, zombie: Attempt) -> None:
    """A server without atomic DDL may be killed between the two names of one RENAME."""
    staging = stagings(engine)[0]
    run(engine, f"RENAME TABLE target TO {staging}_old")
    successor = zombie.next()
    successor.begin()
    assert rows(engine) == [(7, "old")]
    run(engine, f"RENAME TABLE target TO {stagings(engine)[0]}_old")
    Attempt(engine, own=False, run_id="run 2").begin()
    assert rows(engine) == [(7, "old")]


def test_the_old_table_is_never_dropped_while_there_is_no_other(engine: Engine, zombie: Attempt) -> None:
    staging = stagings(engine)[0]

    def die() -> None:
        raise DiedError

    at(engine, "UPDATE resumable_sync_staging", die)
    with pytest.raises(DiedError):
        zombie.complete()
    assert tables(engine) == {"target", f"{staging}_old"}
    run(engine, "DROP TABLE target")
    with pytest.raises(ConfigurationError, match="there is no table 'target' any more"):
        zombie.next().begin()
    assert rows(engine, f"{staging}_old") == [(7, "old")]


@pytest.mark.parametrize("name", ["a `b` 100% %s", "x.y", "ünï:cøde", "SELECT"])
def test_names_may_hold_anything(engine: Engine, name: str) -> None:
    quoted = f"`{name.replace('`', '``')}`"
    run(engine, f"CREATE TABLE {quoted} (id INTEGER PRIMARY KEY, name VARCHAR(20))")
    attempt = Attempt(engine, own=False, table=name, options={"schema": engine.url.database})
    attempt.begin().write(1).next().begin().write(1).complete()
    with engine.connect() as connection:
        statement = f"SELECT id, name FROM {quoted}"
        assert [tuple(row) for row in connection.exec_driver_sql(statement.replace("%", "%%"))] == loaded(2)
    assert tables(engine) == {name}


def test_a_table_of_another_database(engine: Engine) -> None:
    other = f"{engine.url.database}_b"
    run(engine, f"CREATE DATABASE {other}", f"CREATE TABLE {other}.target (id INTEGER PRIMARY KEY, name VARCHAR(20))")
    try:
        Attempt(engine, own=False, table=f"{other}.target").begin().write(2).complete()
        assert rows(engine, f"{other}.target") == loaded(2)
        assert ask(engine, f"SHOW TABLES FROM {other}") == [("resumable_sync_staging",), ("target",)]
        assert ask(engine, "SHOW TABLES") == []
    finally:
        run(engine, f"DROP DATABASE {other}")


def test_other_attempts_that_rename_without_end(zombie: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_swap_mysql, "MAX_RACES", 0)
    with pytest.raises(StoreError, match="renamed again and again by other attempts"):
        zombie.complete()
