"""Connectors, sinks and stores by name: built from plain data, extended by packaging alone, and errors that help."""

import inspect
import pickle
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from packages import install_package
from resumable_sync import ConfigurationError, JobStatus, MissingExtraError, Sink, registry, run_full_sync
from resumable_sync._plain import fill
from resumable_sync.connectors.sql import SQLConnector, SQLQueryTemplate
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.memory import MemoryJobStore
from resumable_sync.stores.sql import SQLJobStore

SQL: dict[str, Any] = {"type": "sql", "url": "sqlite:///shop.db"}
PASSWORD = "p@ss/w:o%rd?"

PACKAGE = """
from resumable_sync import OffsetConnector

class Countdown(OffsetConnector):
    fingerprint = None

    def __init__(self, start: int, *, step: int = 1, clock=None):
        self.numbers = list(range(start, 0, -step))

    def fetch(self, offset, limit):
        return [{"number": number} for number in self.numbers[offset : offset + limit]]

def broken(token: str):
    raise RuntimeError(f"the token {token} has expired")

def printing(prefix: str = ""):
    return lambda batch: print(prefix, *(record["number"] for record in batch.records))

not_callable = 7
"""
ENTRIES = {
    "resumable_sync.connectors": {
        "countdown": "acme_sync:Countdown",
        "broken": "acme_sync:broken",
        "nothing": "acme_sync:not_callable",
        "absent": "acme_sync.absent:Thing",
        "sql": "acme_sync:Countdown",
    },
    "resumable_sync.sinks": {"printing": "acme_sync:printing"},
}


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(install_package(tmp_path, "acme_sync", PACKAGE, ENTRIES)))


def test_a_sync_is_built_from_plain_data(tmp_path: Path) -> None:
    shop, warehouse = f"sqlite:///{tmp_path}/shop.db", f"sqlite:///{tmp_path}/warehouse.db"
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database, database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT)")
        database.executemany("INSERT INTO orders VALUES (?, ?)", [(number, "c") for number in range(7)])
    connector = registry.connector({"type": "sql", "url": shop, "table": "orders"})
    sink = registry.sink({"type": "sql", "table": "orders", "mode": "replace"})
    store = registry.store({"type": "sql", "url": warehouse})
    result = run_full_sync("orders", connector, sink, store=store)
    assert (result.status, result.records, result.guarantee) == (JobStatus.COMPLETED, 7, "exactly_once")


def test_a_datasource_has_type_connection_and_query_template() -> None:
    datasource = {
        "type": "sql",
        "url": {"drivername": "postgresql", "host": "db", "port": "5433", "username": "shop", "password": PASSWORD},
        "query_template": "SELECT id FROM orders ORDER BY id LIMIT :limit OFFSET :offset",
        "count_query": "SELECT count(*) FROM orders",
    }
    made = registry.connector(datasource)
    assert isinstance(made, SQLQueryTemplate)
    assert repr(made) == "SQLQueryTemplate('postgresql+psycopg://shop:***@db:5433')"


def test_what_is_ours_is_there() -> None:
    assert isinstance(registry.connector(SQL | {"query": "SELECT 1 AS id", "key": ["id"]}), SQLConnector)
    assert isinstance(registry.connector(SQL | {"table": "t", "key": ["a", ["b", "desc"]]}), SQLConnector)
    assert isinstance(registry.sink({"type": "sql", "table": "t", "mode": "upsert", "key": ["id"]}), SQLSink)
    assert isinstance(registry.sink(SQL | {"table": "t", "mode": "append"}), SQLSink)
    assert isinstance(registry.sink(SQL | {"url": {"drivername": "sqlite"}, "table": "t", "mode": "append"}), SQLSink)
    assert isinstance(registry.store({"type": "sql", "url": {"drivername": "sqlite", "database": "x.db"}}), SQLJobStore)
    assert isinstance(registry.store({"type": "memory"}), MemoryJobStore)
    files: dict[str, Any] = {"path": "in/*", "storage_options": {"key": "${HOME}"}}
    for kind, columns in (("csv", {"columns": ["a"], "delimiter": ";"}), ("jsonl", {"compression": "gzip"})):
        assert registry.connector({"type": kind, **columns, **files, "path": "s3://b/*"}).fingerprint
        assert isinstance(registry.sink({"type": kind, "path": "out", "mode": "append"}), Sink)
    assert registry.connector({"type": "parquet", "path": "in/*", "columns": ["a"]}).fingerprint
    assert {"memory", "sql"} <= set(registry.names("stores"))


