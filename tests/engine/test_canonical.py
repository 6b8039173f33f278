"""Which values of two databases are the same, by table."""

import datetime as dt
import ipaddress
import math
import uuid
from decimal import Decimal
from typing import Any

import pytest

from resumable_sync import ColumnKind
from resumable_sync._verification.canonical import canonical, forms

BERLIN = dt.timezone(dt.timedelta(hours=2))
MOMENT = dt.datetime(2026, 3, 29, 1, 30, 0, 123456)  # noqa: DTZ001 - the point
ZONED = MOMENT.replace(tzinfo=BERLIN)
UTC = dt.datetime(2026, 3, 28, 23, 30, 0, 123456)  # noqa: DTZ001
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


def same(source: Any, one: Any, target: Any, other: Any) -> bool:
    kinds = [side if isinstance(side, ColumnKind) else ColumnKind(side) for side in (source, target)]
    form, other_form = forms(*kinds)
    return canonical([(one,)], [form]) == canonical([(other,)], [other_form])


EQUAL: list[tuple[Any, Any, Any, Any]] = [
    ("boolean", True, "boolean", 1),
    ("boolean", False, "integer", 0),
    ("boolean", True, "text", "t"),
    ("integer", 2**62, "integer", 2**62),
    ("integer", 5, "decimal", Decimal("5.00")),
    ("integer", 7, "text", "007"),
    ("float", math.nan, "float", math.nan),
    ("float", -0.0, "float", 0.0),
    ("float", 0.1, "decimal", Decimal("0.1")),
    ("float", math.inf, "float", math.inf),
    ("float", 0.1, "text", "0.1"),
    ("float", 0.1 + 0.2, "single", 0.3),
    ("float", 0.123456789, ColumnKind("single", 6), 0.123457),
    ("decimal", Decimal("1.50"), "decimal", Decimal("1.5")),
    ("decimal", Decimal("-0"), "decimal", Decimal(0)),
    ("decimal", Decimal("nan"), "decimal", Decimal("nan")),
    ("decimal", Decimal("19.90"), "decimal", 19.9),
    ("decimal", Decimal("12345678901234567890.5"), "unknown", "12345678901234567890.5"),
    ("decimal", Decimal("1.005"), ColumnKind("decimal", 2), Decimal("1.01")),
    ("decimal", Decimal("-1.005"), ColumnKind("decimal", 2), Decimal("-1.01")),
    ("decimal", Decimal("1E+3"), ColumnKind("decimal", 2), Decimal("1000.00")),
    ("decimal", Decimal("0.1"), "float", 0.1),
    ("text", "", "text", ""),
    ("text", "a ", "char", "a"),
    ("char", "a    ", "text", "a    "),
    ("text", "é", "text", "é"),
    ("other", ipaddress.ip_address("::1"), "text", "::1"),
    ("unknown", 5, "text", "5"),
    ("unknown", {"a": "ü"}, "text", '{"a": "ü"}'),
    ("bytes", b"a", "bytes", memoryview(b"a")),
    ("text", "ü", "bytes", "ü".encode()),
    ("uuid", ID, "text", str(ID)),
    ("uuid", ID, "text", ID.hex.upper()),
    ("uuid", ID, "bytes", ID.bytes),
    ("text", str(ID), "uuid", ID),
    ("datetime", MOMENT, "datetime", "2026-03-29 01:30:00.123456"),
    ("instant", ZONED, "datetime", UTC),
    ("instant", ZONED, "instant", UTC.replace(tzinfo=dt.UTC)),
    ("instant", ZONED, "text", "2026-03-28T23:30:00.123456Z"),
    ("datetime", MOMENT, "datetime", MOMENT.replace(fold=1)),
    ("datetime", MOMENT, ColumnKind("datetime", 3), MOMENT.replace(microsecond=123000)),
    ("datetime", MOMENT, ColumnKind("datetime", 5), MOMENT.replace(microsecond=123460)),
    ("datetime", MOMENT, ColumnKind("datetime", 5, truncates=True), MOMENT.replace(microsecond=123450)),
    ("date", dt.date(2026, 3, 29), "date", "2026-03-29"),
    ("date", dt.date(2026, 3, 29), "datetime", dt.datetime(2026, 3, 29)),  # noqa: DTZ001
    ("datetime", MOMENT, "date", dt.date(2026, 3, 29)),
    ("time", dt.time(1, 2, 3, 4), "time", dt.timedelta(hours=1, minutes=2, seconds=3, microseconds=4)),
    ("time", dt.time(1, 2, 3, 4), "time", "01:02:03.000004"),
    ("timetz", dt.time(1, 2, tzinfo=BERLIN), "text", "01:02:00+02:00"),
    ("interval", dt.timedelta(days=-1, microseconds=5), "integer", -86_399_999_995),
    ("interval", dt.timedelta(microseconds=5), ColumnKind("integer", 0), 5),
    ("json", {"a": [1, None], "b": "x"}, "jsontext", '{"b":"x","a":[1.0,null]}'),
    ("json", "123", "text", '"123"'),
    ("json", None, "text", "null"),
    ("jsontext", "[1, 2]", "json", [1, 2]),
    ("array", ["a", None], "jsontext", '["a", null]'),
    ("array", [Decimal("1.50")], "array", [Decimal("1.5")]),
    ("array", [math.nan], "array", [math.nan]),
    ("jsontext", "no json", "jsontext", "no json"),
    ("unknown", True, "unknown", 1),
    ("unknown", None, "unknown", None),
]

