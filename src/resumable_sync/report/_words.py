"""Numbers, times and durations as people read them."""

from datetime import datetime

__all__ = ["UNKNOWN", "clock", "compact", "counted", "duration", "moment", "number", "one_line", "percent", "rate"]

UNKNOWN = "\N{EN DASH}"

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))
_SHORT = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_SMALL = 10


def number(value: int) -> str:
    """Give `12,000`."""
    return f"{value:,}"


def counted(value: int, what: str, several: str | None = None) -> str:
    """Give `1 record` or `2,000 records`."""
    return f"{value:,} {what if value == 1 else several or what + 's'}"


def compact(value: float) -> str:
    """Give `1.2M`, for an axis."""
    for size, letter in _SHORT:
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def rate(records: float, seconds: float) -> str:
    """Give `1,234/s`."""
    if seconds <= 0:
        return UNKNOWN
    found = records / seconds
    return f"{found:,.0f}/s" if found >= _SMALL or not found else f"{found:,.2g}/s"


def percent(part: float, whole: float) -> str:
    """Give `42 %`; of something that is not all never `100 %`, and of something never `0 %`."""
    if whole <= 0:
        return UNKNOWN
    share = 100 * part / whole
    if 0 < share < 1:
        return "< 1 %"
    return f"{min(int(share), 99) if share < 100 else 100} %"  # noqa: PLR2004 - percent


def duration(seconds: float) -> str:
    """Give `2 h 14 min`, `3.2 s` or `45 ms`."""
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 or not seconds else "< 1 ms"  # noqa: PLR2004
    if seconds < _SMALL:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for place, (unit, length) in enumerate(_UNITS):
        if whole >= length:
            name, smaller = (*_UNITS, ("s", 1))[place + 1]
            rest = whole % length // smaller
            return f"{whole // length} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s"


def moment(time: datetime | None) -> str:
    """Give `2026-11-28 10:31:05`."""
    return UNKNOWN if time is None else f"{time:%Y-%m-%d %H:%M:%S}"


def clock(time: datetime, step: float) -> str:
    """Give a time of day as exact as the step of an axis asks for."""
    if step < 1:
        return f"{time:%H:%M:%S}.{time.microsecond // 100_000}"
    if step < 60:  # noqa: PLR2004 - a minute
        return f"{time:%H:%M:%S}"
    return f"{time:%H:%M}" if step < 86_400 else f"{time:%b} {time.day}"  # noqa: PLR2004 - a day


def one_line(text: str, limit: int = 300) -> str:
    """Give a text on one line, and not too much of it."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
