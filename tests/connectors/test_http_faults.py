"""What goes wrong with an HTTP API: nothing is lost or repeated, nothing hangs, and what is said is true."""

import itertools
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from typing_extensions import override

from connectors.http_api import API, Reply, Request, api_of, orders
from doubles import FAST
from resumable_sync import (
    CursorError,
    JobStatus,
    Retry,
    SyncResult,
    TransientError,
    TryFailed,
    run_full_sync,
)
from resumable_sync.connectors import _http_link
from resumable_sync.connectors._http_body import BodyTooLargeError, collected
from resumable_sync.connectors.http import (
    HTTPConnector,
    HTTPResponseError,
    KeysetPaging,
    LinkPaging,
    OffsetPaging,
    PagePaging,
    TokenPaging,
)
from resumable_sync.stores.memory import MemoryJobStore
from resumable_sync.testing._store_base import wait_until

# Which Python reads the answers makes no difference.
pytestmark = pytest.mark.server

RECORDS = orders(23)
BY_OFFSET = OffsetPaging(page_size=5)
BY_TOKEN = TokenPaging(token="meta.next", token_param="token")
WITH_ANCHOR = TokenPaging(token="meta.next", token_param="token", anchor={"since_id": "id"})
ROUTES = {
    "offset": BY_OFFSET,
    "page": PagePaging(),
    "token": BY_TOKEN,
    "link": LinkPaging(),
    "keyset": KeysetPaging(key={"since_id": "id"}),
}


@pytest.fixture
def api() -> Iterator[API]:
    with api_of(RECORDS) as api:
        yield api


def connector(api: API, route: str = "offset", paging: Any = None, **options: Any) -> HTTPConnector:
    return HTTPConnector(f"{api.url}/{route}", paging=paging or ROUTES[route], records="data.items", **options)


def read(connector: HTTPConnector, cursor: Any = None, batch_size: int = 5) -> list[Any]:
    return [record for page in connector.read(cursor, batch_size) for record in page.records]


def run(connector: Any, sink: Any, **options: Any) -> SyncResult:
    options = {"store": MemoryJobStore(), "retry": FAST, "batch_size": 5, **options}
    return run_full_sync("j", connector, sink, **options)


FAULTS = {
    "500": Reply({"error": "no"}, 500),
    "502": Reply(b"<html>bad gateway</html>", 502),
    "408": Reply(None, 408),
    "429 at once": Reply(None, 429, {"Retry-After": "0"}),
    "403 at once": Reply(None, 403, {"Retry-After": "0"}),
    "503 by date": Reply(
        None, 503, {"Retry-After": "Fri, 31 Jul 2026 08:00:00 GMT", "Date": "Fri, 31 Jul 2026 08:00:00 GMT"}
    ),
    "cut": Reply({"data": {"items": RECORDS}}, cut=40),
    "cut without length": Reply({"data": {"items": RECORDS}}, cut=40, length=False),
    "compressed and cut": Reply({"data": {"items": RECORDS}}, cut=30, length=False, gzip=True),
    "compressed and damaged": Reply(b"\x1f\x8b no gzip at all", headers={"Content-Encoding": "gzip"}),
    "no JSON": Reply(b"<html>please log in</html>"),
    "no text": Reply(b'{"data": {"items": ["\xff"]}}'),
    "no HTTP": Reply(cut=0, headers={"broken header": "\x00"}),
}
HANGS = {
    "no answer": Reply(cut=0, hang="before"),
    "half an answer": Reply({"data": {"items": RECORDS}}, cut=40, hang="within"),
}
DRIPS = {
    "head": Reply({"data": {"items": []}}, drip="head"),
    "body": Reply({"data": {"items": []}}, drip="body"),
}


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_tried_again_at_the_same_place(api: API, fault: str, concurrency: int) -> None:
    delivered: list[Any] = []
    api.next(lambda _: None, lambda _: None, FAULTS[fault])
    source = connector(api, concurrency=concurrency)
    events: list[Any] = []
    result = run(source, lambda batch: delivered.extend(batch.records), observers=[events.append])
    assert result.status == JobStatus.COMPLETED
    assert delivered == RECORDS
    assert [event.tries for event in events if isinstance(event, TryFailed)] == [1]


