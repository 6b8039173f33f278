"""A progress bar in the terminal, drawn by rich."""

from types import TracebackType
from typing import Self

import attrs
from typing_extensions import override

from resumable_sync._errors import MissingExtraError
from resumable_sync._events import (
    BatchCommitted,
    Event,
    PartsProgressed,
    RecordRefused,
    SyncFinished,
    SyncStarted,
    TryFailed,
)
from resumable_sync.observers._pace import Balance, expected

try:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
    from rich.table import Column
    from rich.text import Text
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "rich", "rich") from error

__all__ = ["RichProgress"]


@attrs.define
class _Shown:
    """A job on the screen."""

    task: TaskID
    balance: Balance = attrs.field(factory=Balance)
    dead_letters: int = 0


class RichProgress:
    """Draws a line for each job: a bar, records, rate, time left, how reading and writing share the time, restarts.

        run_full_sync("orders", connector, sink, store=store, observers=[RichProgress()])

        orders ━━━━━━━━━━━━━━╺━━━━━━━━━ 1,204,000 of 2,000,000   48,310/s   0:16   read 71% write 29%   restart 2

    Of a sync in parts it shows how many are completed. Where the output is no terminal nothing is drawn. One object can
    serve several jobs, one after the other or at the same time in threads. The line of a job stays when it has ended;
    `close` removes what a killed attempt left behind.

    Args:
        console: Where to draw. None: standard error, so that what a program prints can go into a file.
        transient: Whether the line disappears when the job has ended (default False).

    Raises:
        MissingExtraError: If rich is not installed (when the module is imported).
    """

    def __init__(self, console: Console | None = None, *, transient: bool = False) -> None:
        self.console = Console(stderr=True) if console is None else console
        self._transient = transient
        self._progress: Progress | None = None
        self._shown: dict[str, _Shown] = {}

    def __call__(self, event: Event) -> None:
        """Draw what an event tells."""
        match event:
            case SyncStarted():
                self._start(event)
            case BatchCommitted():
                self._advance(event)
            case PartsProgressed():
                job = event.job
                total = expected(job.total_records, job.processed_records)
                parts = f"{event.completed} of {event.parts} parts"
                self._update(job.id, completed=job.processed_records, total=total, balance=parts, trouble="")
            case SyncFinished():
                self._finish(event)
            case TryFailed():
                again = "giving up" if event.wait is None else f"again in {event.wait:.1f} s"
                self._update(event.job_id, trouble=f"{event.call} failed, {again}")
            case RecordRefused():
                if event.job_id in self._shown:
                    self._shown[event.job_id].dead_letters += 1
                self._update(event.job_id)

    def close(self) -> None:
        """Leave the screen as it is, and stop drawing."""
        self._shown.clear()
        if self._progress is not None:
            # Before rich 14 one that is switched off writes an empty line where it stops.
            if not self._progress.disable:
                self._progress.stop()
            self._progress = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, event: SyncStarted) -> None:
        if self._progress is None:
            self._progress = _make_progress(self.console, transient=self._transient)
            self._progress.start()
        job = event.job
        restarts = job.attempt - 1
        task = self._progress.add_task(
            job.id,
            completed=job.processed_records,
            total=expected(job.total_records, job.processed_records),
            balance="",
            restarts=f"restart {restarts}" if restarts > 0 else "",
            trouble="",
        )
        self._shown[job.id] = _Shown(task, dead_letters=job.dead_letters)

    def _advance(self, event: BatchCommitted) -> None:
        job = event.job
        if job.id in self._shown:
            shown = self._shown[job.id]
            shown.balance.add(event)
            shown.dead_letters = job.dead_letters
            total = expected(job.total_records, job.processed_records)
            self._update(job.id, completed=job.processed_records, total=total, balance=str(shown.balance), trouble="")

    def _finish(self, event: SyncFinished) -> None:
        job = event.result.job
        total = job.processed_records if job.status.exhausted else expected(job.total_records, job.processed_records)
        self._update(job.id, completed=job.processed_records, total=total, trouble=str(job.status))
        self._shown.pop(job.id, None)
        if not self._shown:
            self.close()

    def _update(self, job_id: str, **fields: object) -> None:
        shown = self._shown.get(job_id)
        if shown is None or self._progress is None:
            return
        if shown.dead_letters and not fields.get("trouble"):
            fields["trouble"] = f"{shown.dead_letters:,} dead letter{'s' if shown.dead_letters > 1 else ''}"
        self._progress.update(shown.task, **fields)  # type: ignore[arg-type]


def _make_progress(console: Console, *, transient: bool) -> Progress:
    return Progress(
        SpinnerColumn(finished_text=" "),
        # What a job is called is no markup.
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
        _Records(),
        _Rate(),
        _TimeLeft(),
        TextColumn("{task.fields[balance]}", markup=False, style="dim", table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[restarts]}", markup=False, style="yellow", table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[trouble]}", markup=False, style="bold", table_column=Column(no_wrap=True)),
        console=console,
        transient=transient,
        expand=True,
        disable=not console.is_terminal,
        # Of the last half minute.
        speed_estimate_period=30.0,
    )


class _Records(ProgressColumn):
    @override
    def render(self, task: Task) -> Text:
        total = "" if task.total is None else f" of {task.total:,.0f}"
        return Text(f"{task.completed:,.0f}{total}", no_wrap=True)


class _Rate(ProgressColumn):
    @override
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="cyan", no_wrap=True)


class _TimeLeft(ProgressColumn):
    max_refresh = 0.5

    @override
    def render(self, task: Task) -> Text:
        left = None if task.finished or task.total is None else task.time_remaining
        if left is None:
            return Text("")
        minutes, seconds = divmod(int(left), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}", style="green")
