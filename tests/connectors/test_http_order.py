"""Paging by key: an API that does not give its records in the order of the key is refused, one that does never is."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from connectors.http_api import API, Reply, Request, api_of, orders
from resumable_sync import CursorError
from resumable_sync.connectors._http_order import Order
from resumable_sync.connectors.http import HTTPConnector, KeysetPaging

RECORDS = orders(23)
SHUFFLED = [RECORDS[at * 7 % 23] for at in range(23)]
BY_ID = KeysetPaging(key={"since_id": "id"})


@pytest.fixture
def api() -> Iterator[API]:
    with api_of(RECORDS) as api:
        yield api


def read(api: API, answer: Callable[[int], list[Any]], paging: KeysetPaging = BY_ID) -> list[Any]:
    def reply(request: Request) -> Reply:
        return Reply(answer(request.number("since_id", -1)))

    api.next(*[reply] * 40)
    connector = HTTPConnector(f"{api.url}/any", paging=paging)
    return [record for page in connector.read(None, 5) for record in page.records]


@pytest.mark.server
@pytest.mark.parametrize(
    "answer",
    [
        lambda since: [one for one in SHUFFLED if one["id"] > since][:5],
        lambda since: [one for one in RECORDS if one["id"] > since][:5][::-1],
        lambda since: [one for one in RECORDS[::-1] if one["id"] > since][:5],
        lambda since: [*RECORDS[:5], RECORDS[4]] if since < 0 else RECORDS[2:4],
    ],
    ids=["none", "backwards in a page", "newest first", "going back"],
)
def test_what_would_lose_records_is_refused(api: API, answer: Any) -> None:
    with pytest.raises(CursorError, match=r"'since_id' go up and down.*ordered=False|the same key"):
        read(api, answer)


@pytest.mark.server
def test_a_key_may_fall_and_may_be_but_a_name(api: API) -> None:
    def falling(since: int) -> list[Any]:
        return [one for one in RECORDS[::-1] if since < 0 or one["id"] < since][:5]

    def named(since: int) -> list[Any]:
        begin = 1 + next((at for at, one in enumerate(SHUFFLED) if one["id"] == since), -1)
        return SHUFFLED[begin : begin + 5]

    assert read(api, falling) == RECORDS[::-1]
    api.replies.clear()
    assert read(api, named, KeysetPaging(key={"since_id": "id"}, ordered=False)) == SHUFFLED


def order_of(pages: list[list[Any]], *, unique: bool = False) -> Order:
    order, after = Order(), None
    for page in pages:
        keys = [one if isinstance(one, list) else [one] for one in page]
        order = order.checked(after, keys, ["key"] * len(keys[0]), unique=unique)
        after = keys[-1]
    return order


@pytest.mark.parametrize(
    "pages",
    [
        [[1, 2, 3], [5, 9]],
        [[9, 7], [3]],
        [[3], [3, 3, 4], [4, 5]],
        [["b", "a", "C"], ["d", "c"]],
        # One and the same to a collation.
        [["abc", "ABC", "abc"]],
        [[["abc", 1], ["ABC", 2], ["abc", 3]]],
        [[["b", 1], ["b", 0]], [["a", 7]]],
        [[[1, "b"], [1, "a"], [2, "c"]]],
        [["10", "9", "8"], ["11"]],
        [["31-01-2026", "01-02-2026"]],
        [["2026-01-31", "2026-02-01"], ["2026-02-01"]],
        [["2026-10-25T02:30:00+02:00", "2026-10-25T02:15:00+01:00"]],
        [["2026-10-25T02:15:00.5Z", "2026-10-25T02:15:00.51Z"], ["2026-10-25T02:16:00Z"]],
        # The hour at the end of summer.
        [["2026-10-25 02:50:00", "2026-10-25 02:10:00"], ["2026-10-25 03:10:00"]],
        [["2026-10-25T02:15:00Z", "2026-10-25 01:15:00"]],
        [["2026-99-99", "2026-01-01"]],
    ],
)
def test_what_may_be_in_order_passes(pages: list[list[Any]]) -> None:
    order_of(pages)


@pytest.mark.parametrize(
    "pages",
    [
        [[1, 3, 2]],
        [[1, 2], [4, 3]],
        [[2, 3], [1]],
        [[3, 2], [4]],
        [["2026-01-02", "2026-01-03", "2026-01-01"]],
        [["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"], ["2026-01-02T23:59:59Z"]],
        [["2026-01-02 00:00:00", "2026-01-02 09:00:00"], ["2026-01-02 06:00:00"]],
        [[[1, 5], [2, 1], [1, 6]]],
        [["7:1", "8:1", "7:1"]],
    ],
)
def test_what_cannot_be_in_order_is_refused(pages: list[list[Any]]) -> None:
    with pytest.raises(CursorError, match="not give its records in the order of their keys"):
        order_of(pages)


@pytest.mark.parametrize("pages", [[["a", "b", "a"]], [["a", "b", "c"], ["d", "b"]]])
def test_a_name_that_comes_again_is_refused_where_names_are_unique(pages: list[list[Any]]) -> None:
    with pytest.raises(CursorError, match="come again behind others"):
        order_of(pages, unique=True)
