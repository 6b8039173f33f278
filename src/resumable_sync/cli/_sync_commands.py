"""The commands that work on a sync file: `run`, `plan`, `verify`."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import click

from resumable_sync import (
    ConfigurationError,
    Event,
    Plan,
    SyncFinished,
    SyncResult,
    SyncStarted,
    VerifyResult,
    plan_full_sync,
    run_full_sync,
    verify_full_sync,
)
from resumable_sync._attempts.options import SyncOptions
from resumable_sync._formats import RECORDS
from resumable_sync._plain import suggestion
from resumable_sync._validate import MAX_JOB_ID_LENGTH
from resumable_sync.cli._common import file_and_jobs, json_and_verbose, quoted
from resumable_sync.cli._config import SyncFile, SyncJob, read_sync_file
from resumable_sync.cli._output import Output, counted, one_line, progress_of
from resumable_sync.cli._status import ExitStatus, status_of_error, status_of_plan, status_of_result, worst
from resumable_sync.observers.rich import RichProgress

__all__ = ["plan", "run", "verify"]


@click.command
@file_and_jobs
@click.option("--if-completed", type=click.Choice(["rerun", "skip"]), help="What to do with a job that is completed.")
@click.option(
    "--if-held", type=click.Choice(["raise", "skip", "wait"]), help="What to do while another one works on it."
)
@click.option("--max-runtime", type=float, metavar="SECONDS", help="Stop after so long, at the next batch.")
@click.option("--max-records", type=int, metavar="N", help="Stop after the batch that brings it to so many records.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar, and no line when a job starts.")
@json_and_verbose
def run(file: str, jobs: tuple[str, ...], output: Output, *, quiet: bool, **given: Any) -> ExitStatus:
    """Run the jobs of FILE (default: sync.toml), all of them or those that are named.

    The whole file is checked before anything runs. Each job goes on exactly where it stopped, whatever stopped it; one
    that is completed makes a new run. Ctrl-C finishes the batch in hand; pressed again, it strikes at once.

    \b
    A sync file:
      job = "orders"
      [source]
      type = "sql"
      url = "postgresql://shop:${SHOP_PASSWORD}@db/shop"
      table = "orders"
      [sink]
      type = "sql"
      table = "orders"
      mode = "replace"
      [store]
      type = "sql"
      url = "${WAREHOUSE_URL}"
      [options]
      batch_size = 5000

    Several jobs share store and options: [jobs.orders.source], [jobs.orders.sink], [jobs.customers.source], ...

    \b
    On and on until it is completed, or fails:
      while resumable-sync run sync.toml --if-completed skip; [ $? -eq 75 ]; do sleep 10; done
    After a kill too, by systemd:
      ExecStart=resumable-sync run sync.toml --if-completed skip
      Restart=on-failure
      RestartPreventExitStatus=2
    """
    sync_file = _read(file, output)
    options = SyncOptions(**{name: value for name, value in given.items() if value is not None})  # type: ignore[typeddict-item]
    statuses = []
    begun = _Begun()
    for job in _chosen(sync_file, jobs):
        status, go_on = _run_job(sync_file, job, options, output, begun, quiet=quiet)
        statuses.append(status)
        if not go_on:
            break
    return worst(statuses, begun=bool(begun.jobs))


class _Begun:
    """Notes which jobs have begun, those too that failed before they could start."""

    def __init__(self) -> None:
        self.jobs: set[str] = set()

    def __call__(self, event: Event) -> None:
        if isinstance(event, SyncFinished):
            self.jobs.add(event.result.job.id)


def _run_job(
    sync_file: SyncFile, job: SyncJob, given: SyncOptions, output: Output, begun: _Begun, *, quiet: bool
) -> tuple[ExitStatus, bool]:
    """Run a job; give its exit status, and whether to go on with the next one."""
    observers: list[Callable[[Event], None]] = [begun]
    progress = RichProgress(output.err)
    if not quiet:
        observers += [_Announcement(output), progress]
    options = SyncOptions(**job.options | given)
    options["observers"] = observers
    options["stop_on_signals"] = True
    try:
        with progress:
            result = run_full_sync(job.id, job.connector, job.sink, store=sync_file.store, **options)
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - it is told, and others go on
        status = status_of_error(error, begun=job.id in begun.jobs)
        if isinstance(error, Exception):
            output.error(error, job.id, status)
        else:
            output.say(f"{job.id}: struck at once; {_go_on(sync_file.name, job.id)}")
        return status, isinstance(error, Exception)
    status = status_of_result(result)
    output.result(_with_status(result, status), _ended(sync_file.name, result))
    # Waiting for a job that is held ends by a signal too.
    by_signal = any(name in (result.reason or "") for name in ("SIGINT", "SIGTERM"))
    return status, not by_signal


class _Announcement:
    """Says in one line how a job starts."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def __call__(self, event: Event) -> None:
        if isinstance(event, SyncStarted):
            self._output.say(f"{event.job.id}: {_planned(event.plan)}", "dim")


