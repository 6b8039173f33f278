"""The cursor codec: nothing is lost, and nothing but its own output is read."""

import json
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable_sync import CursorError, StateCorruptError
from resumable_sync._cursor import MAX_CURSOR_BYTES, decode_cursor, encode_cursor

zones = st.none() | st.sampled_from([UTC, timezone(timedelta(hours=-3, minutes=-30)), ZoneInfo("Europe/Paris")])
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**52, max_value=2**200)
    | st.floats()
    | st.text(st.characters(codec=None))
    | st.binary()
    | st.decimals()
    | st.datetimes(timezones=st.just(UTC))
    | st.builds(lambda at, fold, zone: at.replace(fold=fold, tzinfo=zone), st.datetimes(), st.integers(0, 1), zones)
    | st.dates()
    | st.builds(lambda at, fold: at.replace(fold=fold), st.times(), st.integers(0, 1))
    | st.timedeltas()
    | st.uuids()
)
cursors = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(st.characters(codec=None)), inner)
    ),
    max_leaves=8,
)


def identical(one: Any, other: Any) -> bool:  # noqa: PLR0911 - a return per type
    """Equal in type, value and everything that equality ignores."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(identical, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(identical(one[key], other[key]) for key in one)
    if isinstance(one, float):
        return one.hex() == other.hex() and math.copysign(1, one) == math.copysign(1, other)
    if isinstance(one, datetime | time):
        return one.replace(tzinfo=None) == other.replace(tzinfo=None) and (one.fold, one.tzinfo) == (
            other.fold,
            other.tzinfo,
        )
    if isinstance(one, Decimal):
        return bool(one.as_tuple() == other.as_tuple())
    return bool(one == other)


@given(cursors)
def test_every_cursor_comes_back_as_it_was(cursor: Any) -> None:
    text = encode_cursor(cursor)
    assert text.isascii()
    assert identical(decode_cursor(text), cursor)


@pytest.mark.parametrize(
    "cursor",
    [
        pytest.param(10**6000, id="huge"),
        -(2**64),
        "a\0b",
        "\ud83d\ude00",  # two lone surrogates, not one character
        "\ud800",
        b"",
        b"\xff\x00",
        Decimal("1.500"),
        Decimal("-0E+10"),
        Decimal("sNaN123"),
        float("-nan"),
        -0.0,
        datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Paris"), fold=1),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-5, seconds=7, microseconds=3), "odd")),
        time(23, 59, 59, 999999, fold=1),
        date.max,
        timedelta(-1, 5, 6),
        UUID(int=1),
        [1, [2, (3, {"k": [None]})]],
        {"$int": "x", "": ()},
    ],
)
def test_hard_cases(cursor: Any) -> None:
    assert identical(decode_cursor(encode_cursor(cursor)), cursor)


class Colour(IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("cursor", [Colour.RED, Text("x"), object(), {1, 2}, {1: 2}, [Colour.RED], 1j, range(3)])
def test_other_types_are_refused_when_made(cursor: Any) -> None:
    with pytest.raises(CursorError, match="cursor"):
        encode_cursor(cursor)


def test_too_large_and_too_deep() -> None:
    with pytest.raises(CursorError, match="65,536"):
        encode_cursor("x" * MAX_CURSOR_BYTES)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(CursorError, match="deep"):
        encode_cursor(endless)


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        "",
        "null",
        "[2,1]",
        "[1]",
        "[1,1,1]",
        "[true,1]",
        '[1,{"$nope":1}]',
        '[1,{"$int":"7"}]',
        '[1,{"$tuple":[1],"$int":"0x1"}]',
        "[1,{}]",
        "[1, 1]",
        "[1,NaN]",
        "[1,1e3]",
        '[1,{"$uuid":"x"}]',
        *(
            f'[1,{{"{tag}":{content}}}]'
            for tag in ("$int", "$float", "$str", "$bytes", "$decimal", "$datetime", "$date", "$time", "$timedelta")
            for content in ("1", "null", "[]", "[1]", '["x",0,null]', "{}", '"x"')
        ),
        *(f'[1,{{"$uuid":{content}}}]' for content in ("1", "null", "[]", "{}")),
        '[1,{"$datetime":["2026-01-01T00:00:00",0,"Nowhere/Here"]}]',
        '[1,{"$datetime":["2026-01-01T00:00:00",7,null]}]',
        '[1,{"$bytes":"!"}]',
        '[1,"\\ud800"]',
        "[1," + "[" * 5000 + "]" * 5000 + "]",
        "[1," + "9" * 5000 + "]",
        '[1,"' + "x" * MAX_CURSOR_BYTES + '"]',
    ],
)
def test_anything_else_is_corrupt(text: Any) -> None:
    with pytest.raises(StateCorruptError) as caught:
        decode_cursor(text, job_id="j")
    assert (caught.value.job_id, caught.value.field) == ("j", "cursor")


@given(st.text(st.characters(codec="ascii"), max_size=30))
def test_random_text_is_read_exactly_or_refused(text: str) -> None:
    try:
        value = decode_cursor(f"[1,{text}]")
    except StateCorruptError:
        return
    assert encode_cursor(value) == f"[1,{text}]"
    json.loads(f"[1,{text}]")
