"""The conformance suite, against every paging of the HTTP connector, on a real server."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import httpx2
import pytest
from typing_extensions import override

from connectors.http_api import API, api_of, orders
from resumable_sync.connectors.http import (
    HTTPConnector,
    KeysetPaging,
    LinkPaging,
    OffsetPaging,
    PagePaging,
    RequestConnector,
    TokenPaging,
)
from resumable_sync.testing import ConnectorSuite

# Which Python reads the answers makes no difference.
pytestmark = pytest.mark.server

RECORDS = orders(13)


@pytest.fixture(scope="module")
def api() -> Iterator[API]:
    with api_of(RECORDS, 3) as api:
        yield api


class HTTPSuite(ConnectorSuite):
    must_pickle = True
    route: ClassVar[str]
    paging: ClassVar[Any]
    options: ClassVar[dict[str, Any]] = {}
    bad: ClassVar[list[Any]] = []

    @pytest.fixture
    @override
    def connector(self, api: API) -> HTTPConnector:
        return HTTPConnector(f"{api.url}/{self.route}", paging=self.paging, records="data.items", **self.options)

    @pytest.fixture
    @override
    def expected(self) -> Sequence[Any]:
        return RECORDS

    @pytest.fixture
    @override
    def bad_cursors(self) -> Sequence[Any]:
        return [{"no": "cursor"}, [], (), "x", 7, [[[]]], *self.bad]


class TestOffset(HTTPSuite):
    route = "offset"
    paging = OffsetPaging()
    options: ClassVar[dict[str, Any]] = {"total": "total"}
    bad: ClassVar[list[Any]] = [[0], [-1], ["1"], [True], [1, 2], (5,)]


class TestOffsetSeveralInFlight(HTTPSuite):
    route = "offset"
    # More than the API gives: every first guess is wrong.
    paging = OffsetPaging(page_size=4)
    options: ClassVar[dict[str, Any]] = {"concurrency": 4}


class TestPage(HTTPSuite):
    route = "page"
    paging = PagePaging(limit_param="size", page_size=3)
    bad: ClassVar[list[Any]] = [[0, 0], [1], [1, -1], ["1", 0], [True, 0], (1, 0)]


class TestPageSeveralInFlight(HTTPSuite):
    route = "strict"
    paging = PagePaging(past_end=(404,))
    options: ClassVar[dict[str, Any]] = {"concurrency": 3}


class TestToken(HTTPSuite):
    route = "token"
    paging = TokenPaging(token="meta.next", token_param="token")
    bad: ClassVar[list[Any]] = [["token"], ["token", None, 0], ["token", "t1", -1], ["end", 1], ["link", "t1", 0]]


class TestTokenWithAnchor(HTTPSuite):
    route = "token"
    paging = TokenPaging(token="meta.next", token_param="token", anchor={"since_id": "id"})
    bad: ClassVar[list[Any]] = [
        ["token", "t1", 0],
        ["token", "t1", 0, [1, 2], None],
        ["token", "t1", 0, 7, None],
        ["token", "t1", 2, None, None],
    ]


class TestLink(HTTPSuite):
    route = "link"
    paging = LinkPaging()
    options: ClassVar[dict[str, Any]] = {"params": {"api_key": "hush", "tag": ["a", "b"]}}
    bad: ClassVar[list[Any]] = [["link", "/link?page=2"], ["token", "t1", 0]]


class TestLinkInBody(HTTPSuite):
    route = "link"
    paging = LinkPaging(next="links.next", anchor={"since_id": "id"})


class TestKeyset(HTTPSuite):
    route = "keyset"
    paging = KeysetPaging(key={"since_id": "id"}, limit_param="limit")
    bad: ClassVar[list[Any]] = [[None], [1, 2], [1.5], [[1]], (1,), [True]]


class TestKeysetOfTwoFields(HTTPSuite):
    route = "pairs"
    paging = KeysetPaging(key={"after_time": "changed", "after_id": "id"})
    bad: ClassVar[list[Any]] = [["2026-01-01"], [["2026-01-01"]], [["2026-01-01", 1, 2]]]


class TestKeysetInclusive(HTTPSuite):
    route = "changed"
    paging = KeysetPaging(key={"since": "changed"}, inclusive="id", limit_param="limit", page_size=4)
    bad: ClassVar[list[Any]] = [["2026-01-01"], ["2026-01-01", 7], ["2026-01-01", [None]]]

    @pytest.fixture
    @override
    def connector(self, api: API) -> Iterator[HTTPConnector]:
        # Three records share a time; a page must be longer than that.
        api.size, before = 4, api.size
        yield HTTPConnector(f"{api.url}/changed", paging=self.paging, records="data.items")
        api.size = before


class Posted(RequestConnector[dict[str, Any]]):
    def __init__(self, url: str) -> None:
        self.headers = {"X-Key": "hush"}
        self.url = url

    @override
    def request(self, cursor: Any, limit: int) -> httpx2.Request:
        return httpx2.Request("POST", f"{self.url}/token?token={cursor or 't0'}", json={"first": limit})

    @override
    def parse(self, response: httpx2.Response) -> tuple[Sequence[dict[str, Any]], Any]:
        body = response.json()
        return body["data"]["items"], body["meta"]["next"]


class TestRequestConnector(ConnectorSuite):
    must_pickle = True

    @pytest.fixture
    @override
    def connector(self, api: API) -> Posted:
        return Posted(api.url)

    @pytest.fixture
    @override
    def expected(self) -> Sequence[Any]:
        return RECORDS
