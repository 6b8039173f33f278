"""One sync in parts, as three plain functions for any scheduler: plan, one part, complete.

What a worker needs beside the number of its part stands in its environment: `SHOP_URL` with the source, and
`WAREHOUSE_URL` with the target and the job store. `celery_tasks.py` and `airflow_dag.py` call these functions. For
Kubernetes it is a program:

    python orders_in_parts.py plan        prints how many `completions` the Job of the parts needs; 0: none are left
    python orders_in_parts.py part        in that Job, with `completionMode: Indexed`
    python orders_in_parts.py complete    behind it
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from resumable_sync import begin_partitioned_sync, complete_partitioned_sync, part_of
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore

JOB_ID = "orders"
PARTS = 16


class HeldError(Exception):
    """Another worker has the part: try again later."""


@contextlib.contextmanager
def pieces() -> Iterator[tuple[SQLConnector, SQLSink, SQLJobStore]]:
    """Make connector, sink and store, in whatever process."""
    with (
        contextlib.closing(SQLConnector(os.environ["SHOP_URL"], "orders")) as connector,
        SQLJobStore(os.environ["WAREHOUSE_URL"]) as store,
    ):
        yield connector, SQLSink("orders", mode="replace"), store


def plan() -> list[int]:
    """Make the plan, or find the one of a run that is not complete; give the numbers of the parts that are left."""
    with pieces() as (connector, sink, store):
        return [part.index for part in begin_partitioned_sync(JOB_ID, connector, sink, store=store, parts=PARTS)]


def sync_part(index: int) -> int:
    """Copy one part; called again after any death, it goes on where it stopped. Gives the records that it copied."""
    with pieces() as (connector, sink, store):
        result = part_of(JOB_ID, index, store=store).run(connector, sink, store=store, batch_size=10_000)
    if result.action == "held":
        raise HeldError(result.reason)
    if result.status != "completed":
        raise RuntimeError(result.reason)
    return result.records


def complete() -> dict[str, Any]:
    """End the whole: now the new table takes the target's place."""
    with pieces() as (connector, sink, store):
        result = complete_partitioned_sync(JOB_ID, connector, sink, store=store)
    if result.status != "completed":
        raise RuntimeError(result.reason)
    return {"status": str(result.status), "records": result.job.processed_records}


def main(step: str) -> None:
    """Do a step; any error makes the exit status 1, with which Kubernetes starts it again."""
    if step == "plan":
        # Indexes are counted from 0, and a part that is done already is passed over.
        print(max(plan(), default=-1) + 1)
    elif step == "part":
        print(sync_part(int(os.environ["JOB_COMPLETION_INDEX"])))
    elif step == "complete":
        print(complete())
    else:
        sys.exit(f"{step!r} is none of plan, part, complete")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
