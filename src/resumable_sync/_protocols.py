"""The contracts: what connectors, sinks, stores and observers must do.

The docstrings are the contract. Each entry of an "Implementations must" list has its tests in the conformance suites of
`resumable_sync.testing`, which docs/reference/conformance.md names; run them on what you write.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import attrs
from typing_extensions import TypeVar

from resumable_sync._events import Event
from resumable_sync._model import AttemptRecord, Batch, Checkpoint, Cursor, DeadLetter, Job, Lease, Page

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.types import TypeEngine

__all__ = [
    "AnchoredConnector",
    "CheckpointingSink",
    "Column",
    "Connector",
    "DeadLetterStore",
    "DescribingConnector",
    "IfMoved",
    "JobStore",
    "LineageStore",
    "Observer",
    "PinnableConnector",
    "PreparingSink",
    "SeekableConnector",
    "Sink",
    "StoreTransaction",
    "TransactionalJobStore",
]

ReadT_co = TypeVar("ReadT_co", covariant=True, default=Any)
WrittenT_contra = TypeVar("WrittenT_contra", contravariant=True, default=Any)

Observer: TypeAlias = Callable[[Event], object]
"""Is called with every event, one at a time, from whatever thread it happens in. One that raises is logged and left
out from then on; it never influences the sync."""

IfMoved: TypeAlias = Literal["warn", "raise", "rerun"]
"""What to do at a resume when the last record delivered is not there as it was."""


@attrs.frozen(kw_only=True)
class Column:
    """A column of a source.

    Attributes:
        name: Its name.
        type: Its SQLAlchemy type, e.g. `sqlalchemy.Integer()`.
        nullable: Whether it may hold NULL.
        primary_key: Whether it is part of the key that records are ordered by.
        exact: Whether every value is of that type. False where it is only declared or guessed, as on SQLite.
    """

    name: str
    type: "TypeEngine[Any]"
    nullable: bool = True
    primary_key: bool = False
    exact: bool = True


@runtime_checkable
class Connector(Protocol[ReadT_co]):
    """Where records come from.

    Implementations must:

    - yield pages of 1 to `batch_size` records in cursor order, from the record after `cursor` to the last;
    - give each page the cursor after its last record, never None, of the types of the cursor codec;
    - yield exactly the records after a cursor when reading again from any cursor ever yielded, with any batch size,
      in another process, whatever happened in between;
    - end when the source is exhausted, and yield nothing at all when there is nothing after `cursor`;
    - free what `read` opened when the iterator is closed;
    - raise `CursorError` for a cursor they cannot interpret.

    They may have `preferred_prefetch`: most pages that are read ahead of the sink unless the caller says (1 without it;
    0 where a thread of its own only costs) and `preferred_batch_size`. Sinks may, too; the smaller one is taken.

    Attributes:
        fingerprint: Identity of what is read; a cursor belongs to it. None: not checked. A mapping names its parts
            (`{"query": ..., "key": ...}`), so that a change can be named. A part that changed needs consent
            (`if_changed`) before a run goes on, and three names say more: a change of `"key"` or `"paging"` makes the
            stored cursor meaningless, so that no consent helps. `"columns"` is a JSON list of the columns' names, and
            the only part that is kept readable, the others as digests: columns that were added need consent, and if
            one is gone the run cannot go on. A part for what does not matter to a cursor, such as a page size or a
            timeout, has no place here, nor have white space and the order of options.
    """

    if TYPE_CHECKING:
        # For the type checker it is read-only, so that an attribute of type `str` or `None` will do.
        @property
        def fingerprint(self) -> str | Mapping[str, str] | None: ...

    else:
        fingerprint: str | Mapping[str, str] | None

    def read(self, cursor: Cursor | None, batch_size: int) -> Iterator[Page[ReadT_co]]:
        """Yield the pages after `cursor`.

        Args:
            cursor: A cursor that this connector yielded, or None for the beginning.
            batch_size: Most records in a page, at least 1.
        """
        ...

    def count(self) -> int | None:
        """Count all records of the source; None if that is unknown or too costly. Called in a thread of its own."""
        ...


@runtime_checkable
class SeekableConnector(Protocol):
    """A connector that can resume a job of which only the number of processed records is known.

    Implementations must:

    - give the cursor from which reading gives all but the first `offset` records, and None where there are fewer.
    """

    def cursor_at(self, offset: int) -> Cursor | None:
        """Give the cursor after the first `offset` records; None for offset 0, or if there are fewer records."""
        ...


@runtime_checkable
class PinnableConnector(Protocol[ReadT_co]):
    """A connector whose run keeps its columns, whatever is added to the source meanwhile.

    Its fingerprint is a mapping with the part `"columns"`, a JSON list of names. An attempt reads by what `pin` gives,
    which nobody else has, so that others may use this connector meanwhile.

    Implementations must:

    - give a connector of the same records with exactly the pinned columns, in their order, whose cursors mean the same;
    - stay as they are.
    """

    def pin(self, columns: Sequence[str]) -> Connector[ReadT_co]:
        """Give a connector that reads the same with exactly these columns, in this order; nothing is read yet.

        Args:
            columns: Those that the run began with; each is among the columns of the fingerprint.
        """
        ...


@runtime_checkable
class AnchoredConnector(Protocol):
    """A connector that can tell whether the last record delivered is still there as it was.

    It is asked once at every resume, and when a plan is made, before anything is read. If the record is gone or
    changed, the source may have been reloaded, restored from a backup, or be another one.

    Implementations must:

    - say nothing of a record that is as it was, in whatever process they are asked;
    - say something of one that was changed or removed;
    - bear any cursor, and say nothing of one that they did not yield: `read` refuses it.

    A short digest of the record in the cursor will do; its values do not belong there.

    Attributes:
        if_moved: What to do then: `"warn"` goes on and logs a warning, `"raise"` refuses with `SourceChangedError`,
            `"rerun"` starts a new run.
    """

    if_moved: IfMoved

    def moved(self, cursor: Cursor) -> str | None:
        """Say in a few words, without values, what became of the last record before `cursor`, e.g. `"is gone"`.

        Returns:
            None if it is there as it was; also for a cursor that does not tell, or is none of this connector's.
        """
        ...


@runtime_checkable
class DescribingConnector(Protocol):
    """A connector that knows its columns, so that a sink can create its target.

    Implementations must:

    - name each column once, in the order in which records hold them.
    """

    def columns(self) -> Sequence[Column]:
        """Give names and types of the columns, in the order of the records."""
        ...


@runtime_checkable
class Sink(Protocol[WrittenT_contra]):
    """Where batches go, in cursor order.

    Implementations must:

    - accept a batch whole or raise; an exception from `write` means that nothing of it counts as delivered;
    - bear `begin` again after a death, and prepare the target anew whenever `job.has_progress` is false;
    - neither commit nor roll back the connection they are given;
    - declare `transactional` only if everything they write goes through that connection;
    - declare `idempotent` only if writing a record again has no effect;
    - keep what they published of a run that ended `incomplete` while its dead letters come (`publishes_incomplete`).

    Attributes:
        transactional: The sink writes on the store's connection. It is then called inside the transaction that saves
            the checkpoint; without it `connection` is None.
        idempotent: Writing a record again has no effect.
        publishes_incomplete: Optional; False where it is missing. `complete` is called for a run that ends `incomplete`
            too, in the transaction that says so. Its dead letters are written afterwards by replays, maybe several:
            each calls `begin` (`job.status` is `incomplete`), and the one that delivers the last letter calls
            `complete` again. Without this attribute only that one does.
        preferred_batch_size: Optional; most records of a batch unless the caller says, 1,000 where it is missing.
    """

    transactional: bool
    idempotent: bool

    def begin(self, job: Job, connection: "Connection | None") -> None:
        """Prepare the target; called at the start of every attempt, after its lease was got."""
        ...

    def write(self, batch: Batch[WrittenT_contra], connection: "Connection | None") -> None:
        """Write a batch; on return it is delivered (with a `connection`: when that commits)."""
        ...

    def complete(self, job: Job, connection: "Connection | None") -> None:
        """Finish a run whose every record was accepted; runs in the transaction that marks the job completed.

        With `publishes_incomplete` also one that left dead letters; `job.status` tells which.
        """
        ...


@runtime_checkable
class PreparingSink(Protocol):
    """A sink that wants to know the source's columns."""

    def prepare(self, columns: Sequence[Column]) -> None:
        """Take the connector's columns; called before `begin`, where the connector can tell them."""
        ...


