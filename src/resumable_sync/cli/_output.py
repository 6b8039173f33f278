"""What commands print: lines or JSON; results on standard output, all else on standard error."""

import json
import logging
import math
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import attrs
import click
from rich.console import Console
from rich.text import Text
from typing_extensions import override

from resumable_sync import Job
from resumable_sync._errors import ConfigurationError, describe_error, mask_credentials
from resumable_sync.cli._status import ExitStatus, status_of_error

__all__ = ["Output", "age", "counted", "one_line", "plain", "progress_of"]

PIPE_WIDTH = 180
"""Columns of a table where no terminal tells how many there are."""


def plain(value: Any) -> Any:
    """Give a value as JSON has it: objects by the names of their fields, times in ISO 8601, bytes in hexadecimal."""
    if attrs.has(type(value)):
        return {field.name: plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str | int | float | bool | None):
        # JSON has neither NaN nor infinity.
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value
    return next((give for kind, give in _PLAIN if isinstance(value, kind)), str)(value)


_PLAIN: list[tuple[Any, Callable[[Any], Any]]] = [
    (datetime | date | time, lambda value: value.isoformat()),
    (timedelta, lambda value: value.total_seconds()),
    (bytes, lambda value: value.hex()),
]


def one_line(text: str) -> str:
    """Give a text as a single line without control characters: a terminal would obey them."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def counted(number: int, what: str) -> str:
    """Give a number with its noun, such as `1 record` or `2,000 records`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def progress_of(job: Job) -> str:
    """Say how far a job is, such as `12,000 of 300,000`."""
    total = "" if job.total_records is None else f" of {job.total_records:,}"
    return f"{job.processed_records:,}{total}"


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """Say how long ago something was, such as `12 s` or `3 h`."""
    if moment is None:
        return ""
    seconds = max(((now or datetime.now(UTC)) - moment).total_seconds(), 0.0)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


class Output:
    """The two streams of a command.

    Args:
        as_json: Whether results are JSON, one object on each line.
        verbose: Whether the library's log and the traceback of an error are shown.
    """

    def __init__(self, *, as_json: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.verbose = verbose
        self.out = _console(stderr=False)
        self.err = _console(stderr=True)
        logger = logging.getLogger("resumable_sync")
        logger.handlers[:] = [_Lines(self.err)]
        logger.setLevel(logging.INFO if verbose else logging.WARNING)

    def result(self, value: Any, *lines: str) -> None:
        """Print a result: as JSON, or as lines."""
        if self.as_json:
            sys.stdout.write(json.dumps(plain(value), ensure_ascii=False) + "\n")
            sys.stdout.flush()
        else:
            for line in lines:
                self.out.print(Text(line), soft_wrap=True)

    def say(self, text: str, style: str = "") -> None:
        """Say something that is no result."""
        self.err.print(Text(text, style=style), soft_wrap=True)

    def error(self, error: BaseException, job_id: str | None = None, status: ExitStatus | None = None) -> None:
        """Say what went wrong, without a credential."""
        status = status_of_error(error) if status is None else status
        text = str(error) if isinstance(error, ConfigurationError | click.UsageError) else describe_error(error)
        text = mask_credentials(text)
        notes = [mask_credentials(str(note)) for note in getattr(error, "__notes__", ())]
        if self.as_json:
            found = {"type": type(error).__name__, "message": text, "notes": notes}
            self.result({"job_id": job_id, "error": found, "exit_status": int(status)})
        self.say((f"{job_id}: " if job_id is not None else "") + text, "red")
        for note in notes:
            self.say(f"  {note}")
        if self.verbose and not isinstance(error, ConfigurationError):
            self.say(mask_credentials("".join(traceback.format_exception(error))), "dim")

    def warn(self, texts: Iterable[str]) -> None:
        """Say what should be mended."""
        for text in texts:
            self.say(f"warning: {text}", "yellow")


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


class _Lines(logging.Handler):
    """Writes log records by the console that may be drawing a progress bar, above it."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    @override
    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        self._console.print(Text(one_line(mask_credentials(record.getMessage())), style=style), soft_wrap=True)