@pytest.mark.parametrize("fault", HANGS)
def test_an_answer_that_does_not_end_is_tried_again(api: API, fault: str) -> None:
    delivered: list[Any] = []
    api.next(lambda _: None, HANGS[fault])
    source = connector(api, concurrency=2, timeout=0.1)
    # On a busy machine other answers may be late too.
    run(source, lambda batch: delivered.extend(batch.records), retry=Retry(wait_initial=0.01, max_tries=1_000))
    assert delivered == RECORDS


@pytest.mark.parametrize("fault", DRIPS)
def test_an_answer_that_comes_byte_by_byte_is_given_up(api: API, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # It is never silent for long: 0.2 s in all is what ends it.
    monkeypatch.setattr(_http_link, "_WHOLE", 0.01)
    delivered: list[Any] = []
    api.next(lambda _: None, DRIPS[fault])
    source = connector(api, timeout=20.0)
    run(source, lambda batch: delivered.extend(batch.records), retry=Retry(wait_initial=0.01, max_tries=1_000))
    assert delivered == RECORDS


@pytest.mark.parametrize("route", ROUTES)
def test_every_page_fails_once(api: API, route: str) -> None:
    delivered: list[Any] = []
    seen = set()

    def fail_once(request: Request) -> Reply | None:
        with api.lock:
            new = request.text not in seen
            seen.add(request.text)
        return FAULTS["cut"] if new else None

    api.next(*[fail_once] * 40)
    run(connector(api, route), lambda batch: delivered.extend(batch.records))
    assert delivered == RECORDS


@pytest.mark.parametrize("status", [429, 503])
def test_a_stop_ends_the_wait_that_an_api_asks_for(api: API, status: int) -> None:
    stop = threading.Event()

    def observe(event: Any) -> None:
        if isinstance(event, TryFailed):
            assert event.wait == 3000
            stop.set()

    api.next(lambda _: None, Reply(None, status, {"Retry-After": "3000"}))
    delivered: list[Any] = []
    result = run(
        connector(api),
        lambda batch: delivered.extend(batch.records),
        observers=[observe],
        should_stop=stop.is_set,
        retry=Retry(timeout=None),
    )
    assert result.status == JobStatus.INTERRUPTED
    assert delivered == RECORDS[:5]


def test_an_api_that_stays_down_is_given_up(api: API) -> None:
    api.next(*[FAULTS["502"]] * 20)
    with pytest.raises(TransientError, match=r"502 Bad Gateway.*Retry\(timeout"):
        run(connector(api), print)
    assert len(api.requests) == FAST.max_tries


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 422, 451, 501, 304, 399])
def test_another_status_is_an_error_at_once(api: API, status: int) -> None:
    api.next(lambda _: None, Reply({"secret": "record value"}, status))
    with pytest.raises(HTTPResponseError) as caught:
        run(connector(api), lambda _: None)
    assert caught.value.status == status
    assert "record value" not in str(caught.value)
    assert len(api.requests) == 2


@pytest.mark.parametrize("status", [400, 404, 410, 422])
@pytest.mark.parametrize("route", ["token", "link"])
def test_a_token_that_is_refused_has_expired(api: API, route: str, status: int) -> None:
    source = connector(api, route)
    first = next(source.read(None, 5))
    api.forgotten = dict.fromkeys(["t1", "2"], status)
    with pytest.raises(CursorError, match=rf"\(status {status}\): it has expired.*anchor="):
        read(source, first.cursor)


def test_gone_is_expired_without_a_token_too(api: API) -> None:
    api.next(lambda _: None, Reply(None, 410))
    with pytest.raises(CursorError, match="expired"):
        read(connector(api))


@pytest.mark.parametrize(("batch_size", "status"), [(1, 410), (3, 400), (100, 410)])
@pytest.mark.parametrize(("route", "paging"), [("token", WITH_ANCHOR), ("link", LinkPaging(anchor={"since_id": "id"}))])
def test_with_an_anchor_reading_goes_on_without_a_gap(
    api: API, route: str, paging: Any, batch_size: int, status: int
) -> None:
    source = connector(api, route, paging)
    for cut in range(1, len(RECORDS), 2):
        api.forgotten = {}
        pages: Any = source.read(None, batch_size)
        got: list[Any] = []
        cursor = None
        while len(got) < cut:
            page = next(pages)
            got += page.records
            cursor = page.cursor
        pages.close()
        # Every token of the first chain; the new one's are known as long as they are its own.
        api.forgotten = _forgotten_once(status)
        assert got + read(source, cursor, batch_size) == RECORDS