@runtime_checkable
class CheckpointingSink(Protocol):
    """A sink that writes rows, checkpoint and fencing token together into a transactional target of its own.

    Implementations must:

    - tell after every batch, to whatever process asks, how far the target got in the run, and nothing of other runs;
    - refuse `write` and `checkpoint` under an older token once `checkpoint` was called under a newer one
      (`LeaseLostError`), and change nothing then.
    """

    def checkpoint(self, job: Job) -> Checkpoint | None:
        """Say how far the target got, and fence out every attempt before this one.

        Called at the start of an attempt, before `begin`. `job.lease` holds the fencing token.

        Returns:
            The checkpoint of `job.run_id` in the target; None if the target has none of that run.

        Raises:
            LeaseLostError: If the target has seen a newer token.
        """
        ...


@runtime_checkable
class JobStore(Protocol):
    """Where jobs, checkpoints and leases are kept.

    Implementations must:

    - make `acquire` atomic: of any number of concurrent callers at most one gets the lease;
    - measure expiry with the store's own clock, never with the caller's;
    - give every grant a larger fencing token than any before it for that job id, also after `delete` (start from the
      store's clock in microseconds);
    - refuse `save`, `renew` and `release` under a token that is not the newest with `LeaseLostError`, and change
      nothing then; a lease that merely ran out, with no other granted since, is still good;
    - store all of a job or nothing, durably when `save` returns;
    - raise `StoreError` for what they cannot do, never answer "no such job" instead;
    - keep every field of `Job` (`SingleWorkerJobStore` is the base for tables that cannot).
    """

    def load(self, job_id: str) -> Job | None:
        """Give the job as stored, its `lease` only while that is alive; None if there is no such job.

        Raises:
            StateCorruptError: If the stored state is damaged.
        """
        ...

    def jobs(self) -> Iterable[Job]:
        """Give all jobs, ordered by id."""
        ...

    def acquire(self, job_id: str, *, owner: str, ttl: float, replacing: int | None = None) -> Lease:
        """Get the lease of a job, which is created (`pending`) if it is new.

        The same `owner` may acquire again, since its first answer may have been lost: it gets a new token, and a stop
        that was requested stays so. A grant to another owner clears it.

        Args:
            job_id: The job: 1 to 255 characters, compared exactly.
            owner: Unique to an attempt, at most 255 characters.
            ttl: Seconds until the lease ends unless it is renewed or saved with.
            replacing: Take over from the holder of this token, known to be dead. Succeeds exactly when this is the
                newest token, alive or expired or released; nothing else counts.

        Raises:
            JobHeldError: If the lease of another owner is alive, or the newest token is not `replacing`.
        """
        ...

    def renew(self, lease: Lease, ttl: float) -> Lease:
        """Let the lease end `ttl` seconds from now; the answer tells whether a stop was requested.

        Raises:
            LeaseLostError: If its token is not the newest.
        """
        ...

    def save(self, job: Job, lease: Lease) -> Lease:
        """Store all of `job` (but its `lease`), and extend the lease by its ttl, in one statement.

        Saving the same job again is fine. The answer tells whether a stop was requested.

        Raises:
            LeaseLostError: If the lease's token is not the newest.
        """
        ...

    def release(self, lease: Lease) -> None:
        """Give the lease back; the token stays the newest. Releasing again is fine.

        Raises:
            LeaseLostError: If its token is not the newest.
        """
        ...

    def request_stop(self, job_id: str) -> None:
        """Ask the holder of a live lease to stop; it sees that at its next `save` or `renew`. Else does nothing."""
        ...

    def delete(self, job_id: str) -> None:
        """Forget the job, its dead letters, lineage and lease; an attempt at work loses its lease."""
        ...


