"""From Arrow data to values of Python, of which each says the same: Python has not all of Arrow's times."""

import contextlib
import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

__all__ = ["FINER", "check_times", "python_records", "python_times", "python_values"]

FINER = r"[.,]\d{6}(\d*[1-9])"
"""Finds parts of a microsecond in the text of a time, which Python drops when it reads one."""

Doubtful: TypeAlias = Callable[[Any], bool]
"""Whether values of an Arrow type may be none of Python's."""

_REFUSALS = ValueError, OverflowError, KeyError
"""What Arrow raises for a value that it cannot give, with that in its text, and for a time zone that nobody knows."""


def python_records(records: Any) -> list[Any]:
    """Give the records of Arrow data as those of Python: dicts by the names of the columns.

    Raises:
        ValueError: If Python has not one of the values; its text does not hold it.
    """
    tabular = _is_pyarrow(records) and hasattr(records, "columns")
    columns = list(zip(records.schema.names, records.columns, strict=True)) if tabular else []
    for name, column in columns:
        _check(name, column, _is_altered)
    with contextlib.suppress(*_REFUSALS):
        return list(records.to_pylist())
    for name, column in columns:
        python_values(name, column)  # tells which one it is
    msg = "the records are of a type, or hold a value, that Python has not; take them as they are (batch.records)"
    raise ValueError(msg)


def python_values(name: str, column: Any) -> list[Any]:
    """Give the values of a column as those of Python alone, not of pandas, which has nanoseconds.

    Raises:
        ValueError: If Python has not one of them, such as parts of a microsecond, 24:00 or a year before 1; its text
            does not hold the value.
    """
    _check(name, column, _is_finer)
    with contextlib.suppress(*_REFUSALS):
        values: list[Any] = column.to_pylist()
        return values
    kind = getattr(column, "type", type(column).__name__)
    msg = f"column {name!r} is of a type, or holds a value, that Python has not ({kind}); convert it"
    raise ValueError(msg)


def python_times(name: str, column: Any) -> Any:
    """Give times, dates or durations in the unit that Python has.

    Raises:
        ValueError: If there is one that Python has not.
    """
    import pyarrow as pa  # noqa: PLC0415 - only who has Arrow data has it

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


def check_times(name: str, column: Any) -> None:
    """See to it that there are only times that Python has, too; an infinity comes as any other.

    Raises:
        ValueError: If there is another one.
    """
    import pyarrow as pa  # noqa: PLC0415 - as above
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


def _is_pyarrow(value: Any) -> bool:
    """Whether it is a table or column of pyarrow; other packages have some that give lists, too."""
    return any(base.__module__.startswith("pyarrow.") for base in type(value).__mro__)


def _is_altered(kind: Any) -> bool:
    """Whether Arrow gives another value where Python has not that of a type, and does not refuse it."""
    from pyarrow import types  # noqa: PLC0415 - as above

    return bool(types.is_time(kind) or types.is_date64(kind))


def _is_finer(kind: Any) -> bool:
    """Whether it does, or gives one of pandas, of which a database drops something."""
    return _is_altered(kind) or getattr(kind, "unit", None) == "ns"


def _check(name: str, column: Any, doubtful: Doubtful) -> None:
    """See to it that Python has all times of doubtful types in a column, wherever they are in its values.

    Raises:
        ValueError: If it has not.
    """
    if _is_pyarrow(column) and _holds(column.type, doubtful):
        for chunk in getattr(column, "chunks", [column]):
            for times in _held(chunk, doubtful):
                python_times(name, times)


def _holds(kind: Any, doubtful: Doubtful) -> bool:
    return doubtful(kind) or any(_holds(part, doubtful) for part in _kinds_in(kind))


def _kinds_in(kind: Any) -> list[Any]:
    """Give the types that a type is made of."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    if isinstance(kind, pa.BaseExtensionType):
        return [kind.storage_type]
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return [kind.value_type]
    return [kind.field(place).type for place in range(kind.num_fields)]


def _held(array: Any, doubtful: Doubtful) -> list[Any]:
    """Give the arrays of doubtful types that an array is or holds, wherever in its values they are."""
    if doubtful(array.type):
        return [array]
    if not _holds(array.type, doubtful):
        return []
    return [held for part in _parts_of(array) for held in _held(part, doubtful)]


def _parts_of(array: Any) -> Sequence[Any]:
    """Give the arrays that an array is made of, without what its values do not show."""
    import pyarrow as pa  # noqa: PLC0415 - as above
    import pyarrow.compute as pc  # noqa: PLC0415 - as above

    kind, types = array.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return [array.storage]
    if types.is_dictionary(kind):
        return [array.dictionary.take(array.indices)]
    if types.is_run_end_encoded(kind):
        return [pc.run_end_decode(array)]
    if types.is_union(kind):
        return [array.field(place) for place in range(kind.num_fields)]
    if types.is_map(kind):
        maps = array.drop_null()
        first, last = (maps.offsets[end].as_py() for end in (0, -1)) if len(maps) else (0, 0)
        return [part.slice(first, last - first) for part in (maps.keys, maps.items)]
    flat: Any = array.flatten()  # of a struct, its fields
    return list(flat) if types.is_struct(kind) else [flat]