def _forgotten_once(status: int) -> Any:
    class Once(dict[str, int]):
        """Forgets the first token that is asked for, and no other."""

        left = 1

        @override
        def __contains__(self, token: object) -> bool:
            if token not in ("t0", "1") and self.left:
                self.left = 0
                return True
            return False

        @override
        def __getitem__(self, token: str) -> int:
            return status

    return Once()


def test_an_api_that_begins_with_the_anchor_itself_repeats_nothing(api: API) -> None:
    def inclusive(request: Request) -> Reply:
        since = request.number("since_id", -1)
        return Reply({"data": {"items": [one for one in RECORDS if one["id"] >= since]}, "meta": {}})

    api.next(inclusive)
    last = RECORDS[9]["id"]
    api.forgotten = {"t7": 410}
    api.replies.appendleft(lambda _: None)
    assert read(connector(api, "token", WITH_ANCHOR), ["token", "t7", 2, [last], None]) == RECORDS[10:]


def test_an_api_that_forgets_every_token_is_no_endless_loop(api: API) -> None:
    api.records = []
    empty = {"data": {"items": []}, "meta": {"next": "t9"}}
    api.next(*[Reply(empty), Reply(None, 410)] * 20)
    with pytest.raises(CursorError, match="passed before"):
        read(connector(api, "token", WITH_ANCHOR))


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("route", ["offset", "page"])
def test_an_api_that_ignores_the_place_is_noticed(api: API, route: str, concurrency: int) -> None:
    api.next(*[Reply({"data": {"items": RECORDS[:5]}})] * 40)
    delivered: list[Any] = []
    with pytest.raises(CursorError, match="same page twice"):
        run(connector(api, route, concurrency=concurrency), lambda batch: delivered.extend(batch.records))
    assert delivered == RECORDS[:5]


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("cursor", [None, [3, 2]])
def test_an_api_that_begins_anew_behind_its_last_page_is_noticed(api: API, concurrency: int, cursor: Any) -> None:
    def wrap(request: Request) -> Reply:
        begin = (request.number("page", 1) - 1) % 5 * 5
        return Reply({"data": {"items": RECORDS[begin : begin + 5]}})

    api.next(*[wrap] * 60)
    source = connector(api, "page", concurrency=concurrency)
    with pytest.raises(CursorError, match="first page of this read again"):
        read(source, cursor)
    assert len(api.requests) <= 15


@pytest.mark.parametrize("empty", ["null", "missing"])
def test_no_list_is_the_end_where_that_was_said(api: API, empty: Any) -> None:
    def end(request: Request) -> Reply | None:
        items = {"items": None} if empty == "null" else {}
        return Reply({"data": items}) if request.number("offset", 0) >= len(RECORDS) else None

    api.next(*[end] * 40)
    with pytest.raises(HTTPResponseError, match=f"give empty='{empty}'"):
        read(connector(api))
    assert read(connector(api, empty=empty)) == RECORDS
    assert read(connector(api, empty="missing")) == RECORDS


@pytest.mark.parametrize("document", [{}, {"data": None}, {"data": []}, [], None, {"data": {"items": {}}}])
def test_an_answer_that_could_not_hold_the_list_is_never_the_end(api: API, document: Any) -> None:
    api.next(lambda _: None, Reply(document))
    with pytest.raises(HTTPResponseError, match=r"at 'data\.items'"):
        read(connector(api, empty="missing"))
    api.next(Reply({"data": {}}))
    with pytest.raises(HTTPResponseError, match="answered nothing"):
        read(connector(api, empty="missing"))


@pytest.mark.parametrize("route", ["token", "link", "keyset"])
def test_an_api_that_goes_round_in_circles_is_noticed(api: API, route: str) -> None:
    def first(request: Request) -> Reply | None:
        return api.page(Request(request.path, {}, {}, ""))

    api.next(*[first] * 40)
    delivered: list[Any] = []
    with pytest.raises(CursorError, match=r"passed before|go on behind"):
        run(connector(api, route), lambda batch: delivered.extend(batch.records))
    assert delivered == RECORDS[:5]


