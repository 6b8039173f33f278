"""Ending zombies that are stuck inside a COPY, on PostgreSQL.

A server that waits for the rows of a COPY heeds no limit: neither statement_timeout nor transaction_timeout nor
idle_in_transaction_session_timeout ends it. Where the process that should send them is frozen, its transaction stays
open, and with it what it has locked: the checkpoint, the keys of its rows, the staging table. So a COPY says in a
comment under which fencing token it writes, and whoever comes with a newer one has the server end it.
"""

import contextlib
import hashlib

import attrs
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from resumable_sync.sinks._tables import error_codes

__all__ = ["Zombies"]

_LOCK_NOT_AVAILABLE = "55P03"
_SHORT = 24
"""Digits of the digest that fit into the 63 bytes of a session's name, beside the token."""

# The comment comes first, since a server shows only the beginning of a statement. The role's own sessions it may end.
# The function behind pg_stat_activity, which is a join of catalogs that this connection has not read yet.
_END = text("""
    SELECT pg_terminate_backend(pid) FROM pg_stat_get_activity(NULL)
    WHERE datid = (SELECT datid FROM pg_stat_get_activity(pg_backend_pid()))
        AND usesysid = CAST(quote_ident(current_user) AS regrole) AND pid <> pg_backend_pid()
        AND state = 'active' AND CAST(
            COALESCE(substring(query FROM CAST(:mark AS text)), substring(application_name FROM CAST(:name AS text)))
            AS bigint) < :token
""")


@attrs.frozen
class Zombies:
    """Those who write into a target under an older fencing token.

    Args:
        target: Name of the target.
        schema: Its schema, as the user named it.
    """

    target: str
    schema: str | None

    def mark(self, job_id: str, token: int) -> str:
        """Give the comment that a COPY begins with."""
        return f"/* resumable_sync {self._digest(job_id)} {token} */"

    def named(self, job_id: str, token: int) -> str:
        """Give the name of a session in whose COPY nobody can put a comment."""
        return f"resumable_sync {self._digest(job_id)[:_SHORT]} {token}"

    def end(self, connection: Connection, job_id: str, token: int) -> None:
        """End those of a job that are inside a COPY; what they wrote is rolled back.

        Others are left alone: a commit on its way may still arrive.
        """
        if connection.dialect.name == "postgresql":
            mark = rf"^/\* resumable_sync {self._digest(job_id)} (\d+) \*/"
            name = rf"^resumable_sync {self._digest(job_id)[:_SHORT]} (\d+)$"
            connection.execute(_END, {"mark": mark, "name": name, "token": token})

    def end_if_blocking(self, error: DBAPIError, connection: Connection, job_id: str, token: int) -> None:
        """End them if an error says that a lock was waited for too long, so that the next try gets it.

        Args:
            error: What was raised.
            connection: Where; it can do nothing more in its transaction.
            job_id: The job.
            token: Our own token.
        """
        if _LOCK_NOT_AVAILABLE in error_codes(error):
            # The error that led here is the one to be told.
            with contextlib.suppress(Exception), connection.engine.connect() as other:
                self.end(other, job_id, token)

    def _digest(self, job_id: str) -> str:
        parts = [job_id, self.schema or "", self.target]
        return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