def _planned(found: Plan) -> str:
    return (
        f"{found.action} at record {found.processed_records:,}"
        f"{'' if found.total_records is None else f' of {found.total_records:,}'}"
        f" ({one_line(found.reason)}; {found.guarantee}"
        f"{'' if found.durability == 'full' else ', of which a power cut may undo the newest batches'}"
        f"{'' if found.format == RECORDS else f'; as {found.format}'})"
    )


def _ended(file: str, result: SyncResult) -> str:
    job = result.job
    if result.action in ("held", "skip"):
        return f"{job.id}: {result.action} ({one_line(result.reason or '')})"
    rate = f", {result.records / result.seconds:,.0f}/s" if result.seconds > 0 else ""
    did = f"{counted(result.records, 'record')} in {result.seconds:.1f} s{rate}"
    text = f"{job.id}: {result.status}, {did}, {progress_of(job)} in all, run {job.run}, attempt {job.attempt}"
    if result.status == "interrupted":
        return f"{text} ({one_line(result.reason or '')}); {_go_on(file, job.id)}"
    if result.status == "incomplete":
        config = f" -c {quoted(file)}"
        return (
            f"{text}, {counted(job.dead_letters, 'dead letter')}; see them with: resumable-sync dead-letters "
            f"{quoted(job.id)}{config}, and deliver them again with --replay"
        )
    return f"{text}, {result.guarantee}"


def _go_on(file: str, job_id: str) -> str:
    return f"go on with: resumable-sync run {quoted(file)} {quoted(job_id)}"


@click.command
@file_and_jobs
@json_and_verbose
def plan(file: str, jobs: tuple[str, ...], output: Output) -> ExitStatus:
    """Say what `run` would do with FILE (default: sync.toml), and why, without doing it.

    No row, table or file is made. The exit status is 3 if another process works on a job, 1 if it would be refused.

    \b
      $ resumable-sync plan sync.toml
      orders: resume at record 12,000 of 300,000 (interrupted by SIGTERM; exactly_once)
    """
    sync_file = _read(file, output)
    statuses = []
    for job in _chosen(sync_file, jobs):
        try:
            found = plan_full_sync(job.id, job.connector, job.sink, store=sync_file.store, **job.options)
        except Exception as error:  # noqa: BLE001 - the other jobs have a plan all the same
            output.error(error, job.id)
            statuses.append(status_of_error(error))
        else:
            statuses.append(status_of_plan(found))
            output.result(_with_status(found, statuses[-1]) | {"job_id": job.id}, f"{job.id}: {_planned(found)}")
    return worst(statuses)


@click.command
@file_and_jobs
@click.option("--max-differences", type=click.IntRange(0), help="How many differences to name (default 100).")
@json_and_verbose
def verify(file: str, jobs: tuple[str, ...], output: Output, *, max_differences: int | None) -> ExitStatus:
    """Compare the targets of FILE (default: sync.toml) with their sources row by row.

    Proves that a target holds exactly the rows of its source, or names those that are missing, extra or different; then
    the exit status is 1. It can be killed and run again like any sync. What a SQL sink writes is found by itself; for
    others, and to compare by another key or only some columns, the file says so:

    \b
      [verify]
      key = "id"
      columns = ["id", "total"]
      target = { type = "sql", url = "${WAREHOUSE_URL}", table = "orders" }
    """
    sync_file = _read(file, output)
    chosen = list(_chosen(sync_file, jobs))
    for job in chosen:
        if job.target is None:
            msg = (
                f"job {job.id!r}: {sync_file.name} does not say where its target can be read; add to the job "
                "verify.target = { type = 'sql', url = ..., table = ... }"
            )
            raise ConfigurationError(msg)
    statuses = []
    begun = _Begun()
    for job in chosen:
        settings = job.verify | ({} if max_differences is None else {"max_differences": max_differences})
        status, go_on = _verify_job(sync_file, job, settings, output, begun)
        statuses.append(status)
        if not go_on:
            break
    return worst(statuses, begun=bool(begun.jobs))


