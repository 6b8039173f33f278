"""The statements that `SQLJobStore` sends, built once for a store."""

from functools import cached_property

from sqlalchemy import TextClause, TextualSelect

from resumable_sync._model import JobStatus
from resumable_sync.stores._prepared import Prepared
from resumable_sync.stores._rows import JOB_COLUMNS, LEASE_COLUMNS, LETTER_COLUMNS
from resumable_sync.stores._schema import JOB_COLUMN_SINCE, SCHEMA_VERSION
from resumable_sync.stores._sql_text import SQLText

__all__ = ["Statements"]

# A released lease has no ttl: what its owner still sends is refused.
_HELD = "id = :b_id AND fencing_token = :b_token AND lease_ttl IS NOT NULL"

# Whether to stop comes first, since on MySQL what follows sees the new owner.
_GRANT = """
    UPDATE {jobs} SET
        stop_requested = CASE WHEN lease_owner = :b_owner THEN stop_requested ELSE 0 END,
        fencing_token = {greatest}(
            fencing_token + 1,
            {clock},
            COALESCE((SELECT value FROM {meta} WHERE name = 'newest_deleted_token'), 0) + 1
        ),
        lease_owner = :b_owner, lease_ttl = :b_ttl, lease_expires_at = {clock} + :b_ttl
    WHERE id = :b_id
"""

# Once the job is saved, the transaction holds its row, which a successor waits for: it may then be idle for as long as
# the lease lasts, but not longer. That it is set here costs no round trip.
_LIMIT_IDLE = (
    "set_config('idle_in_transaction_session_timeout', "
    "CAST(LEAST(GREATEST(lease_ttl / 1000, 10000), 2147483647) AS TEXT), true)"
)
# A job that ends must have ended: its caller is told so.
_RELAX = (
    "set_config('synchronous_commit', "
    f"CASE status WHEN '{JobStatus.RUNNING}' THEN 'off' ELSE current_setting('synchronous_commit') END, true)"
)

# The row of another run may have as many batches.
_EXPECTED = (
    "processed_batches BETWEEN :b_least AND :b_most "
    "AND (CAST(:b_run AS VARCHAR(36)) IS NULL OR run_id = CAST(:b_run AS VARCHAR(36)))"
)