@pytest.mark.parametrize("sizes", [[5, 4, 3, 2, 1], [1, 5, 2, 5], [5, 5, 2, 2]])
@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("route", ["offset", "keyset"])
def test_pages_that_shrink_and_grow_lose_nothing(api: API, route: str, concurrency: int, sizes: list[int]) -> None:
    turn = itertools.cycle(sizes)

    def resize(request: Request) -> None:
        with api.lock:
            api.size = next(turn)

    api.next(*[resize] * 200)
    assert read(connector(api, route, concurrency=concurrency if route == "offset" else 1)) == RECORDS


def test_a_page_that_shrank_is_not_passed_over(api: API) -> None:
    # Four of five records were delivered, and two are left: the next page is a page of its own.
    api.next(Reply({"data": {"items": RECORDS[:2]}}))
    assert read(connector(api, "page"), [1, 4]) == RECORDS[5:]


def test_a_page_of_a_token_that_shrank_is_not_passed_over(api: API) -> None:
    api.next(Reply({"data": {"items": RECORDS[:2]}, "meta": {"next": "t2"}}))
    assert read(connector(api, "token"), ["token", "t0", 4]) == RECORDS[5:]


@pytest.mark.parametrize("gone", [0, 1, 2, 3])
def test_with_an_anchor_a_page_may_shrink_anywhere(api: API, gone: int) -> None:
    last = RECORDS[2]["id"]
    del api.records[gone]
    left = [record for record in api.records if record["id"] > last]
    assert read(connector(api, "token", WITH_ANCHOR), ["token", "t0", 3, [last], None]) == left


def test_requests_ahead_learn_how_many_records_an_api_gives(api: API) -> None:
    assert read(connector(api, paging=OffsetPaging(page_size=50), concurrency=4)) == RECORDS
    offsets = [int(offset or 0) for offset in api.asked("offset")]
    assert {offset % 5 for offset in offsets if offset < len(RECORDS)} == {0}
    assert 50 not in offsets


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"data": {}}, "answered nothing at 'data.items'"),
        ({"data": None, "errors": ["x"]}, "answered nothing at 'data.items'"),
        ({"data": {"items": None}}, "answered a NoneType at 'data.items'"),
        ({"data": {"items": {"1": "secret"}}}, "answered a dict at 'data.items'"),
        ("secret", "answered nothing at 'data.items'"),
    ],
)
def test_an_answer_of_another_form_is_never_the_end(api: API, document: Any, told: str) -> None:
    api.next(lambda _: None, Reply(document))
    with pytest.raises(HTTPResponseError, match=told) as caught:
        read(connector(api))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("paging", "found"), [(BY_TOKEN, "token"), (LinkPaging(next="meta.next"), "URL")])
def test_a_token_that_is_none_is_refused(api: API, paging: Any, found: str) -> None:
    api.next(Reply({"data": {"items": RECORDS}, "meta": {"next": {"page": 2}}}))
    with pytest.raises(HTTPResponseError, match=f"a dict at 'meta.next'.*{found} of the next page"):
        read(connector(api, "token", paging))


def test_no_content_is_an_empty_page(api: API) -> None:
    api.next(lambda _: None, Reply(b"", 204))
    assert read(connector(api)) == RECORDS[:5]


@pytest.mark.parametrize("key", ["name", "missing", "changed"])
def test_a_key_that_cannot_be_one_is_refused(api: API, key: str) -> None:
    api.records[2] = {**api.records[2], "name": None}
    with pytest.raises((CursorError, HTTPResponseError)):
        read(connector(api, "keyset", KeysetPaging(key={"since_id": key})))


def test_more_records_of_one_key_than_a_page_holds_are_refused(api: API) -> None:
    api.records = [{**record, "changed": "2026-01-01"} for record in RECORDS]
    paging = KeysetPaging(key={"since": "changed"}, inclusive="id", page_size=5, limit_param="limit")
    with pytest.raises(CursorError, match=r"raise KeysetPaging\.page_size"):
        read(connector(api, "changed", paging))


def test_a_body_may_not_be_too_large(api: API) -> None:
    bomb = Reply(b"[" + b" " * 3_000_000 + b"]", gzip=True)
    for reply in (bomb, Reply(RECORDS * 50), Reply(RECORDS * 50, length=False)):
        api.next(reply)
        with pytest.raises(HTTPResponseError, match=r"more than 10,000 bytes.*raise max_response_bytes"):
            read(connector(api, max_response_bytes=10_000))


