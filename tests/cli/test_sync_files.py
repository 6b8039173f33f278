"""Sync files: checked as a whole before anything runs, and errors that name file, line, key and what was meant."""

from pathlib import Path
from typing import Any

import pytest

from resumable_sync import ConfigurationError, Retry, Throttle
from resumable_sync.cli._config import read_sync_file
from resumable_sync.cli._secrets import literal_secrets
from resumable_sync.cli._toml import read_document
from resumable_sync.connectors.sql import SQLConnector, SQLQueryTemplate
from resumable_sync.stores.sql import SQLJobStore

SOURCE = 'source = { type = "sql", url = "sqlite:///shop.db", table = "orders" }'
SINK = 'sink = { type = "sql", table = "orders", mode = "append" }'
GOOD = f'job = "orders"\n{SOURCE}\n{SINK}\n'
ENVIRON = {"SHOP_URL": "sqlite:///shop.db"}


def problems(text: str, folder: Path) -> list[str]:
    path = folder / "sync.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        read_sync_file(path, ENVIRON)
    return [line.removeprefix(f"{folder}/") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("job = orders\n", "sync.toml, line 1: this is not TOML: Invalid value; text needs quotes, and a key stands"),
        (f"{GOOD}job = 'again'\n", "sync.toml, line 4: this is not TOML: Cannot overwrite a value; text needs quotes"),
        ("job = 'orders", "sync.toml, at its end: this is not TOML: "),
        (
            f"{GOOD}jbo = 1\n",
            "sync.toml, line 4: jbo is no key; did you mean 'job'?; here can stand: store, options, job,",
        ),
        (f"{SOURCE}\n{SINK}\n", "sync.toml: there is no job; name it with job = 'orders', or several as [jobs.orders]"),
        (f"\njob = 5\n{SOURCE}\n{SINK}\n", "sync.toml, line 2: job must be text; name it with job = 'orders'"),
        (f"job = ''\n{SOURCE}\n{SINK}\n", "sync.toml, line 1: job: the job id '' has 0 characters; give it 1 to 255"),
        (
            f"job = 'orders'\n{SINK}\n",
            "sync.toml: there is no [source]; say with a type and its keys where records come",
        ),
        (f"job = 'orders'\n{SOURCE}\n", "sync.toml: there is no [sink]; say with a type and its keys where records go"),
        (
            f"job = 'orders'\n{SINK}\n\n[source]\ntype = 'sqll'\n",
            "sync.toml, line 5: source.type = 'sqll' is no connector; did you mean 'sql'?; those that are installed: ",
        ),
        (
            f"job = 'orders'\n{SOURCE}\n[sink]\ntype = 'sql'\ntabel = 'orders'\nmode = 'append'\n",
            "sync.toml, line 5: sink.tabel: 'sql' has no such key; did you mean 'table'?; its keys: table, mode, key,",
        ),
        (
            f"job = 'orders'\n{SOURCE}\n[sink]\ntype = 'sql'\ntable = 'orders'\n\n# how\nmode = 'apend'\n",
            "sync.toml, line 8: sink.mode = 'apend' is none of 'append', 'upsert' and 'replace'; did you",
        ),
        (
            f"job = 'orders'\n{SINK}\nsource.type = 'sql'\nsource.table = 'orders'\nsource.url = '${{SHOP_URI}}'\n",
            "sync.toml, line 5: source.url: the environment variable SHOP_URI is not set (is SHOP_URL meant?); set it",
        ),
        (
            f"job = 'orders'\n{SINK}\n[source]\ntype = 'sql'\nurl = 'sqlite:///shop.db'\n",
            "sync.toml, line 3: source: give exactly one of table, query and query_template; there is none of them",
        ),
        (
            f"{GOOD}[options]\nbatchsize = 5\n",
            "sync.toml, line 5: options.batchsize is no key; did you mean 'batch_size'?; here can stand: batch_size,",
        ),
        (
            f"{GOOD}[options]\ncount = true\nbatch_size = 'many'\n",
            "sync.toml, line 6: options.batch_size: batch_size='many' is not possible; give a whole number from 1 to",
        ),
        (
            f"{GOOD}[options]\nlease_ttl = 'none'\n",
            "sync.toml, line 5: options.lease_ttl: lease_ttl='none' is not possible;",
        ),
        (
            f"{GOOD}[options]\nthrottle = 0\n",
            "sync.toml, line 5: options.throttle: Throttle(0) is not possible; give it",
        ),
        (
            f"{GOOD}[options.retry]\nmax_tries = 3\nmax_waits = 1\n",
            "sync.toml, line 6: options.retry.max_waits is no key; did you",
        ),
        (
            f"{GOOD}[options.retry]\nwait_max = 3\nmax_tries = '${{SHOP_URL}}'\n",
            "sync.toml, line 6: options.retry.max_tries: Retry(max_tries='${SHOP_URL}') is not possible; give a whole",
        ),
        (f"{GOOD}[options]\ncount = '${{SHOP_URL}}'\n", "sync.toml, line 5: options.count: count='${SHOP_URL}' is not"),
        (
            f"{GOOD}[options]\nprefetch = '${{NUMBER}}'\n",
            "sync.toml, line 5: options.prefetch: the environment variable",
        ),
        (f"{GOOD}options = 5\n", "sync.toml, line 4: options must be a table, such as [options] with keys below it"),
        (
            f"{GOOD}store.type = 'redsi'\n",
            "sync.toml, line 4: store.type = 'redsi' is no store; did you mean 'redis'?; those that are installed: ",
        ),
        (
            f"{GOOD}store = 'sqlite:///w.db'\n",
            "sync.toml, line 4: store must be a table of keys and values with a type",
        ),
        (
            "jobs = 'orders'\n",
            "sync.toml, line 1: jobs must be tables with the names of the jobs, such as [jobs.orders]",
        ),
        (
            "[jobs]\norders = 1\n",
            "sync.toml, line 2: jobs.orders must be a table, such as [jobs.orders] with keys below it",
        ),
        (
            f'[jobs."my orders"]\n{SOURCE}\n{SINK}\n[jobs."my orders".options]\nprefetch = -1\n',
            'sync.toml, line 5: jobs."my orders".options.prefetch: prefetch=-1 is not possible; give a',
        ),
        (
            f"job = 'a'\n{SOURCE}\nsink = {{ type = 'csv', path = 'a.csv' }}\n[options]\non_refused = 'dead_letter'\n",
            "sync.toml, line 5: options.on_refused: on_refused='dead_letter' needs a transactional sink, such as SQL",
        ),
        (
            f"[jobs.a]\n{SOURCE}\n{SINK}\n[store]\ntype = 'redis'\nurl = 'redis://localhost'\n",
            "sync.toml, line 3: jobs.a.sink: the sink is transactional, but a RedisJobStore has no transactions to",
        ),
        (
            f"job = 'orders'\n{SOURCE}\n[sink]\ntype = 'parquet'\npath = 's3x://bucket/x'\n",
            "sync.toml, line 3: sink: s3x://bucket/x: fsspec has no filesystem 's3x'; did you mean 's3'?; correct the",
        ),
        (
            f"[jobs.a]\nsource = {{ type = 'csv', path = 'zip://*.csv::s3x://me:hunter2@x' }}\n{SINK}\n",
            "sync.toml, line 2: jobs.a.source: zip://*.csv::s3x://x: fsspec has no filesystem 's3x'; did you mean 's3'",
        ),
        (
            "".join(
                f"[jobs.{name}]\n{SOURCE}\nsink = {{ type = 'sql', table = 'main.t', mode = 'replace' }}\n"
                for name in "ab"
            ),
            "sync.toml, line 6: jobs.b.sink: job 'a' replaces the same target, SQLSink('main.t', mode='replace'), of",
        ),
        (
            f"job = 'a'\n{SINK}\n[source]\ntype = 'http'\nurl = 'http://h'\n[source.paging]\ntype='page'\nfrist = 1\n",
            "sync.toml, line 8: source.paging.frist: the paging 'page' has no 'frist'; did you mean 'first'?; its",
        ),
        (
            f"job = 'a'\n{SOURCE}\n[sink]\ntype = 'parquet'\npath = 'x'\n[sink.types]\na = 'int32'\nb = 'intt'\n",
            "sync.toml, line 8: sink.types.b: types={'b': 'intt'} names no type; name one such as",
        ),
        (
            f"{GOOD}[verify]\ncolumns = 'id'\n",
            "sync.toml, line 5: verify.columns must be a list, and is text",
        ),
        (
            f"{GOOD}[verify.target]\ntype = 'sql'\nurl = 'sqlite:///w.db'\ntable = 'orders'\nkeys = 'id'\n",
            "sync.toml, line 8: verify.target.keys: 'sql' has no such key; did you mean 'key'?; its keys: url, table,",
        ),
    ],
)
def test_a_malformed_file_gives_a_precise_message(text: str, problem: str, tmp_path: Path) -> None:
    (found,) = problems(text, tmp_path)
    assert found.startswith(problem)


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    text = f"x = 1\n[options]\ny = 2\n[jobs.a]\n{SINK}\n[jobs.b]\n{SOURCE}\nsink.type = 'sql'\n"
    expected = [
        "sync.toml, line 1: x is no key; here can stand: store, options, jobs",
        "sync.toml, line 4: there is no [jobs.a.source]; say",
        "sync.toml, line 3: options.y is no key; here can stand: batch_size,",
        "sync.toml, line 8: jobs.b.sink has no 'table', which 'sql' must be given",
    ]
    found = problems(text, tmp_path)
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml cannot be read: No such file or directory; give"):
        read_document("nowhere.toml")
    (tmp_path / "latin.toml").write_bytes(b"job = 'caf\xe9'")
    with pytest.raises(ConfigurationError, match=r"latin\.toml is not UTF-8 text; save it as UTF-8"):
        read_document(tmp_path / "latin.toml")


