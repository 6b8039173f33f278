"""The HTTP connector: its arguments, the parts it is made of, proxies, certificates, and a whole sync."""

import os
import pickle
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import httpx2
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool
from typing_extensions import override

from connectors.http_api import API, Reply, api_of, orders
from doubles import FAST
from resumable_sync import Batch, ConfigurationError, CursorError, Job, JobStatus, run_full_sync, transactional
from resumable_sync.connectors._http_address import as_pairs, parse_url
from resumable_sync.connectors._http_body import MISSING, look_up
from resumable_sync.connectors._http_errors import retry_after
from resumable_sync.connectors._http_own import Own
from resumable_sync.connectors.http import (
    HTTPConnector,
    HTTPResponseError,
    KeysetPaging,
    LinkPaging,
    OffsetPaging,
    PagePaging,
    RequestConnector,
    TokenPaging,
    from_data,
)
from resumable_sync.stores.memory import MemoryJobStore
from resumable_sync.stores.sql import SQLJobStore

RECORDS = orders(12)
URL = "https://api.example.com/orders"


@pytest.fixture
def api() -> Iterator[API]:
    with api_of(RECORDS) as api:
        yield api


def read(connector: Any) -> list[Any]:
    return [record for page in connector.read(None, 5) for record in page.records]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"paging": "offset"}, "paging is a str; give one of OffsetPaging, PagePaging"),
        ({"concurrency": 0}, "concurrency=0 is not possible"),
        ({"concurrency": True}, "concurrency=True is not possible"),
        ({"paging": LinkPaging(), "concurrency": 2}, "concurrency=2 is not possible with LinkPaging"),
        ({"timeout": 0}, "timeout=0 is not possible"),
        ({"timeout": float("inf")}, "timeout=inf is not possible"),
        ({"max_response_bytes": 0}, "max_response_bytes=0 is not possible"),
        ({"params": {"offset": 5}}, "the paging sets 'offset' itself"),
        ({"url": URL + "?limit=5&a=1"}, "the paging sets 'limit' itself"),
        ({"params": {"a": {"b": "hush"}}}, r"params\['a'\] is a dict"),
        ({"params": {"a": None}}, r"params\['a'\] is a NoneType"),
        ({"auth": "hush"}, "auth is a str; give an auth object of httpx2"),
        ({"auth": ("a", "hush"), "url": "https://a:hush@host/"}, "give the credentials once"),
        ({"records": None}, "records=None is not possible"),
        ({"empty": "none"}, "empty='none' is not possible; give 'list', 'null' or 'missing'"),
        ({"headers": "hush"}, "headers is a str; give a mapping of names to texts"),
        ({"headers": ["hush"]}, "headers is a list; give a mapping of names to texts"),
        ({"params": "a=hush"}, "params is a str; give a mapping of names to values"),
        ({"total": 7}, "total=7 is not possible"),
    ],
)
def test_an_argument_that_cannot_work_is_refused(options: dict[str, Any], told: str) -> None:
    arguments = {"url": URL, "paging": OffsetPaging(), **options}
    with pytest.raises(ConfigurationError, match=told) as caught:
        HTTPConnector(arguments.pop("url"), **arguments)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        (OffsetPaging, {"page_size": 0}, "page_size=0 is not possible for a paging"),
        (
            PagePaging,
            {"first": "one"},
            r"first='one' is not possible for a paging; give a whole number \(this is a str",
        ),
        (TokenPaging, {"token": 7, "token_param": "t"}, r"token=7 is not possible.*dotted path.*this is a int"),
        (OffsetPaging, {"offset_param": ""}, "offset_param='' is not possible"),
        (OffsetPaging, {"past_end": (200,)}, "past_end=.* give statuses from 400 to 499"),
        (PagePaging, {"page_size": 5}, "PagePaging needs limit_param and page_size together"),
        (PagePaging, {"limit_param": "size"}, "PagePaging needs limit_param and page_size together"),
        (TokenPaging, {"token": "", "token_param": "t"}, "token='' is not possible"),
        (TokenPaging, {"token": "t", "token_param": "t", "page_size": 5}, "TokenPaging needs limit_param"),
        (TokenPaging, {"token": "t", "token_param": "t", "anchor": {}}, "anchor=.* give a mapping"),
        (LinkPaging, {"next": ""}, "next='' is not possible"),
        (LinkPaging, {"limit_param": "size"}, "LinkPaging needs limit_param and page_size"),
        (KeysetPaging, {"key": "id"}, "key='id' is not possible"),
        (KeysetPaging, {"key": {"since": ""}}, "key=.* give a mapping"),
        (KeysetPaging, {"key": {"since": "id"}, "inclusive": "id"}, "needs page_size"),
    ],
)
def test_a_paging_that_cannot_work_is_refused(kind: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        kind(**options)


def test_pagings_are_values() -> None:
    paging = KeysetPaging(key={"since_id": "id"})
    assert paging == pickle.loads(pickle.dumps(paging))
    assert hash(paging) == hash(KeysetPaging(key={"since_id": "id"}))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        paging.key = ()  # type: ignore[misc]


def test_an_error_travels() -> None:
    error = pickle.loads(pickle.dumps(HTTPResponseError("told", 404)))
    assert (str(error), error.status) == ("told", 404)


@pytest.mark.parametrize(
    ("data", "paging"),
    [
        ("link", LinkPaging()),
        ({"type": "offset", "page_size": 500, "past_end": [404]}, OffsetPaging(page_size=500, past_end=(404,))),
        ({"type": "keyset", "key": {"since_id": "id"}}, KeysetPaging(key={"since_id": "id"})),
        (
            {"type": "token", "token": "next", "token_param": "t", "anchor": {"since_id": "id"}},
            TokenPaging(token="next", token_param="t", anchor={"since_id": "id"}),
        ),
    ],
)
def test_it_is_built_from_plain_data(data: Any, paging: Any) -> None:
    options: dict[str, Any] = {"records": "items", "headers": {"X-Key": "hush"}, "params": {"status": "open"}}
    made = from_data(url=URL, paging=data, auth=["etl", "hush"], **options)
    assert made.fingerprint == HTTPConnector(URL, paging=paging, **options).fingerprint


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"paging": "pages"}, r"of type 'pages', which there is none of; did you mean 'page'\?; give one of 'offset'"),
        ({"paging": {"page_size": 5}}, "paging is of type None"),
        (
            {"paging": {"type": "offset", "size": 5}},
            r"'offset' has no 'size'; did you mean 'page_size'\?; its fields are 'offset_param'",
        ),
        ({"paging": "token"}, "the paging 'token' needs 'token'"),
        ({"paging": {"type": ["x"]}}, "paging is of type a list, which there is none of"),
        ({"paging": 7}, "paging is a int; give one of 'offset'"),
        ({"paging": "link", "auth": ["hush"]}, "auth has 1 values"),
    ],
)
def test_plain_data_that_cannot_be_are_refused(data: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        from_data(url=URL, **data)


def test_what_it_is_called_tells_what_it_reads() -> None:
    connector = HTTPConnector("https://etl:hush@api.example.com:443/v1/?key=hush", paging=PagePaging(), records="a.b")
    shown = repr(connector)
    assert shown.startswith("HTTPConnector('https://api.example.com/v1/', paging=PagePaging(page_param='page'")
    assert shown.endswith("records='a.b')")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120.0),
        ({"Retry-After": " 0 "}, 0.0),
        ({"Retry-After": "Fri, 31 Jul 2026 08:01:30 GMT", "Date": "Fri, 31 Jul 2026 08:00:00 GMT"}, 90.0),
        ({"Retry-After": "Fri, 31 Jul 2026 08:01:30 GMT"}, 30.0),
        ({"Retry-After": "Fri, 31 Jul 2026 08:01:30 GMT", "Date": "now"}, 30.0),
        ({"Retry-After": "Friday, 31-Jul-26 08:01:30 GMT"}, 30.0),
        ({"Retry-After": "Fri Jul 31 08:01:30 2026"}, 30.0),
        ({"Retry-After": "Fri, 31 Jul 2026 07:00:00 GMT"}, 0.0),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "2."}, 2.0),
        ({"Retry-After": "1e400"}, None),
        ({"Retry-After": "\u0663"}, None),
        ({"Retry-After": "Fri, 99 Jul 2026 99:00:00 GMT"}, None),
        ({"Retry-After": ""}, None),
        ({}, None),
    ],
)
def test_the_time_to_wait_is_understood(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, clock=lambda: 1785484860.0) == seconds