def _verify_job(
    sync_file: SyncFile, job: SyncJob, settings: dict[str, Any], output: Output, begun: _Begun
) -> tuple[ExitStatus, bool]:
    options: Any = {name: job.options[name] for name in ("batch_size", "retry", "lease_ttl") if name in job.options}
    options["job_id"] = name = f"verify {job.id}"[:MAX_JOB_ID_LENGTH]
    options["observers"] = [begun]
    try:
        found = verify_full_sync(
            job.connector, job.target, store=sync_file.store, stop_on_signals=True, **settings, **options
        )
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - it is told, and others go on
        status = status_of_error(error, begun=name in begun.jobs)
        if isinstance(error, Exception):
            output.error(error, job.id, status)
        return status, isinstance(error, Exception)
    status = _status_of_verification(found)
    facts = {
        "job_id": job.id,
        "ok": found.ok,
        "complete": found.complete,
        **{name: getattr(found, name) for name in ("equal", "missing", "extra", "different")},
        "differences": found.differences,
        "seconds": found.sync.seconds,
        "exit_status": int(status),
    }
    output.result(facts, *_verified(sync_file.name, job.id, found))
    return status, status is not ExitStatus.INTERRUPTED


def _status_of_verification(found: VerifyResult) -> ExitStatus:
    if not found.complete:
        return status_of_result(found.sync)
    return ExitStatus.COMPLETED if found.ok else ExitStatus.FAILED


def _verified(file: str, job_id: str, found: VerifyResult) -> Iterable[str]:
    counts = ", ".join(f"{getattr(found, name):,} {name}" for name in ("missing", "extra", "different"))
    if not found.complete:
        again = f"go on with: resumable-sync verify {quoted(file)} {quoted(job_id)}"
        yield f"{job_id}: {one_line(found.sync.reason or 'stopped')} after {found.equal:,} equal, {counts}; {again}"
        return
    verdict = "the target holds exactly the rows of the source" if found.ok else "the target differs from the source"
    yield f"{job_id}: {verdict}: {found.equal:,} equal, {counts}, in {found.sync.seconds:.1f} s"
    for difference in found.differences:
        columns = f" in {', '.join(difference.columns)}" if difference.columns else ""
        yield f"  {difference.kind}: {one_line(', '.join(map(repr, difference.key)))}{columns}"
    named, all_of_them = len(found.differences), found.missing + found.extra + found.different
    if named < all_of_them:
        yield f"  and {counted(all_of_them - named, 'other')}; see more with --max-differences"


def _with_status(value: SyncResult | Plan, status: ExitStatus) -> dict[str, Any]:
    facts = {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
    return facts | {"exit_status": int(status)}


def _read(file: str, output: Output) -> SyncFile:
    sync_file = read_sync_file(file, os.environ)
    output.warn(sync_file.warnings)
    return sync_file


def _chosen(sync_file: SyncFile, names: Sequence[str]) -> Iterable[SyncJob]:
    """Give the jobs that are named, in this order; all if none is.

    Raises:
        ConfigurationError: If there is no such job.
    """
    for name in names:
        if name not in sync_file.jobs:
            meant = suggestion(name, sync_file.jobs)
            listed = ", ".join(map(repr, sync_file.jobs))
            msg = f"{sync_file.name} has no job {name!r}{meant}; its jobs: {listed}"
            raise ConfigurationError(msg)
    return [sync_file.jobs[name] for name in dict.fromkeys(names or sync_file.jobs)]
