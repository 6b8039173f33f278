"""The values that travel between engine, connectors, sinks and stores.

All are frozen and keyword-only (`Page` takes its fields in order too) and pickle. Times are aware UTC datetimes,
durations seconds, counts integers.
"""

import hashlib
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from json.encoder import encode_basestring_ascii
from typing import Any, Generic, Literal, TypeAlias

import attrs
from typing_extensions import TypeVar

from resumable_sync._cursor import encode_cursor
from resumable_sync._python_values import python_records

__all__ = [
    "Action",
    "AttemptRecord",
    "Batch",
    "Checkpoint",
    "Cursor",
    "DeadLetter",
    "Guarantee",
    "Job",
    "JobStatus",
    "Lease",
    "Outcome",
    "Page",
    "Plan",
    "RecordT",
    "SyncResult",
]

RecordT = TypeVar("RecordT", default=Any)
RecordT_co = TypeVar("RecordT_co", covariant=True, default=Any)

Cursor: TypeAlias = Any
"""Where reading goes on. One of the types of `resumable_sync._cursor`; only the connector interprets it."""

Action: TypeAlias = Literal["new", "resume", "skip", "held", "refuse"]

Outcome: TypeAlias = Literal["running", "completed", "incomplete", "interrupted", "failed", "died"]

_NAMED_OWNER = re.compile(r"(?P<host>[^:]+):(?P<pid>[0-9]{1,18}):")


class JobStatus(StrEnum):
    """Where a job stands.

    A dead process leaves `running` behind; that its lease has ended is what shows it.
    """

    PENDING = "pending"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    INCOMPLETE = "incomplete"
    COMPLETED = "completed"

    @property
    def exhausted(self) -> bool:
        """Whether the run read its source to the end (`completed` or `incomplete`)."""
        return self in (JobStatus.COMPLETED, JobStatus.INCOMPLETE)


class Guarantee(StrEnum):
    """How often a record reaches the target, whatever dies at whatever moment.

    `exactly_once`: the sink writes in the store's transaction, or keeps its own checkpoint.
    `effectively_once`: the sink declares that writing a record again has no effect.
    `at_least_once`: at most one batch is delivered again per death.
    """

    EXACTLY_ONCE = "exactly_once"
    EFFECTIVELY_ONCE = "effectively_once"
    AT_LEAST_ONCE = "at_least_once"


# What is made anew for every batch has no slots: a frozen object with a dict is made in half the time.


@attrs.frozen(kw_only=True, slots=False)
class Lease:
    """The exclusive right to work on a job, which ends by itself unless it is renewed.

    Attributes:
        job_id: The job.
        owner: Who holds it; unique to an attempt.
        fencing_token: Grows with every grant; a write that carries an older one is refused.
        expires_at: When it ends, by the store's clock.
        stop_requested: Whether somebody asked the owner to stop after the batch in hand.
    """

    job_id: str
    owner: str
    fencing_token: int
    expires_at: datetime
    stop_requested: bool = False


@attrs.frozen(kw_only=True, slots=False)
class Job:
    """The full sync of one source, as the store keeps it.

    Attributes:
        id: What the caller named it: 1 to 255 characters.
        status: Where it stands.
        run: Number of the current run, from 1; 0 before the first. Of a job that was reset, that of the run before.
        run_id: UUID of the current run; tells it from one of the same number after a delete.
        attempt: How many attempts the current run has had.
        cursor: Where reading goes on; None is the beginning.
        processed_records: Records accepted by the sink in this run.
        processed_batches: Batches accepted by the sink in this run.
        total_records: What the connector counted at the start of the run, if it could.
        dead_letters: Records of this run that the sink refused for good.
        fingerprint: Identity of what the cursor belongs to, as text.
        stalled_attempts: Attempts in a row that started and saved no checkpoint.
        batch_size: Records per batch that `batch_size="auto"` came to, 1 or more; None if it never ran.
        error: Why the last attempt failed: `"Type: message"`, at most 2,000 characters.
        lease: Who works on it now; None unless alive by the store's clock.
        created_at: When the job was first known.
        started_at: When the current run began.
        updated_at: When the checkpoint last moved, or the run began.
        finished_at: When the last attempt ended; None while one works.
    """

    id: str
    status: JobStatus = JobStatus.PENDING
    run: int = 0
    run_id: str | None = None
    attempt: int = 0
    cursor: Cursor | None = None
    processed_records: int = 0
    processed_batches: int = 0
    total_records: int | None = None
    dead_letters: int = 0
    fingerprint: str | None = None
    stalled_attempts: int = 0
    batch_size: int | None = None
    error: str | None = None
    lease: Lease | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    updated_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def has_progress(self) -> bool:
        """Whether anything of the current run was delivered."""
        return self.cursor is not None or self.processed_records > 0