def test_the_time_to_wait_is_never_infinite() -> None:
    assert retry_after({"Retry-After": "9" * 400}) == 999_999_999_999


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a.b", 1),
        ("a", {"b": 1, "c.d": {"e": 2}}),
        ("@next.link", "x"),
        ("a.c.d", {"e": 2}),
        ("list.1.b", 3),
        ("list.2", MISSING),
        ("list.-1", MISSING),
        ("list.x", MISSING),
        ("a.b.c", MISSING),
        ("none", None),
        ("none.a", MISSING),
    ],
)
def test_dotted_paths(path: str, found: Any) -> None:
    document = {"a": {"b": 1, "c.d": {"e": 2}}, "@next.link": "x", "list": [0, {"b": 3}], "none": None}
    assert look_up(document, path) == found
    assert look_up(document, "") is document


BASE = "https://api.example.com/v1/orders?page=1"


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/v2", "https://api.example.com/v2"),
        ("?page=2", "https://api.example.com/v1/orders?page=2"),
        ("https://API.example.com:443/v2?a=%20b", "https://api.example.com/v2?a=%20b"),
        ("//api.example.com/v2", "https://api.example.com/v2"),
        ("https://user:word@api.example.com/v2", "https://api.example.com/v2"),
        ("http://api.example.com/v2", None),
        ("https://api.example.com:8443/v2", None),
        ("https://example.com/v2", None),
        ("//evil.com/v2", None),
        ("https://api.example.com@evil.com/", None),
        ("https://api.example.com\\@evil.com/", None),
        ("https:\t//evil.com/", None),
        ("https://api.example.com.evil.com/", None),
        ("javascript:alert(1)", None),
        ("https://api.example.com:99999999/", None),
        ("https://[::1/", None),
    ],
)
def test_where_a_redirect_may_lead(location: str, target: str | None) -> None:
    assert parse_url(BASE)[0].redirected(BASE, location) == target