class StoreTransaction(Protocol):
    """An open transaction of a store, in which a sink may write too."""

    @property
    def connection(self) -> "Connection":
        """The open transaction's connection; neither commit nor roll it back."""
        ...

    def save(self, job: Job, lease: Lease) -> Lease:
        """Store the job as `JobStore.save` does, when the transaction commits.

        Raises:
            LeaseLostError: If the lease's token is not the newest; have the transaction rolled back then.
        """
        ...


@runtime_checkable
class TransactionalJobStore(JobStore, Protocol):
    """A store whose transactions can carry the sink's rows: rows and checkpoint commit together or not at all.

    Implementations must:

    - commit `transaction()` when its block ends and roll it back when an exception leaves it, with rows and job
      together in both cases;
    - bear that the block's `__exit__` is called again: a signal handler that raises may have cut the first call short;
    - refuse, before it happens, that the block commits or rolls back the connection itself (`ConfigurationError`).
    """

    def transaction(self) -> AbstractContextManager[StoreTransaction]:
        """Open a transaction that commits at the end of the block."""
        ...

    def enlist(self, connection: "Connection") -> StoreTransaction:
        """Take part in a transaction that the caller owns and commits, in the store's database.

        Raises:
            ConfigurationError: If the connection does not lead to the store's database.
        """
        ...