@attrs.frozen(kw_only=True)
class AttemptRecord:
    """One attempt in the lineage of a job: who worked on it, from where to where, and how that ended.

    A replay of dead letters is an attempt too, with the number of the one before it; so is one that died before it
    saved the job for the first time.

    Attributes:
        job_id: The job.
        run: Number of the run it worked on.
        attempt: Number of the attempt in its run.
        owner: Who held the lease.
        fencing_token: Token of its lease, the newest one; attempts are ordered by it.
        started_at: When it got the lease, by the store's clock.
        ended_at: When it ended; for one that died, when its successor took over. None before that.
        from_cursor: Where the job stood when it began; None is the beginning.
        from_records: Records of the run that were processed then.
        to_cursor: Where it left the job, or stands now.
        to_records: Records of the run that were processed then.
        outcome: `"running"` while its lease is alive; the status it left the job with; `"died"` if its lease ended and
            it never said how it went.
        error: Why it failed, as in `Job.error`.
    """

    job_id: str
    run: int
    attempt: int
    owner: str
    fencing_token: int
    started_at: datetime
    ended_at: datetime | None = None
    from_cursor: Cursor | None = None
    from_records: int = 0
    to_cursor: Cursor | None = None
    to_records: int = 0
    outcome: Outcome = "running"
    error: str | None = None

    @property
    def host(self) -> str | None:
        """The host it ran on; None if the owner is not named as the library does."""
        named = _NAMED_OWNER.match(self.owner)
        return None if named is None else named["host"]

    @property
    def pid(self) -> int | None:
        """The number of its process; None if the owner is not named as the library does."""
        named = _NAMED_OWNER.match(self.owner)
        return None if named is None else int(named["pid"])


@attrs.frozen(slots=False)
class Page(Generic[RecordT_co]):
    """What a connector yields: records, and the cursor after them.

    Attributes:
        records: 1 to `batch_size` records in cursor order: a list, or a pyarrow `RecordBatch` or `Table`.
        cursor: "Everything up to here was delivered"; never None.
        columns: The column names where records are tuples.
    """

    records: Sequence[RecordT_co]
    cursor: Cursor
    columns: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.records)


@attrs.frozen(kw_only=True, slots=False)
class Batch(Generic[RecordT_co]):
    """A page on its way to the sink, with the identity of its job, run and place.

    Attributes:
        records: As in `Page`.
        columns: As in `Page`.
        cursor: The cursor after these records.
        previous_cursor: The cursor before them; None is the beginning.
        job_id: The job.
        run: Number of the run.
        sequence: Counts from 0 within the run, over all attempts.
        fencing_token: Token of the lease that this batch is written under.
        key: Idempotency key, 32 hexadecimal digits: a redelivered batch has the same key exactly when it spans the
            same records. Another batch size gives other keys.
    """

    records: Sequence[RecordT_co]
    columns: Sequence[str] | None = None
    cursor: Cursor
    previous_cursor: Cursor | None
    job_id: str
    run: int
    sequence: int
    fencing_token: int
    key: str

    def __len__(self) -> int:
        return len(self.records)

    def dicts(self) -> list[dict[str, Any]]:
        """Give the records as dicts by column name.

        Raises:
            ValueError: If the records are tuples and the connector named no columns, or Arrow data with a value that
                Python has not, such as parts of a microsecond or 24:00.
        """
        records: Any = self.records
        if hasattr(records, "to_pylist"):
            return python_records(records)
        if self.columns is not None:
            columns = tuple(self.columns)
            return [
                dict(record) if isinstance(record, Mapping) else dict(zip(columns, record, strict=True))
                for record in records
            ]
        if all(isinstance(record, Mapping) for record in records):
            return [dict(record) for record in records]
        msg = f"batch {self.sequence} of job {self.job_id!r} has no column names; give them in Page(columns=...)"
        raise ValueError(msg)