def read(text: str, folder: Path, **environ: str) -> Any:
    (folder / "sync.toml").write_text(text, encoding="utf-8")
    return read_sync_file(folder / "sync.toml", environ)


def test_jobs_share_store_and_options(tmp_path: Path) -> None:
    text = f"""
    store = {{ type = "sql", url = "sqlite:///w.db" }}

    [options]
    batch_size = "auto"
    max_dead_letters = "none"
    throttle = 500
    retry = {{ max_tries = "${{TRIES}}", timeout = "none" }}

    [jobs.orders]
    {SOURCE}
    {SINK}
    options.batch_size = "${{BATCH}}"

    [jobs."all customers"]
    source = {{ type = "sql", url = "${{SHOP}}", query_template = "SELECT 1 LIMIT :limit OFFSET :offset" }}
    {SINK}
    """
    found = read(text, tmp_path, SHOP="sqlite:///shop.db", BATCH="10", TRIES="2")
    assert isinstance(found.store, SQLJobStore)
    assert list(found.jobs) == ["orders", "all customers"]
    orders, customers = found.jobs.values()
    assert isinstance(orders.connector, SQLConnector)
    assert isinstance(customers.connector, SQLQueryTemplate)
    assert (orders.options["batch_size"], customers.options["batch_size"]) == (10, "auto")
    assert orders.options["max_dead_letters"] is None
    assert isinstance(orders.options["throttle"], Throttle)
    assert orders.options["retry"] == Retry(max_tries=2, timeout=None)
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("sink", "store", "target"),
    [
        ('{ type = "sql", table = "t", mode = "append" }', "", "sqlite:///resumable_sync.db"),
        ('{ type = "sql", table = "t", mode = "append" }', "${STORE}", "sqlite:///s.db"),
        (
            '{ type = "sql", table = "t", mode = "upsert", key = "id", url = "sqlite:///o.db" }',
            "${STORE}",
            "sqlite:///o.db",
        ),
    ],
)
def test_a_verification_reads_what_the_sink_writes(tmp_path: Path, sink: str, store: str, target: str) -> None:
    text = f"job = 'orders'\n{SOURCE}\nsink = {sink}\n"
    text += f"store = {{ type = 'sql', url = '{store}' }}\n" if store else ""
    job = read(text, tmp_path, STORE="sqlite:///s.db").jobs["orders"]
    assert repr(job.target) == f"SQLConnector('{target}', 't', paging='keyset')"


