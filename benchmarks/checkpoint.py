"""What a checkpoint costs beside the caller's work, next to a loop written by hand.

Both sides insert the same rows in the transaction that moves the checkpoint. What is measured is the time from the end of
one insert to the start of the next: the checkpoint, the commit, and everything the engine does between two batches. The
hand-written loop sends one UPDATE with a token condition and commits; on SQLite it only commits.
"""

import functools
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, make_url

from benchmarks._common import Meter, ReadyPages, Report, alternate, servers, slowdown
from resumable_sync import Batch, run_full_sync, transactional
from resumable_sync.stores.sql import SQLJobStore

BATCHES = 200
ROUNDS = 9
ROWS = [(number, f"customer{number}@example.org", number * 7) for number in range(1_000)]
TABLE = "CREATE TABLE orders (id INTEGER, customer VARCHAR(60), cents INTEGER)"
CHECKPOINT = "CREATE TABLE checkpoint (id VARCHAR(60) PRIMARY KEY, token BIGINT, place BIGINT, records BIGINT)"
MOVE = "UPDATE checkpoint SET place = %s, records = %s WHERE id = 'orders' AND token = %s"

Insert = Callable[[Any], object]
"""Writes `ROWS` on a connection of the driver."""


def insert_sqlite(connection: Any) -> None:
    """Insert with executemany."""
    connection.executemany("INSERT INTO orders VALUES (?, ?, ?)", ROWS)


def insert_postgres(connection: Any) -> None:
    """Insert with COPY."""
    with connection.cursor() as cursor, cursor.copy("COPY orders FROM STDIN") as copy:
        for row in ROWS:
            copy.write_row(row)


def insert_mariadb(connection: Any) -> None:
    """Insert with the driver's executemany."""
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO orders VALUES (%s, %s, %s)", ROWS)


def library(url: str, insert: Insert, batches: int = BATCHES) -> float:
    """Give the seconds per batch that the library takes beside the insert."""
    meter = Meter()

    def write(_batch: Batch[Any], connection: Connection) -> None:
        meter.work(insert, connection.connection.driver_connection)

    with SQLJobStore(url) as store:
        store.delete("orders")
        connector = ReadyPages(["record"], batches)
        run_full_sync("orders", connector, transactional(write), store=store, prefetch=0)
    return meter.median()


def by_hand(connection: Any, insert: Insert) -> float:
    """Give the seconds per batch that a loop takes beside the insert: an UPDATE and a commit."""
    meter = Meter()
    # psycopg prepares a statement that it sees for the fifth time, PyMySQL none.
    with connection.cursor() as cursor:
        for number in range(BATCHES):
            meter.work(insert, connection)
            cursor.execute(MOVE, (number, number * len(ROWS), 1))
            assert cursor.rowcount == 1
            connection.commit()
    return meter.median()


def bare_commit(path: Path) -> float:
    """Give the seconds per batch that SQLite takes to commit, and to begin again."""
    meter = Meter()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    for _ in range(BATCHES):
        connection.execute("BEGIN IMMEDIATE")
        meter.work(insert_sqlite, connection)
        connection.execute("COMMIT")
    connection.close()
    return meter.median()


def fresh(run: Callable[[Path], float]) -> float:
    """Run on a new SQLite file in WAL mode with the table in it, so that every round meets the same."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "warehouse.db")
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(TABLE)
        connection.close()
        return run(path)


def emptied(url: str, run: Callable[[], float]) -> float:
    """Run on a server's database with the table empty."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE TABLE orders")
    engine.dispose()
    return run()


def prepare(url: str) -> Any:
    """Make the tables on a server, and give a connection of the driver for the loop written by hand."""
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in (TABLE, CHECKPOINT, "INSERT INTO checkpoint VALUES ('orders', 1, 0, 0)"):
            connection.exec_driver_sql(statement)
    engine.dispose()
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        import psycopg

        return psycopg.connect(parsed.set(drivername="postgresql").render_as_string(hide_password=False))
    import pymysql
    from pymysql.constants.CLIENT import FOUND_ROWS

    return pymysql.connect(
        host=parsed.host,
        port=parsed.port or 0,
        user=parsed.username,
        database=parsed.database,
        charset="utf8mb4",
        client_flag=FOUND_ROWS,  # else an UPDATE that changes nothing has no rowcount
    )


