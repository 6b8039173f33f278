"""Copies a table of 300,000 orders while being killed three times, then counts what arrived.

Usage: `python examples/demo.py [FOLDER]` (default: a temporary folder). Exit status 1 if a row was lost or duplicated.
"""

import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from resumable_sync import SyncResult, plan_full_sync, run_full_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore

ORDERS = 300_000
KILLS = 3


def ports(folder: Path) -> tuple[str, SQLConnector, SQLSink]:
    """Give what is synced: the job id, where from, where to. The same in every process."""
    return "orders", SQLConnector(f"sqlite:///{folder / 'shop.db'}", "orders"), SQLSink("orders", mode="append")


def job_store(folder: Path) -> SQLJobStore:
    """Give the store, in the target's own database: rows and checkpoint commit together."""
    return SQLJobStore(f"sqlite:///{folder / 'warehouse.db'}")


def sync(folder: Path) -> SyncResult:
    """Run the sync; this is all that a program has to do, the first time and after every death."""
    with job_store(folder) as store:
        return run_full_sync(*ports(folder), store=store, batch_size=500)


def build_shop(folder: Path) -> None:
    """Make a shop database with orders; ids have gaps, as they do."""
    rng = random.Random(7)
    rows = (
        (
            number * 3 + rng.randrange(3),
            f"customer{rng.randrange(20_000)}@example.org",
            rng.choice(("new", "paid", "sent", "returned")),
            rng.randrange(100, 100_000),
            f"2026-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}T{rng.randrange(24):02}:00:00",
            rng.choice((None, "gift", "fragile; leave at the door")),
        )
        for number in range(ORDERS)
    )
    with closing(sqlite3.connect(folder / "shop.db")) as connection, connection:
        connection.execute(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, status TEXT NOT NULL,"
            " cents INTEGER NOT NULL, ordered_at TEXT NOT NULL, note TEXT)"
        )
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)", rows)


def say_plan(folder: Path) -> None:
    """Print in one line what the next start detects, and from where it goes on."""
    with job_store(folder) as store:
        plan = plan_full_sync(*ports(folder), store=store, batch_size=500)
    print(f"  start: {plan.action:6} at record {plan.processed_records:>7,}  ({plan.reason}; {plan.guarantee})")


def run_and_kill(folder: Path, at_record: int) -> None:
    """Run the sync in a child process and kill it once it has got past a record."""
    child = subprocess.Popen([sys.executable, __file__, str(folder), "--child"])
    with job_store(folder) as store:
        while child.poll() is None:
            job = store.load("orders")
            if job is not None and job.processed_records >= at_record:
                child.send_signal(signal.SIGKILL)
                child.wait()
                print(f"  kill -9 after {at_record:,} records or a little later")
                return
            time.sleep(0.002)
    if child.returncode != 0:
        sys.exit(f"the child ended with status {child.returncode}")


def verdict(folder: Path) -> bool:
    """Compare source and target row by row; True if they are the same."""
    missing = extra = 0
    with (
        closing(sqlite3.connect(folder / "shop.db")) as shop,
        closing(sqlite3.connect(folder / "warehouse.db")) as warehouse,
    ):
        query = "SELECT * FROM orders ORDER BY id"
        source, target = shop.execute(query), warehouse.execute(query)
        expected, found = source.fetchone(), target.fetchone()
        while expected or found:
            if expected == found:
                expected, found = source.fetchone(), target.fetchone()
            elif found is None or (expected is not None and expected[0] < found[0]):
                missing, expected = missing + 1, source.fetchone()
            else:
                extra, found = extra + 1, target.fetchone()
        (count,) = warehouse.execute("SELECT count(*) FROM orders").fetchone()
    print(f"\n{count:,} rows in the target: {missing} lost or changed, {extra} duplicated or changed")
    return missing == extra == 0 and count == ORDERS


def main(folder: Path) -> int:
    """Build, sync, kill, resume, compare."""
    print(f"building a shop with {ORDERS:,} orders")
    build_shop(folder)
    # No primary key in the target: a row that arrives twice must show, not fail.
    with closing(sqlite3.connect(folder / "warehouse.db")) as connection, connection:
        connection.execute(
            "CREATE TABLE orders (id INTEGER, customer TEXT, status TEXT, cents INTEGER, ordered_at TEXT, note TEXT)"
        )
    print(f"syncing it into another database, killing the process {KILLS} times")
    step = ORDERS // (KILLS + 1)
    for number in range(KILLS):
        say_plan(folder)
        run_and_kill(folder, step * number + random.randrange(step // 10, step))
    say_plan(folder)
    result = sync(folder)
    print(
        f"  {result.status}: {result.records:,} records in attempt {result.job.attempt}, "
        f"{result.job.processed_records:,} in all"
    )
    exact = verdict(folder)
    print("nothing lost, nothing duplicated" if exact else "NOT EXACT")
    return 0 if exact else 1


if __name__ == "__main__":
    if "--child" in sys.argv:
        sync(Path(sys.argv[1]))
    elif len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            sys.exit(main(Path(temporary)))
