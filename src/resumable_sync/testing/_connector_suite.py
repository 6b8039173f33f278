"""The conformance suite for connectors."""

# ruff: noqa: S301 - what is unpickled was pickled in the same line

import gc
import json
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest

from resumable_sync._cursor import decode_cursor, encode_cursor
from resumable_sync._errors import ConfigurationError, CursorError
from resumable_sync._model import Cursor, Page, as_records
from resumable_sync._protocols import (
    AnchoredConnector,
    Connector,
    DescribingConnector,
    IfMoved,
    PinnableConnector,
    SeekableConnector,
)
from resumable_sync._ranges import KeyRanges, RangeConnector
from resumable_sync._split import SplittableConnector
from resumable_sync.testing._store_base import in_threads, wait_until

__all__ = ["ConnectorSuite"]

_SIZES = (1, 2, 3, 7, 1_000)
_CUTS = ((1, 3), (2, 7), (3, 1), (3, 1_000), (7, 2))
_FEWEST = 10


class ConnectorSuite:
    """Every "must" of `Connector` and of its optional abilities, as tests.

    Subclass it in a test module under a name that starts with `Test`, and override the fixture `connector`. The source
    must hold at least 10 records and stay as it is; a few dozen are plenty. What the connector does not offer
    (`cursor_at`, `split`, `columns`, `pin`, `moved`, `ranges`) is skipped, with the reason.

        from resumable_sync.testing import ConnectorSuite

        class TestMyConnector(ConnectorSuite):
            @pytest.fixture
            def connector(self, server):
                return MyConnector(server.url)

            @pytest.fixture
            def expected(self, server):
                return server.records           # in cursor order

    Without `expected` the suite takes what is read one record at a time for the whole source.
    """

    must_pickle: ClassVar[bool] = False
    """Whether a connector that does not pickle fails the suite instead of skipping that test."""

    @pytest.fixture
    def connector(self) -> Connector[Any]:
        """Give a connector on at least 10 records. To be overridden."""
        pytest.fail("override the fixture `connector` with one that gives a connector on at least 10 records")

    @pytest.fixture
    def expected(self, connector: Connector[Any]) -> Sequence[Any]:
        """Give all records of the source, in cursor order."""
        return _records(_read(connector, None, 1))

    @pytest.fixture
    def bad_cursors(self) -> Sequence[Cursor]:
        """Give cursors that the connector cannot have yielded; override it to add some that nearly could be."""
        return [{"no cursor": ["of", "mine"]}, timedelta(days=1), (), Decimal("sNaN"), [[[]]]]

    @pytest.fixture
    def change_record(self) -> Callable[[Any], object] | None:
        """Give a function that changes or removes a given record in the source; None skips the test that needs it."""
        return None

    def test_is_a_connector(self, connector: Connector[Any], expected: Sequence[Any]) -> None:
        """It has the members of the protocol, and enough records to be cut."""
        assert isinstance(connector, Connector)
        assert len(expected) >= _FEWEST, "give the suite a source of at least 10 records"

    def test_the_fingerprint_is_text(self, connector: Connector[Any]) -> None:
        """A fingerprint is None, a text, or a mapping of texts; it stays the same."""
        fingerprint = connector.fingerprint
        if isinstance(fingerprint, Mapping):
            assert all(type(name) is str and type(part) is str for name, part in fingerprint.items())
        else:
            assert fingerprint is None or type(fingerprint) is str
        assert connector.fingerprint == fingerprint

    @pytest.mark.parametrize("batch_size", _SIZES)
    def test_reads_the_whole_source(self, connector: Connector[Any], expected: Sequence[Any], batch_size: int) -> None:
        """With every batch size the same records come in the same order; a short page is not the end."""
        assert _records(_read(connector, None, batch_size)) == list(expected)

    @pytest.mark.parametrize("batch_size", _SIZES)
    def test_pages_are_neither_empty_nor_too_large(self, connector: Connector[Any], batch_size: int) -> None:
        """A page has 1 to `batch_size` records."""
        sizes = [len(page) for page in _read(connector, None, batch_size)]
        assert sizes
        assert all(1 <= size <= batch_size for size in sizes), sizes

    @pytest.mark.parametrize("batch_size", _SIZES)
    def test_cursors_can_be_stored_and_advance(self, connector: Connector[Any], batch_size: int) -> None:
        """No cursor is None, each is of the codec's types and comes back the same, none comes twice."""
        pages = _read(connector, None, batch_size)
        assert all(page.cursor is not None for page in pages)
        texts = [encode_cursor(page.cursor) for page in pages]
        assert [encode_cursor(decode_cursor(text)) for text in texts] == texts
        assert len(set(texts)) == len(texts)

    @pytest.mark.parametrize(("batch_size", "other_size"), _CUTS)
    def test_resumes_after_every_page(
        self, connector: Connector[Any], expected: Sequence[Any], batch_size: int, other_size: int
    ) -> None:
        """Cut at every prefix, and read on from the stored cursor with another batch size, exactly the rest comes."""
        done = 0
        for page in _read(connector, None, batch_size):
            done += len(page)
            stored = decode_cursor(encode_cursor(page.cursor))
            rest = _records(_read(connector, stored, other_size))
            assert rest == list(expected)[done:], f"after {done} records in pages of {batch_size}, then of {other_size}"

    def test_resumes_from_a_resumed_read(self, connector: Connector[Any], expected: Sequence[Any]) -> None:
        """Cut again and again, with a changing batch size, nothing is lost or repeated."""
        read: list[Any] = []
        cursor: Cursor | None = None
        for turn in range(10 * len(expected)):
            pages = connector.read(cursor, 1 + turn % 4)
            page = next(pages, None)
            _close(pages)
            if page is None:
                break
            read += as_records(page.records)
            cursor = decode_cursor(encode_cursor(page.cursor))
        assert read == list(expected)

    def test_resumes_in_another_process(self, connector: Connector[Any], expected: Sequence[Any]) -> None:
        """A pickled connector goes on where the first one stopped."""
        first = next(iter(_read(connector, None, 4)))
        copy = self._copy(connector)
        assert copy.fingerprint == connector.fingerprint
        assert _records(_read(copy, first.cursor, 3)) == list(expected)[len(first) :]

    @pytest.mark.parametrize("batch_size", [1, 3, 1_000])
    def test_nothing_comes_after_the_last_cursor(self, connector: Connector[Any], batch_size: int) -> None:
        """At the end of the source there is no page at all, not even an empty one."""
        *_, last = _read(connector, None, batch_size)
        for size in (1, 1_000):
            assert _read(connector, last.cursor, size) == []

    def test_reading_again_gives_the_same(self, connector: Connector[Any], expected: Sequence[Any]) -> None:
        """A read that was broken off leaves no trace in the next one."""
        pages = connector.read(None, 2)
        first = next(pages)
        _close(pages)
        assert _records(_read(connector, None, 3)) == list(expected)
        assert _records(_read(connector, first.cursor, 3)) == list(expected)[len(first) :]

    def test_closing_early_frees_what_was_opened(self, connector: Connector[Any]) -> None:
        """A read that is closed after one page leaves no thread and no open file."""
        self._read_one_page(connector)  # what is opened once and kept (a pool's connection) is no leak
        self._read_one_page(connector)
        threads, files = set(threading.enumerate()), _open_files()
        for _ in range(5):
            self._read_one_page(connector)
        wait_until(lambda: set(threading.enumerate()) <= threads, "threads of a closed read to end")
        assert _open_files() <= files

    def test_a_cursor_of_somebody_else_is_refused(
        self, connector: Connector[Any], bad_cursors: Sequence[Cursor]
    ) -> None:
        """A cursor that the connector cannot interpret is a `CursorError`, never the beginning or the end."""
        for cursor in bad_cursors:
            with pytest.raises(CursorError):
                _read(connector, cursor, 3)

    def test_count_is_right_or_unknown(self, connector: Connector[Any], expected: Sequence[Any]) -> None:
        """The count is that of all records, or None."""
        count = connector.count()
        assert count is None or (type(count) is int and count == len(expected))

    def test_counts_in_another_thread_while_reading(self, connector: Connector[Any], expected: Sequence[Any]) -> None:
        """Counting does not disturb a read that is open."""
        pages = connector.read(None, 3)
        read = list(as_records(next(pages).records))
        (count,) = in_threads([connector.count])
        for page in pages:
            read += as_records(page.records)
        assert read == list(expected)
        assert count is None or count == len(expected)

    def test_cursor_at_every_offset(self, connector: Connector[Any], expected: Sequence[Any]) -> None:
        """Reading from `cursor_at(n)` gives all but the first n records."""
        if not isinstance(connector, SeekableConnector):
            pytest.skip("the connector has no cursor_at")
        assert connector.cursor_at(0) is None
        for offset in range(1, len(expected) + 1):
            cursor = connector.cursor_at(offset)
            assert cursor is not None, offset
            cursor = decode_cursor(encode_cursor(cursor))
            assert _records(_read(connector, cursor, 3)) == list(expected)[offset:], offset
        assert connector.cursor_at(len(expected) + 1) is None

    @pytest.mark.parametrize("parts", [1, 2, 3, 7, 1_000])
    def test_parts_are_the_whole(self, connector: Connector[Any], expected: Sequence[Any], parts: int) -> None:
        """The parts, one after the other, are the source: contiguous, disjoint, complete, each of them resumable."""
        if not isinstance(connector, SplittableConnector):
            pytest.skip("the connector has no split")
        try:
            split = connector.split(parts)
        except ConfigurationError as error:
            pytest.skip(f"the connector cannot be split as it is: {error}")
        assert 1 <= len(split) <= parts
        pieces = []
        for part in split:
            travelled: Connector[Any] = pickle.loads(pickle.dumps(part))
            pages = _read(travelled, None, 2)
            records = _records(pages)
            for place, page in enumerate(pages):
                done = sum(len(earlier) for earlier in pages[: place + 1])
                assert _records(_read(part, page.cursor, 3)) == records[done:]
            pieces += records
            again = connector.part(decode_cursor(encode_cursor(part.place)))
            assert _records(_read(again, None, 4)) == records
        assert pieces == list(expected)

    def test_a_part_needs_a_place(self, connector: Connector[Any]) -> None:
        """What is no place of a part is a `CursorError`."""
        if not isinstance(connector, SplittableConnector):
            pytest.skip("the connector has no split")
        places: list[Cursor] = ["no place", [], {"no": "place"}, timedelta(days=1)]
        for place in places:
            with pytest.raises(CursorError):
                _read(connector.part(place), None, 2)

    def test_columns_match_the_records(self, connector: Connector[Any]) -> None:
        """The columns are named in the order of the records' values."""
        if not isinstance(connector, DescribingConnector):
            pytest.skip("the connector has no columns")
        names = [column.name for column in connector.columns()]
        assert names
        assert len(set(names)) == len(names)
        for page in _read(connector, None, 7):
            if page.columns is not None:
                assert list(page.columns) == names
            for record in as_records(page.records):
                if isinstance(record, Mapping):
                    assert list(record) == names
                elif isinstance(record, tuple):
                    assert page.columns is not None, "records that are tuples need Page(columns=...)"
                    assert len(record) == len(names)

    def test_pinned_columns_are_read(self, connector: Connector[Any], expected: Sequence[Any]) -> None:
        """With pinned columns the same records come, with these columns, and cursors mean the same."""
        if not isinstance(connector, PinnableConnector):
            pytest.skip("the connector has no pin")
        fingerprint = connector.fingerprint
        assert isinstance(fingerprint, Mapping), "give a mapping with the part 'columns'"
        names = json.loads(fingerprint["columns"])
        assert names
        assert all(type(name) is str for name in names)
        turned = names[::-1]
        pinned = _read(connector.pin(turned), None, 4)
        wide = _read(connector, None, 4)
        assert [_named(page) for page in pinned] == [_named(page) for page in wide]
        for pages, order in ((pinned, turned), (wide, names)):
            assert all(list(record) == order for page in pages for record in _named(page))
        assert _records(_read(connector, pinned[0].cursor, 3)) == list(expected)[len(pinned[0]) :]

    def test_ranges_of_the_key_are_the_whole_source(self, connector: Connector[Any]) -> None:
        """One range after the other gives every row once; each is found by its key; counts and checksums add up."""
        ranges = _ranges(connector)
        ranges.check(unique=True)
        names = list(ranges.kinds)
        rows = [tuple(record[name] for name in names) for page in _read(connector, None, 4) for record in _named(page)]
        found: list[Any] = []
        counted, after = 0, None
        while True:
            upto = ranges.key_at(after, 2)
            page = ranges.page(after, upto, None)
            assert page.last == upto or upto is None
            assert ranges.page(after, upto, 2).rows == page.rows[:2]
            counted += (ranges.digest(after, upto) or (len(page.rows),))[0]
            found += page.rows
            if upto is None:
                break
            after = decode_cursor(encode_cursor(list(upto)))
        assert found == rows
        assert counted == len(rows)
        places = [names.index(name) for name, _ in ranges.key]
        having = ranges.having([[row[place] for place in places] for row in rows])
        assert sorted(map(repr, having)) == sorted(map(repr, rows))
        assert ranges.having([]) == []

    def test_rows_of_a_range_have_the_columns_that_were_chosen(self, connector: Connector[Any]) -> None:
        """`only` gives these columns in this order, and the checksum is theirs."""
        ranges = _ranges(connector)
        turned = list(ranges.kinds)[::-1]
        only = ranges.only(turned)
        assert list(only.kinds) == turned
        assert [row[::-1] for row in only.page(None, None, None).rows] == list(ranges.page(None, None, None).rows)
        assert only.digest(None, None) == ranges.only(turned).digest(None, None)
        assert (only.digests is None) == (only.digest(None, None) is None)

    def test_a_record_that_is_there_has_not_moved(
        self, connector: Connector[Any], bad_cursors: Sequence[Cursor]
    ) -> None:
        """`moved` says nothing of any record while the source stays as it is, nor of the cursors of somebody else."""
        if not isinstance(connector, AnchoredConnector):
            pytest.skip("the connector has no moved")
        assert connector.if_moved in get_args(IfMoved)
        cursors = [decode_cursor(encode_cursor(page.cursor)) for page in _read(connector, None, 3)]
        for cursor in [*cursors, *bad_cursors]:
            assert connector.moved(cursor) is None
        copy: Any = self._copy(connector)
        assert copy.moved(cursors[0]) is None

    def test_a_record_that_changed_has_moved(
        self, connector: Connector[Any], change_record: Callable[[Any], object] | None
    ) -> None:
        """`moved` says what became of a record that was changed or removed, and nothing of the others."""
        if not isinstance(connector, AnchoredConnector):
            pytest.skip("the connector has no moved")
        if change_record is None:
            pytest.skip("override the fixture `change_record`")
        first, second, *_ = _read(connector, None, 3)
        change_record(list(as_records(first.records))[-1])
        assert connector.moved(first.cursor)
        assert connector.moved(second.cursor) is None

    def _read_one_page(self, connector: Connector[Any]) -> None:
        pages = connector.read(None, 2)
        next(pages)
        _close(pages)

    def _copy(self, connector: Connector[Any]) -> Connector[Any]:
        try:
            copy: Connector[Any] = pickle.loads(pickle.dumps(connector))
        except Exception as error:
            if self.must_pickle:
                raise
            pytest.skip(f"the connector does not pickle: {type(error).__name__}: {error}")
        return copy


def _read(connector: Connector[Any], cursor: Cursor | None, batch_size: int) -> list[Page[Any]]:
    pages = connector.read(cursor, batch_size)
    try:
        return list(pages)
    finally:
        _close(pages)


def _close(pages: Iterator[Page[Any]]) -> None:
    close = getattr(pages, "close", None)
    if close is not None:
        close()


def _records(pages: Sequence[Page[Any]]) -> list[Any]:
    return [record for page in pages for record in as_records(page.records)]


def _ranges(connector: Connector[Any]) -> KeyRanges:
    if not isinstance(connector, RangeConnector):
        pytest.skip("the connector has no ranges")
    try:
        return connector.ranges()
    except ConfigurationError as error:
        pytest.skip(f"the connector has no key of its own: {error}")


def _named(page: Page[Any]) -> list[dict[str, Any]]:
    return [
        dict(record) if isinstance(record, Mapping) else dict(zip(page.columns or (), record, strict=True))
        for record in as_records(page.records)
    ]


def _open_files() -> int:
    gc.collect()  # what is merely unreachable is not a leak that CPython keeps
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