def test_literal_passwords_are_found_with_their_lines(tmp_path: Path) -> None:
    text = """
    job = "orders"
    source.type = "sql"
    source.table = "orders"
    source.url = "postgresql://shop:hunter2@db/shop"
    [sink]
    type = "sql"
    table = "orders"
    mode = "append"
    url = { drivername = "postgresql", host = "dw", password = "hunter2" }
    """
    found = read(text, tmp_path)
    name = f"{tmp_path}/sync.toml"
    assert found.warnings == (
        f"{name}, line 5: source.url is a literal password; write ${{NAME}} and set it in the environment",
        f"{name}, line 10: sink.url.password is a literal password; write ${{NAME}} and set it in the environment",
    )


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ({"url": "postgresql://shop:${PASSWORD}@db"}, []),
        ({"url": "postgresql://shop@db", "password": "${PASSWORD}", "key": "id", "token": "next"}, []),
        ({"url": "postgresql://shop:x${PASSWORD}@db"}, [("url",)]),
        (
            {"headers": [{"Authorization": "Bearer abc"}], "api_key": "abc"},
            [("headers", 0, "Authorization"), ("api_key",)],
        ),
        ({"headers": {"Authorization": "Bearer ${TOKEN}", "Cookie": "session=${ID}; theme=dark"}}, []),
        (
            {"headers": {"X-Auth-Token": "abc", "Cookie": "abc", "Accept": "text/csv"}},
            [("headers", "X-Auth-Token"), ("headers", "Cookie")],
        ),
        ({"auth": ["etl", "abc"]}, [("auth", 1)]),
        ({"auth": ["etl", "${PASSWORD}"], "password": 12345}, [("password",)]),
        ({"url": "https://api/x?limit=5&api_key=abc"}, [("url",)]),
        ({"url": "https://api/x?api_key=${KEY}&sort_key=id&at=a:b@c"}, []),
        ({"params": {"token": "abc", "page_token": "next", "sort_key": "id"}}, [("params", "token")]),
        ({"paging": {"type": "token", "token": "meta.next", "param": "page_token"}}, []),
        *[({"url": f"postgresql://etl:{password}@db/dw"}, [("url",)]) for password in ("a#b", "a/b", "a?b")],
        ({"url": "postgresql://etl@db:5432/dw"}, []),
        ({"url": "sqlite:////data/a:b@c.db"}, []),
        *[({"url": f"https://{user}@h/x"}, found) for user, found in (("ghp_x", [("url",)]), ("${TOKEN}", []))],
        ({"path": "zip://a.csv::https://etl:abc@h/x.zip"}, [("path",)]),
        ({"url": "redis://:abc@cache/0"}, [("url",)]),
        ({"url": "redis://cache:6379/0"}, []),
        (
            {"storage_options": {"sas_token": "a", "account_key": "b", "account_name": "c", "anon": True}},
            [("storage_options", "sas_token"), ("storage_options", "account_key")],
        ),
        ({"storage_options": {"token": "google_default", "key": "${ID}", "secret": "${KEY}"}}, []),
        *[
            ({"storage_options": {"connection_string": f"AccountName=x;AccountKey={key};Suffix=y"}}, found)
            for key, found in (("abc==", [("storage_options", "connection_string")]), ("${KEY}", []))
        ],
    ],
)
def test_what_a_literal_password_is(data: Any, found: Any) -> None:
    assert list(literal_secrets(data)) == found


