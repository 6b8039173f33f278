"""Tasks on somebody's executor, each of which runs one part. Every executor may run a task twice, or lose it."""

import contextlib
import os
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from typing import Any

import attrs

from resumable_sync._attempts.options import SyncOptions
from resumable_sync._errors import ConfigurationError, JobHeldError, LeaseLostError, describe_error
from resumable_sync._model import Batch, SyncResult
from resumable_sync._parts.part import part_of
from resumable_sync._protocols import Connector, JobStore, Sink

__all__ = ["Outcome", "PartTask", "Workers", "check_travels"]

MAX_LOSSES = 3
"""How often an executor may lose the task of a part, such as with the worker that had it."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of the task of a part.

    Attributes:
        index: The part.
        result: What the attempt did; None if it did not end.
        error: What ended it; None if nothing did, or only a stop.
    """

    index: int
    result: SyncResult | None = None
    error: Exception | None = None

    @property
    def aside(self) -> bool:
        """Whether the worker stepped aside, because another one has the part."""
        held = self.result is not None and self.result.action == "held"
        return held or isinstance(self.error, JobHeldError | LeaseLostError)


@attrs.frozen(kw_only=True)
class PartTask:
    """Runs one part wherever it is called: it pickles, if its pieces do.

    Attributes:
        job_id: The whole.
        run_id: The run of the whole; in any other one it does nothing.
        connector: Of the whole.
        sink: Of the whole.
        store: Of the whole.
        options: For the attempt.
        home: The process it was made in.
    """

    job_id: str
    run_id: str | None
    connector: Connector[Any]
    sink: Sink[Any] | Callable[[Batch[Any]], object]
    store: JobStore
    options: SyncOptions
    home: int = attrs.field(factory=os.getpid)

    def __call__(self, index: int) -> Outcome:
        """Run a part; what goes wrong is part of the outcome, so that anything else is of the executor's making."""
        try:
            part = part_of(self.job_id, index, store=self.store)
            if part.parent.run_id != self.run_id:
                return Outcome(index=index)
            result = part.run(self.connector, self.sink, store=self.store, **self.options)
            return Outcome(index=index, result=result)
        except (KeyboardInterrupt, SystemExit):  # the worker is told to stop, and the attempt did
            return Outcome(index=index)
        except Exception as error:  # noqa: BLE001 - it travels
            return Outcome(index=index, error=error if os.getpid() == self.home else _portable(error))
        finally:
            if os.getpid() != self.home:
                self._close()

    def _close(self) -> None:
        for piece in (self.connector, self.sink, self.store):
            close = getattr(piece, "close", None)
            if callable(close):
                with contextlib.suppress(Exception):  # what was done stands
                    close()


def _portable(error: Exception) -> Exception:
    try:
        copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - pickled in the same line
    except Exception:  # noqa: BLE001 - there are many ways not to pickle
        copied = None
    if isinstance(copied, Exception):
        return error
    replaced = RuntimeError(describe_error(error))
    for note in getattr(error, "__notes__", ()):
        replaced.add_note(note)
    return replaced


def check_travels(job_id: str, connector: object, sink: object, store: JobStore) -> None:
    """See to it that a task can leave this process, with a store that shows the same jobs there.

    Args:
        job_id: The whole, whose lease this process has.
        connector: Of the whole.
        sink: Of the whole.
        store: Of the whole.

    Raises:
        ConfigurationError: If it cannot.
    """
    for name, piece in (("connector", connector), ("sink", sink), ("store", store)):
        try:
            copied = pickle.loads(pickle.dumps(piece))  # noqa: S301 - pickled in the same line
        except Exception as error:
            what = f"job {job_id!r}: the {name} cannot travel to the executor's workers ({describe_error(error)})"
            msg = f"{what}; make it from a URL, and of what stands in a module, or use a ThreadPoolExecutor"
            raise ConfigurationError(msg) from error
        if name == "store":
            _check_same_jobs(job_id, copied)


def _check_same_jobs(job_id: str, copied: JobStore) -> None:
    seen = copied.load(job_id)
    close = getattr(copied, "close", None)
    if callable(close):
        close()
    if seen is None or seen.lease is None:  # this process holds it
        msg = (
            f"job {job_id!r}: other processes do not see the leases of a {type(copied).__name__}, so two "
            "could work on one part; use a store such as SQLJobStore, or a ThreadPoolExecutor"
        )
        raise ConfigurationError(msg)


class Workers:
    """The tasks that an executor has.

    Args:
        executor: Where tasks run.
        task: What is called with the number of a part.

    Attributes:
        broken: What broke the executor; None while it works.
    """

    def __init__(self, executor: Executor, task: PartTask) -> None:
        self._executor = executor
        self._task = task
        self._futures: dict[Future[Outcome], int] = {}
        self._losses: dict[int, int] = {}
        self.broken: BaseException | None = None

    @property
    def busy(self) -> set[int]:
        """The parts whose tasks are not done."""
        return set(self._futures.values())

    def submit(self, index: int) -> None:
        """Give the executor the task of a part."""
        if self.broken is None:
            try:
                self._futures[self._executor.submit(self._task, index)] = index
            except (BrokenExecutor, RuntimeError, OSError) as error:  # RuntimeError: it was shut down
                self.broken = error

    def cancel(self) -> None:
        """Take back what has not begun."""
        for future in self._futures:
            future.cancel()

    def wait(self, seconds: float) -> Sequence[Outcome]:
        """Wait for a task to be done, and give the outcomes of all that are.

        A future is dropped with its outcome: some executors run a finished task again as long as somebody holds it.
        """
        done, _ = wait(self._futures, seconds, FIRST_COMPLETED)
        outcomes = []
        for future in done:
            index = self._futures.pop(future)
            outcome = self._outcome(future, index)
            if outcome is not None:
                outcomes.append(outcome)
        return outcomes

    def _outcome(self, future: Future[Outcome], index: int) -> Outcome | None:
        try:
            return future.result()
        except (BrokenExecutor, CancelledError) as error:
            self.broken = self.broken or error
        except Exception as error:  # noqa: BLE001 - the executor's own
            self._losses[index] = self._losses.get(index, 0) + 1
            if self._losses[index] > MAX_LOSSES:
                return Outcome(index=index, error=error)
            self.submit(index)
        except BaseException:  # noqa: BLE001 - a worker was told to stop
            return Outcome(index=index)
        return None
