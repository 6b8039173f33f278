"""Values that a store has to keep exactly: every type of the cursor codec, and jobs with extreme fields."""

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import attrs

from resumable_sync._cursor import encode_cursor
from resumable_sync._model import Job, JobStatus

__all__ = ["CURSORS", "EXACT_IDS", "REFUSED_IDS", "full_job", "job_facts"]

CURSORS: Mapping[str, Any] = MappingProxyType({
    "zero": 0,
    "negative": -7,
    "beyond 53 bits": 2**53 + 1,
    "beyond 64 bits": -(2**200) - 1,
    "true": True,
    "false": False,
    "float": 0.1,
    "smallest float": 5e-324,
    "negative zero": -0.0,
    "nan": math.nan,
    "infinity": -math.inf,
    "empty text": "",
    "text": "Zürich 漢字 \U0001f600 '\"\\%\n",
    "U+0000 in text": "a\x00b",
    "lone surrogates": "\udc80\ud83d\ude00",
    "no bytes": b"",
    "all bytes": bytes(range(256)),
    "decimal": Decimal("1.50"),
    "decimal exponent": Decimal("-1E+400"),
    "decimal NaN": Decimal("NaN"),
    "datetime": datetime(2026, 1, 31, 12, 0, 0, 1),  # noqa: DTZ001 - a cursor may hold a naive time
    "datetime with zone": datetime(
        2026, 10, 25, 2, 30, 0, 999_999, tzinfo=timezone(timedelta(hours=-3), "BRT"), fold=1
    ),
    "date": date(1, 1, 1),
    "time": time(23, 59, 59, 999_999, tzinfo=UTC),
    "timedelta": timedelta(days=-1, microseconds=1),
    "uuid": UUID("12345678-1234-5678-1234-567812345678"),
    "list": [1, "a", None],
    "tuple": (1, ("a", [None, ()])),
    "dict": {"after": [1, Decimal("0.0")], "$tuple": {"": b"\xff"}},
    "long text": "x" * 60_000,
})
"""A cursor of every type that the codec knows, by what is special about it."""

EXACT_IDS = (
    "orders",
    "Orders",
    "ORDERS",
    "orders ",
    "orders  ",
    " orders",
    "ordérs",
    "orde\u0301rs",
    "straße",
    "strasse",
    "o'r\"d`e\\r",
    "100%",
    "100_",
    "%",
    "_",
    "a\nb",
    "a\tb",
    "; DROP TABLE jobs; --",
    ":name",
    "?",
    "%(id)s",
    "\U0001f600",
    "x" * 255,
    "\U0001f600" * 255,
)
"""Ids that a careless comparison takes for one another, or that careless quoting breaks."""

REFUSED_IDS = ("", "x" * 256)
"""Ids that no store takes."""

_MOST = 2**63 - 1


def full_job(job_id: str, **changes: Any) -> Job:
    """Give a job whose every field differs from its default, with the largest counters that 64 bits hold."""
    moment = datetime(2026, 11, 24, 23, 59, 59, 123_457, tzinfo=UTC)
    job = Job(
        id=job_id,
        status=JobStatus.RUNNING,
        run=2**31 - 1,
        run_id="0f8fad5b-d9cb-469f-a165-70867728950e",
        attempt=2**31 - 1,
        cursor=[42, "é"],
        processed_records=_MOST,
        processed_batches=_MOST - 1,
        total_records=_MOST - 2,
        dead_letters=_MOST - 3,
        fingerprint='{"key":"a\'%1"}',
        stalled_attempts=2**31 - 2,
        batch_size=10_000_000,
        error="ValueError: " + "é\U0001f600" * 994,
        created_at=moment,
        started_at=moment + timedelta(microseconds=1),
        updated_at=moment + timedelta(microseconds=2),
        finished_at=moment + timedelta(microseconds=3),
    )
    return attrs.evolve(job, **changes)


def job_facts(job: Job | None, kept: frozenset[str] | None = None) -> dict[str, Any]:
    """Give the fields of a job that a store must keep, comparable with `==` (NaN included), without its lease.

    Args:
        job: The job; None gives no fields.
        kept: Names of the fields that the store keeps; None for all of them.
    """
    if job is None:
        return {}
    facts = {
        field.name: getattr(job, field.name)
        for field in attrs.fields(Job)
        if field.name != "lease" and (kept is None or field.name in kept)
    }
    if "cursor" in facts:
        facts["cursor"] = encode_cursor(job.cursor)
    return facts
