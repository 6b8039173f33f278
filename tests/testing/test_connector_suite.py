"""The connector suite passes a correct connector, and finds every mistake by a test that names it."""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from typing_extensions import override

from resumable_sync.testing import ConnectorSuite
from testing.tiny_parts import RECORDS, TinyConnector, TinyPart

FOUND_BY = {
    "ends on a short page": ("reads_the_whole_source", {"batch_size": 7}),
    "loses a row when the batch size changes": ("resumes_after_every_page", {"batch_size": 2, "other_size": 7}),
    "cursor counts pages": ("resumes_after_every_page", {"batch_size": 3, "other_size": 1}),
    "too large pages": ("pages_are_neither_empty_nor_too_large", {"batch_size": 3}),
    "an empty page at the end": ("pages_are_neither_empty_nor_too_large", {"batch_size": 3}),
    "no cursor at the end": ("cursors_can_be_stored_and_advance", {"batch_size": 7}),
    "takes any cursor": ("a_cursor_of_somebody_else_is_refused", {}),
    "leaves a file open": ("closing_early_frees_what_was_opened", {}),
    "counts one too few": ("count_is_right_or_unknown", {}),
    "cursor_at after the end": ("cursor_at_every_offset", {}),
    "columns in another order": ("columns_match_the_records", {}),
    "pins itself": ("pinned_columns_are_read", {}),
    "pins nothing": ("pinned_columns_are_read", {}),
    "always moved": ("a_record_that_is_there_has_not_moved", {}),
    "never moved": ("a_record_that_changed_has_moved", {}),
    "parts overlap": ("parts_are_the_whole", {"parts": 3}),
    "another part for a place": ("parts_are_the_whole", {"parts": 3}),
    "takes any place": ("a_part_needs_a_place", {}),
    "parts of any size": ("parts_are_the_whole", {"parts": 7}),
    "parts lose what changes": ("parts_stay_the_whole", {}),
}


class TestTinyConnector(ConnectorSuite):
    must_pickle = True

    @pytest.fixture
    @override
    def connector(self) -> TinyConnector:
        return TinyConnector()

    @pytest.fixture
    @override
    def expected(self) -> Sequence[Any]:
        return RECORDS

    @pytest.fixture
    @override
    def change_record(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], object]:
        changed: set[int] = set()
        monkeypatch.setattr(TinyConnector, "changed", changed)
        return lambda record: changed.add(record["id"])


class TestWithoutAbilities(ConnectorSuite):
    @pytest.fixture
    @override
    def connector(self) -> TinyPart:
        return TinyPart(0, 23)

    @pytest.fixture
    @override
    def bad_cursors(self) -> Sequence[Any]:
        return []


@pytest.mark.parametrize("bug", list(FOUND_BY))
def test_a_mistake_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed: set[int] = set()
    monkeypatch.setattr(TinyConnector, "changed", changed)
    name, arguments = FOUND_BY[bug]
    method = getattr(ConnectorSuite(), f"test_{name}")
    wanted = method.__code__.co_varnames[: method.__code__.co_argcount]
    fixtures: dict[str, Any] = {"expected": RECORDS, "bad_cursors": [{"a": 1}, timedelta(1)]}
    fixtures["change_record"] = lambda record: changed.add(record["id"])
    given = {one: fixtures[one] for one in wanted if one in fixtures}
    method(connector=TinyConnector(), **given, **arguments)
    broken = TinyConnector(bug)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        method(connector=broken, **given, **arguments)
    for descriptor in broken.open:
        os.close(descriptor)
