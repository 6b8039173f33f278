"""`top`: the jobs of a store, drawn anew every second."""

import itertools
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from resumable_sync import Job, JobStore
from resumable_sync.cli._common import json_and_verbose, store_of, with_store
from resumable_sync.cli._output import Output, counted, plain
from resumable_sync.cli._status import ExitStatus
from resumable_sync.cli._table import jobs_table, needs, standing, wholes

__all__ = ["Rates", "top"]

URGENCY = ["failed", "died", "incomplete", "interrupted", "running", "pending", "completed"]
"""What needs a hand stands above, the rest below what moves."""


class Rates:
    """Records a second of each job, from one look to the next."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[int, int, datetime]] = {}
        self.now: dict[str, float] = {}

    def look(self, jobs: Iterable[Job], moment: datetime) -> None:
        """Take the jobs as they are now."""
        for job in jobs:
            run, records, then = self._before.get(job.id, (job.run, job.processed_records, moment))
            seconds = (moment - then).total_seconds()
            # A new run counts from 0 again.
            if run == job.run and seconds > 0:
                self.now[job.id] = max(job.processed_records - records, 0) / seconds
            self._before[job.id] = (job.run, job.processed_records, moment)


@click.command
@click.option(
    "--interval", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Seconds between two looks."
)
@click.option(
    "--times", type=click.IntRange(1), help="How many looks. Default: until Ctrl-C; one where no terminal is."
)
@with_store
@json_and_verbose
def top(config: str | None, store_url: str | None, output: Output, *, interval: float, times: int | None) -> ExitStatus:
    """Watch all jobs of a store: how far they are, how fast, who works on them, and what needs a hand.

    What needs a hand stands at the top. With --json every look prints a line for each job. It only reads, and can watch
    the workers of many hosts.
    """
    if times is None and not output.out.is_terminal:
        times = 1
    rates = Rates()
    with store_of(config, store_url, output) as store:
        look = partial(_watch, store, rates, interval, times)
        if output.as_json:
            look(partial(_json_lines, output, rates))
        elif times == 1:
            look(lambda found: output.out.print(_screen(found, rates)))
        else:
            with Live(console=output.out, auto_refresh=False, screen=times is None) as live:
                look(lambda found: live.update(_screen(found, rates), refresh=True))
    return ExitStatus.COMPLETED


def _watch(
    store: JobStore, rates: Rates, interval: float, times: int | None, draw: Callable[[list[Job]], object]
) -> None:
    pause = threading.Event()
    try:
        for look in itertools.count(1):
            found = sorted(wholes(store.jobs()), key=lambda job: (URGENCY.index(standing(job)), job.id))
            rates.look(found, datetime.now(UTC))
            draw(found)
            if look == times:
                return
            pause.wait(interval)
    except KeyboardInterrupt:
        return


def _json_lines(output: Output, rates: Rates, found: list[Job]) -> None:
    moment = datetime.now(UTC)
    for job in found:
        extra = {"standing": standing(job), "needs": needs(job), "rate": rates.now.get(job.id), "at": moment}
        output.result(dict(plain(job)) | extra)


def _screen(found: list[Job], rates: Rates) -> Group:
    running = sum(job.lease is not None for job in found)
    in_need = sum(bool(needs(job)) for job in found)
    rate = sum(rates.now.get(job.id, 0.0) for job in found if job.lease is not None)
    head = f"{counted(len(found), 'job')}, {running} at work, {rate:,.0f} records/s, {in_need} to look after"
    return Group(Text(head, style="bold"), Text(""), jobs_table(found, rates.now))
