"""From the records of a batch to rows: tuples of the same columns."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from resumable_sync._driver_rows import DriverRows
from resumable_sync._errors import ConfigurationError
from resumable_sync._model import Batch
from resumable_sync._python_values import python_values

__all__ = ["tabulate"]


def tabulate(batch: Batch[Any], known: Sequence[str] | None) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Give column names and rows of a batch; `DriverRows` only while they are what the driver gave.

    Args:
        batch: Its records are tuples or lists (with `batch.columns`), dicts, or Arrow data.
        known: The connector's column names, for tuples of a batch without names.

    Raises:
        ConfigurationError: If the records are something else, or have no or not the same columns.
        ValueError: If a tuple has another number of values than there are columns.
    """
    records: Any = batch.records
    if hasattr(records, "to_pylist"):
        return _from_arrow(records)
    if not len(records):
        return (), []
    first = records[0]
    if type(first) is not tuple:  # as most are; to ask what else takes long
        if isinstance(first, Mapping):
            return _from_mappings(batch, records, tuple(first))
        if not isinstance(first, Sequence) or isinstance(first, (str, bytes)):
            msg = (
                f"job {batch.job_id!r}: SQLSink writes dicts, tuples with column names, or Arrow data, and got a "
                f"record of type {type(first).__name__}; give dicts"
            )
            raise ConfigurationError(msg)
    columns = batch.columns if batch.columns is not None else known
    if columns is None:
        msg = f"job {batch.job_id!r}: the records are tuples without column names; give them in Page(columns=...)"
        raise ConfigurationError(msg)
    return _from_tuples(batch, records, tuple(columns))


def _from_arrow(records: Any) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    values = [python_values(name, column) for name, column in zip(records.schema.names, records.columns, strict=True)]
    return tuple(records.schema.names), list(zip(*values, strict=True))


def _from_tuples(
    batch: Batch[Any], records: Sequence[Any], columns: tuple[str, ...]
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    if isinstance(records, DriverRows) and records.untouched and len(records[0]) == len(columns):
        return columns, records
    # Drivers' own row classes are tuples or sequences; the databases' executemany wants the real thing.
    exact = set(map(type, records)) == {tuple}
    rows = list(records) if exact else [tuple(record) for record in records]
    if set(map(len, rows)) != {len(columns)}:
        place, row = next((place, row) for place, row in enumerate(rows) if len(row) != len(columns))
        msg = f"record {place} of batch {batch.sequence} has {len(row)} values for {len(columns)} columns"
        raise ValueError(msg)
    return columns, rows


def _from_mappings(
    batch: Batch[Any], records: Sequence[Any], columns: tuple[str, ...]
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    # With one name itemgetter gives the bare value.
    several: Any = itemgetter(*columns) if len(columns) > 1 else None
    pick = several or (lambda record: tuple(record[name] for name in columns))
    try:
        rows = [pick(record) for record in records]
        same = set(map(len, records)) == {len(columns)}
    except (KeyError, TypeError):
        same, rows = False, []
    if not same:
        raise ConfigurationError(_differing(batch, records))
    return columns, rows


def _differing(batch: Batch[Any], records: Sequence[Any]) -> str:
    where = f"job {batch.job_id!r}: batch {batch.sequence}"
    if not all(isinstance(record, Mapping) for record in records):
        return f"{where} mixes dicts with other records; give all records as dicts"
    union = dict.fromkeys(str(name) for record in records for name in record)
    place, missing = next(
        (place, missing)
        for place, record in enumerate(records)
        if (missing := [name for name in union if name not in record]) or len(record) != len(union)
    )
    return (
        f"{where}: the records have not all the same keys: record {place} lacks {', '.join(map(repr, missing))}; "
        "give every record all keys, with None where there is no value"
    )