def test_every_key_has_its_line(tmp_path: Path) -> None:
    text = '''# [not.a.table]
a = 1
"b c".d = """
[no.table]
x = 1 \\""" """   # = comment
e = [ { f = "]}" }, # [comment]
  { f = '#' },
  2026-11-28T00:00:00Z]

[[g.h]]
i = 1.5
[g.h.j]
k = \'\'\'
l = 1\'\'\'
[[g.h]]
i = { m = true, n.o = "\\"}" }
'''
    (tmp_path / "x.toml").write_text(text.replace("\n", "\r\n"), encoding="utf-8-sig", newline="")
    lines = read_document(tmp_path / "x.toml").lines
    assert lines == {
        ("a",): 2,
        ("b c",): 3,
        ("b c", "d"): 3,
        ("e",): 6,
        ("e", 0): 6,
        ("e", 0, "f"): 6,
        ("e", 1): 7,
        ("e", 1, "f"): 7,
        ("e", 2): 8,
        ("g", "h"): 10,
        ("g", "h", 0): 10,
        ("g", "h", 0, "i"): 11,
        ("g", "h", 0, "j"): 12,
        ("g", "h", 0, "j", "k"): 13,
        ("g", "h", 1): 15,
        ("g", "h", 1, "i"): 16,
        ("g", "h", 1, "i", "m"): 16,
        ("g", "h", 1, "i", "n"): 16,
        ("g", "h", 1, "i", "n", "o"): 16,
    }
