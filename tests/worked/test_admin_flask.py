"""The admin page: started, watched, stopped in the middle, started again."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from admin_flask import admin
from flask import Flask
from typing_extensions import override

from resumable_sync import OffsetConnector, SyncResult, run_full_sync
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing._store_base import wait_until

pytestmark = pytest.mark.once


class Numbers(OffsetConnector[int]):
    """Reads on from 3,000 only when it may."""

    def __init__(self, may_go_on: threading.Event) -> None:
        self.reached, self.may_go_on = threading.Event(), may_go_on

    @override
    def fetch(self, offset: int, limit: int) -> list[int]:
        if offset == 3_000:
            self.reached.set()
            assert self.may_go_on.wait(60)
        return list(range(offset, min(offset + limit, 5_000)))

    @override
    def count(self) -> int:
        return 5_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLJobStore]:
    with SQLJobStore(f"sqlite:///{tmp_path}/jobs.db") as store:
        yield store


def client(store: SQLJobStore, **syncs: Callable[[SQLJobStore], SyncResult]) -> Any:
    app = Flask("shop")
    app.register_blueprint(admin(store, syncs), url_prefix="/admin")
    return app.test_client()


def finished(browser: Any, status: str) -> None:
    wait_until(lambda: browser.get("/admin/syncs/numbers").json["status"] == status, f"the sync is not {status}")
    for thread in threading.enumerate():
        if thread.name == "sync numbers":
            thread.join(60)


def test_start_watch_stop(store: SQLJobStore) -> None:
    delivered: list[int] = []
    may_go_on = threading.Event()
    source = Numbers(may_go_on)

    def sync(store: SQLJobStore) -> SyncResult:
        deliver: Callable[[Any], None] = lambda batch: delivered.extend(batch.records)  # noqa: E731 - a sink
        return run_full_sync("numbers", source, deliver, store=store, if_held="skip", prefetch=0)

    browser = client(store, numbers=sync)
    assert browser.get("/admin/syncs/numbers").json == {"id": "numbers", "status": "never run", "attempts": []}
    assert browser.get("/admin/syncs/customers").status_code == 404

    assert browser.post("/admin/syncs/numbers").status_code == 202
    assert source.reached.wait(60)
    watched = browser.get("/admin/syncs/numbers").json
    assert (watched["status"], watched["processed"]) == ("running", 3_000)
    assert browser.post("/admin/syncs/numbers").status_code == 409

    assert browser.post("/admin/syncs/numbers/stop").status_code == 202
    may_go_on.set()
    finished(browser, "interrupted")
    assert browser.get("/admin/syncs/numbers").json["processed"] == 4_000

    assert browser.post("/admin/syncs/numbers").status_code == 202
    finished(browser, "completed")
    assert delivered == list(range(5_000))
    watched = browser.get("/admin/syncs/numbers").json
    assert (watched["processed"], watched["total"]) == (5_000, 5_000)
    assert [(one["outcome"], one["from"], one["to"]) for one in watched["attempts"]] == [
        ("interrupted", 0, 4_000),
        ("completed", 4_000, 5_000),
    ]


def test_a_failure_is_shown(store: SQLJobStore, caplog: pytest.LogCaptureFixture) -> None:
    def sync(store: SQLJobStore) -> SyncResult:
        def refuse(batch: Any) -> None:
            raise ValueError("the warehouse is full")

        may_go_on = threading.Event()
        may_go_on.set()
        return run_full_sync("numbers", Numbers(may_go_on), refuse, store=store)

    browser = client(store, numbers=sync)
    assert browser.post("/admin/syncs/numbers").status_code == 202
    finished(browser, "failed")
    assert browser.get("/admin/syncs/numbers").json["error"] == "ValueError: the warehouse is full"
    assert "sync numbers failed" in caplog.text
