"""Files behind URLs: filesystems of fsspec, and a web server that wants a signature."""

import logging
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import fsspec
import pytest
from typing_extensions import override

from resumable_sync import (
    ConfigurationError,
    CursorError,
    Event,
    Retry,
    TransientError,
    TryFailed,
    registry,
    run_full_sync,
)
from resumable_sync._fsspec import shown_url
from resumable_sync.connectors.files import CSVConnector, JSONLinesConnector
from resumable_sync.sinks.parquet import ParquetSink
from resumable_sync.stores.memory import MemoryJobStore
from resumable_sync.stores.sql import SQLJobStore

SECRET = "abcd%2Fef0123"
PASSWORD = "hunter2hunter2"


class Handler(BaseHTTPRequestHandler):
    """Gives `content` to whoever has the signature, whole or from some byte on."""

    content = b""
    version: str | None = None
    ranges = True
    status = 200
    cut: int | None = None
    headers_seen: ClassVar[list[dict[str, str]]] = []

    @override
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        kind = type(self)
        kind.headers_seen.append(dict(self.headers))
        if kind.status != 200 or unquote(urlsplit(self.path).query) != f"sig={unquote(SECRET)}":
            self.send_error(kind.status if kind.status != 200 else 403)
            return
        data, asked = kind.content, self.headers.get("Range")
        first, last = 0, len(data) - 1
        if asked and kind.ranges:
            bounds = asked.removeprefix("bytes=").split("-")
            first, last = int(bounds[0]), min(int(bounds[1]), last)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        else:
            self.send_response(200)
            if not kind.ranges:
                self.send_header("Accept-Ranges", "none")
        if kind.version:
            self.send_header("ETag", kind.version)
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        if body:
            self.wfile.write(data[first : last + 1][: kind.cut])


@pytest.fixture
def web() -> Iterator[type[Handler]]:
    class Own(Handler):
        content = b"".join(b'{"n": %d}\n' % number for number in range(10))
        version = '"1"'
        headers_seen: ClassVar[list[dict[str, str]]] = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    Own.url = f"http://127.0.0.1:{server.server_port}/events.jsonl?sig={SECRET}"  # type: ignore[attr-defined]
    yield Own
    server.shutdown()
    thread.join()
    server.server_close()
    fsspec.filesystem("http").clear_instance_cache()


def numbers(connector: Any, cursor: Any = None) -> list[int]:
    return [record["n"] for page in connector.read(cursor, 3) for record in page.records]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("version", ['"1"', None])
