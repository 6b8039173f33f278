"""Jobs and dead letters as rows, and back, trusting nothing."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, get_args
from uuid import UUID

from resumable_sync._cursor import decode_cursor, decode_value, encode_cursor, encode_value
from resumable_sync._errors import ConfigurationError, CursorError, StateCorruptError
from resumable_sync._history import History, Sample
from resumable_sync._model import AttemptRecord, DeadLetter, Guarantee, Job, JobStatus, Lease, Outcome
from resumable_sync.stores._leases import microseconds

__all__ = [
    "JOB_COLUMNS",
    "LEASE_COLUMNS",
    "LETTER_COLUMNS",
    "Row",
    "attempt_from_row",
    "check_room",
    "history_from_text",
    "is_token",
    "job_from_row",
    "lease_from_row",
    "letter_from_row",
    "row_of_job",
    "row_of_letter",
    "text_of_history",
    "time_of",
]

Row: TypeAlias = Mapping[Any, Any]
"""Columns by name."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COUNTS = ("run", "attempt", "processed_records", "processed_batches", "dead_letters", "stalled_attempts")
_ATTEMPT_COUNTS = ("run", "attempt", "fencing_token", "from_records", "to_records")
_SECONDS = ("seconds", "read_seconds", "write_seconds", "commit_seconds")
_SAMPLE_COUNTS = ("records", "batches", "failed_tries", "processed_records")
_TIMES = ("created_at", "started_at", "updated_at", "finished_at")
# The clock would have to show the year 9999 to grant a greater one.
_MAX_TOKEN = 253_402_300_800_000_000
# Half of what the database's 64 bits hold: what is counted on from here stays within them.
_MAX_TO_GO_ON = 2**62
_ENCODED = "[1,"


JOB_COLUMNS = (
    "status",
    "run",
    "run_id",
    "attempt",
    "cursor",
    "processed_records",
    "processed_batches",
    "total_records",
    "dead_letters",
    "fingerprint",
    "stalled_attempts",
    "batch_size",
    "error",
    *_TIMES,
)
"""The columns that `row_of_job` gives."""

LEASE_COLUMNS = ("fencing_token", "lease_owner", "lease_expires_at", "lease_ttl", "stop_requested", "saved_token")
"""The columns of a job's row that tell of its newest lease."""

LETTER_COLUMNS = ("job_id", "run", "record", "columns", "error", "cursor", "key")
"""The columns that `row_of_letter` gives, without the time, which the database may give."""


def row_of_job(job: Job) -> dict[str, Any]:
    """Give the columns of a job, without those of its lease."""
    return {
        "status": str(job.status),
        "run": job.run,
        "run_id": job.run_id,
        "attempt": job.attempt,
        "cursor": None if job.cursor is None else encode_cursor(job.cursor),
        "processed_records": job.processed_records,
        "processed_batches": job.processed_batches,
        "total_records": job.total_records,
        "dead_letters": job.dead_letters,
        "fingerprint": _stored_text(job.fingerprint),
        "stalled_attempts": job.stalled_attempts,
        "batch_size": job.batch_size,
        "error": _stored_text(job.error),
        "created_at": job.created_at and microseconds(job.created_at),
        "started_at": job.started_at and microseconds(job.started_at),
        "updated_at": job.updated_at and microseconds(job.updated_at),
        "finished_at": job.finished_at and microseconds(job.finished_at),
    }


def job_from_row(row: Row, now: int) -> Job:
    """Give the job of a row.

    Args:
        row: All columns by name; of tables of an older version those that there are.
        now: The store's clock when it was read, in microseconds since 1970.

    Raises:
        StateCorruptError: If a column holds what the library cannot have written.
    """
    job_id = row["id"]
    if type(job_id) is not str:
        raise StateCorruptError(None, "id", "is not text")
    fields: dict[str, Any] = {field: _count(job_id, field, row[field]) for field in _COUNTS if field in row}
    fields |= {field: _time(job_id, field, row[field]) for field in _TIMES}
    return Job(
        id=job_id,
        status=_status(job_id, row["status"]),
        run_id=_run_id(job_id, row["run_id"]),
        cursor=_cursor(job_id, row["cursor"]),
        total_records=None if row["total_records"] is None else _count(job_id, "total_records", row["total_records"]),
        fingerprint=_text(job_id, "fingerprint", row["fingerprint"]),
        batch_size=_batch_size(job_id, row.get("batch_size")),
        error=_text(job_id, "error", row["error"]),
        lease=_lease(job_id, row, now),
        **fields,
    )


def lease_from_row(row: Row) -> Lease:
    """Give the lease of a job's row that has one, alive or not."""
    return Lease(
        job_id=row["id"],
        owner=row["lease_owner"],
        fencing_token=row["fencing_token"],
        expires_at=time_of(row["lease_expires_at"]),
        stop_requested=bool(row["stop_requested"]),
    )


