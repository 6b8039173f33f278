"""The digest of a row: the same for the same row whatever drivers make of it, another for another row."""

import datetime as dt
import subprocess
import sys
import uuid
from decimal import Decimal
from typing import Any

import pytest

from resumable_sync._anchor import DIGEST_LENGTH, row_digest

BERLIN = dt.timezone(dt.timedelta(hours=2))
AT = dt.datetime(2026, 3, 29, 1, 30, tzinfo=BERLIN)


class Odd:
    pass


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (True, 1),
        (b"ab", memoryview(b"ab")),
        (b"ab", bytearray(b"ab")),
        (uuid.UUID(int=5), str(uuid.UUID(int=5))),
        (AT, AT.astimezone(dt.UTC)),
        ({"a": 1, "b": [2]}, {"b": (2,), "a": 1}),
        ({"x", "y", "z"}, {"z", "y", "x"}),
        (float("nan"), float("nan")),
        (Odd(), Odd()),
    ],
)
def test_the_same_value_has_the_same_digest(one: Any, other: Any) -> None:
    assert row_digest([one], [0]) == row_digest([other], [0])


VALUES: list[Any] = [
    None,
    0,
    1,
    -1,
    1.5,
    "",
    "1",
    "a",
    "\ud800",
    b"",
    b"a",
    Decimal("1.50"),
    AT,
    AT.replace(tzinfo=None),
]
VALUES += [AT.date(), AT.time(), dt.timedelta(1), {"a": 1}, {"a": "1"}, ["a"], [["a"]], [None], "None", "['a']", "[]"]


def test_other_rows_have_other_digests() -> None:
    rows = [[one, other] for one in VALUES for other in VALUES]
    assert len({row_digest(row, [0, 1]) for row in rows}) == len(rows)
    assert {len(row_digest(row, [0, 1])) for row in rows} == {DIGEST_LENGTH}


def test_the_order_of_columns_does_not_matter() -> None:
    assert row_digest(["x", 5], [0, 1]) == row_digest([5, "x"], [1, 0])


def test_another_process_finds_the_same() -> None:
    code = "from resumable_sync._anchor import row_digest; print(row_digest([{'a', 'b', 'c'}, 'x'], [0, 1]))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == row_digest([{"a", "b", "c"}, "x"], [0, 1])
