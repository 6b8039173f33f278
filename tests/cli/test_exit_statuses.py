"""The real command ends with the status that schedulers go by, and what is killed goes on where it was."""

import json
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.commands import ROWS, Shop, rows_of, write
from connectors.http_api import Reply, Request, api_of, orders
from resumable_sync.stores.sql import SQLJobStore

pytestmark = pytest.mark.kills


@pytest.fixture(params=["sqlite"])
def shop(request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[[str], str]) -> Shop:
    made = Shop(tmp_path, new_database(request.param), new_database(request.param))
    made.build()
    return made


def test_0_is_completed(shop: Shop) -> None:
    done = shop.run("run")
    assert (done.returncode, done.stdout[:32]) == (0, "orders: completed, 2,000 records"), done.stderr
    # Beside a sync as short as this the source may not have been counted to its end.
    assert re.search(r" 2,000( of 2,000)? in all, run 1, attempt 1, exactly_once\n$", done.stdout)
    said = r"orders: new at record 0 \(nothing was delivered yet; exactly_once(; as sqlite-window)?\)\n"
    assert re.fullmatch(said, done.stderr)
    shop.check_exact()


def test_1_is_failed(shop: Shop) -> None:
    write(shop.target, "CREATE TABLE copies (id INTEGER PRIMARY KEY, customer TEXT CHECK (id <> 250))")
    done = shop.run("run", "--json", "-q")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["job_id"], told["error"]["type"], told["exit_status"]) == ("orders", "IntegrityError", 1)
    assert "the checkpoint stands at 200 records; call again" in told["error"]["notes"][0]
    assert "orders: IntegrityError: CHECK constraint failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_2_is_usage(shop: Shop) -> None:
    done = shop.run("run", "nowhere.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nowhere.toml cannot be read: No such file or directory; give the path of a sync file\n"


def test_3_is_held(shop: Shop) -> None:
    with SQLJobStore(shop.target) as store:
        lease = store.acquire("orders", owner="elsewhere:1:x", ttl=300.0)
        done = shop.run("run")
        assert (done.returncode, done.stdout) == (3, "")
        assert "orders: JobHeldError: job 'orders' is held by elsewhere:1:x until" in done.stderr
        store.release(lease)


def test_4_is_incomplete_until_its_dead_letters_are_replayed(shop: Shop) -> None:
    write(shop.target, "CREATE TABLE copies (id INTEGER PRIMARY KEY, customer TEXT CHECK (id <> 250))")
    shop.configure('on_refused = "dead_letter"')
    done = shop.run("run")
    assert (done.returncode, done.stdout[:18]) == (4, "orders: incomplete"), done.stderr
    assert "1 dead letter; see them with: resumable-sync dead-letters orders -c sync.toml" in done.stdout
    write(shop.target, "DROP TABLE copies", "CREATE TABLE copies (id INTEGER, customer TEXT)")
    done = shop.run("dead-letters", "orders", "--replay")
    assert (done.returncode, done.stdout) == (0, "orders: completed, 1 dead letter delivered, 0 left\n"), done.stderr


def test_75_is_interrupted_and_goes_on(shop: Shop) -> None:
    for number, records in ((signal.SIGINT, 200), (signal.SIGTERM, 600)):
        status, out, err = shop.kill_in_the_middle(number, records)
        assert status == 75, err
        assert f"({number.name}); go on with: resumable-sync run sync.toml orders" in out
    stands = shop.records()
    assert 600 <= stands < ROWS
    done = shop.run("run")
    assert (done.returncode, done.stderr[:27]) == (0, f"orders: resume at record {stands:,}"[:27])
    shop.check_exact()


@pytest.mark.parametrize("shop", [pytest.param("sqlite", marks=pytest.mark.crash), "postgresql"], indirect=True)
def test_what_was_killed_goes_on(shop: Shop) -> None:
    status, _, err = shop.kill_in_the_middle(signal.SIGKILL, 500)
    assert status == -signal.SIGKILL, err
    done = shop.run("run", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["status"], told["action"], told["job"]["attempt"]) == ("completed", "resume", 2)
    assert told["records"] <= ROWS - 500
    shop.check_exact()


def test_a_terminal_shows_progress_and_a_live_table(shop: Shop) -> None:
    shop.run("run", "-q", "--max-records", "500")
    status, screen = shop.in_terminal("run")
    assert (status, "2,000" in screen) == (0, True)
    assert "━" in screen
    assert "restart 1" in screen
    status, screen = shop.in_terminal("top", "--times", "2", "--interval", "0.1")
    assert (status, screen.count("1 job, 0 at work, 0 records/s, 0 to look after") >= 2) == (0, True)


API_TO_POSTGRESQL = """
job = "api-orders"
sink = { type = "sql", table = "orders", mode = "append" }
store = { type = "sql", url = "${WAREHOUSE}" }
options = { batch_size = 50 }

[source]
type = "http"
url = "${API}/keyset"
records = "data.items"
headers = { Authorization = "Bearer ${API_TOKEN}" }
paging = { type = "keyset", key = { since_id = "id" } }
"""
TOKEN = "hunter2hunter2"


def test_a_sync_of_an_api_goes_on_after_a_kill(tmp_path: Path, postgres_url: str) -> None:
    write(postgres_url, "CREATE TABLE orders (id INTEGER, name TEXT, changed TEXT)")
    (tmp_path / "sync.toml").write_text(API_TO_POSTGRESQL, encoding="utf-8")
    shop = Shop(tmp_path, "", postgres_url)
    asked, killed = threading.Event(), threading.Event()

    def hang(_request: Request) -> Reply | None:
        asked.set()
        killed.wait(60.0)
        return None

    with api_of(orders(500), size=50) as api:
        environment = {"API": api.url, "API_TOKEN": TOKEN}
        api.next(*([lambda _request: None] * 5), hang)
        with shop.start("run", **environment) as process:
            assert asked.wait(60.0)
            process.kill()
            _, err = process.communicate(timeout=60)
        killed.set()
        done = shop.run("run", "-v", **environment)
        assert {request.headers["authorization"] for request in api.requests} == {f"Bearer {TOKEN}"}
    assert (done.returncode, done.stdout[:21]) == (0, "api-orders: completed"), done.stderr
    assert "attempt 2, exactly_once" in done.stdout
    assert TOKEN not in err + done.stdout + done.stderr
    assert [row[0] for row in rows_of(postgres_url, "orders")] == [record["id"] for record in orders(500)]