def test_a_bomb_is_never_unpacked() -> None:
    bomb = zlib.compress(bytes(20_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError):
            collected([bomb], "gzip", 10_000)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_past_the_end_is_an_error_at_the_beginning(api: API) -> None:
    api.records = []
    with pytest.raises(HTTPResponseError, match="404 Not Found; check the url"):
        read(connector(api, "strict", PagePaging(past_end=404)))


@pytest.mark.parametrize("depth", [70, 100_000])
def test_a_body_may_not_be_nested_too_deep(api: API, depth: int) -> None:
    api.next(Reply(b'{"data": {"items": [' + b"[" * depth + b"]" * depth + b"]}}"))
    with pytest.raises(HTTPResponseError, match="nested more than 64 deep"):
        read(connector(api))


def test_an_encoding_that_was_not_asked_for_is_refused(api: API) -> None:
    api.next(Reply(b"...", headers={"Content-Encoding": "br"}))
    with pytest.raises(HTTPResponseError, match="only gzip and deflate"):
        read(connector(api))


def test_compressed_answers_are_read(api: API) -> None:
    api.next(lambda request: Reply(api.page(request).document, gzip=True))
    assert read(connector(api)) == RECORDS
    assert api.requests[0].headers["accept-encoding"] == "gzip"


def test_a_host_that_is_not_there_is_worth_another_try(api: API) -> None:
    source = connector(api)
    api.server.socket.close()
    with pytest.raises(TransientError, match=r"connection to http://127\.0\.0\.1"):
        read(source)


@pytest.mark.parametrize("how", ["close", "error"])
def test_threads_end_with_the_iterator_though_answers_hang(api: API, how: str) -> None:
    def answer(request: Request) -> Reply | None:
        offset = request.number("offset", 0)
        if offset >= 10:
            return Reply(hang="before")
        return Reply(None, 400) if offset == 5 and how == "error" else None

    before = set(threading.enumerate())
    api.next(*[answer] * 9)
    pages: Any = connector(api, concurrency=4, timeout=120.0).read(None, 5)
    assert next(pages).records == RECORDS[:5]
    begun = time.monotonic()
    if how == "error":
        with pytest.raises(HTTPResponseError):
            next(pages)
    else:
        assert next(pages).records == RECORDS[5:10]
        wait_until(lambda: "10" in api.asked("offset"), "an answer to hang")
    pages.close()
    assert time.monotonic() - begun < 60, "waited for answers that do not come"
    wait_until(lambda: not _ours(threading.enumerate(), before), "threads of the read to end")


def _ours(now: Any, before: set[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in now if thread not in before and thread.name.startswith("resumable_sync")]


def test_several_pages_are_in_flight_in_order_and_no_more_than_asked_for(api: API) -> None:
    api.records, api.size = orders(200), 5
    together = threading.Barrier(4, timeout=30)

    def meet(request: Request) -> None:
        if request.number("offset", 0) >= 15:
            together.wait()

    # First one is asked for, then two, three and four at once: those of the fourth time wait for each other.
    api.next(*[meet] * 7)
    pages = connector(api, concurrency=4).read(None, 5)
    got = [next(pages).records for _ in range(4)]
    assert api.most_at_once == 4
    assert len(api.requests) == 7, "more is held than what is in flight"
    rest = [page.records for page in pages]
    assert [record for records in got + rest for record in records] == api.records
    assert api.most_at_once <= 4


def test_the_offset_of_a_page_beyond_the_batch_size_is_in_the_cursor(api: API) -> None:
    assert [page.cursor for page in connector(api, "page").read([1, 3], 2)][:3] == [[2, 0], [2, 2], [2, 4]]
    tokens = [page.cursor for page in connector(api, "token").read(None, 3)]
    assert tokens[:3] == [["token", None, 3], ["token", "t1", 0], ["token", "t2", 3]]
    assert tokens[-1] == ["end"]
    assert [page.cursor for page in connector(api, "keyset").read(None, 4)][:2] == [[22], [29]]
    assert next(connector(api, "link").read(None, 5)).cursor == ["link", "/link?page=2", 0]


def test_the_total_is_counted(api: API) -> None:
    assert connector(api, total="total").count() == 23
    assert connector(api).count() is None
    with pytest.raises(HTTPResponseError, match="correct total"):
        connector(api, total="data").count()
