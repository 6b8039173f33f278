"""Jobs and attempts as what Redis holds, which is text, and back, trusting nothing."""

import json
import re
from collections.abc import Sequence
from typing import Any

from resumable_sync._errors import StateCorruptError, StoreError
from resumable_sync._model import AttemptRecord, Job
from resumable_sync.stores._redis_scripts import FORMAT
from resumable_sync.stores._rows import JOB_COLUMNS, attempt_from_row, job_from_row, row_of_job

__all__ = ["attempt_from_json", "fields_of_job", "job_from_fields"]

_LEASE_FIELDS = ("fencing_token", "saved_token", "stop_requested", "lease_owner", "lease_ttl", "lease_expires_at")
_TEXTS = {"status", "run_id", "cursor", "fingerprint", "error", "lease_owner"}
_ATTEMPT_COUNTS = {"run", "attempt", "fencing_token", "from_records", "to_records", "started_at", "ended_at"}
_ATTEMPT_TEXTS = {"owner", "outcome", "error", "from_cursor", "to_cursor"}
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_MOST = 2**63 - 1


def fields_of_job(job: Job) -> tuple[list[str], list[str]]:
    """Give the fields of a job, without those of its lease.

    Returns:
        Names and values in turn, and the names of the fields that are None.

    Raises:
        StoreError: If a value could not be read back.
    """
    given: list[str] = []
    missing: list[str] = []
    for name, value in row_of_job(job).items():
        if value is None:
            missing.append(name)
            continue
        fits = type(value) is str if name in _TEXTS else type(value) is int and abs(value) <= _MOST
        if not fits:
            kind = "text" if name in _TEXTS else "an integer of 64 bits"
            msg = f"job {job.id!r} cannot be saved: its {name} is not {kind}; see who made it"
            raise StoreError(msg)
        given += (name, str(value))
    return given, missing


def job_from_fields(job_id: str, flat: Sequence[bytes], now: int) -> Job | None:
    """Give the job of a hash; None if there is none.

    Args:
        job_id: The job.
        flat: Names and values in turn.
        now: The server's clock when it was read, in microseconds since 1970.

    Raises:
        StateCorruptError: If a field holds what the library cannot have written.
    """
    if not flat:
        return None
    found = {name.decode("utf-8", "replace"): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
    if found.get("format") != b"%d" % FORMAT:
        raise StateCorruptError(job_id, "format", f"is not {FORMAT}, the one that this version of the library reads")
    row: dict[str, Any] = {"id": job_id}
    for name in (*JOB_COLUMNS, *_LEASE_FIELDS):
        value = found.get(name)
        row[name] = None if value is None else _value(job_id, name, _decoded(job_id, name, value), _TEXTS)
    return job_from_row(row, now)


def attempt_from_json(job_id: str, kept: bytes) -> AttemptRecord:
    """Give an attempt of the lineage.

    Raises:
        StateCorruptError: If it holds what the library cannot have written.
    """
    try:
        found = json.loads(_decoded(job_id, "attempts", kept))
    except (ValueError, RecursionError):
        raise StateCorruptError(job_id, "attempts", "is not the JSON that the library writes") from None
    if type(found) is not dict:
        raise StateCorruptError(job_id, "attempts", "holds something that is not an object")
    row: dict[str, Any] = {"job_id": job_id}
    for name in (*_ATTEMPT_COUNTS, *_ATTEMPT_TEXTS):
        row[name] = _value(job_id, name, found.get(name), _ATTEMPT_TEXTS)
    return attempt_from_row(row)


def _decoded(job_id: str, name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise StateCorruptError(job_id, name, "is not UTF-8") from None


def _value(job_id: str, name: str, value: Any, texts: set[str]) -> Any:
    if value is not None and type(value) is not str:
        raise StateCorruptError(job_id, name, "is not text")
    if value is None or name in texts or not _INTEGER.fullmatch(value) or abs(int(value)) > _MOST:
        return value  # a number that is none is told by whoever needs one
    return int(value)