DIFFERENT: list[tuple[Any, Any, Any, Any]] = [
    ("text", "", "text", None),
    ("bytes", b"", "bytes", None),
    ("integer", 0, "integer", None),
    ("boolean", False, "boolean", None),
    ("boolean", True, "integer", 2),
    ("integer", 2**62, "integer", 2**62 + 1),
    ("integer", 1, "text", "one"),
    ("integer", 2**62 + 1, "decimal", Decimal(2**62)),
    ("float", math.nan, "float", None),
    ("float", math.nan, "float", 0.0),
    ("float", 0.1 + 0.2, "float", 0.3),
    ("float", 5e-324, "float", 0.0),
    ("decimal", Decimal("0.1000000000000000000001"), "decimal", Decimal("0.1")),
    ("decimal", Decimal("1.004"), ColumnKind("decimal", 2), Decimal("1.01")),
    ("text", "a ", "text", "a"),
    ("text", "A", "text", "a"),
    ("text", "é", "text", "e\u0301"),
    ("text", "1.0", "text", "1"),
    ("unknown", 1, "unknown", "1"),
    ("unknown", 1, "unknown", b"1"),
    ("bytes", b"a", "bytes", b"A"),
    ("uuid", ID, "text", str(uuid.UUID(int=1))),
    ("uuid", ID, "text", "none"),
    ("datetime", MOMENT, "datetime", MOMENT + dt.timedelta(microseconds=1)),
    ("instant", ZONED, "datetime", MOMENT),
    ("datetime", MOMENT, "text", "at half past one"),
    ("datetime", MOMENT, ColumnKind("datetime", 5), MOMENT.replace(microsecond=123450)),
    ("date", dt.date(2026, 3, 29), "datetime", MOMENT),
    ("time", dt.time(1), "time", dt.timedelta(hours=25)),
    ("timetz", dt.time(1, tzinfo=BERLIN), "text", "01:00:00+01:00"),
    ("json", {"a": True}, "jsontext", '{"a": 1}'),
    ("json", [1, 2], "jsontext", "[2, 1]"),
    ("json", "123", "text", "123"),
    ("json", "no json", "text", "no json"),
    ("json", {}, "text", None),
    ("json", [], "json", {}),
    ("array", ["1"], "jsontext", "[1]"),
]


@pytest.mark.parametrize(("source", "one", "target", "other"), EQUAL)
def test_equal(source: Any, one: Any, target: Any, other: Any) -> None:
    assert same(source, one, target, other)


@pytest.mark.parametrize(("source", "one", "target", "other"), DIFFERENT)
def test_different(source: Any, one: Any, target: Any, other: Any) -> None:
    assert not same(source, one, target, other)
    assert same(source, one, source, one)


def test_a_form_of_a_key_can_be_looked_up() -> None:
    for source, one, target, other in EQUAL:
        kinds = [side if isinstance(side, ColumnKind) else ColumnKind(side) for side in (source, target)]
        form, other_form = forms(*kinds)
        ours, theirs = canonical([(one,)], [form]), canonical([(other,)], [other_form])
        assert {ours[0]: 1} == {theirs[0]: 1}
