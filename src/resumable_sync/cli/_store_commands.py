"""The commands that look at a store, and change what is in it: `jobs`, `show`, `stop`, `reset`, `dead-letters`."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import click
from rich.table import Column, Table
from rich.text import Text

from resumable_sync import (
    AttemptRecord,
    ConfigurationError,
    DeadLetter,
    DeadLetterStore,
    Job,
    LineageStore,
    replay_dead_letters,
    reset_job,
)
from resumable_sync._plain import suggestion
from resumable_sync.cli._common import DEFAULT_FILE, job_of_store, json_and_verbose, known_job, store_of, with_store
from resumable_sync.cli._config import read_sync_file
from resumable_sync.cli._output import Output, age, counted, one_line, plain, progress_of
from resumable_sync.cli._status import ExitStatus, status_of_result
from resumable_sync.cli._table import jobs_table, needs, standing, wholes

__all__ = ["dead_letters", "jobs", "reset", "show", "stop"]

SHOWN_ATTEMPTS = 12
SHOWN_CURSOR = 300


@click.command
@click.option("--parts", is_flag=True, help="List the parts too of jobs that are synced in parts.")
@with_store
@json_and_verbose
def jobs(config: str | None, store_url: str | None, output: Output, *, parts: bool) -> ExitStatus:
    """List the jobs of a store: how far they are, who works on them, and what they need.

    "died" is a job whose process is gone without a word; run it again, and it goes on.
    """
    with store_of(config, store_url, output) as store:
        found = sorted(store.jobs() if parts else wholes(store.jobs()), key=lambda job: job.id)
    if output.as_json:
        for job in found:
            output.result(_facts(job))
    elif found:
        output.out.print(jobs_table(found))
    else:
        output.say("this store has no jobs yet")
    return ExitStatus.COMPLETED


@click.command
@job_of_store
@with_store
@json_and_verbose
def show(job_id: str, config: str | None, store_url: str | None, output: Output) -> ExitStatus:
    """Show all that is known of JOB: where it stands, and the attempts that brought it there."""
    with store_of(config, store_url, output) as store:
        job = known_job(store, job_id)
        attempts = list(store.attempts(job_id)) if isinstance(store, LineageStore) else []
    if output.as_json:
        output.result(_facts(job) | {"attempts": attempts})
        return ExitStatus.COMPLETED
    width = max(len(name) for name, _ in _described(job))
    output.result(None, *(f"{name:{width}}  {text}" for name, text in _described(job) if text))
    if attempts:
        output.out.print()
        output.out.print(_attempts_table(attempts[-SHOWN_ATTEMPTS:]))
    if len(attempts) > SHOWN_ATTEMPTS:
        output.say(f"and {counted(len(attempts) - SHOWN_ATTEMPTS, 'earlier attempt')}; --json shows all")
    return ExitStatus.COMPLETED


@click.command
@job_of_store
@with_store
@json_and_verbose
def stop(job_id: str, config: str | None, store_url: str | None, output: Output) -> ExitStatus:
    """Ask whoever works on JOB to stop after the batch in hand, on whatever host it is.

    It sees the wish at its next checkpoint, saves, and ends with exit status 75; the next run goes on there.
    """
    with store_of(config, store_url, output) as store:
        held = known_job(store, job_id).lease
        if held is not None:
            store.request_stop(job_id)
    facts = {"job_id": job_id, "requested": held is not None, "owner": None if held is None else held.owner}
    said = "nobody works on it" if held is None else f"{held.owner} is asked to stop after the batch in hand"
    output.result(facts, f"{job_id}: {said}")
    return ExitStatus.COMPLETED


@click.command
@job_of_store
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@with_store
@json_and_verbose
def reset(job_id: str, config: str | None, store_url: str | None, output: Output, *, yes: bool) -> ExitStatus:
    """Have JOB start over: its next run begins at the beginning.

    Its checkpoint, its error and its dead letters are forgotten; what was delivered stays where it is. Never takes a
    job away from a process that works on it (exit status 3): stop that first.
    """
    with store_of(config, store_url, output) as store:
        job = known_job(store, job_id)
        if not yes:
            _confirm(job)
        done = reset_job(job_id, store=store)
    output.result(_facts(done), f"{job_id}: reset; the next run, {done.run + 1}, starts at the beginning")
    return ExitStatus.COMPLETED


def _confirm(job: Job) -> None:
    """Ask whether a job is to start over.

    Raises:
        UsageError: If there is nobody to ask.
        Abort: If the answer is no.
    """
    if not sys.stdin.isatty():
        msg = f"reset forgets where job {job.id!r} stands; give --yes if that is what you want"
        raise click.UsageError(msg)
    click.confirm(f"Forget that {job.id} stands at {progress_of(job)} records?", abort=True, err=True)


@click.command("dead-letters")
@job_of_store
@click.option("--replay", is_flag=True, help="Deliver them again, each exactly once, with the sink of the sync file.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many to show.")
@with_store
@json_and_verbose
def dead_letters(
    job_id: str, config: str | None, store_url: str | None, output: Output, *, replay: bool, limit: int
) -> ExitStatus:
    """Show the records of JOB that its sink refused, and why; with --replay, deliver them again.

    Shows the records themselves. Mend what refuses them first, the target or the sync file; those that are refused
    again stay, and the exit status is 4.
    """
    if replay:
        return _replay(job_id, config, store_url, output)
    with store_of(config, store_url, output) as store:
        known_job(store, job_id)
        if not isinstance(store, DeadLetterStore):
            msg = f"a {type(store).__name__} keeps no dead letters; use a store of type sql"
            raise ConfigurationError(msg)
        letters = list(store.dead_letters(job_id))
    if output.as_json:
        for letter in letters[:limit]:
            output.result(letter)
    elif letters:
        output.out.print(_letters_table(letters[:limit]))
    else:
        output.say(f"{job_id} has no dead letters")
    if len(letters) > limit:
        output.say(f"and {counted(len(letters) - limit, 'other')}; see more with --limit")
    return ExitStatus.COMPLETED


def _replay(job_id: str, config: str | None, store_url: str | None, output: Output) -> ExitStatus:
    file = config or DEFAULT_FILE
    if store_url is not None or not Path(file).exists():
        msg = "replaying needs the sink of the job: give its sync file with --config, and no --store"
        raise ConfigurationError(msg)
    sync_file = read_sync_file(file, os.environ)
    output.warn(sync_file.warnings)
    if job_id not in sync_file.jobs:
        msg = f"{file} has no job {job_id!r}{suggestion(job_id, sync_file.jobs)}; its jobs: {', '.join(sync_file.jobs)}"
        raise ConfigurationError(msg)
    result = replay_dead_letters(job_id, sync_file.jobs[job_id].sink, store=sync_file.store)
    status = status_of_result(result)
    reason = f" ({one_line(result.reason)})" if result.reason else ""
    output.result(
        {field.name: getattr(result, field.name) for field in attrs.fields(type(result))}
        | {"exit_status": int(status)},
        f"{job_id}: {result.status}, {counted(result.records, 'dead letter')} delivered, "
        f"{result.job.dead_letters:,} left{reason}",
    )
    return status


def _facts(job: Job) -> dict[str, Any]:
    return dict(plain(job)) | {"standing": standing(job), "needs": needs(job)}


def _described(job: Job) -> Iterator[tuple[str, str]]:
    yield "job", one_line(job.id)
    yield "status", standing(job) + (f" ({one_line(job.error)})" if job.error else "")
    yield "needs", needs(job)
    yield "records", progress_of(job) + f" in {counted(job.processed_batches, 'batch').replace('batchs', 'batches')}"
    yield "dead letters", f"{job.dead_letters:,}" if job.dead_letters else ""
    yield "run", f"{job.run}, attempt {job.attempt}"
    yield "worker", f"{job.lease.owner}, until {job.lease.expires_at.isoformat()}" if job.lease else ""
    cursor = "the beginning" if job.cursor is None else one_line(repr(plain(job.cursor)))
    # That of a sync in parts is its plan, of up to 64 KiB.
    yield "cursor", cursor if len(cursor) <= SHOWN_CURSOR else f"{cursor[:SHOWN_CURSOR]}... (--json shows all)"
    yield "batch size", f"{job.batch_size:,}" if job.batch_size else ""
    for name in ("created", "started", "updated", "finished"):
        moment = getattr(job, f"{name}_at")
        yield name, "" if moment is None else f"{moment.isoformat(timespec='seconds')} ({age(moment)})"


def _attempts_table(attempts: list[AttemptRecord]) -> Table:
    headers = ["run.attempt", "from", "to", "ended", "after", "worker", "why"]
    table = Table(*headers, box=None, pad_edge=False, header_style="bold")
    for one in attempts:
        seconds = "" if one.ended_at is None else f"{(one.ended_at - one.started_at).total_seconds():,.1f} s"
        worker = one.owner if one.host is None else f"{one.host} {one.pid}"
        cells = [
            f"{one.run}.{one.attempt}",
            f"{one.from_records:,}",
            f"{one.to_records:,}",
            one.outcome,
            seconds,
            worker,
        ]
        table.add_row(*map(Text, cells), Text(one_line(one.error or "")))
    return table


def _letters_table(letters: list[DeadLetter]) -> Table:
    table = Table(
        Column("id", justify="right"), "run", Column("error", ratio=1), Column("record", ratio=2), box=None,
        pad_edge=False, header_style="bold", expand=True,
    )  # fmt: skip
    for letter in letters:
        record = letter.record
        if letter.columns is not None and isinstance(record, list | tuple):
            record = dict(zip(letter.columns, record, strict=False))
        table.add_row(
            Text(str(letter.id)), Text(str(letter.run)), Text(one_line(letter.error)), Text(one_line(repr(record)))
        )
    return table
