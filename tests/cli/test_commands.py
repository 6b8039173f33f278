"""What the commands tell and do, in this process."""

import json
import re
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from cli.commands import Shop, write
from cli.conftest import Told
from doubles import Numbers
from packages import install_package
from resumable_sync import Job, JobStatus, Lease, run_partitioned_sync
from resumable_sync._fingerprint import COMPARED, fingerprint_text
from resumable_sync.cli._common import _jobs_of_file, suggest_jobs
from resumable_sync.cli._output import age, counted, one_line, plain
from resumable_sync.cli._status import ExitStatus, worst
from resumable_sync.cli._sync_commands import run
from resumable_sync.cli._table import needs, standing
from resumable_sync.cli._top import Rates
from resumable_sync.stores.sql import SQLJobStore

Call = Callable[..., Told]
SECRET = "hunter2hunter2"
NOW = datetime(2026, 11, 28, tzinfo=UTC)


def told(found: Told) -> Any:
    return json.loads(found.out)


def test_a_plan_says_what_a_run_would_do(call: Call, shop: Shop) -> None:
    assert call("plan").out == "orders: new at record 0 (the job is not known yet; exactly_once; as sqlite-window)\n"
    assert shop.job() is None
    done = call("run", "--max-records", "300")
    assert (done.status, "(max_records=300 reached); go on with" in done.out) == (75, True)
    found = told(call("plan", "sync.toml", "orders", "--json"))
    assert (found["job_id"], found["action"], found["processed_records"]) == ("orders", "resume", 300)
    assert call("run", "--max-records", "300").status == 75
    assert call("run").status == 0
    shop.check_exact()
    assert call("run", "--if-completed", "skip").out == "orders: skip (run 1 is completed and if_completed='skip')\n"


def test_what_a_job_meets_after_it_began_is_no_usage(call: Call, tmp_path: Path, shop: Shop) -> None:
    for name, text in (("1.csv", "id,id2\n1,1\n2,2\n"), ("2.csv", "id,id\n3,3\n")):
        (tmp_path / name).write_text(text)
    (tmp_path / "sync.toml").write_text(
        """
        store = { type = "sql", url = "${WAREHOUSE}" }
        options = { batch_size = 1 }
        [jobs.a]
        source = { type = "csv", path = "[0-9].csv" }
        sink = { type = "jsonl", path = "a.jsonl", mode = "append" }
        [jobs.b]
        source = { type = "sql", url = "${SHOP}", table = "nowhere" }
        sink = { type = "sql", table = "copies", mode = "append" }
        """
    )
    done = call("run", "sync.toml", "--json", "-q")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [(one["job_id"], one["error"]["type"], one["exit_status"]) for one in found] == [
        ("a", "ConfigurationError", 1),
        ("b", "ConfigurationError", 2),
    ]
    assert done.status == 1
    assert call("run", "sync.toml", "b", "-q").status == 2


def test_jobs_and_their_attempts_are_shown(call: Call, shop: Shop) -> None:
    assert call("jobs").err == "this store has no jobs yet\n"
    call("run", "--max-records", "300")
    listed = call("jobs").out.splitlines()
    # The source is counted beside the batches: three may be done before that is.
    assert re.search(r"^\s*orders\s.*\binterrupted\b.*\b300\b( of 2,000\b)?.*\s1\.1\s", listed[1])
    assert "run again, it goes on" in listed[1]
    assert told(call("jobs", "--json"))["standing"] == "interrupted"
    shown = call("show", "orders").out
    assert re.search(r"records       300( of 2,000)? in 3 batches\n", shown)
    assert "1.1          0     300  interrupted" in shown
    found = told(call("show", "orders", "--json"))
    assert (found["processed_records"], found["attempts"][0]["outcome"]) == (300, "interrupted")
    missing = call("show", "order")
    assert (missing.status, missing.err) == (
        2,
        "there is no job 'order'; did you mean 'orders'?; the jobs of this store: 'orders'\n",
    )