def test_a_web_server(web: Any, *, ranges: bool, version: str | None) -> None:
    web.ranges, web.version = ranges, version
    connector = JSONLinesConnector(web.url)
    pages = list(connector.read(None, 4))
    assert numbers(connector) == list(range(10))
    copy = pickle.loads(pickle.dumps(connector))
    assert [numbers(copy, page.cursor) for page in pages] == [list(range(4, 10)), [8, 9], []]
    assert all(page.cursor["file"] == "events.jsonl" for page in pages)
    web.content = b'{"n": 7}\n' + web.content[9:]
    web.version = version and '"2"'
    if version is None:
        assert "changed before the place" in str(connector.moved(pages[0].cursor))
    with pytest.raises(CursorError, match=r"'events.jsonl', which was replaced, or changed before the place"):
        connector.read(pages[0].cursor, 1)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_no_error_tells_the_signature(
    web: Any, status: int, sqlite_url: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    web.status = status
    options = {"client_kwargs": {"headers": {"X-Password": PASSWORD}}}
    connector = JSONLinesConnector(web.url, storage_options=options)
    with caplog.at_level(logging.DEBUG, "resumable_sync"), SQLJobStore(sqlite_url) as store:
        with pytest.raises((OSError, TransientError)) as caught:
            run_full_sync("web", connector, print, store=store, retry=Retry(max_tries=1))
        job = store.load("web")
    assert isinstance(caught.value, TransientError if status == 500 else OSError)
    assert "http://127.0.0.1" in str(caught.value)
    told: BaseException | None = caught.value
    texts = [repr(connector), repr(job), str(connector.fingerprint), caplog.text, *capfd.readouterr()]
    while told is not None:
        texts += [str(told), repr(told), repr(vars(told)), *getattr(told, "__notes__", [])]
        told = told.__cause__ or told.__context__
    for secret in (SECRET, "abcd/ef0123", PASSWORD):
        assert all(secret not in text for text in texts)


def test_a_body_that_breaks_off_is_read_on_at_the_same_cursor(web: Any) -> None:
    web.cut = 40
    got: list[int] = []
    failed: list[str] = []

    def load(batch: Any) -> None:
        got.extend(record["n"] for record in batch.records)

    def observe(event: Event) -> None:
        if isinstance(event, TryFailed):
            failed.append(event.error)
            web.cut = None

    retry = Retry(wait_initial=0.0)
    connector = JSONLinesConnector(web.url)
    run_full_sync("web", connector, load, store=MemoryJobStore(), retry=retry, batch_size=2, observers=[observe])
    assert got == list(range(10))
    assert [error.partition(":")[0] for error in failed] == ["TransientError"]


def test_a_pattern_in_memory() -> None:
    memory = fsspec.filesystem("memory")
    try:
        for name in ("b", "a"):
            memory.pipe(f"/files/{name}.csv", f"n\n{name}\n".encode())
        connector = CSVConnector("memory://files/*.csv")
        pages = list(connector.read(None, 1))
        assert [(page.cursor["file"], page.records) for page in pages] == [("a.csv", [("a",)]), ("b.csv", [("b",)])]
        memory.pipe("/files/c.csv", b"n\nc\n")
        assert [page.records for page in connector.read(pages[0].cursor, 1)] == [[("b",)], [("c",)]]
        with pytest.raises(FileNotFoundError, match=r"no file matches 'memory://files/\*.txt'; correct the pattern"):
            CSVConnector("memory://files/*.txt").read(None, 1)
    finally:
        memory.rm("/files", recursive=True)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://key:secret@bucket/a.csv", "s3://bucket/a.csv"),
        ("s3://bucket/a.csv", "s3://bucket/a.csv"),
        ("https://token@host/a.csv?sig=secret#secret", "https://host/a.csv"),
        ("ftp://user:sec/ret@host/a.csv", "ftp://host/a.csv"),
        ("abfs://container@account/a.csv", "abfs://container@account/a.csv"),
        ("zip://*.csv::https://user:secret@host/a.zip?x=secret", "zip://*.csv::https://host/a.zip"),
        ("memory://a/?.csv", "memory://a/?.csv"),
        ("abfs://c@acct/a.csv?sv=1&sig=se/cret", "abfs://c@acct/a.csv"),
        ("s3://bucket/a?.csv?versionId=secret", "s3://bucket/a?.csv"),
        ("gs://bucket/year?month=1/*.csv", "gs://bucket/year?month=1/*.csv"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert shown_url(url) == shown
    source = CSVConnector(url)
    assert shown in repr(source)
    assert source.fingerprint is not None
    assert "secret" not in f"{source!r}{source.fingerprint}{ParquetSink(url)!r}"


def test_what_came_from_the_environment_is_not_shown() -> None:
    data = {"type": "csv", "path": "https://host/${TOKEN}/a.csv;sig=${TOKEN}"}
    sources = [registry.connector(data, environ={"TOKEN": token}) for token in ("secret-1", "secret-2")]
    assert repr(sources[0]) == "CSVConnector('https://host/${TOKEN}/a.csv;sig=***')"
    assert sources[0].fingerprint != sources[1].fingerprint
    assert "secret" not in f"{sources[0].fingerprint}{sources[1].fingerprint}"
    sink = registry.sink({"type": "parquet", "path": "memory://${TOKEN}/x"}, environ={"TOKEN": "secret-1"})
    assert repr(sink).startswith("ParquetSink('memory://${TOKEN}/x'")


@pytest.fixture
def led(web: Any) -> Iterator[Any]:
    """Give a server whose every file is somewhere else: at `location`."""

    class Moved(BaseHTTPRequestHandler):
        location = ""

        @override
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.send_response(302)
            self.send_header("Location", self.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD  # noqa: N815 - http.server's name

    server = ThreadingHTTPServer(("127.0.0.1", 0), Moved)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    Moved.url = f"http://127.0.0.1:{server.server_port}/moved.jsonl"  # type: ignore[attr-defined]
    yield Moved
    server.shutdown()
    thread.join()
    server.server_close()
    fsspec.filesystem("http").clear_instance_cache()


@pytest.mark.parametrize(
    "options",
    [
        {"client_kwargs": {"headers": {"X-Api-Key": PASSWORD}}},
        {"headers": {"X-Api-Key": PASSWORD}},
        {"client_kwargs": {"cookies": {"session": PASSWORD}}},
        {"http": {"client_kwargs": {"headers": {"X-Api-Key": PASSWORD}}}},
    ],
)
def test_no_redirect_takes_a_header_to_another_host(web: Any, led: Any, options: Any) -> None:
    led.location = web.url.replace("127.0.0.1", "localhost")
    with pytest.raises(ConfigurationError, match="redirects to another host, where headers and") as caught:
        numbers(JSONLinesConnector(led.url, storage_options=options))
    assert PASSWORD not in str(caught.value)
    assert web.headers_seen == []


def test_a_redirect_without_such_a_header_is_followed(web: Any, led: Any) -> None:
    led.location = web.url.replace("127.0.0.1", "localhost")
    options = {"client_kwargs": {"headers": {"Authorization": PASSWORD}}}
    assert numbers(JSONLinesConnector(led.url, storage_options=options)) == list(range(10))
    assert web.headers_seen
    assert all("Authorization" not in headers for headers in web.headers_seen)
