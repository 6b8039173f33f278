"""The API that pages in a way of its own, on a real server that is busy now and then."""

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from awkward_api import Orders
from typing_extensions import override

from resumable_sync import MemoryJobStore, run_full_sync
from resumable_sync.testing import ConnectorSuite

pytestmark = pytest.mark.once

MONTHS = {"2025-11": 4, "2025-12": 0, "2026-01": 6, "2026-02": 2}
ORDERS = [{"id": f"{month}/{number}", "month": month} for month, orders in MONTHS.items() for number in range(orders)]


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    busy: list[int] = []  # noqa: RUF012 - the number of the next answers that say so

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert (self.path, self.headers["Authorization"]) == ("/v1/orders/search", "Bearer secret")
        month, page, size = asked["month"], asked["page"], asked["per_page"]
        orders = [order for order in ORDERS if order["month"] == month]
        rest = orders[(page - 1) * size :]
        answer = {"month": month, "page": page, "orders": rest[:size], "more": len(rest) > size}
        body = json.dumps({"error": "busy", "wait": 0} if self.busy else answer).encode()
        del self.busy[:1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def orders(url: str) -> Orders:
    return Orders(url, "secret", first="2025-11", last="2026-02", per_page=3)


class TestOrders(ConnectorSuite):
    must_pickle = True

    @pytest.fixture
    @override
    def connector(self, orders: Orders) -> Orders:
        return orders

    @pytest.fixture
    @override
    def expected(self) -> Sequence[Any]:
        return ORDERS


def test_a_busy_api_is_asked_again(orders: Orders) -> None:
    delivered: list[Any] = []
    Shop.busy[:] = [1, 2]
    result = run_full_sync(
        "orders", orders, lambda batch: delivered.extend(batch.records), store=MemoryJobStore(), batch_size=2
    )
    assert (result.status, delivered, Shop.busy) == ("completed", ORDERS, [])
