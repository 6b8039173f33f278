"""From Arrow data to values of Python, of which each says the same: Python has not all of Arrow's times."""

import contextlib
import datetime as dt
from typing import Any

__all__ = ["check_records", "check_times", "python_times", "python_values"]


def check_times(name: str, column: Any) -> None:
    """See to it that there are only times that Python has, too; an infinity comes as any other.

    Raises:
        ValueError: If there is another one.
    """
    import pyarrow as pa  # noqa: PLC0415 - only who has Arrow data has it
    import pyarrow.compute as pc  # noqa: PLC0415 - as above

    kind = column.type
    if pa.types.is_time(kind):
        bounds = [pa.scalar(each, kind) for each in (dt.time.min, dt.time.max)]
    else:
        first, last = dt.datetime(1, 1, 1, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC)
        naive = pa.timestamp("us") if pa.types.is_timestamp(kind) else kind
        bounds = [pa.scalar(each.replace(tzinfo=None), naive).cast(kind) for each in (first, last)]
    ends = pc.min_max(column)
    if ends["min"].is_valid and (pc.less(ends["min"], bounds[0]).as_py() or pc.greater(ends["max"], bounds[1]).as_py()):
        msg = f"column {name!r} holds times that Python has not (infinity, before year 1, 24:00); leave them out"
        raise ValueError(msg)


def python_times(name: str, column: Any) -> Any:
    """Give times, dates or durations in the unit that Python has.

    Raises:
        ValueError: If there is one that Python has not.
    """
    import pyarrow as pa  # noqa: PLC0415 - as above

    kind = column.type
    if pa.types.is_timestamp(kind):
        unit = pa.timestamp("us", kind.tz)
    elif pa.types.is_date(kind):
        unit = pa.date32()
    else:
        unit = pa.time64("us") if pa.types.is_time(kind) else pa.duration("us")
    try:
        times = column.cast(unit)
    except pa.ArrowException:
        times = None
    if times is None:
        msg = f"column {name!r} holds values that do not fit {unit}, which is what Python has; convert them"
        raise ValueError(msg)
    if not pa.types.is_duration(kind):
        check_times(name, times)
    return times


def python_values(name: str, column: Any) -> list[Any]:
    """Give the values of a column as those of Python, of which each says the same.

    Raises:
        ValueError: If Python has no such value: parts of a microsecond, 24:00, a year before 1.
    """
    _check_leaves(name, column)
    with contextlib.suppress(ValueError, OverflowError):  # whose text holds the value
        values: list[Any] = column.to_pylist()
        return values
    msg = f"column {name!r} holds a value that Python has not; convert it"
    raise ValueError(msg)


def check_records(records: Any) -> None:
    """See to it that Python has all times in Arrow data; it makes others of some, such as 00:00 of 24:00.

    Raises:
        ValueError: If it has not.
    """
    for name, column in zip(records.schema.names, records.columns, strict=True):
        _check_leaves(name, column)


def _check_leaves(name: str, column: Any) -> None:
    """See to it that Python has all times in a column, wherever they are in its values."""
    if not hasattr(column, "type"):
        return  # of another package, whose columns give lists, too

    from pyarrow import types  # noqa: PLC0415 - as above

    kind = column.type
    if types.is_temporal(kind) and not types.is_interval(kind):
        python_times(name, column)
    elif types.is_dictionary(kind):
        _check_leaves(name, column.cast(kind.value_type))
    elif types.is_nested(kind) and not types.is_union(kind):  # of a union Arrow gives no fields
        for chunk in getattr(column, "chunks", [column]):
            for part in _parts(chunk):
                _check_leaves(name, part)


def _parts(nested: Any) -> list[Any]:
    """Give the arrays that an array of lists, maps or structs is made of."""
    from pyarrow import types  # noqa: PLC0415 - as above

    if types.is_map(nested.type):
        first, length = nested.offsets[0].as_py(), nested.offsets[-1].as_py() - nested.offsets[0].as_py()
        return [nested.keys.slice(first, length), nested.items.slice(first, length)]
    parts = nested.flatten()
    return list(parts) if types.is_struct(nested.type) else [parts]
