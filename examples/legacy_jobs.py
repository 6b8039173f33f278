"""The jobs table that was there before, as the job store: other names, other words for the status, no lease.

    CREATE TABLE etl_jobs (
        name       text PRIMARY KEY,
        state      text NOT NULL,           -- NEW, RUNNING, STOPPED, ERROR, PARTIAL or DONE
        rows_done  bigint NOT NULL,
        position   text,                    -- the one column that was added: where reading goes on
        message    text,
        changed_at timestamptz NOT NULL
    )

Whoever looks at the table, the dashboard included, sees what he is used to. As before, only one process at a time may
work on a job: nothing in the table keeps a second one out.
"""

import psycopg

from resumable_sync import Job, JobStatus, Lease, SingleWorkerJobStore, decode_cursor, encode_cursor

STATES = {
    "NEW": JobStatus.PENDING,
    "RUNNING": JobStatus.RUNNING,
    "STOPPED": JobStatus.INTERRUPTED,
    "ERROR": JobStatus.FAILED,
    "PARTIAL": JobStatus.INCOMPLETE,
    "DONE": JobStatus.COMPLETED,
}
WORDS = {status: state for state, status in STATES.items()}

LOAD = "SELECT state, rows_done, position, message, changed_at FROM etl_jobs WHERE name = %s"
SAVE = """
    INSERT INTO etl_jobs (name, state, rows_done, position, message, changed_at) VALUES (%s, %s, %s, %s, %s, now())
    ON CONFLICT (name) DO UPDATE SET state = excluded.state, rows_done = excluded.rows_done,
        position = excluded.position, message = excluded.message, changed_at = excluded.changed_at
"""


class LegacyJobs(SingleWorkerJobStore):
    def __init__(self, dsn: str) -> None:
        self.database = psycopg.connect(dsn, autocommit=True)

    def load(self, job_id: str) -> Job | None:
        row = self.database.execute(LOAD, [job_id]).fetchone()
        if row is None:
            return None
        state, rows_done, position, message, changed_at = row
        return Job(
            id=job_id,
            status=STATES[state],
            processed_records=rows_done,
            cursor=None if position is None else decode_cursor(position),
            error=message,
            updated_at=changed_at,
        )

    def save(self, job: Job, lease: Lease) -> Lease:
        # A table that was there before has seen jobs without a position: NULL, and reading goes on by rows_done.
        position = None if job.cursor is None else encode_cursor(job.cursor)
        message = None if job.error is None else job.error.replace("\0", "").encode(errors="replace").decode()
        self.database.execute(SAVE, [job.id, WORDS[job.status], job.processed_records, position, message])
        return lease

    def jobs(self) -> list[Job]:
        names = self.database.execute('SELECT name FROM etl_jobs ORDER BY name COLLATE "C"').fetchall()
        return [job for (name,) in names if (job := self.load(name)) is not None]

    def delete(self, job_id: str) -> None:
        self.database.execute("DELETE FROM etl_jobs WHERE name = %s", [job_id])
