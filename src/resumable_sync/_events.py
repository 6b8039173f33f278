"""What observers are told. Events hold no record and no credential."""

from typing import TypeAlias

import attrs

from resumable_sync._model import Job, Plan, SyncResult

__all__ = ["BatchCommitted", "Event", "PartsProgressed", "RecordRefused", "SyncFinished", "SyncStarted", "TryFailed"]


@attrs.frozen(kw_only=True)
class SyncStarted:
    """An attempt holds the lease and begins to work.

    Attributes:
        job: The job, `running`.
        plan: What restart detection decided, and why.
    """

    job: Job
    plan: Plan


@attrs.frozen(kw_only=True)
class BatchCommitted:
    """A batch was accepted by the sink and its checkpoint is saved.

    Attributes:
        job: The job after the batch.
        sequence: Place of the batch in its run, from 0.
        records: How many records it had.
        read_seconds: How long the engine waited for the page.
        write_seconds: How long sink and store took, commit included; in a loop of the caller's, caller and store.
        commit_seconds: How long the store took of that, to save the checkpoint and commit.
    """

    job: Job
    sequence: int
    records: int
    read_seconds: float
    write_seconds: float
    commit_seconds: float = 0.0


@attrs.frozen(kw_only=True)
class TryFailed:
    """A call failed with a transient error.

    Attributes:
        job_id: The job.
        call: What was called: `"read"`, `"write"`, `"save"`, ...
        tries: How many tries of it failed so far, from 1.
        wait: Seconds until the next try; None if there is none.
        error: `"Type: message"`, credentials masked.
    """

    job_id: str
    call: str
    tries: int
    wait: float | None
    error: str


@attrs.frozen(kw_only=True)
class RecordRefused:
    """The sink refused a record for good; it was kept as a dead letter.

    Attributes:
        job_id: The job.
        sequence: Place of its batch in the run, from 0.
        error: `"Type: message"`, credentials masked.
    """

    job_id: str
    sequence: int
    error: str


@attrs.frozen(kw_only=True)
class SyncFinished:
    """The attempt ended and gave its lease back.

    Attributes:
        result: What the attempt did; its `job` holds the error if it failed.
    """

    result: SyncResult


@attrs.frozen(kw_only=True)
class PartsProgressed:
    """Parts of a partitioned sync have moved on.

    Attributes:
        job: The job of the whole, with the sums of all parts.
        completed: How many parts are completed.
        parts: How many there are.
    """

    job: Job
    completed: int
    parts: int


Event: TypeAlias = SyncStarted | BatchCommitted | TryFailed | RecordRefused | PartsProgressed | SyncFinished
