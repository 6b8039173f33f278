"""A table of jobs, and what each of them needs."""

from collections.abc import Iterable, Mapping

from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from resumable_sync import Job
from resumable_sync._fingerprint import is_verification
from resumable_sync._parts.plan import PartsPlan, part_id
from resumable_sync.cli._output import age, counted, one_line, progress_of

__all__ = ["holder", "jobs_table", "needs", "standing", "wholes"]

STYLES = {
    "running": "cyan",
    "completed": "green",
    "incomplete": "yellow",
    "interrupted": "yellow",
    "failed": "red",
    "died": "red",
    "pending": "dim",
}
MANY_DEATHS = 2


def standing(job: Job) -> str:
    """Give the status of a job as people understand it: `died` where a dead process left `running` behind."""
    return "died" if job.status == "running" and job.lease is None else str(job.status)


def holder(job: Job) -> str:
    """Say who works on a job: host and process, or nothing."""
    if job.lease is None:
        return ""
    host, _, rest = job.lease.owner.partition(":")
    pid = rest.partition(":")[0]
    return f"{host} {pid}" if pid else host


def needs(job: Job) -> str:
    """Say what a job needs of a person; nothing if it gets along by itself."""
    found = standing(job)
    if job.lease is not None and job.lease.stop_requested:
        return "is asked to stop"
    if job.lease is not None or found in ("completed", "pending"):
        return ""
    if job.stalled_attempts >= MANY_DEATHS:
        return f"died {job.stalled_attempts} times in a row at one place; find out why"
    verifies = is_verification(job.fingerprint)
    if found == "incomplete" and verifies:
        return f"found differences in {counted(job.dead_letters, 'range')} of keys: sync again, then verify again"
    if found == "incomplete":
        return f"{counted(job.dead_letters, 'dead letter')}: mend what refuses them, and replay"
    again = "verify again" if verifies else "run again"
    return f"{again}; {one_line(job.error or '')}" if found == "failed" else f"{again}, it goes on"


def wholes(jobs: Iterable[Job]) -> list[Job]:
    """Give jobs without the parts, such as `orders/0003`, of those among them that are synced in parts."""
    found = list(jobs)
    plans = {job.id: PartsPlan.of(job.cursor) for job in found}
    parts = {part_id(name, index) for name, plan in plans.items() if plan for index in range(len(plan.places))}
    return [job for job in found if job.id not in parts]


def jobs_table(jobs: Iterable[Job], rates: Mapping[str, float] | None = None) -> Table:
    """Draw jobs, one in a row.

    Args:
        jobs: The jobs.
        rates: Records a second by job id; None leaves the column out.
    """
    columns: list[Column | str] = ["job", "status", "", Column("records", justify="right", no_wrap=True)]
    if rates is not None:
        columns.append(Column("rate", justify="right", no_wrap=True))
    columns += [
        Column("run.attempt", justify="right", no_wrap=True),
        Column("worker", no_wrap=True),
        Column("moved", no_wrap=True),
        Column("needs", ratio=1),
    ]
    table = Table(*columns, box=None, pad_edge=False, expand=True, header_style="bold")
    for job in jobs:
        table.add_row(*_row(job, rates))
    return table


def _row(job: Job, rates: Mapping[str, float] | None) -> list[Text | ProgressBar]:
    found = standing(job)
    bar: Text | ProgressBar = Text("")
    if job.total_records:
        bar = ProgressBar(total=job.total_records, completed=min(job.processed_records, job.total_records), width=12)
    row: list[Text | ProgressBar] = [
        Text(one_line(job.id)),
        Text(found, style=STYLES[found]),
        bar,
        Text(progress_of(job)),
    ]
    if rates is not None:
        rate = rates.get(job.id)
        row.append(Text(f"{rate:,.0f}/s" if rate else "", style="cyan"))
    return [
        *row,
        Text(f"{job.run}.{job.attempt}"),
        Text(holder(job)),
        Text(age(job.updated_at)),
        Text(needs(job), style="yellow"),
    ]