@runtime_checkable
class DeadLetterStore(TransactionalJobStore, Protocol):
    """A transactional store that also keeps refused records.

    Implementations must:

    - make every change of dead letters part of the given transaction;
    - give letters in the order in which they were added, all types of the cursor codec intact.
    """

    def add_dead_letters(self, letters: Sequence[DeadLetter], transaction: StoreTransaction) -> None:
        """Keep letters (their `id` is given by the store)."""
        ...

    def dead_letters(self, job_id: str) -> Iterable[DeadLetter]:
        """Give the letters of a job, in the order in which they were added; a snapshot."""
        ...

    def remove_dead_letter(self, letter: DeadLetter, transaction: StoreTransaction) -> None:
        """Remove one letter, by its job and id. Removing it again is fine."""
        ...

    def purge_dead_letters(self, job_id: str, transaction: StoreTransaction) -> None:
        """Remove all letters of a job."""
        ...


@runtime_checkable
class LineageStore(JobStore, Protocol):
    """A store that also keeps who worked on a job, from where to where, and how each attempt ended.

    Implementations must:

    - show an attempt from its grant on, with how far it is at every moment, and at no cost of a statement per batch;
    - end it with `release`: by the status it saved the job with, else as `interrupted`; a lease under which nothing was
      saved, or the job only as `pending`, leaves nothing behind then;
    - end one that gave nothing back when the next lease is granted: as `died`, unless it had said how it ended;
    - keep the same owner that acquires again as the same attempt, under its new token;
    - change nothing for a lease that is lost;
    - keep at least the newest 100 attempts of a job, in bounded space, whatever runs there were;
    - forget them with `delete`.
    """

    def attempts(self, job_id: str) -> Sequence[AttemptRecord]:
        """Give the attempts of a job, the oldest first; none if there is no such job.

        Raises:
            StateCorruptError: If what is kept of them is damaged. (A sync does not look at it, and goes on.)
        """
        ...
