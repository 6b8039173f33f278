"""The exit statuses of the command line, which schedulers go by."""

from collections.abc import Iterable
from enum import IntEnum

import click

from resumable_sync import (
    ConfigurationError,
    JobHeldError,
    JobStatus,
    LeaseLostError,
    MissingExtraError,
    Plan,
    SyncResult,
)

__all__ = ["ExitStatus", "status_of_error", "status_of_plan", "status_of_result", "worst"]


class ExitStatus(IntEnum):
    """What a command ends with."""

    COMPLETED = 0
    FAILED = 1
    USAGE = 2
    HELD = 3
    INCOMPLETE = 4
    INTERRUPTED = 75
    """That of `EX_TEMPFAIL` in sysexits.h: try again later, and it goes on."""


_OF_STATUS = {
    JobStatus.COMPLETED: ExitStatus.COMPLETED,
    JobStatus.INCOMPLETE: ExitStatus.INCOMPLETE,
    JobStatus.INTERRUPTED: ExitStatus.INTERRUPTED,
}
# What must be looked at comes before what only has to be run again.
_WORST_FIRST = [
    ExitStatus.USAGE,
    ExitStatus.FAILED,
    ExitStatus.INTERRUPTED,
    ExitStatus.HELD,
    ExitStatus.INCOMPLETE,
    ExitStatus.COMPLETED,
]


def status_of_result(result: SyncResult) -> ExitStatus:
    """Give the exit status of a sync that returned."""
    if result.action == "held":
        return ExitStatus.HELD
    return _OF_STATUS.get(result.status, ExitStatus.FAILED)


def status_of_plan(plan: Plan) -> ExitStatus:
    """Give the exit status of a plan: whether the sync would begin."""
    return {"held": ExitStatus.HELD, "refuse": ExitStatus.FAILED}.get(plan.action, ExitStatus.COMPLETED)


def status_of_error(error: BaseException, *, begun: bool = False) -> ExitStatus:
    """Give the exit status of an error.

    Args:
        error: What was raised.
        begun: Whether a job had begun; what it cannot go on with then is a failure, since something was done.
    """
    if isinstance(error, JobHeldError | LeaseLostError):
        return ExitStatus.HELD
    if isinstance(error, ConfigurationError | MissingExtraError | click.ClickException) and not begun:
        return ExitStatus.USAGE
    # A second signal strikes at once, and leaves the checkpoint of the batch before.
    return ExitStatus.FAILED if isinstance(error, Exception) else ExitStatus.INTERRUPTED


def worst(statuses: Iterable[ExitStatus], *, begun: bool = False) -> ExitStatus:
    """Give the exit status of several syncs.

    Args:
        statuses: Theirs.
        begun: Whether one of them had begun: the status that says that nothing was done is none for all of them then.
    """
    found = min(statuses, key=_WORST_FIRST.index, default=ExitStatus.COMPLETED)
    return ExitStatus.FAILED if begun and found is ExitStatus.USAGE else found