def test_a_redirect_may_lead_to_https_of_the_same_host() -> None:
    base = "http://api.example.com/v1"
    address = parse_url(base)[0]
    assert address.redirected(base, "https://api.example.com/v1") == "https://api.example.com/v1"
    assert address.redirected(base, "https://evil.com/v1") is None
    assert address.redirected(base, "https://api.example.com:8443/v1") is None


@pytest.mark.parametrize(
    ("link", "found"),
    [
        ("?page=2", "/v1/orders?page=2"),
        ("/v2", "/v2"),
        # A proxy in front of the API ends https, and the API does not know.
        ("http://api.example.com/v1/orders?page=2", "/v1/orders?page=2"),
        ("http://api.example.com:8080/v1/orders?page=2", None),
        ("https://evil.com/v1/orders?page=2", None),
    ],
)
def test_where_a_link_may_lead(link: str, found: str | None) -> None:
    assert parse_url(BASE)[0].linked(BASE, link) == found


def test_own_parameters_are_taken_out_of_a_link_and_put_back() -> None:
    own = Own(as_pairs({"api_key": "a b&c", "page": 1, "flag": True, "tag": ["x", "y"]}))
    link = "/orders?api_key=a+b%26c&page=2&flag=true&tag=x&tag=y&cursor=%7B%7D{}&empty"
    kept = "/orders?api_key={}&page=2&flag={}&tag=x&tag=y&cursor=%7B%7D%7B%7D&empty="
    assert own.taken_out(link) in (kept, kept.removesuffix("="))
    path, query = own.filled_in(own.taken_out(link))
    assert (path, query.removesuffix("=")) == (
        "/orders",
        "api_key=a+b%26c&page=2&flag=true&tag=x&tag=y&cursor=%7B%7D%7B%7D&empty",
    )
    assert own.filled_in("/orders") == ("/orders", "api_key=a+b%26c")
    assert Own(()).filled_in("/orders?gone={}") == ("/orders", "gone=")


def test_a_password_of_the_url_is_decoded() -> None:
    address, query, user = parse_url("https://a%40b:p%3Aw+d@[::1]:8443/x y/?q=a+b&r=%26".replace(" ", "%20"))
    assert (str(address), query, user) == ("https://[::1]:8443/x%20y/", (("q", "a b"), ("r", "&")), ("a@b", "p:w+d"))


def test_a_sync_into_sqlite_is_exactly_once(api: API, sqlite_url: str) -> None:
    engine = create_engine(sqlite_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER, name TEXT)"))

    def load(batch: Batch[dict[str, Any]], connection: Any) -> None:
        connection.execute(text("INSERT INTO orders VALUES (:id, :name)"), batch.dicts())

    api.next(lambda _: None, *[Reply(None, 502)] * FAST.max_tries)
    connector = HTTPConnector(f"{api.url}/keyset", paging=KeysetPaging(key={"since_id": "id"}), records="data.items")
    with SQLJobStore(engine) as store:
        with pytest.raises(Exception, match="502"):
            run_full_sync("j", connector, transactional(load), store=store, retry=FAST)
        result = run_full_sync("j", connector, transactional(load), store=store, retry=FAST)
    assert (result.action, result.records, result.guarantee) == ("resume", 7, "exactly_once")
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, name FROM orders ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [(record["id"], record["name"]) for record in RECORDS]


