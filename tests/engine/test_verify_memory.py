"""A verification takes the memory of a few batches, whatever the tables hold."""

import sqlite3
import tracemalloc
from collections.abc import Callable
from contextlib import closing

import pytest

from resumable_sync import verify_full_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.stores.sql import SQLJobStore

WIDTH = 6_000
ROWS = 1_200


def fill(url: str, first: int, last: int) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database, database:
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)")
        rows = ((number, f"{number:0{WIDTH}}") for number in range(first, last))
        database.executemany("INSERT INTO t VALUES (?, ?)", rows)


@pytest.mark.once
def test_memory_is_that_of_a_few_batches(new_database: Callable[[str], str]) -> None:
    shift = ROWS // 2  # the first half is missing, as many are extra behind the last
    source, target = new_database("sqlite"), new_database("sqlite")
    fill(source, 0, ROWS)
    fill(target, shift, ROWS + shift)
    ours, theirs = SQLConnector(source, "t"), SQLConnector(target, "t")

    def peak(batch_size: int) -> int:
        with SQLJobStore(new_database("sqlite")) as store:
            tracemalloc.start()
            try:
                result = verify_full_sync(ours, theirs, store=store, batch_size=batch_size, max_differences=10)
                found = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert (result.equal, result.missing, result.extra) == (
            max(ROWS - shift, 0),
            min(shift, ROWS),
            min(shift, ROWS),
        )
        return found

    peak(500)  # what is compiled and imported once
    # Both sides hold 1,200 rows of six kilobytes.
    assert peak(30) < ROWS * WIDTH // 5
    ours.close()
    theirs.close()