@attrs.frozen(kw_only=True)
class Checkpoint:
    """How far a sink got that keeps its own checkpoint, beside its rows.

    Attributes:
        run_id: The run the rows belong to.
        cursor: The cursor after the last row written; None if there is none.
        processed_records: Records written in this run.
        processed_batches: Batches written in this run.
    """

    run_id: str | None
    cursor: Cursor | None
    processed_records: int
    processed_batches: int


@attrs.frozen(kw_only=True)
class DeadLetter:
    """A record that the sink refused for good.

    Attributes:
        id: Place of the letter in its job, growing in the order of refusal; 0 before it is stored.
        job_id: The job.
        run: Number of the run.
        record: The record, of the types of the cursor codec (a list, a tuple or a dict of them).
        columns: The column names where the record is a tuple.
        error: Why it was refused: `"Type: message"`.
        cursor: The cursor before the batch it came in; None is the beginning.
        key: Key of the batch it came in.
        created_at: When it was refused.
    """

    id: int = 0
    job_id: str
    run: int
    record: Any
    columns: Sequence[str] | None = None
    error: str
    cursor: Cursor | None = None
    key: str
    created_at: datetime | None = None


@attrs.frozen(kw_only=True)
class Plan:
    """What `run_full_sync` would do.

    Attributes:
        action: `"new"`, `"resume"`, `"skip"`, `"held"` or `"refuse"`.
        reason: Why, in one sentence.
        cursor: Where reading would start; None is the beginning.
        processed_records: Records that the run has already delivered there.
        total_records: What the run counted at its start, if it did.
        guarantee: What holds for the target.
        job: The job as stored; None if there is none.
        format: The form in which records may go from connector to sink, if the target suits it, such as
            `"postgresql-copy-text"`; `"records"`: as the connector gives them of itself, which are Python values, or
            Arrow data of those that read it.
        durability: What a power cut, or a crash of the store's server, may cost, as an attribute `durability` of the
            store says: `"full"`: nothing that was committed; `"relaxed"`: the newest batches are read and delivered
            again, exactly once all the same where the sink writes in the store's transactions.
    """

    action: Action
    reason: str
    cursor: Cursor | None
    processed_records: int
    total_records: int | None
    guarantee: Guarantee
    job: Job | None
    format: str = "records"
    durability: Literal["full", "relaxed"] = "full"


@attrs.frozen(kw_only=True)
class SyncResult:
    """What a call of `run_full_sync` did.

    Attributes:
        job: The job as finally stored.
        action: What restart detection decided, as in `Plan`.
        status: Status of the job.
        records: Records delivered by this attempt.
        batches: Batches delivered by this attempt.
        seconds: How long the call took.
        reason: Why it was interrupted, skipped or held; else None.
        guarantee: What holds for the target.
        format: The form in which records went from connector to sink, as in `Plan`.
    """

    job: Job
    action: Action
    status: JobStatus
    records: int
    batches: int
    seconds: float
    reason: str | None
    guarantee: Guarantee
    format: str = "records"


def changed(job: Job, **changes: Any) -> Job:
    """Give a job with some fields changed: what `attrs.evolve` does, in a tenth of its time, for every batch."""
    new = object.__new__(Job)
    vars(new).update(vars(job), **changes)
    return new


def utc_now() -> datetime:
    """Give the time by this host's clock, aware, in UTC."""
    return datetime.now(UTC)


def new_run_id() -> str:
    """Give the id of a new run."""
    return str(uuid.uuid4())


def batch_key(job_id: str, run_id: str | None, run: int, previous: str, cursor: str) -> str:
    """Give the idempotency key of the batch between two encoded cursors."""
    # A list in JSON; `json.dumps` of the whole takes twice as long.
    of_run = encode_basestring_ascii(run_id) if run_id else run
    of_job, before, after = map(encode_basestring_ascii, (job_id, previous, cursor))
    parts = f"[{of_job}, {of_run}, {before}, {after}]"
    return hashlib.blake2b(parts.encode("ascii"), digest_size=16).hexdigest()


def same_cursor(one: Cursor | None, other: Cursor | None) -> bool:
    """Whether two cursors are the same value, compared as stored (NaN equals itself, 1 differs from True)."""
    return encode_cursor(one) == encode_cursor(other)


def as_records(records: Iterable[RecordT]) -> Iterator[RecordT]:
    """Iterate over the records of a page or batch, one Python value each.

    Raises:
        ValueError: If they are Arrow data with a value that Python has not; its text does not hold the value.
    """
    return iter(python_records(records) if hasattr(records, "to_pylist") else records)