def test_a_proxy_of_the_environment_is_used(api: API, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTP_PROXY", api.url.replace("://", "://etl:hush@"))
    # The host is none that could be found: the proxy is asked, and answers itself.
    read_it = HTTPConnector("http://api.invalid/offset", paging=OffsetPaging(), records="data.items")
    assert read(read_it) == RECORDS
    assert {one.headers["host"] for one in api.requests} == {"api.invalid"}
    assert all(one.headers["proxy-authorization"].startswith("Basic ") for one in api.requests)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    asked = len(api.requests)
    assert read(HTTPConnector(f"{api.url}/offset", paging=OffsetPaging(), records="data.items")) == RECORDS
    assert not any("proxy-authorization" in one.headers for one in api.requests[asked:])
    monkeypatch.setenv("HTTP_PROXY", "socks5://etl:hush@proxy:1080")
    with pytest.raises(ConfigurationError, match="proxy that cannot be used") as caught:
        read(read_it)
    assert "hush" not in str(caught.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("the command openssl is not installed, which makes the certificate")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*command, *subject, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


class Trusting(HTTPConnector):
    trusted: Path

    @override
    def ssl_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.trusted)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_https_with_a_certificate_of_ones_own(certificate: Path, concurrency: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with api_of(RECORDS, context=context) as api:
        connector = Trusting(f"{api.url}/offset", paging=OffsetPaging(), records="data.items", concurrency=concurrency)
        connector.trusted = certificate
        assert read(connector) == RECORDS
        plain = HTTPConnector(f"{api.url}/offset", paging=OffsetPaging(), records="data.items")
        with pytest.raises(HTTPResponseError, match=r"not trusted.*override ssl_context"):
            read(plain)


class Nodes(RequestConnector[Any]):
    auth = ("etl", "hush")
    gone = (400, 410)

    def __init__(self, url: str) -> None:
        self.url = url

    @override
    def request(self, cursor: Any, limit: int) -> httpx2.Request:
        return httpx2.Request(
            "GET", f"{self.url}/token", params={"token": cursor or "t0"}, headers={"Accept": "text/*"}
        )

    @override
    def parse(self, response: httpx2.Response) -> tuple[Any, Any]:
        body = response.json()
        return body["data"]["items"], body["meta"]["next"]


def test_a_request_of_ones_own_is_sent_as_it_is(api: API) -> None:
    connector = Nodes(api.url)
    assert connector.fetch(None, 5) == (RECORDS[:5], "t1")
    assert api.requests[0].headers["accept"] == "text/*"
    assert api.requests[0].headers["user-agent"] == "resumable_sync"
    assert api.requests[0].headers["authorization"].startswith("Basic ")
    api.next(Reply(b"no json"))
    delivered: list[Any] = []
    run_full_sync("j", connector, lambda batch: delivered.extend(batch.records), retry=FAST, store=MemoryJobStore())
    assert delivered == RECORDS


@pytest.mark.parametrize("status", [400, 410])
def test_a_cursor_that_is_refused_has_expired(api: API, status: int) -> None:
    api.forgotten = {"t1": status}
    with pytest.raises(CursorError, match="expired"):
        read(Nodes(api.url))


def test_without_the_extra_its_name_is_told() -> None:
    code = "import sys; sys.modules['httpx2'] = None\nimport resumable_sync.connectors.http"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment(), check=False)
    assert "httpx2 is not installed; install it with: pip install 'resumable_sync[http]'" in done.stderr


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def test_a_checkpoint_without_a_cursor_is_resumed_by_its_count(api: API) -> None:
    paging = TokenPaging(token="meta.next", token_param="token")
    connector = HTTPConnector(f"{api.url}/token", paging=paging, records="data.items")
    store = MemoryJobStore()
    lease = store.acquire("j", owner="the one before", ttl=60.0)
    store.save(Job(id="j", status=JobStatus.FAILED, run=1, processed_records=9), lease)
    store.release(lease)
    delivered: list[Any] = []
    result = run_full_sync("j", connector, lambda batch: delivered.extend(batch.records), store=store, batch_size=3)
    assert (result.action, delivered) == ("resume", RECORDS[9:])