def check_room(job: Job) -> None:
    """See that an attempt can count on from where a job stands.

    Raises:
        StateCorruptError: If a count is so great that the database could soon not hold it.
    """
    for field in _COUNTS:
        if getattr(job, field) > _MAX_TO_GO_ON:
            raise StateCorruptError(job.id, field, "is greater than anybody counts")


def row_of_letter(letter: DeadLetter) -> dict[str, Any]:
    """Give the columns of a dead letter, without its id, which the database gives.

    Raises:
        ConfigurationError: If the record is of a type that cannot be kept.
    """
    try:
        record = encode_value(letter.record, what="record")
    except CursorError as error:
        msg = (
            f"job {letter.job_id!r}: a record that the sink refused, of the batch with the key {letter.key}, cannot be "
            f"kept as a dead letter: {error.message}; or let the run fail there with on_refused='fail'"
        )
        raise ConfigurationError(msg) from None
    return {
        "job_id": letter.job_id,
        "run": letter.run,
        "record": record,
        "columns": None if letter.columns is None else encode_value(list(letter.columns)),
        "error": _stored_text(letter.error),
        "cursor": None if letter.cursor is None else encode_cursor(letter.cursor),
        "key": letter.key,
        "b_created_at": letter.created_at and microseconds(letter.created_at),
    }


def letter_from_row(row: Row) -> DeadLetter:
    """Give the dead letter of a row.

    Raises:
        StateCorruptError: If a column holds what the library cannot have written.
    """
    job_id = row["job_id"]
    if type(row["key"]) is not str or not row["key"].isascii():
        raise StateCorruptError(job_id, "key", "is not ASCII text")
    return DeadLetter(
        id=row["id"],
        job_id=job_id,
        run=_count(job_id, "run", row["run"]),
        record=decode_value(row["record"], job_id=job_id),
        columns=_columns(job_id, row["columns"]),
        error=_text(job_id, "error", row["error"]) or "",
        cursor=_cursor(job_id, row["cursor"]),
        key=row["key"],
        created_at=_time(job_id, "created_at", row["created_at"]),
    )


def attempt_from_row(row: Row) -> AttemptRecord:
    """Give the attempt of a row.

    Raises:
        StateCorruptError: If a column holds what the library cannot have written.
    """
    job_id, owner, outcome = row["job_id"], row["owner"], row["outcome"]
    if type(owner) is not str:
        raise StateCorruptError(job_id, "owner", "is not text")
    if outcome not in get_args(Outcome):
        raise StateCorruptError(job_id, "outcome", f"is none of {', '.join(get_args(Outcome))}")
    started_at = _time(job_id, "started_at", row["started_at"])
    if started_at is None:
        raise StateCorruptError(job_id, "started_at", "is missing")
    return AttemptRecord(
        job_id=job_id,
        owner=owner,
        outcome=outcome,
        started_at=started_at,
        ended_at=_time(job_id, "ended_at", row["ended_at"]),
        error=_text(job_id, "error", row["error"]),
        from_cursor=_cursor(job_id, row["from_cursor"], "from_cursor"),
        to_cursor=_cursor(job_id, row["to_cursor"], "to_cursor"),
        **{field: _count(job_id, field, row[field]) for field in _ATTEMPT_COUNTS},
    )


def text_of_history(history: History) -> str:
    """Give a history as text: the codec's `[run_id, guarantee, format, samples, stops]`.

    The samples are text themselves, `1,1795915552532000,...;...`: written every second, they must not cost what the
    codec takes for a thousand numbers. Times are in microseconds.
    """
    samples = ";".join(
        f"{one.attempt},{microseconds(one.started_at)},{round(one.seconds * 1e6)},{round(one.read_seconds * 1e6)},"
        f"{round(one.write_seconds * 1e6)},{round(one.commit_seconds * 1e6)},"
        f"{one.records},{one.batches},{one.failed_tries},{one.processed_records}"
        for one in history.samples
    )
    stops = [[attempt, reason] for attempt, reason in history.stops.items()]
    return encode_value([history.run_id, str(history.guarantee), history.format, samples, stops])


def history_from_text(job_id: str, text: Any) -> History:
    """Give the history of a text.

    Raises:
        StateCorruptError: If it is none that the library can have written.
    """
    value = decode_value(text, job_id=job_id, field="samples")
    try:
        run_id, guarantee, format_, samples, stops = value
        return History(
            run_id=_run_id(job_id, run_id, "samples"),
            guarantee=Guarantee(guarantee),
            format=str(format_),
            samples=tuple(_sample(job_id, sample) for sample in samples.split(";") if sample),
            stops={_count(job_id, "samples", attempt): str(reason) for attempt, reason in stops},
        )
    except (AttributeError, ValueError, TypeError, OverflowError):
        raise StateCorruptError(job_id, "samples", "does not hold a history") from None


