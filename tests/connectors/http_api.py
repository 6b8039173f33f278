"""A JSON API on loopback that pages in every way, and fails in every way when told."""

import contextlib
import functools
import gzip
import json
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import attrs
from typing_extensions import override


@attrs.frozen
class Reply:
    """What a request gets.

    Attributes:
        document: The body, to be made JSON; bytes are sent as they are.
        status: The status.
        headers: More headers.
        cut: Send only so many bytes of the body, then close.
        hang: Wait for the end of the test before the body, or before anything at all.
        drip: Send the rest of the body byte by byte, until the client has enough of it.
    """

    document: Any = None
    status: int = 200
    headers: dict[str, str] = attrs.field(factory=dict)
    cut: int | None = None
    hang: str = ""
    drip: str = ""
    gzip: bool = False
    length: bool = True


@attrs.frozen
class Request:
    """What was asked; the names of headers are in lower case."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    text: str

    def number(self, name: str, default: int) -> int:
        return int(self.query.get(name, default))


class API:
    """The API: one route for each way of paging.

    Attributes:
        records: All of them.
        size: Most records in a page.
        requests: What was asked so far.
        replies: What the next requests get, instead of what they ask for; a function is called with the request, and
            one that gives None lets the request have its way.
        forgotten: Tokens that are no longer known, and the status that says so.
    """

    def __init__(self, records: Sequence[Any], size: int = 5, *, context: ssl.SSLContext | None = None) -> None:
        self.records = list(records)
        self.size = size
        self.requests: list[Request] = []
        self.replies: deque[Reply | Callable[[Request], Reply | None]] = deque()
        self.forgotten: dict[str, int] = {}
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.most_at_once = self._at_once = 0
        handler = functools.partial(_Handler, api=self)
        self.server = _Server(("127.0.0.1", 0), handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{'http' if context is None else 'https'}://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def next(self, *replies: Reply | Callable[[Request], Reply | None]) -> None:
        self.replies.extend(replies)

    def asked(self, name: str) -> list[str | None]:
        return [request.query.get(name) for request in self.requests]

    def reply(self, request: Request) -> Reply:
        with self.lock:
            self.requests.append(request)
            planned = self.replies.popleft() if self.replies else None
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            found = planned(request) if callable(planned) else planned
            return found or self.page(request)
        finally:
            with self.lock:
                self._at_once -= 1

    def page(self, request: Request) -> Reply:
        route = getattr(self, "route_" + request.path.strip("/").partition("/")[0], None)
        return Reply({"error": "no such route"}, 404) if route is None else route(request)

    def route_offset(self, request: Request) -> Reply:
        offset = request.number("offset", 0)
        return self._items(self.records[offset : offset + min(request.number("limit", self.size), self.size)])

    def route_page(self, request: Request) -> Reply:
        size = min(request.number("size", self.size), self.size)
        begin = (request.number("page", 1) - 1) * size
        return self._items(self.records[begin : begin + size])

    def route_strict(self, request: Request) -> Reply:
        reply = self.route_page(request)
        return reply if reply.document["data"]["items"] else Reply({"detail": "Invalid page."}, 404)

    def route_token(self, request: Request) -> Reply:
        since = request.number("since_id", -1)
        left = [record for record in self.records if record["id"] > since]
        token = request.query.get("token", "t0")
        if token in self.forgotten:
            return Reply({"error": "expired"}, self.forgotten[token])
        number = int(token[1:])
        # Every third page is empty.
        page, size = number - (number + 2) // 3, self.size
        items = [] if number % 3 == 1 else left[page * size : page * size + size]
        following = f"t{number + 1}" if (page + (number % 3 != 1)) * size < len(left) else None
        return Reply({"data": {"items": items}, "meta": {"next": following}})

    def route_link(self, request: Request) -> Reply:
        since = request.number("since_id", -1)
        left = [record for record in self.records if record["id"] > since]
        number = request.number("page", 1)
        if str(number) in self.forgotten:
            return Reply({"error": "expired"}, self.forgotten[str(number)])
        items = left[(number - 1) * self.size : number * self.size]
        headers, link = {}, None
        if number * self.size < len(left):
            rest = [part for part in request.text.split("&") if part and not part.startswith("page=")]
            link = f"{self.url}{request.path}?{'&'.join([*rest, f'page={number + 1}'])}"
            headers["Link"] = f'<{self.url}/link>; rel="first", <{link}>; rel="next"'
        return Reply({"data": {"items": items}, "links": {"next": link}}, headers=headers)

    def route_keyset(self, request: Request) -> Reply:
        since = request.number("since_id", -1)
        left = [record for record in self.records if record["id"] > since]
        return self._items(left[: min(request.number("limit", self.size), self.size)])

    def route_pairs(self, request: Request) -> Reply:
        after = (request.query.get("after_time", ""), request.number("after_id", -1))
        left = [record for record in self._by_time() if (record["changed"], record["id"]) > after]
        return self._items(left[: self.size])

    def route_changed(self, request: Request) -> Reply:
        since = request.query.get("since", "")
        left = [record for record in self._by_time() if record["changed"] >= since]
        return self._items(left[: min(request.number("limit", self.size), self.size)])

    def _by_time(self) -> list[Any]:
        return sorted(self.records, key=lambda record: (record["changed"], record["id"]))

    def _items(self, items: list[Any]) -> Reply:
        return Reply({"data": {"items": items}, "total": len(self.records)})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def __init__(self, *arguments: Any, api: API) -> None:
        self.api = api
        super().__init__(*arguments)

    @override
    def setup(self) -> None:
        super().setup()
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(
            parts.path,
            dict(parse_qsl(parts.query)),
            {name.lower(): value for name, value in self.headers.items()},
            parts.query,
        )
        self._send(self.api.reply(request))

    do_POST = do_GET  # noqa: N815 - http.server's name

    def _send(self, reply: Reply) -> None:
        body = reply.document if isinstance(reply.document, bytes) else json.dumps(reply.document).encode()
        headers = {"Content-Type": "application/json", **reply.headers}
        if reply.gzip:
            body = gzip.compress(body)
            headers["Content-Encoding"] = "gzip"
        if reply.drip == "body":
            body *= 10_000
        if reply.length:
            headers["Content-Length"] = str(len(body))
        else:
            headers["Connection"] = "close"
        if reply.hang == "before":
            self.api.released.wait()
        head = f"HTTP/1.1 {reply.status} Status\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in headers.items()
        )
        if reply.drip == "head":
            self._drip(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 50_000)
        if reply.drip == "body":
            self.wfile.write(head.encode() + b"\r\n")
            self._drip(body)
        sent = head.encode() + b"\r\n" + body[: reply.cut]
        self.wfile.write(sent)
        if reply.hang == "within":
            self.api.released.wait()
        self.close_connection = self.close_connection or reply.cut is not None or not reply.length

    def _drip(self, data: bytes) -> None:
        for number in range(len(data)):
            self.wfile.write(data[number : number + 1])
            if self.api.released.wait(0.002):
                return

    @override
    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


def orders(number: int) -> list[dict[str, Any]]:
    """Give records: the ids have gaps, the times are shared by three."""
    return [
        {"id": 7 * one + 1, "name": f"name {one % 5}", "changed": f"2026-01-{one // 3 + 1:02}"} for one in range(number)
    ]


@contextlib.contextmanager
def api_of(records: Sequence[Any], size: int = 5, *, context: ssl.SSLContext | None = None) -> Iterator[API]:
    """Give an API, until the end of the block."""
    api = API(records, size, context=context)
    try:
        yield api
    finally:
        api.close()