@pytest.mark.parametrize("port", ["connectors", "sinks", "stores"])
def test_the_types_of_every_key_of_ours_are_known(port: registry.Port) -> None:
    for name, entry in registry._found(port).items():
        if entry.value.startswith("resumable_sync."):
            make = entry.load()
            assert set(inspect.signature(make).parameters) <= set(registry._hints(make)), name


@pytest.mark.parametrize(
    ("data", "place", "text"),
    [
        ({"table": "t"}, (), "connector has no type; give one of those that are installed: "),
        ({"type": "sqll"}, ("type",), "connector.type = 'sqll' is no connector; did you mean 'sql'?; those"),
        ({"type": 5}, ("type",), "connector.type must be text, and is a whole number; those that are"),
        (
            SQL | {"tabel": "t"},
            ("tabel",),
            "connector.tabel: 'sql' has no such key; did you mean 'table'?; its keys: url,",
        ),
        ({"type": "sql", "table": "t"}, (), "connector has no 'url', which 'sql' must be given"),
        (SQL | {"table": 5}, ("table",), "connector.table must be text, and is a whole number"),
        (SQL | {"table": True}, ("table",), "connector.table must be text, and is true"),
        (SQL | {"table": "t", "key": 5}, ("key",), "connector.key must be text or a list, and is a whole number"),
        (
            SQL | {"table": "t", "params": []},
            ("params",),
            "connector.params must be a table of keys and values, and is",
        ),
        (
            SQL | {"table": "t", "paging": "ofset"},
            ("paging",),
            "'ofset' is none of 'keyset', 'stream' and 'offset'; did",
        ),
        (
            SQL | {"table": "t", "query": "SELECT 1"},
            (),
            "connector: give exactly one of table, query and query_template",
        ),
        (SQL | {"table": "t", "count_query": "SELECT 1"}, (), "connector: count_query goes with query_template only"),
        (SQL | {"query_template": "SELECT 1", "key": "id"}, (), "connector: a query_template pages itself; leave key,"),
        (SQL | {"table": "t", "params": {"a": 1}}, (), "connector: params are for the parameters of a query"),
        (
            {"type": "sql", "url": {"host": "db"}, "table": "t"},
            (),
            "connector: a database URL given by its parts needs a",
        ),
        (
            {"type": "sql", "url": {"drivername": "sqlite", "pasword": "x"}, "table": "t"},
            ("url", "pasword"),
            "connector.url.pasword: a database URL has no part 'pasword'; did you mean 'password'?; its parts: driver",
        ),
        (
            {"type": "sql", "url": {"drivername": "sqlite", "port": "x"}, "table": "t"},
            (),
            "do not fit together; port is",
        ),
    ],
)
def test_an_error_names_the_place_and_what_was_meant(data: Any, place: tuple[str, ...], text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        registry.connector(data)
    assert text in str(caught.value)
    assert caught.value.place == ("connector", *place)
    assert pickle.loads(pickle.dumps(caught.value)).place == caught.value.place


@pytest.mark.parametrize("data", [None, [], "sql", {5: "sql"}])
def test_what_is_no_table_is_refused(data: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"jobs\.a\[0\]\.\"my sink\" must be a table of keys and values"):
        registry.sink(data, place=("jobs", "a", 0, "my sink"))


def test_what_only_code_can_give_is_no_key() -> None:
    with pytest.raises(ConfigurationError, match=r"store\.clock: 'memory' has no such key; its keys: none"):
        registry.store({"type": "memory", "clock": "now"})


def test_there_are_three_ports() -> None:
    with pytest.raises(ConfigurationError, match="ask for 'connectors', 'sinks' or 'stores'"):
        registry.names("connector")  # type: ignore[arg-type]


def test_secrets_come_from_the_environment(acme: None) -> None:
    environ = {"PASSWORD": PASSWORD, "TABLE": "orders", "URL": "postgresql://etl:x%40y@db/dw"}
    url = "postgresql://shop:${PASSWORD}@db/shop"
    made = registry.connector({"type": "sql", "url": url, "table": "${TABLE}_$${1}"}, environ=environ)
    assert made._database.engine.url.password == PASSWORD  # type: ignore[attr-defined]
    assert repr(made) == "SQLConnector('postgresql+psycopg://shop:***@db/shop', 'orders_${1}', paging='keyset')"
    parts = {"drivername": "postgresql", "password": "${PASSWORD}"}
    made = registry.connector({"type": "sql", "url": parts, "table": "t"}, environ=environ)
    assert made._database.engine.url.password == PASSWORD  # type: ignore[attr-defined]
    # A number is one.
    made = registry.connector({"type": "countdown", "start": "${START}"}, environ={"START": "3"})
    assert made.numbers == [3, 2, 1]  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match=r"connector\.start must be a whole number, and is text"):
        registry.connector({"type": "countdown", "start": "${START}"}, environ={"START": "three"})
    # A whole URL is taken as it is.
    made = registry.connector({"type": "sql", "url": "${URL}", "table": "t"}, environ=environ)
    assert made._database.engine.url.password == "x@y"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("written", "filled"),
    [
        (
            "https://h/v1/orders?key=${ODD}&b=${ODD}x",
            "https://h/v1/orders?key=a%20b%2Fc%3F%26%25%2B&b=a%20b%2Fc%3F%26%25%2Bx",
        ),
        ("https://h/bot${ODD}/get", "https://h/bota%20b/c%3F&%25+/get"),
        ("https://u:${ODD}@h/", "https://u:a%20b%2Fc%3F%26%25%2B@h/"),
        ("postgresql://u:p@h/db?options=${ODD}", "postgresql://u:p@h/db?options=a%20b%2Fc%3F%26%25%2B"),
        ("${BASE}/orders?key=${ODD}", "https://h/v1/orders?key=a%20b%2Fc%3F%26%25%2B"),
        # Where there is no web address, no name of a parameter, or no URL, a value is taken as it is.
        ("sqlite:///${ODD}/x.db", "sqlite:///a b/c?&%+/x.db"),
        ("s3://${ODD}/${ODD}.csv", "s3://a b/c?&%+/a b/c?&%+.csv"),
        ("https://h/v1?${QUERY}&${QUERY}", "https://h/v1?a=1&b=2&a=1&b=2"),
        ("https://${HOST}/x", "https://h:8080/x"),
        ("/data/${ODD}?x=${ODD}", "/data/a b/c?&%+?x=a b/c?&%+"),
        ("Bearer ${ODD}", "Bearer a b/c?&%+"),
        ("${BASE}${ODD}", "https://h/v1a%20b/c%3F&%25+"),
    ],
)
def test_a_value_in_a_url_is_encoded_as_it_must_be_there(written: str, filled: str) -> None:
    environ = {"ODD": "a b/c?&%+", "BASE": "https://h/v1", "QUERY": "a=1&b=2", "HOST": "h:8080"}
    assert fill({"url": written}, (), environ).values == {"url": filled}