def _sample(job_id: str, row: str) -> Sample:
    attempt, started_at, *numbers = (_count(job_id, "samples", int(value)) for value in row.split(","))
    fields: dict[str, Any] = dict(zip((*_SECONDS, *_SAMPLE_COUNTS), numbers, strict=True))
    fields |= {field: fields[field] / 1_000_000 for field in _SECONDS}
    return Sample(attempt=attempt, started_at=time_of(started_at), **fields)


def is_token(value: Any) -> bool:
    """Whether a value can be a fencing token."""
    return type(value) is int and 0 <= value <= _MAX_TOKEN


def time_of(value: int) -> datetime:
    """Give the time of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=value)


def _stored_text(value: str | None) -> str | None:
    # Plain where every database can keep it as it is, so that people can read it there; else by the cursor codec.
    if value is None or (value.isascii() and "\0" not in value and not value.startswith(_ENCODED)):
        return value
    return encode_value(value)


def _text(job_id: str, field: str, value: Any) -> str | None:
    if value is not None and type(value) is not str:
        raise StateCorruptError(job_id, field, "is not text")
    if value is None or not value.startswith(_ENCODED):
        return value
    decoded = decode_value(value, job_id=job_id, field=field)
    if type(decoded) is not str:
        raise StateCorruptError(job_id, field, "does not hold text")
    return decoded


def _count(job_id: str, field: str, value: Any) -> int:
    if type(value) is not int:
        raise StateCorruptError(job_id, field, "is not an integer")
    if value < 0:
        raise StateCorruptError(job_id, field, "is negative")
    return value


def _time(job_id: str, field: str, value: Any) -> datetime | None:
    if value is None:
        return None
    if type(value) is not int:
        raise StateCorruptError(job_id, field, "is not an integer (microseconds since 1970)")
    try:
        return time_of(value)
    except OverflowError:
        raise StateCorruptError(job_id, field, "is not a time (microseconds since 1970)") from None


def _status(job_id: str, value: Any) -> JobStatus:
    try:
        return JobStatus(value)
    except ValueError:
        raise StateCorruptError(job_id, "status", f"is none of {', '.join(JobStatus)}") from None


def _run_id(job_id: str, value: Any, field: str = "run_id") -> str | None:
    if value is None:
        return None
    if type(value) is not str or not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value):
        raise StateCorruptError(job_id, field, "is not a UUID")
    return str(UUID(value))


def _cursor(job_id: str, value: Any, field: str = "cursor") -> Any:
    if value is None:
        return None
    cursor = decode_cursor(value, job_id=job_id, field=field)
    if cursor is None:
        raise StateCorruptError(job_id, field, "holds None, which the library stores as NULL")
    return cursor


def _columns(job_id: str, value: Any) -> list[str] | None:
    if value is None:
        return None
    columns = decode_value(value, job_id=job_id, field="columns")
    if type(columns) is not list or not all(type(name) is str for name in columns):
        raise StateCorruptError(job_id, "columns", "is not a list of names")
    return columns


def _batch_size(job_id: str, value: Any) -> int | None:
    if value is None:
        return None
    size = _count(job_id, "batch_size", value)
    if size == 0:
        raise StateCorruptError(job_id, "batch_size", "is 0")
    return size


def _lease(job_id: str, row: Row, now: int) -> Lease | None:
    token = _count(job_id, "fencing_token", row["fencing_token"])
    if not is_token(token):
        raise StateCorruptError(job_id, "fencing_token", "is greater than any clock's time")
    if row.get("saved_token") is not None and not is_token(row["saved_token"]):
        raise StateCorruptError(job_id, "saved_token", "is no fencing token")
    stop_requested = row["stop_requested"]
    if stop_requested not in (0, 1) or type(stop_requested) is not int:
        raise StateCorruptError(job_id, "stop_requested", "is neither 0 nor 1")
    owner = row["lease_owner"]
    parts = (owner, row["lease_expires_at"], row["lease_ttl"])
    if parts == (None, None, None):
        return None
    if type(owner) is not str or not owner:
        raise StateCorruptError(job_id, "lease_owner", "is not text, though there is a lease")
    expires_at = _time(job_id, "lease_expires_at", row["lease_expires_at"])
    if expires_at is None:
        raise StateCorruptError(job_id, "lease_expires_at", "is missing, though there is a lease")
    if row["lease_ttl"] is None or _count(job_id, "lease_ttl", row["lease_ttl"]) == 0:
        raise StateCorruptError(job_id, "lease_ttl", "is missing or 0, though there is a lease")
    if microseconds(expires_at) <= now:
        return None
    return lease_from_row(row)
