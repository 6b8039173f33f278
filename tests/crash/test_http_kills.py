"""A sync of an HTTP API into SQLite whose processes are killed at random moments: nothing lost, nothing twice."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from connectors.http_api import API, api_of, orders
from resumable_sync.connectors.http import (
    HTTPConnector,
    KeysetPaging,
    LinkPaging,
    OffsetPaging,
    PagePaging,
    TokenPaging,
)
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import FaultyConnector, FaultySink, FaultyStore, SyncParts, crash_points, kill_randomly

# One process can be killed 1,000 times on each database; here the paging is what differs.
KILLS = max(1, int(os.environ.get("RESUMABLE_SYNC_KILLS", "1000")) // 5)
NewDatabase = Callable[[str], str]
KINDS: dict[str, tuple[Any, int]] = {
    "offset": (OffsetPaging(page_size=70), 4),
    "page": (PagePaging(), 1),
    "token": (TokenPaging(token="meta.next", token_param="token", anchor={"since_id": "id"}), 1),
    "link": (LinkPaging(), 1),
    "keyset": (KeysetPaging(key={"since_id": "id"}), 1),
}


@attrs.frozen(kw_only=True)
class Program:
    """A sync from a route of the API.

    Attributes:
        api: The URL of the API.
        route: Of this way of paging.
        target: URL of the database of target and store.
    """

    api: str
    route: str
    target: str

    def make(self) -> SyncParts:
        """Give the parts; in each process anew."""
        paging, concurrency = KINDS[self.route]
        url = f"{self.api}/{self.route}"
        return SyncParts(
            job_id="orders",
            connector=FaultyConnector(
                HTTPConnector(url, paging=paging, records="data.items", concurrency=concurrency), ()
            ),
            sink=FaultySink(SQLSink("target", mode="append"), ()),
            store=FaultyStore(SQLJobStore(self.target), ()),
            # Smaller than a page: most deaths are inside of one.
            options={"batch_size": 20, "max_stalled_attempts": 1_000_000},
        )

    def delivered(self) -> Sequence[int]:
        """Give the ids that the target holds."""
        return [row[0] for row in self._run("SELECT id FROM target")]

    def reset(self) -> None:
        """Forget job and target."""
        with SQLJobStore(self.target) as store:
            store.delete("orders")
        self._run("DROP TABLE IF EXISTS target")
        self._run("CREATE TABLE target (id INTEGER, name TEXT, changed TEXT)")

    def _run(self, statement: str) -> Sequence[Any]:
        engine = sa.create_engine(self.target, poolclass=NullPool)
        with engine.begin() as connection:
            result = connection.exec_driver_sql(statement)
            return result.all() if result.returns_rows else []


def kill_often(api: API, new_database: NewDatabase, route: str, kills: int) -> None:
    program = Program(api=api.url, route=route, target=new_database("sqlite"))
    program.reset()
    report = kill_randomly(
        program.make,
        expected=lambda: [record["id"] for record in api.records],
        delivered=program.delivered,
        reset=program.reset,
        kills=kills,
    )
    print(route, report)
    report.check()
    assert report.deaths == kills
    assert report.repeated == 0


def test_a_few_kills(new_database: NewDatabase) -> None:
    with api_of(orders(400), 50) as api:
        kill_often(api, new_database, "offset", 6)


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("route", KINDS)
def test_every_step(new_database: NewDatabase, route: str) -> None:
    with api_of(orders(70), 50) as api:
        program = Program(api=api.url, route=route, target=new_database("sqlite"))
        report = crash_points(
            program.make,
            expected=lambda: [record["id"] for record in api.records],
            delivered=program.delivered,
            reset=program.reset,
        )
    report.check()
    assert report.repeated == 0
    assert {"before page", "after page", "before commit", "after commit"} <= set(report.killed_at)


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("route", KINDS)
def test_many_kills(new_database: NewDatabase, route: str) -> None:
    with api_of(orders(2_000), 50) as api:
        kill_often(api, new_database, route, KILLS)