def test_a_store_is_found_in_four_ways(call: Call, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    call("run", "--max-records", "300", "-q")
    assert told(call("jobs", "--json"))["id"] == "orders"
    (shop.folder / "sync.toml").rename(shop.folder / "other.toml")
    assert told(call("jobs", "-c", "other.toml", "--json"))["id"] == "orders"
    assert told(call("jobs", "--store", "${WAREHOUSE}", "--json"))["id"] == "orders"
    monkeypatch.setenv("RESUMABLE_SYNC_STORE", shop.target)
    assert told(call("jobs", "--json"))["id"] == "orders"
    both = call("jobs", "-c", "other.toml", "--store", shop.target)
    assert (both.status, both.err) == (2, "--store and --config both say where the store is; give one of them\n")


def test_a_url_of_redis_is_a_store(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "redis://:hunter2hunter2@127.0.0.1:1/0"
    monkeypatch.setenv("RESUMABLE_SYNC_STORE", url)
    for told in (call("jobs"), call("jobs", "--store", "${RESUMABLE_SYNC_STORE}"), call("jobs", "--store", url)):
        assert (told.status, "127.0.0.1:1" in told.err, SECRET in told.err) == (1, True, False), told.err
    assert "StoreError" in told.err


def test_a_completion_says_nothing_of_what_is_wrong(call: Call, tmp_path: Path) -> None:
    (tmp_path / "sync.toml").write_text("broken[")
    context = click.Context(run, info_name="run")
    for complete in (suggest_jobs, _jobs_of_file):
        assert complete(context, run.params[0], "") == []
    assert call("completion", "bash").status == 0


def test_a_worker_is_asked_to_stop(call: Call, shop: Shop) -> None:
    call("run", "--max-records", "300", "-q")
    assert call("stop", "orders").out == "orders: nobody works on it\n"
    with SQLJobStore(shop.target) as store:
        lease = store.acquire("orders", owner="elsewhere:7:x", ttl=300.0)
        asked = call("stop", "orders").out
        assert asked == "orders: elsewhere:7:x is asked to stop after the batch in hand\n"
        assert store.renew(lease, 300.0).stop_requested
        listed = call("top").out
        assert "1 job, 1 at work, 0 records/s, 1 to look after" in listed
        assert "elsewhere 7" in listed
        assert "is asked to stop" in listed
        held = call("reset", "orders", "--yes")
        assert (held.status, "is held by elsewhere:7:x" in held.err) == (3, True)


def test_a_reset_needs_a_yes(call: Call, shop: Shop) -> None:
    call("run", "--max-records", "300", "-q")
    refused = call("reset", "orders")
    assert (refused.status, "stands; give --yes" in refused.err) == (2, True)
    assert told(call("reset", "orders", "--json")).keys() >= {"error", "exit_status"}
    assert shop.records() == 300
    assert call("reset", "orders", "-y").out == "orders: reset; the next run, 2, starts at the beginning\n"
    assert shop.records() == 0


def test_dead_letters_are_shown_and_replayed(call: Call, shop: Shop) -> None:
    write(shop.target, "CREATE TABLE copies (id INTEGER PRIMARY KEY, customer TEXT CHECK (id NOT IN (250, 251)))")
    shop.configure('on_refused = "dead_letter"')
    assert call("dead-letters", "orders").status == 2
    assert call("run", "-q").status == 4
    shown = call("dead-letters", "orders", "--limit", "1")
    assert "{'id': 250, 'customer': 'customer 250'}" in shown.out
    assert "CHECK constraint failed" in shown.out
    assert shown.err == "and 1 other; see more with --limit\n"
    letters = [json.loads(line) for line in call("dead-letters", "orders", "--json").out.splitlines()]
    assert [letter["record"] for letter in letters] == [[250, "customer 250"], [251, "customer 251"]]
    again = call("dead-letters", "orders", "--replay")
    assert (again.status, again.out) == (
        4,
        "orders: incomplete, 0 dead letters delivered, 2 left (2 dead letters were refused again)\n",
    )
    elsewhere = call("dead-letters", "orders", "--replay", "--store", shop.target)
    assert (elsewhere.status, "give its sync file with --config" in elsewhere.err) == (2, True)
    unknown = call("dead-letters", "order", "--replay")
    assert (unknown.status, unknown.err[:50]) == (2, "sync.toml has no job 'order'; did you mean 'orders'"[:50])


def test_a_verification_names_what_differs(call: Call, shop: Shop) -> None:
    shop.configure(more='verify = { key = "id" }')
    call("run", "-q")
    assert call("verify").out.startswith(
        "orders: the target holds exactly the rows of the source: 2,000 equal, 0 missing"
    )
    write(shop.target, "DELETE FROM copies WHERE id IN (5, 6)", "UPDATE copies SET customer = 'x' WHERE id = 7")
    found = call("verify", "--max-differences", "2")
    assert (found.status, found.out.splitlines()[1:]) == (
        1,
        ["  missing: 5", "  missing: 6", "  and 1 other; see more with --max-differences"],
    )
    facts = told(call("verify", "--json"))
    assert (facts["ok"], facts["missing"], facts["different"], facts["exit_status"]) == (False, 2, 1, 1)
    assert facts["differences"][2] == {"kind": "different", "key": [7], "columns": ["customer"]}
    assert [job["id"] for job in map(json.loads, call("jobs", "--json").out.splitlines())] == [
        "orders",
        "verify orders",
    ]


def test_a_target_that_cannot_be_read_is_asked_for(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {"resumable_sync.sinks": {"nowhere": "acme_sinks:nowhere"}}
    source = "def nowhere():\n    return lambda batch: None\n"
    monkeypatch.syspath_prepend(str(install_package(tmp_path, "acme_sinks", source, entries)))
    (tmp_path / "sync.toml").write_text(
        'job = "a"\nsource = { type = "sql", url = "sqlite:///x.db", table = "t" }\nsink.type = "nowhere"\n'
    )
    found = call("verify")
    assert (found.status, "job 'a': sync.toml does not say where its target can be read; add" in found.err) == (2, True)
    assert call("plan", "sync.toml", "b").err == "sync.toml has no job 'b'; its jobs: 'a'\n"


def test_one_failure_does_not_keep_the_other_jobs_from_running(call: Call, shop: Shop) -> None:
    port = '{ type = "sql", url = "${SHOP}", table = "%s" }'
    (shop.folder / "sync.toml").write_text(
        f"""
        store = {{ type = "sql", url = "${{WAREHOUSE}}" }}
        [jobs.broken]
        source = {port % "nothing"}
        sink = {{ type = "sql", table = "nothing", mode = "append" }}
        [jobs.orders]
        source = {port % "orders"}
        sink = {{ type = "sql", table = "copies", mode = "replace" }}
        """
    )
    done = call("run", "--json")
    assert done.status == 1
    assert [json.loads(line)["exit_status"] for line in done.out.splitlines()] == [2, 0]
    assert call("run", "sync.toml", "orders", "-q").status == 0
    assert call("plan").status == 2


def test_a_password_appears_nowhere(call: Call, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    outputs: list[Told] = []
    for password in ("${SECRET}", SECRET):
        url = f"postgresql://etl:{password}@127.0.0.1:1/dw"
        shop.configure("retry = { max_tries = 1 }")
        text = (shop.folder / "sync.toml").read_text().replace('table = "copies"', f'table = "copies", url = "{url}"')
        (shop.folder / "sync.toml").write_text(text)
        outputs = [
            call("run", "-v"),
            call("run", "--json"),
            call("plan", "-v"),
            call("verify", "-v"),
            call("show", "orders"),
            call("show", "orders", "--json"),
            call("jobs", "--store", url),
            call("dead-letters", "orders", "--replay", "-v"),
        ]
        assert [found.status for found in outputs[:2]] == [1, 1]
        assert "127.0.0.1" in outputs[0].err
        for found in outputs:
            assert SECRET not in found.out + found.err
    assert "warning: sync.toml, line 4: sink.url is a literal password; write ${NAME}" in outputs[0].err
    assert "warning: --store holds a literal password, which other users of this host can see" in outputs[6].err
    with closing(sqlite3.connect(shop.target.removeprefix("sqlite:///"))) as database:
        assert SECRET not in "\n".join(database.iterdump())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_told_how_to_complete(call: Call, shell: str) -> None:
    assert "_RESUMABLE_SYNC_COMPLETE" in call("completion", shell).out


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("resumable-sync dead", "dead-letters"),
        ("resumable-sync show or", "orders"),
        ("resumable-sync run sync.toml o", "orders"),
    ],
)
def test_commands_and_jobs_are_completed(
    request: pytest.FixtureRequest, call: Call, monkeypatch: pytest.MonkeyPatch, words: str, completed: str
) -> None:
    request.getfixturevalue("shop")
    capsys: pytest.CaptureFixture[str] = request.getfixturevalue("capsys")
    call("run", "-q", "--max-records", "1")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    monkeypatch.setenv("_RESUMABLE_SYNC_COMPLETE", "bash_complete")
    with pytest.raises(SystemExit):
        call()
    assert completed in capsys.readouterr().out


@pytest.mark.parametrize("command", ["run", "plan", "verify", "jobs", "show", "stop", "reset", "dead-letters", "top"])
def test_help_is_there_for_every_command(call: Call, command: str) -> None:
    found = call(command, "--help")
    assert (found.status, "--json" in found.out) == (0, True)
    assert "\b" not in found.out
    assert "Raises" not in found.out


def test_a_wrong_option_is_a_usage_error(call: Call) -> None:
    assert call("run", "--jsno").status == 2
    assert told(call("run", "--json", "--max-records", "many"))["exit_status"] == 2


@pytest.mark.crash  # `nox -s demo` is run as often as the tests are
def test_the_demo_is_exact(call: Call, tmp_path: Path) -> None:
    done = call("demo", "--orders", "1000", "--kills", "1", "--folder", str(tmp_path / "demo"), "--json")
    page = tmp_path / "demo/report.html"
    assert "Run 1 is completed: 1,000 records delivered" in page.read_text(encoding="utf-8")
    expected: dict[str, Any] = {"orders": 1000, "kills": 1, "lost": 0, "duplicated": 0, "exact": True, "exit_status": 0}
    expected["report"] = str(page)
    assert (done.status, told(done)) == (0, expected)
    again = call("demo", "--folder", str(tmp_path / "demo"))
    assert (again.status, "give an empty folder, or one that does not exist" in again.err) == (2, True)


def test_top_looks_as_often_as_it_is_told(call: Call, shop: Shop) -> None:
    call("run", "-q", "--max-records", "300")
    found = [json.loads(line) for line in call("top", "--json", "--times", "2", "--interval", "0.1").out.splitlines()]
    assert [(job["id"], job["rate"]) for job in found] == [("orders", None), ("orders", 0.0)]


def test_parts_are_left_out_unless_asked_for(call: Call, shop: Shop) -> None:
    with SQLJobStore(shop.target) as store, ThreadPoolExecutor(2) as executor:
        run_partitioned_sync("numbers", Numbers(100), lambda _: None, store=store, executor=executor, parts=3)
    names = [json.loads(line)["id"] for line in call("jobs", "--json").out.splitlines()]
    assert names == ["numbers"]
    names = [json.loads(line)["id"] for line in call("jobs", "--parts", "--json").out.splitlines()]
    assert names == ["numbers", "numbers/0000", "numbers/0001", "numbers/0002"]
    assert "1 job, 0 at work" in call("top").out
    assert "cursor        {'parts': 'resumable_sync parts'" in call("show", "numbers").out


def test_rates_are_of_one_run() -> None:
    rates = Rates()
    rates.look([Job(id="a", run=1, processed_records=100)], NOW)
    rates.look([Job(id="a", run=1, processed_records=300)], NOW + timedelta(seconds=2))
    assert rates.now == {"a": 100.0}
    rates.look([Job(id="a", run=2, processed_records=10)], NOW + timedelta(seconds=3))
    rates.look([Job(id="a", run=2, processed_records=15)], NOW + timedelta(seconds=4))
    assert rates.now == {"a": 5.0}


VERIFIES = fingerprint_text({"source": "a", "target": "b", COMPARED: "c"})
LEASE = Lease(job_id="a", owner="host:1:x", fencing_token=1, expires_at=NOW)


@pytest.mark.parametrize(
    ("job", "stands", "need"),
    [
        (Job(id="a"), "pending", ""),
        (Job(id="a", status=JobStatus.RUNNING, lease=LEASE), "running", ""),
        (Job(id="a", status=JobStatus.RUNNING), "died", "run again, it goes on"),
        (
            Job(id="a", status=JobStatus.RUNNING, stalled_attempts=3),
            "died",
            "died 3 times in a row at one place; find out why",
        ),
        (Job(id="a", status=JobStatus.FAILED, error="OSError: x\ny"), "failed", "run again; OSError: x y"),
        (
            Job(id="a", status=JobStatus.INCOMPLETE, dead_letters=1),
            "incomplete",
            "1 dead letter: mend what refuses them, and replay",
        ),
        (
            Job(id="verify a", status=JobStatus.INCOMPLETE, dead_letters=1, fingerprint=VERIFIES),
            "incomplete",
            "found differences in 1 range of keys: sync again, then verify again",
        ),
        (Job(id="a", status=JobStatus.COMPLETED), "completed", ""),
    ],
)
def test_what_a_job_needs(job: Job, stands: str, need: str) -> None:
    assert (standing(job), needs(job)) == (stands, need)


def test_what_people_read() -> None:
    assert [age(NOW - timedelta(seconds=seconds), NOW) for seconds in (5, 150, 9_000, 200_000)] == [
        "5 s ago",
        "2 min ago",
        "2 h ago",
        "2 d ago",
    ]
    assert (age(None), counted(1, "record"), counted(2_000, "record")) == ("", "1 record", "2,000 records")
    assert one_line("a\nb\x1b[31m") == "a b [31m"


def test_what_programs_read() -> None:
    value = {"a": (1, b"\x00", float("nan"), timedelta(0), NOW, JobStatus.FAILED, None, True), 5: Job(id="a").lease}
    assert plain(value) == {"a": [1, "00", "nan", 0.0, "2026-11-28T00:00:00+00:00", "failed", None, True], "5": None}


def test_of_several_jobs_the_worst_counts() -> None:
    assert worst([]) is ExitStatus.COMPLETED
    assert worst([ExitStatus.COMPLETED, ExitStatus.INCOMPLETE, ExitStatus.HELD]) is ExitStatus.HELD
    assert worst([ExitStatus.INTERRUPTED, ExitStatus.FAILED]) is ExitStatus.FAILED