def per_batch(trace: Callable[[int], Iterable[str]]) -> tuple[int, int]:
    """Count statements and commits per batch, without the caller's inserts.

    Args:
        trace: Gives all statements of a sync of so many batches; what one of 150 sends more than one of 50 is the batches'.
    """
    counts = []
    for batches in (50, 150):
        kinds = [statement.split(maxsplit=1)[0].upper() for statement in trace(batches) if statement.strip()]
        ours = [kind for kind in kinds if kind not in {"INSERT", "COPY", "COMMIT"}]
        counts.append((len(ours), kinds.count("COMMIT")))
    (few, few_commits), (many, many_commits) = counts
    return round((many - few) / 100), round((many_commits - few_commits) / 100)


def trace_sqlite(batches: int) -> list[str]:
    """Give the statements that SQLite ran."""
    statements: list[str] = []

    def trace(connection: Any, _record: Any) -> None:
        connection.set_trace_callback(statements.append)

    def run(path: Path) -> float:
        engine = create_engine(f"sqlite:///{path}")
        event.listen(engine, "connect", trace)
        store = SQLJobStore(engine)
        write = transactional(lambda _batch, _connection: None)
        run_full_sync("orders", ReadyPages(["record"], batches), write, store=store, prefetch=0)
        engine.dispose()
        return 0.0

    fresh(run)
    return statements


def trace_postgres(server: Any, url: str, batches: int) -> list[str]:
    """Give the statements that PostgreSQL logged."""
    server.execute(f"ALTER DATABASE {make_url(url).database} SET log_statement = 'all'")
    before = len(server.log())
    library(url, insert_postgres, batches)
    server.execute(f"ALTER DATABASE {make_url(url).database} RESET log_statement")
    lines = server.log()[before:].splitlines()
    logged = (line.partition("LOG:")[2].strip() for line in lines)
    return [text.partition(": ")[2] for text in logged if text.startswith(("statement:", "execute "))]


def trace_mariadb(server: Any, url: str, batches: int) -> list[str]:
    """Give the statements that MariaDB logged."""
    server.execute("SET GLOBAL log_output = 'TABLE'")
    server.execute("TRUNCATE TABLE mysql.general_log")
    server.execute("SET GLOBAL general_log = 1")
    library(url, insert_mariadb, batches)
    server.execute("SET GLOBAL general_log = 0")
    return [
        str(argument)
        for (argument,) in server.execute("SELECT argument FROM mysql.general_log WHERE command_type = 'Query'")
    ]


def milliseconds(times: list[float]) -> str:
    """Write the median."""
    return f"{statistics.median(times) * 1000:.3f} ms"


def main() -> int:
    """Measure and print."""
    costs = Report("Checkpoint beside the caller's insert of 1,000 rows, per batch", "library", "by hand")
    counts = Report("Statements per batch beside the caller's insert", "commits")

    def count(name: str, trace: Callable[[int], Iterable[str]], statements: int | None = 2) -> None:
        sent, commits = per_batch(trace)
        counts.add(name, str(commits), figure=sent + max(0, commits - 1) * 100, form="{:.0f}", bound=statements)

    ours, bare = alternate(
        ROUNDS, [lambda: fresh(lambda path: library(f"sqlite:///{path}", insert_sqlite)), lambda: fresh(bare_commit)]
    )
    beyond = statistics.median(our - their for our, their in zip(ours, bare, strict=True)) * 1000
    costs.add("SQLite, beyond a bare commit", milliseconds(ours), milliseconds(bare), figure=beyond, form="{:.3f} ms", bound=0.5)
    count("SQLite", trace_sqlite)
    for name, serve, insert, trace, bound in (
        ("PostgreSQL", servers().postgres_server, insert_postgres, trace_postgres, 1.3),
        ("MariaDB", servers().mariadb_server, insert_mariadb, trace_mariadb, None),
    ):
        with serve(own=True) as server:
            url = server.create_database()
            connection = prepare(url)
            sides = [functools.partial(library, url, insert), functools.partial(by_hand, connection, insert)]
            ours, theirs = alternate(ROUNDS, [functools.partial(emptied, url, side) for side in sides])
            costs.add(
                name, milliseconds(ours), milliseconds(theirs), figure=slowdown(ours, theirs), form="{:.2f} x", bound=bound
            )
            count(name, functools.partial(trace, server, url))
            connection.close()
    return costs.finish() | counts.finish()


if __name__ == "__main__":
    sys.exit(main())
