"""`ConnectorSuite`, second part: the optional abilities, each of which is skipped where the connector has it not."""

# ruff: noqa: S301 - what is unpickled was pickled in the same line

import itertools
import json
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, get_args
from uuid import UUID

import pytest

from resumable_sync._cursor import decode_cursor, encode_cursor
from resumable_sync._errors import ConfigurationError, CursorError
from resumable_sync._formats import CopyText, FormattingConnector, SQLiteWindow
from resumable_sync._model import Cursor, as_records
from resumable_sync._protocols import (
    AnchoredConnector,
    Connector,
    DescribingConnector,
    IfMoved,
    PinnableConnector,
    SeekableConnector,
)
from resumable_sync._ranges import KeyRanges, RangeConnector
from resumable_sync._split import ConnectorPart, SplittableConnector
from resumable_sync.testing._connector_base import ConnectorBase, named_records, open_files, read_pages, records_of
from resumable_sync.testing._copies import same_as_copy

__all__ = ["ConnectorAbilities"]


class ConnectorAbilities(ConnectorBase):
    """What `cursor_at`, `split`, `columns`, `pin`, `ranges`, `formats` and `moved` promise."""

    def test_cursor_at_every_offset(self, connector: Connector[Any], expected: Sequence[Any]) -> None:
        """Reading from `cursor_at(n)` gives all but the first n records."""
        if not isinstance(connector, SeekableConnector):
            pytest.skip("the connector has no cursor_at")
        assert connector.cursor_at(0) is None
        for offset in range(1, len(expected) + 1):
            cursor = connector.cursor_at(offset)
            assert cursor is not None, offset
            cursor = decode_cursor(encode_cursor(cursor))
            assert records_of(read_pages(connector, cursor, 3)) == list(expected)[offset:], offset
        assert connector.cursor_at(len(expected) + 1) is None

    @pytest.mark.parametrize("parts", [1, 2, 3, 7, 1_000])
    def test_parts_are_the_whole(self, connector: Connector[Any], expected: Sequence[Any], parts: int) -> None:
        """The parts, one after the other, are the source: contiguous, disjoint, complete, equal, each resumable."""
        split = self._split(connector, parts)
        assert isinstance(connector, SplittableConnector)
        pieces = []
        for part in split:
            travelled: Connector[Any] = pickle.loads(pickle.dumps(part))
            pages = read_pages(travelled, None, 2)
            records = records_of(pages)
            for place, page in enumerate(pages):
                done = sum(len(earlier) for earlier in pages[: place + 1])
                assert records_of(read_pages(part, page.cursor, 3)) == records[done:]
            pieces += records
            # One that is far larger than the others would hold up the end.
            assert len(records) <= 2 * -(-len(expected) // len(split)), f"{len(records)} records in one of {len(split)}"
            again = connector.part(decode_cursor(encode_cursor(part.place)))
            assert records_of(read_pages(again, None, 4)) == records
        assert pieces == list(expected)

    def test_parts_stay_the_whole(
        self, connector: Connector[Any], change_record: Callable[[Any], object] | None
    ) -> None:
        """When a record at the end of a part is changed or removed, the parts are what the source then holds."""
        split = self._split(connector, 3)
        if change_record is None:
            pytest.skip("override the fixture `change_record`")
        change_record(records_of(read_pages(split[0], None, 1_000))[-1])
        whole = records_of(read_pages(connector, None, 1_000))
        assert [record for part in split for record in records_of(read_pages(part, None, 2))] == whole

    def test_a_part_needs_a_place(self, connector: Connector[Any]) -> None:
        """What is no place of a part is a `CursorError`."""
        if not isinstance(connector, SplittableConnector):
            pytest.skip("the connector has no split")
        places: list[Cursor] = ["no place", [], {"no": "place"}, timedelta(days=1)]
        for place in places:
            with pytest.raises(CursorError):
                read_pages(connector.part(place), None, 2)

    def test_columns_match_the_records(self, connector: Connector[Any]) -> None:
        """The columns are named in the order of the records' values."""
        if not isinstance(connector, DescribingConnector):
            pytest.skip("the connector has no columns")
        names = [column.name for column in connector.columns()]
        assert names
        assert len(set(names)) == len(names)
        for page in read_pages(connector, None, 7):
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
        pinned = read_pages(connector.pin(turned), None, 4)
        wide = read_pages(connector, None, 4)
        assert [named_records(page) for page in pinned] == [named_records(page) for page in wide]
        for pages, order in ((pinned, turned), (wide, names)):
            assert all(list(record) == order for page in pages for record in named_records(page))
        assert records_of(read_pages(connector, pinned[0].cursor, 3)) == list(expected)[len(pinned[0]) :]

    def test_ranges_of_the_key_are_the_whole_source(self, connector: Connector[Any]) -> None:
        """One range after the other gives every row once; each is found by its key; counts and checksums add up."""
        ranges = _ranges(connector)
        ranges.check(unique=True)
        names = list(ranges.kinds)
        records = [record for page in read_pages(connector, None, 4) for record in named_records(page)]
        rows = [tuple(record[name] for name in names) for record in records]
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

    def test_any_key_has_its_place(self, connector: Connector[Any]) -> None:
        """Numbers may come as Decimals, UUIDs as text; a key that no row can have comes before every row."""
        ranges = _ranges(connector)
        every = ranges.page(None, None, None)
        first, second, *_ = every.rows
        names = list(ranges.kinds)
        keys = [tuple(_foreign(row[names.index(name)]) for name, _ in ranges.key) for row in (first, second)]
        assert ranges.page(None, keys[0], None).rows == [first]
        assert ranges.page(keys[0], keys[1], None).rows == [second]
        assert first in ranges.having(keys)
        for key in ([None] * len(ranges.key), [*(every.last or ())[:-1], None]):
            assert ranges.page(None, key, None).rows == []
            assert ranges.page(key, None, None).rows == every.rows
            assert ranges.page(key, every.last, 2).rows == every.rows[:2]
            assert ranges.key_at(key, 1) == ranges.key_at(None, 1)
            assert ranges.digest(key, None) == ranges.digest(None, None)
            assert ranges.having([key]) == []

    def test_nothing_is_open_between_two_ranges(self, connector: Connector[Any], expected: Sequence[Any]) -> None:
        """A call leaves no thread and no open file, and the source as it is."""
        ranges = _ranges(connector)

        def ask() -> None:
            ranges.check(unique=True)
            ranges.digest(None, ranges.key_at(None, 3))
            ranges.having([ranges.page(None, None, 1).last or ()])

        ask()
        ask()
        threads, files = set(threading.enumerate()), open_files()
        for _ in range(3):
            ask()
        assert set(threading.enumerate()) <= threads
        assert open_files() <= files
        assert records_of(read_pages(connector, None, 5)) == list(expected)

    def test_formats_change_nothing(self, connector: Connector[Any]) -> None:
        """In every format come the same pages: as many records, the same cursors and columns, the same values."""
        formats = connector.formats() if isinstance(connector, FormattingConnector) else ()
        if not isinstance(connector, FormattingConnector) or not formats:
            pytest.skip("the connector has no formats")
        for one, batch_size in itertools.product(formats, (1, 4, 1_000)):
            plain = read_pages(connector, None, batch_size)
            assert len(one.columns) == len(one.types)
            formatted = connector.in_format(one)
            pages = read_pages(formatted, None, batch_size)
            facts = [[(len(page), page.cursor, tuple(page.columns or ())) for page in side] for side in (pages, plain)]
            assert facts[0] == facts[1]
            rest = read_pages(formatted, decode_cursor(encode_cursor(pages[0].cursor)), batch_size)
            assert [page.cursor for page in rest] == [page.cursor for page in plain[1:]]
            for page, same in zip(pages, plain, strict=True):
                if isinstance(page.records, SQLiteWindow):
                    assert list(page.records) == list(same.records)
                if isinstance(page.records, CopyText):
                    assert same_as_copy(page.records, [list(record.values()) for record in named_records(same)])

    def test_a_record_that_is_there_has_not_moved(
        self, connector: Connector[Any], bad_cursors: Sequence[Cursor]
    ) -> None:
        """`moved` says nothing of any record while the source stays as it is, nor of the cursors of somebody else."""
        if not isinstance(connector, AnchoredConnector):
            pytest.skip("the connector has no moved")
        assert connector.if_moved in get_args(IfMoved)
        cursors = [decode_cursor(encode_cursor(page.cursor)) for page in read_pages(connector, None, 3)]
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
        first, second, *_ = read_pages(connector, None, 3)
        change_record(list(as_records(first.records))[-1])
        assert connector.moved(first.cursor)
        assert connector.moved(second.cursor) is None

    def _split(self, connector: Connector[Any], parts: int) -> Sequence[ConnectorPart[Any]]:
        if not isinstance(connector, SplittableConnector):
            pytest.skip("the connector has no split")
        try:
            split = connector.split(parts)
        except ConfigurationError as error:
            pytest.skip(f"the connector cannot be split as it is: {error}")
        assert 1 <= len(split) <= parts
        return split


def _ranges(connector: Connector[Any]) -> KeyRanges:
    if not isinstance(connector, RangeConnector):
        pytest.skip("the connector has no ranges")
    try:
        return connector.ranges()
    except ConfigurationError as error:
        pytest.skip(f"the connector has no key of its own: {error}")


def _foreign(value: Any) -> Any:
    """Give a value of a key as another database or a file gives it."""
    return Decimal(value) if type(value) is int else str(value) if isinstance(value, UUID) else value