class Statements:
    """All statements on the tables of one store.

    Parameters are named `b_id`, `b_token`, `b_owner`, `b_ttl` (microseconds), and after the columns of a row.

    Args:
        sql: Writes them.
        version: Which version of the tables there is; of an older one `load` and `jobs` may be used, and nothing else.
        relaxed: Whether the commit of a save on PostgreSQL need not wait for the disk. Saves then need `b_run`, the
            run that the job must have, or None, and `b_least` and `b_most`, the numbers of its batches.
    """

    def __init__(self, sql: SQLText, version: int = SCHEMA_VERSION, *, relaxed: bool = False) -> None:
        self._sql = sql
        self._version = version
        self._relaxed = relaxed

    # Each is written when it is needed: what a process does not need it does not pay for at its start.

    @cached_property
    def load(self) -> TextualSelect:
        return self._jobs("WHERE id = :b_id")

    @cached_property
    def jobs(self) -> TextualSelect:
        return self._jobs("ORDER BY id")

    def _jobs(self, which: str) -> TextualSelect:
        return self._sql.query(f"SELECT {self._columns} FROM {{jobs}} {which}", "id", "lease_owner")

    @cached_property
    def _columns(self) -> str:
        columns = "id", *JOB_COLUMNS, *LEASE_COLUMNS
        there = self._sql.names(name for name in columns if JOB_COLUMN_SINCE.get(name, 1) <= self._version)
        return f"{there}, {{clock}} AS now"

    @cached_property
    def held_batches(self) -> TextClause:
        return self._sql.write(f"SELECT processed_batches FROM {{jobs}} WHERE {_HELD}")

    @cached_property
    def create(self) -> TextClause:
        return self._sql.write(f"""
            {{insert}} {{jobs}} (
                id, status, run, attempt, processed_records, processed_batches, dead_letters, stalled_attempts,
                created_at, fencing_token, stop_requested
            ) VALUES (:b_id, '{JobStatus.PENDING}', 0, 0, 0, 0, 0, 0, {{clock}}, 0, 0) {{unless_there}}
        """)

    @cached_property
    def grant(self) -> TextClause | TextualSelect:
        free = "(lease_owner IS NULL OR lease_owner = :b_owner OR lease_expires_at <= {clock})"
        return self._granting(free)

    @cached_property
    def replace(self) -> TextClause | TextualSelect:
        return self._granting("fencing_token = :b_token")

    def _granting(self, condition: str) -> TextClause | TextualSelect:
        """Give an UPDATE that returns what `load` does, where the database can."""
        update = f"{_GRANT} AND {condition}"
        if not self._sql.dialect.update_returning:
            return self._sql.write(update)
        granted = self._sql.query(f"{update} RETURNING {self._columns}", "id", "lease_owner")
        return granted.execution_options(stream_results=False)  # an engine that streams would declare a cursor for it

    @cached_property
    def save(self) -> Prepared:
        return self._save(_RELAX) if self._relaxed else self._save()

    @cached_property
    def save_enlisted(self) -> Prepared:
        """Saves in a transaction of the caller's, which commits as he wants it."""
        return self._save() if self._relaxed else self.save

    def _save(self, *also: str) -> Prepared:
        job = self._sql.values(JOB_COLUMNS)
        where = f"{_HELD} AND {_EXPECTED}" if self._relaxed else _HELD
        limit = (_LIMIT_IDLE,) if self._sql.dialect.name == "postgresql" else ()
        values = f"{job}, saved_token = fencing_token, lease_expires_at = {{clock}} + lease_ttl"
        return self._extending(values, where, *limit, *also)

    @cached_property
    def renew(self) -> Prepared:
        return self._extending("lease_ttl = :b_ttl, lease_expires_at = {clock} + :b_ttl", _HELD)

    def _extending(self, values: str, where: str, *also: str) -> Prepared:
        dialect = self._sql.dialect
        update = f"UPDATE {{jobs}} SET {values} WHERE {where}"
        if dialect.update_returning:
            update += " RETURNING " + ", ".join(["lease_expires_at", "stop_requested", *also])
        return Prepared(self._sql.write(update), dialect, returns=dialect.update_returning)

    @cached_property
    def extended(self) -> Prepared | None:
        """Asks what `save` and `renew` made of the lease; None where they tell it themselves."""
        dialect = self._sql.dialect
        if dialect.update_returning:
            return None
        asked = self._sql.write("SELECT lease_expires_at, stop_requested FROM {jobs} WHERE id = :b_id")
        return Prepared(asked, dialect, returns=True)

    @cached_property
    def release(self) -> TextClause:
        return self._sql.write("""
            UPDATE {jobs} SET lease_owner = NULL, lease_ttl = NULL, lease_expires_at = NULL, stop_requested = 0
            WHERE id = :b_id AND fencing_token = :b_token
        """)

    @cached_property
    def request_stop(self) -> TextClause:
        return self._sql.write("UPDATE {jobs} SET stop_requested = 1 WHERE id = :b_id AND lease_expires_at > {clock}")

    @cached_property
    def token_to_delete(self) -> TextClause:
        return self._sql.write("SELECT fencing_token FROM {jobs} WHERE id = :b_id {for_update}")

    @cached_property
    def note_deleted(self) -> TextClause:
        newest = "{greatest}(value, :b_token)"
        return self._sql.write(f"UPDATE {{meta}} SET value = {newest} WHERE name = 'newest_deleted_token'")

    @cached_property
    def delete(self) -> TextClause:
        return self._sql.write("DELETE FROM {jobs} WHERE id = :b_id")

    @cached_property
    def add_letter(self) -> TextClause:
        columns, values = self._sql.names(LETTER_COLUMNS), ", ".join(f":{name}" for name in LETTER_COLUMNS)
        return self._sql.write(f"""
            INSERT INTO {{dead_letters}} ({columns}, created_at) VALUES ({values}, COALESCE(:b_created_at, {{clock}}))
        """)

    @cached_property
    def letters(self) -> TextualSelect:
        columns = self._sql.names(("id", *LETTER_COLUMNS, "created_at"))
        return self._sql.query(f"SELECT {columns} FROM {{dead_letters}} WHERE job_id = :b_id ORDER BY id", "job_id")

    @cached_property
    def remove_letter(self) -> TextClause:
        return self._sql.write("DELETE FROM {dead_letters} WHERE job_id = :b_id AND id = :b_letter")

    @cached_property
    def purge_letters(self) -> TextClause:
        return self._sql.write("DELETE FROM {dead_letters} WHERE job_id = :b_id")
