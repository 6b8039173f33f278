"""The conformance suite for connectors."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from resumable_sync._close import close_if_closable
from resumable_sync._cursor import decode_cursor, encode_cursor
from resumable_sync._errors import CursorError
from resumable_sync._model import Cursor, as_records
from resumable_sync._protocols import Connector
from resumable_sync.testing._connector_abilities import ConnectorAbilities
from resumable_sync.testing._connector_base import open_files, read_pages, records_of
from resumable_sync.testing._store_base import in_threads, wait_until

__all__ = ["ConnectorSuite"]

_SIZES = (1, 2, 3, 7, 1_000)
_CUTS = ((1, 3), (2, 7), (3, 1), (3, 1_000), (7, 2))
_FEWEST = 10


class ConnectorSuite(ConnectorAbilities):
    """Every "must" of `Connector` and of its optional abilities, as tests.

    Subclass it in a test module under a name that starts with `Test`, and override the fixture `connector`. The source
    must hold at least 10 records and stay as it is; a few dozen are plenty. What the connector does not offer
    (`cursor_at`, `split`, `columns`, `pin`, `moved`, `ranges`, `formats`) is skipped, with the reason.

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
        assert records_of(read_pages(connector, None, batch_size)) == list(expected)

    @pytest.mark.parametrize("batch_size", _SIZES)
    def test_pages_are_neither_empty_nor_too_large(self, connector: Connector[Any], batch_size: int) -> None:
        """A page has 1 to `batch_size` records."""
        sizes = [len(page) for page in read_pages(connector, None, batch_size)]
        assert sizes
        assert all(1 <= size <= batch_size for size in sizes), sizes

    @pytest.mark.parametrize("batch_size", _SIZES)
    def test_cursors_can_be_stored_and_advance(self, connector: Connector[Any], batch_size: int) -> None:
        """No cursor is None, each is of the codec's types and comes back the same, none comes twice."""
        pages = read_pages(connector, None, batch_size)
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
        for page in read_pages(connector, None, batch_size):
            done += len(page)
            stored = decode_cursor(encode_cursor(page.cursor))
            rest = records_of(read_pages(connector, stored, other_size))
            assert rest == list(expected)[done:], f"after {done} records in pages of {batch_size}, then of {other_size}"

    def test_resumes_from_a_resumed_read(self, connector: Connector[Any], expected: Sequence[Any]) -> None:
        """Cut again and again, with a changing batch size, nothing is lost or repeated."""
        read: list[Any] = []
        cursor: Cursor | None = None
        for turn in range(10 * len(expected)):
            pages = connector.read(cursor, 1 + turn % 4)
            page = next(pages, None)
            close_if_closable(pages)
            if page is None:
                break
            read += as_records(page.records)
            cursor = decode_cursor(encode_cursor(page.cursor))
        assert read == list(expected)

    def test_resumes_in_another_process(self, connector: Connector[Any], expected: Sequence[Any]) -> None:
        """A pickled connector goes on where the first one stopped."""
        first = next(iter(read_pages(connector, None, 4)))
        copy = self._copy(connector)
        assert copy.fingerprint == connector.fingerprint
        assert records_of(read_pages(copy, first.cursor, 3)) == list(expected)[len(first) :]

    @pytest.mark.parametrize("batch_size", [1, 3, 1_000])
    def test_nothing_comes_after_the_last_cursor(self, connector: Connector[Any], batch_size: int) -> None:
        """At the end of the source there is no page at all, not even an empty one."""
        *_, last = read_pages(connector, None, batch_size)
        for size in (1, 1_000):
            assert read_pages(connector, last.cursor, size) == []

    def test_reading_again_gives_the_same(self, connector: Connector[Any], expected: Sequence[Any]) -> None:
        """A read that was broken off leaves no trace in the next one."""
        pages = connector.read(None, 2)
        first = next(pages)
        close_if_closable(pages)
        assert records_of(read_pages(connector, None, 3)) == list(expected)
        assert records_of(read_pages(connector, first.cursor, 3)) == list(expected)[len(first) :]

    def test_closing_early_frees_what_was_opened(self, connector: Connector[Any]) -> None:
        """A read that is closed after one page leaves no thread and no open file."""
        self._read_one_page(connector)  # what is opened once and kept (a pool's connection) is no leak
        self._read_one_page(connector)
        threads, files = set(threading.enumerate()), open_files()
        for _ in range(5):
            self._read_one_page(connector)
        wait_until(lambda: set(threading.enumerate()) <= threads, "threads of a closed read to end")
        assert open_files() <= files

    def test_a_cursor_of_somebody_else_is_refused(
        self, connector: Connector[Any], bad_cursors: Sequence[Cursor]
    ) -> None:
        """A cursor that the connector cannot interpret is a `CursorError`, never the beginning or the end."""
        for cursor in bad_cursors:
            with pytest.raises(CursorError):
                read_pages(connector, cursor, 3)

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

    def _read_one_page(self, connector: Connector[Any]) -> None:
        pages = connector.read(None, 2)
        next(pages)
        close_if_closable(pages)
