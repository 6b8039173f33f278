"""The three bases: where they end, how they cut, and that they never go round in circles."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from resumable_sync._cursor import decode_cursor, encode_cursor
from resumable_sync._errors import ConfigurationError, CursorError
from resumable_sync._model import Page
from resumable_sync._protocols import Connector, SeekableConnector
from resumable_sync.connectors import KeysetConnector, OffsetConnector, TokenConnector

RECORDS = list(range(100, 123))


class Offsets(OffsetConnector[int]):
    """A source that gives at most `most` records, or more than it is asked for."""

    def __init__(self, most: int = 1_000, surplus: int = 0) -> None:
        self.most, self.surplus = most, surplus

    @override
    def fetch(self, offset: int, limit: int) -> Sequence[int]:
        return RECORDS[offset : offset + min(limit, self.most) + self.surplus]


class Keys(KeysetConnector[dict[str, int], int]):
    def __init__(self, most: int = 1_000, surplus: int = 0) -> None:
        self.most, self.surplus = most, surplus

    @override
    def fetch(self, after: int | None, limit: int) -> Sequence[dict[str, int]]:
        rest = [{"id": number} for number in RECORDS if after is None or number > after]
        return rest[: min(limit, self.most) + self.surplus]

    @override
    def key_of(self, record: dict[str, int]) -> int:
        return record["id"]


class Tokens(TokenConnector[int, str]):
    """A source whose tokens are places; with `pages` it chooses the length of its pages itself."""

    def __init__(self, pages: Sequence[int] | None = None) -> None:
        self.pages = pages

    @override
    def fetch(self, token: str | None, limit: int) -> tuple[Sequence[int], str | None]:
        if self.pages is None:
            begin = int(token or 0)
            end = begin + limit
            return RECORDS[begin:end], None if end >= len(RECORDS) else str(end)
        number = int(token or 0)
        begin = sum(self.pages[:number])
        records = RECORDS[begin : begin + self.pages[number]]
        return records, None if number + 1 == len(self.pages) else str(number + 1)


def read(connector: Connector[Any], cursor: Any, size: int) -> list[Page[Any]]:
    pages = list(connector.read(cursor, size))
    assert all(1 <= len(page) <= size for page in pages)
    return pages


def records(pages: list[Page[Any]]) -> list[Any]:
    return [record for page in pages for record in page.records]


def assert_resumes(connector: Connector[Any], size: int, other: int) -> None:
    pages = read(connector, None, size)
    whole = records(pages)
    position = 0
    for page in pages:
        position += len(page)
        cursor = decode_cursor(encode_cursor(page.cursor))
        assert records(read(connector, cursor, other)) == whole[position:], page.cursor


@given(size=st.integers(1, 30), other=st.integers(1, 30), most=st.integers(1, 10), surplus=st.integers(0, 3))
@pytest.mark.parametrize("make", [Offsets, Keys])
def test_short_and_long_pages_neither_end_nor_lose(
    make: Callable[..., Connector[Any]], size: int, other: int, most: int, surplus: int
) -> None:
    connector = make(most, surplus)
    assert len(records(read(connector, None, size))) == len(RECORDS)
    assert_resumes(connector, size, other)


@given(
    pages=st.one_of(st.none(), st.lists(st.integers(0, 12), min_size=1, max_size=9)),
    size=st.integers(1, 30),
    other=st.integers(1, 30),
)
def test_token_pages_of_any_length_resume_in_their_middle(pages: list[int] | None, size: int, other: int) -> None:
    connector = Tokens(pages)
    expected = RECORDS if pages is None else RECORDS[: sum(pages)]
    assert records(read(connector, None, size)) == expected
    assert_resumes(connector, size, other)


def test_cursors() -> None:
    assert [page.cursor for page in read(Offsets(), None, 10)] == [[10], [20], [23]]
    assert [page.cursor for page in read(Keys(), None, 10)] == [[109], [119], [122]]
    assert [page.cursor for page in read(Tokens([5, 18]), None, 10)] == [["token", "1"], ["token", "1", 10], ["end"]]
    assert read(Tokens(), ["end"], 10) == []


def test_offset_connector_can_be_sought() -> None:
    connector = Offsets()
    assert isinstance(connector, SeekableConnector)
    assert connector.cursor_at(0) is None
    assert connector.cursor_at(len(RECORDS)) == [len(RECORDS)]
    assert connector.cursor_at(len(RECORDS) + 1) is None
    assert records(read(connector, connector.cursor_at(20), 10)) == RECORDS[20:]


def test_defaults() -> None:
    assert Offsets().fingerprint is None
    assert Offsets().count() is None


class Circle(TokenConnector[int, int]):
    """Tokens that come round again after `lead` others."""

    def __init__(self, lead: int, length: int, page: Sequence[int]) -> None:
        self.lead, self.length, self.page = lead, length, page
        self.fetched = 0

    @override
    def fetch(self, token: int | None, limit: int) -> tuple[Sequence[int], int | None]:
        self.fetched += 1
        following = (token or 0) + 1
        return self.page, following if following < self.lead + self.length else self.lead


@given(lead=st.integers(1, 20), length=st.integers(1, 20), page=st.sampled_from([[], [1, 2]]))
def test_circle_of_tokens_is_an_error_in_bounded_time(lead: int, length: int, page: list[int]) -> None:
    connector = Circle(lead, length, page)
    with pytest.raises(CursorError, match="passed before"):
        list(connector.read(None, 10))
    assert connector.fetched <= 4 * (lead + length) + 4


class Deaf(Keys):
    """A source that ignores where it is to go on."""

    @override
    def fetch(self, after: int | None, limit: int) -> Sequence[dict[str, int]]:
        return super().fetch(None, limit)


def test_source_that_ignores_the_key_is_an_error() -> None:
    pages = Deaf().read(None, 10)
    assert len(next(pages)) == 10
    with pytest.raises(CursorError, match="passed before"):
        next(pages)
    with pytest.raises(CursorError, match="passed before"):
        next(Deaf().read([109], 10))


def test_key_none_is_an_error() -> None:
    class Keyless(Keys):
        @override
        def key_of(self, record: dict[str, int]) -> Any:
            return None

    with pytest.raises(CursorError, match="gave None"):
        next(Keyless().read(None, 10))


BAD = [[], [-1], [True], ["x"], "x", 3, {"offset": 3}, [1, 2], (5,), [None], [1.0]]


@pytest.mark.parametrize("cursor", BAD, ids=repr)
def test_offset_cursor_that_means_nothing(cursor: Any) -> None:
    with pytest.raises(CursorError, match=r"start over with reset_job"):
        next(Offsets().read(cursor, 10))


@pytest.mark.parametrize("cursor", [[], [None], [1, 2], "x", 3, (1,)], ids=repr)
def test_keyset_cursor_that_means_nothing(cursor: Any) -> None:
    with pytest.raises(CursorError, match=r"start over with reset_job"):
        next(Keys().read(cursor, 10))


@pytest.mark.parametrize(
    "cursor",
    [[], [1], ["token"], ["token", None], ["token", "1", 0], ["token", "1", True], ["token", "1", -2], "end"],
    ids=repr,
)
def test_token_cursor_that_means_nothing(cursor: Any) -> None:
    with pytest.raises(CursorError, match=r"start over with reset_job"):
        next(Tokens().read(cursor, 10))


def generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    "answer", [generator(), None, {"a": 1}, "text", {1, 2}, 3], ids=lambda answer: type(answer).__name__
)
def test_answer_that_is_no_list(answer: Any) -> None:
    class Wrong(Offsets):
        @override
        def fetch(self, offset: int, limit: int) -> Any:
            return answer

    with pytest.raises(ConfigurationError, match=f"gave a {type(answer).__name__} .*give a list"):
        next(Wrong().read(None, 10))


@pytest.mark.parametrize("answer", [[1], ([1],), ([1], "a", "b"), None])
def test_token_answer_that_is_no_pair(answer: Any) -> None:
    class Wrong(Tokens):
        @override
        def fetch(self, token: str | None, limit: int) -> Any:
            return answer

    with pytest.raises(ConfigurationError, match="give a tuple"):
        next(Wrong().read(None, 10))


def test_tuples_get_their_column_names() -> None:
    class Named(OffsetConnector[tuple[int, str]]):
        column_names = ("id", "name")

        @override
        def fetch(self, offset: int, limit: int) -> Sequence[tuple[int, str]]:
            return [(1, "a"), (2, "b")][offset:]

    (page,) = read(Named(), None, 10)
    assert page.columns == ("id", "name")


def test_reading_is_lazy() -> None:
    connector = Circle(1_000, 1, [1])
    list(islice(connector.read(None, 10), 3))
    assert connector.fetched == 3