@pytest.mark.parametrize(
    ("arguments", "place", "told"),
    [
        ({"paging": {"type": "page", "first": "one"}}, ("paging", "first"), "whole number .this is a str"),
        ({"paging": {"type": "ofset"}}, ("paging", "type"), "did you mean 'offset'"),
        ({"paging": {"type": ["x"]}}, ("paging", "type"), "a list, which there is none of"),
        ({"paging": {"type": "offset", "pagesize": 5}}, ("paging", "pagesize"), "did you mean 'page_size'"),
        ({"paging": {"type": "token"}}, ("paging",), "needs 'token'"),
        ({"paging": "ofset"}, ("paging",), "did you mean 'offset'"),
        ({"paging": "link", "headers": {"X-Key": 7}}, ("headers", "X-Key"), "cannot be sent"),
        ({"paging": "link", "params": {"a": {"b": 1}}}, ("params", "a"), "is a dict"),
    ],
)
def test_what_is_wrong_inside_of_an_argument_has_a_place_of_its_own(
    arguments: dict[str, Any], place: tuple[str, ...], told: str
) -> None:
    data = {"type": "http", "url": "https://api.example.com/", **arguments}
    with pytest.raises(ConfigurationError, match=told) as caught:
        registry.connector(data, place=("jobs", "a", "source"), environ={})
    assert caught.value.place == ("jobs", "a", "source", *place)
    assert str(caught.value).startswith(f"jobs.a.source.{'.'.join(place)}: ")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("${PASWORD}", r"connector.url: the environment variable PASWORD is not set \(is PASSWORD meant\?\); set it"),
        ("x ${}", r"connector.url: behind '\$\{' stands no name of a variable; write \$\{NAME\}"),
        ("x ${A", r"connector.url: behind '\$\{' stands no name of a variable"),
    ],
)
def test_a_variable_that_is_not_there_is_named(value: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        registry.connector({"type": "sql", "url": value, "table": "t"}, environ={"PASSWORD": PASSWORD, "A": "a"})


@pytest.mark.parametrize(
    "data",
    [
        {"type": "sql", "url": "postgresql://shop:${SECRET}@db:port/shop", "table": "t"},
        {"type": "sql", "url": "${SECRET}", "table": "t"},
        {"type": "sql", "url": "sqlite://", "table": "t", "paging": "${SECRET}"},
        {"type": "sql", "url": "sqlite://", "query_template": "x ${SECRET}"},
        {"type": "sql", "url": {"drivername": "${SECRET}"}, "table": "t"},
        {"type": "broken", "token": "${SECRET}"},
    ],
)
def test_no_value_of_the_environment_is_in_an_error(data: Any, acme: None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        registry.connector(data, environ={"SECRET": PASSWORD})
    error: BaseException | None = caught.value
    while error is not None:
        assert PASSWORD not in str(error)
        error = error.__cause__


def test_a_third_party_adds_its_own_by_packaging_alone(acme: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert "countdown" in registry.names("connectors")
    connector = registry.connector({"type": "countdown", "start": 5, "step": 2})
    sink = registry.sink({"type": "printing", "prefix": ">"})
    result = run_full_sync("countdown", connector, sink, store=MemoryJobStore())
    assert (result.status, capsys.readouterr().out) == (JobStatus.COMPLETED, "> 5 3 1\n")
    with pytest.raises(ConfigurationError, match=r"connector\.start must be a whole number, and is text"):
        registry.connector({"type": "countdown", "start": "5"})


def test_no_third_party_takes_a_name_of_ours(acme: None) -> None:
    assert isinstance(registry.connector(SQL | {"table": "t"}), SQLConnector)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "absent",
            r"connector.type: the connector 'absent' of package acme_sync cannot be loaded from acme_sync.absent",
        ),
        ("nothing", r"connector.type: acme_sync:not_callable is no class or function that could make a connector"),
    ],
)
def test_a_broken_package_is_named(acme: None, name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        registry.connector({"type": name})


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'resumable_sync\[postgres\]'"):
        registry.connector({"type": "sql", "url": "postgresql://db/shop", "table": "t"})
