"""What replacing a table asks of a database whose DDL is transactional.

Implemented by `_swap_sqlite.SQLiteSwapper` and `_swap_postgresql.PostgreSQLSwapper`. MySQL and MariaDB commit with
every DDL statement, and have a way of their own, in `_swap_mysql`.
"""

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import Connection

__all__ = ["Swapper", "altered"]


class Swapper(Protocol):
    """Makes a staging table like a target, and puts it into the target's place.

    Every method works in the connection's transaction, which it neither commits nor rolls back: all of its effects are
    seen by others when the caller commits, or never. Names are given bare, and may hold anything; schemas as `locate`
    gave them.
    """

    def locate(self, connection: Connection, name: str, schema: str | None) -> str | None:
        """Give the schema that the table is in, or would be made in; staging tables are made there too.

        Args:
            connection: To the target's database.
            name: The target.
            schema: What the user named; None for wherever the bare name leads.
        """
        ...

    def check(self, connection: Connection, name: str, schema: str | None) -> None:
        """Refuse a target that cannot be replaced, or whose views, foreign keys or triggers would break.

        Is called before any work, and again at the start of `swap`. A target that does not exist is fine.

        Raises:
            ConfigurationError: Naming what stands against it, and the way out.
        """
        ...

    def create_like(self, connection: Connection, name: str, schema: str | None, staging: str) -> None:
        """Make an empty staging table in the shape of an existing target, in its schema.

        It has the columns, defaults, NOT NULL, checks, primary key and everything else that decides which rows are
        accepted, so that a row the target would refuse is refused when it is loaded. What only costs time while loading
        (indexes that are not unique) may wait for `swap`.
        """
        ...

    def follow(self, connection: Connection, name: str, schema: str | None, staging: str) -> None:
        """Make of a staging table with rows what the target, if it is there, has become since.

        Is called when an attempt goes on with a run. So a check that was dropped, because it refused records, does not
        refuse them again when they are replayed. Where that cannot be done it does nothing.

        Raises:
            ConfigurationError: If the columns of the target were altered.
        """
        ...

    def swap(self, connection: Connection, name: str, schema: str | None, staging: str) -> None:
        """Put the staging table into the target's place, and drop the old table, if there was one.

        Afterwards it has the target's name, indexes and constraints under the names that they had, triggers (where
        `check` does not refuse them), comments, owner and grants, and sequences that go on where they were. One made
        without a target (from a connector's columns, by `_target.create`) has names as if made as the target. Rows are
        not written a second time. What was done to the target's columns since the staging table was made is carried
        over or refused, never undone; its checks on PostgreSQL too.

        Raises:
            ConfigurationError: As `check`, for what has come since.
        """
        ...


def altered(target: str, what: Sequence[str], staging: str) -> str:
    """Say that a target was altered while its successor was loaded."""
    return (
        f"table {target!r} was altered since the run began ({', '.join(what)}), which replacing it would undo; make "
        f"the same change to the staging table {staging!r} and run again, or start over with reset_job(job_id)"
    )
