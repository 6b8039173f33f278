"""A progress bar drawn by tqdm."""

from types import TracebackType
from typing import Any, Self

import attrs

from resumable_sync._errors import MissingExtraError
from resumable_sync._events import BatchCommitted, Event, PartsProgressed, SyncFinished, SyncStarted, TryFailed
from resumable_sync.observers._pace import Balance, expected

try:
    from tqdm.auto import tqdm
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "tqdm", "tqdm") from error

__all__ = ["TqdmProgress"]


@attrs.define
class _Shown:
    """A job's bar."""

    bar: Any
    records: int
    restarts: int
    balance: Balance = attrs.field(factory=Balance)


class _Bar(tqdm):  # type: ignore[misc,type-arg,unused-ignore]
    """A bar without tqdm's monitor, a thread that would never end: a batch is rare enough to look at the clock."""

    monitor_interval = 0


class TqdmProgress:
    """Draws a tqdm bar for each job, in the terminal or in a notebook.

        run_full_sync("orders", connector, sink, store=store, observers=[TqdmProgress()])

        orders:  60%|██████    | 1.20M/2.00M [00:24<00:16, 48.3k records/s, read 71% write 29%, restart 2]

    A resume begins where the run stands, and only what this attempt delivers counts for the rate. Where the output is
    no terminal nothing is drawn, unless told otherwise. One object can serve several jobs.

    Args:
        settings: Keyword arguments of `tqdm`, such as `file`, `mininterval`, `leave`, `position` or `disable`.

    Raises:
        MissingExtraError: If tqdm is not installed (when the module is imported).
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = {
            "disable": None,
            "miniters": 1,
            "unit": " records",
            "unit_scale": True,
            "dynamic_ncols": True,
        } | settings
        self._shown: dict[str, _Shown] = {}

    def __call__(self, event: Event) -> None:
        """Draw what an event tells."""
        match event:
            case SyncStarted():
                self._start(event)
            case BatchCommitted() if event.job.id in self._shown:
                balance = self._shown[event.job.id].balance
                balance.add(event)
                self._advance(event.job, str(balance))
            case PartsProgressed() if event.job.id in self._shown:
                self._advance(event.job, f"{event.completed} of {event.parts} parts")
            case TryFailed() if event.job_id in self._shown:
                again = "giving up" if event.wait is None else f"again in {event.wait:.1f} s"
                self._shown[event.job_id].bar.set_postfix_str(f"{event.call} failed, {again}")
            case SyncFinished():
                self._finish(event)
            case _:
                pass

    def close(self) -> None:
        """Close the bars, also those that a killed attempt left open."""
        while self._shown:
            self._shown.popitem()[1].bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, event: SyncStarted) -> None:
        job = event.job
        total = expected(job.total_records, job.processed_records)
        settings = {"desc": job.id, "total": total, "initial": job.processed_records} | self._settings
        bar: Any = _Bar(**settings)
        self._shown[job.id] = _Shown(bar, job.processed_records, job.attempt - 1)

    def _advance(self, job: Any, told_first: str) -> None:
        shown = self._shown[job.id]
        told = [told_first]
        told += [f"restart {shown.restarts}"] if shown.restarts > 0 else []
        told += [f"{job.dead_letters:,} dead letters"] if job.dead_letters else []
        shown.bar.total = expected(job.total_records, job.processed_records)
        moved = job.processed_records - shown.records
        # `update` draws, but not if nothing moved.
        shown.bar.set_postfix_str(", ".join(filter(None, told)), refresh=not moved)
        shown.bar.update(moved)
        shown.records = job.processed_records

    def _finish(self, event: SyncFinished) -> None:
        shown = self._shown.pop(event.result.job.id, None)
        if shown is not None:
            shown.bar.set_postfix_str(str(event.result.status), refresh=True)
            shown.bar.close()
