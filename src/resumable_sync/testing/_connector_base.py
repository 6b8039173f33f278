"""What the parts of `ConnectorSuite` share: its fixtures and its small helpers."""

# ruff: noqa: S301 - what is unpickled was pickled in the same line

import gc
import pickle
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest

from resumable_sync._close import close_if_closable
from resumable_sync._model import Cursor, Page, as_records
from resumable_sync._protocols import Connector

__all__ = ["ConnectorBase", "named_records", "open_files", "read_pages", "records_of"]


class ConnectorBase:
    """Fixtures and helpers of the connector suite."""

    must_pickle: ClassVar[bool] = False
    """Whether a connector that does not pickle fails the suite instead of skipping that test."""

    @pytest.fixture
    def connector(self) -> Connector[Any]:
        """Give a connector on at least 10 records. To be overridden."""
        pytest.fail("override the fixture `connector` with one that gives a connector on at least 10 records")

    @pytest.fixture
    def expected(self, connector: Connector[Any]) -> Sequence[Any]:
        """Give all records of the source, in cursor order."""
        return records_of(read_pages(connector, None, 1))

    @pytest.fixture
    def bad_cursors(self) -> Sequence[Cursor]:
        """Give cursors that the connector cannot have yielded; override it to add some that nearly could be."""
        return [{"no cursor": ["of", "mine"]}, timedelta(days=1), (), Decimal("sNaN"), [[[]]]]

    @pytest.fixture
    def change_record(self) -> Callable[[Any], object] | None:
        """Give a function that changes or removes a given record in the source; None skips the test that needs it."""
        return None

    def _copy(self, connector: Connector[Any]) -> Connector[Any]:
        try:
            copy: Connector[Any] = pickle.loads(pickle.dumps(connector))
        except Exception as error:
            if self.must_pickle:
                raise
            pytest.skip(f"the connector does not pickle: {type(error).__name__}: {error}")
        return copy


def read_pages(connector: Connector[Any], cursor: Cursor | None, batch_size: int) -> list[Page[Any]]:
    """Read all pages from a cursor on."""
    pages = connector.read(cursor, batch_size)
    try:
        return list(pages)
    finally:
        close_if_closable(pages)


def records_of(pages: Sequence[Page[Any]]) -> list[Any]:
    """Give the records of pages."""
    return [record for page in pages for record in as_records(page.records)]


def named_records(page: Page[Any]) -> list[dict[str, Any]]:
    """Give the records of a page as dicts of their columns."""
    return [
        dict(record) if isinstance(record, Mapping) else dict(zip(page.columns or (), record, strict=True))
        for record in as_records(page.records)
    ]


def open_files() -> int:
    """Count the open files of this process; 0 where that cannot be told."""
    gc.collect()  # what is merely unreachable is not a leak that CPython keeps
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
