"""The sync of the night: started by cron again and again, it runs once a night, to its end, and stops before the day.

    # crontab: from one o'clock on, every ten minutes; whatever died, the next one goes on with it
    */10 1-5 * * *   cd /opt/etl && .venv/bin/python nightly.py --until 06:00 >> nightly.log 2>&1

What it needs stands in the environment: `SHOP_URL`, and `WAREHOUSE_URL` with the target and the job store. The exit
statuses are those of `resumable-sync run`: 0 done (now or before), 1 failed, 3 somebody works on it, 4 done but for
records that the sink refused (only with `on_refused="dead_letter"`), 75 interrupted.
"""

import argparse
import logging
import os
import sys
from datetime import UTC, datetime, time, timedelta

from resumable_sync import run_full_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore

NIGHT = timedelta(hours=12)
EXIT_STATUSES = {"completed": 0, "incomplete": 4, "interrupted": 75}


def sync(until: datetime) -> int:
    now = datetime.now(UTC)
    with SQLJobStore(os.environ["WAREHOUSE_URL"]) as store:
        job = store.load("orders")
        done = job is not None and job.finished_at is not None and now - job.finished_at < NIGHT
        result = run_full_sync(
            "orders",
            SQLConnector(os.environ["SHOP_URL"], "orders"),
            SQLSink("orders", mode="replace"),
            store=store,
            if_completed="skip" if done else "rerun",
            if_held="skip",  # cron starts the next one while this one is at work
            resume_within=NIGHT.total_seconds(),  # half of the night before is of no use
            max_runtime=max((until - now).total_seconds(), 0),
            stop_on_signals=True,
        )
    return 3 if result.action == "held" else EXIT_STATUSES[result.status]


def main() -> int:
    parser = argparse.ArgumentParser(description="Copy the shop's orders into the warehouse, once a night.")
    parser.add_argument("--until", type=time.fromisoformat, default=time(6), help="when to stop at the latest: HH:MM")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    now = datetime.now().astimezone()
    until = datetime.combine(now.date(), parser.parse_args().until).astimezone()
    return sync(until if until > now else until + timedelta(days=1))


if __name__ == "__main__":
    sys.exit(main())
