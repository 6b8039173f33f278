"""The errors of a store's driver, turned into the library's."""

from types import TracebackType
from typing import ClassVar

from resumable_sync._errors import ConfigurationError, StateCorruptError, StoreError, describe_error

__all__ = ["Translated"]


class Translated:
    """Turns every foreign error of its block into a `StoreError`, with the driver's error as the cause.

    A store subclasses it with what its driver raises.

    Args:
        what: What is done, for the message: "saving", or "listing the jobs".
        job_id: The job, where there is one.
    """

    __slots__ = ("_what", "job_id")

    foreign: ClassVar[tuple[type[Exception], ...]]
    """Which errors are the driver's."""
    remedy: ClassVar[str]
    """What to do about one, as the message ends."""

    def __init__(self, what: str, job_id: str | None = None) -> None:
        self._what = what
        self.job_id = job_id

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if isinstance(error, self.foreign) and not isinstance(error, ConfigurationError):
            corrupt = self.corrupt(error)
            if corrupt is not None:
                raise corrupt from None
            self.clean(error)
            subject = self._what if self.job_id is None else f"{self._what} job {self.job_id!r}"
            msg = f"{subject} failed: {describe_error(error)}; {self.remedy}"
            raise StoreError(msg) from error

    def corrupt(self, error: Exception) -> StateCorruptError | None:
        """Give what to raise if the error says that the stored state is damaged; None if it does not."""

    def clean(self, error: Exception) -> None:
        """Take values and credentials out of an error's text, in place."""
