"""Commits that do not wait for the disk, and how it is noticed that a crash undid some of them."""

from typing import Any, Literal

from sqlalchemy import Connection, Dialect

from resumable_sync._errors import ConfigurationError, StoreError
from resumable_sync._model import Job, Lease

__all__ = ["Durability", "Saved", "check_durability", "relax", "restore"]

Durability = Literal["full", "relaxed"]

NORMAL, FULL = 1, 2
"""Settings of SQLite's `synchronous`."""
UNKNOWN = None, 0, 2**62
"""Any run, and any number of batches: nothing was saved yet under this lease."""


def check_durability(durability: Any, dialect: Dialect) -> Durability:
    """Check that a store can have what is asked for, and give it.

    Raises:
        ConfigurationError: If it cannot.
    """
    if durability not in ("full", "relaxed"):
        msg = f"durability={durability!r} is not possible; give 'full' or 'relaxed'"
        raise ConfigurationError(msg)
    if durability == "relaxed" and dialect.name not in ("postgresql", "sqlite"):
        msg = (
            "durability='relaxed' is not possible on MariaDB and MySQL, which decide that for the whole server "
            "(innodb_flush_log_at_trx_commit); leave it out, or use PostgreSQL or SQLite"
        )
        raise ConfigurationError(msg)
    return "relaxed" if durability == "relaxed" else "full"


class Saved:
    """The run and the number of batches of each job, as saved by this store.

    A server that crashed may come back without the newest commits, and the attempt that made them goes on from its
    memory: what it would save then stands on batches that are gone. A job is saved only onto what was saved before.

    Only what was committed counts; where that is in doubt, both numbers do.
    """

    def __init__(self) -> None:
        self._saved: dict[str, tuple[int, tuple[str | None, int, int]]] = {}  # with the fencing token

    def expected(self, lease: Lease) -> tuple[str | None, int, int]:
        """Give the run, and the least and the greatest number of batches, that the job may have in the store."""
        token, found = self._saved.get(lease.job_id, (None, UNKNOWN))
        return found if token == lease.fencing_token else UNKNOWN

    def committed(self, lease: Lease, job: Job) -> None:
        """Note that a job was saved."""
        batches = job.processed_batches
        self._saved[lease.job_id] = lease.fencing_token, (job.run_id, batches, batches)

    def in_doubt(self, lease: Lease, job: Job) -> None:
        """Note that a job may have been saved."""
        if self.expected(lease) != UNKNOWN:
            run_id, least, most = self.expected(lease)
            batches = min(least, job.processed_batches), max(most, job.processed_batches)
            self._saved[lease.job_id] = lease.fencing_token, (run_id if job.run_id == run_id else None, *batches)

    def undone(self, lease: Lease, found: int) -> StoreError:
        """Give the error for a job that has other batches, or as many of another run."""
        _, least, most = self.expected(lease)
        other = " of another run" if least <= found <= most else ""
        return StoreError(
            f"job {lease.job_id!r} stands at batch {found}{other} in its store, and not at {most}: the server crashed "
            "and lost what durability='relaxed' had not made it keep; run again: it goes on from there"
        )

    def forget(self, lease: Lease) -> None:
        """Forget what was saved under a lease that is given back."""
        if self.expected(lease) != UNKNOWN:
            self._saved.pop(lease.job_id, None)


def relax(connection: Connection) -> int | None:
    """Let the commits of a SQLite connection not wait for the disk, where that is safe; it must be in no transaction.

    It is in WAL mode: after a power cut the file is then whole, without the newest commits.

    Returns:
        The setting before; None if nothing was changed.
    """
    before = int(_pragma(connection, "synchronous"))
    if _pragma(connection, "journal_mode") != "wal" or before < FULL:
        return None
    restore(connection, NORMAL)
    return before


def restore(connection: Connection, synchronous: int) -> None:
    """Set how the commits of a SQLite connection wait for the disk."""
    _pragma(connection, f"synchronous={synchronous:d}")


def _pragma(connection: Connection, text: str) -> Any:
    # Not by way of SQLAlchemy, which may begin a transaction, in which this cannot be set.
    cursor = connection.connection.cursor()
    try:
        cursor.execute(f"PRAGMA {text}")
        row = cursor.fetchone()
    finally:
        cursor.close()
    return row and row[0]
