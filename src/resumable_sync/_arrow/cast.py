"""Arrow data of another type than a column's: cast where every value stays the same."""

from typing import Any

from resumable_sync._arrow.columns import pyarrow

__all__ = ["cast_exactly", "family_of"]

# Of these Arrow lets something go without a word: a zone, the time of a day, digits of a fraction, zeros of a text.
_LOSING = {"bool", "float", "decimal", "datetime", "instant", "string"}


def cast_exactly(values: Any, kind: Any, *, rounds: bool = False) -> Any:
    """Give an array as another type; None if not all values would be the same.

    Args:
        values: The array.
        kind: The type.
        rounds: Whether numbers may become the nearest ones of a type of fewer digits.
    """
    if values.type == kind:
        return values
    pa = pyarrow()
    try:
        made = values.cast(kind)
        return made if _is_same(values, made, rounds=rounds) else None
    except (pa.ArrowException, ValueError):
        return None


def _is_same(values: Any, made: Any, *, rounds: bool) -> bool:
    """Whether a cast lost nothing.

    Raises:
        ArrowException: If there is no way back to look.
    """
    from pyarrow import compute  # noqa: PLC0415 - an optional package

    before, after = family_of(values.type), family_of(made.type)
    if {before, after} == {"datetime", "instant"}:
        return False
    # Among times, and among whole numbers, Arrow itself refuses what does not fit.
    if not {before, after} & _LOSING or (before == after and before != "float"):
        return True
    if rounds and before == after:
        same = compute.equal(compute.is_inf(values), compute.is_inf(made))
    else:
        back = made.cast(values.type)
        same = compute.equal(back, values)
        if before == "float":
            same = compute.or_(same, compute.and_(compute.is_nan(values), compute.is_nan(back)))
    return compute.all(same).as_py() is not False


def family_of(kind: Any) -> str:
    """Give the family of an Arrow type, such as `"int"`; `"other"` for what is in none."""
    types = pyarrow().types
    if types.is_timestamp(kind):
        return "instant" if kind.tz is not None else "datetime"
    for is_kind, name in (
        (types.is_boolean, "bool"),
        (types.is_integer, "int"),
        (types.is_floating, "float"),
        (types.is_decimal, "decimal"),
        (types.is_string, "string"),
        (types.is_large_string, "string"),
        (types.is_binary, "bytes"),
        (types.is_large_binary, "bytes"),
        (types.is_date, "date"),
        (types.is_time, "time"),
        (types.is_duration, "duration"),
    ):
        if is_kind(kind):
            return name
    return "other"
