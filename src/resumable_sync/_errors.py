"""The library's own errors, and what may be said about anybody's error.

    ResumableSyncError
    |-- ConfigurationError (ValueError)     an argument or a combination that cannot work
    |-- JobHeldError                        another live attempt has the lease
    |-- LeaseLostError                      this attempt lost its lease: a zombie
    |-- SourceChangedError                  the fingerprint differs from the stored one
    |-- CursorError                         unsupported, not advancing, or expired cursor
    |-- CrashLoopError                      attempts die one after the other without progress
    |-- DeadLetterLimitError                more records were refused than the run may leave behind
    |-- ExecutorBrokenError                 the executor of a partitioned sync cannot go on
    |-- StoreError                          the store could not do what it was asked
    |   `-- StateCorruptError               a stored job cannot be what the library wrote
    |-- TransientError                      worth another try
    `-- MissingExtraError (ImportError)     an optional package is not installed

Every error keeps its facts as fields, pickles, and ends with the remedy.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

from typing_extensions import override

from resumable_sync._driver_errors import attribute, is_driver_error, masked_arguments, text_of

__all__ = [
    "ConfigurationError",
    "CrashLoopError",
    "CursorError",
    "DeadLetterLimitError",
    "ExecutorBrokenError",
    "JobHeldError",
    "LeaseLostError",
    "MissingExtraError",
    "ResumableSyncError",
    "SourceChangedError",
    "StateCorruptError",
    "StoreError",
    "TransientError",
    "describe_error",
    "mask_credentials",
]

MAX_ERROR_LENGTH = 2_000


class ResumableSyncError(Exception):
    """Root of all errors that the library raises itself."""


class ConfigurationError(ResumableSyncError, ValueError):
    """An argument, or a combination of arguments, that cannot work; nothing was read or written.

    Args:
        message: What is wrong, with the job, the value and the remedy.
        place: Where in plain data the value stands: keys and indexes, such as `("jobs", "orders", "source", "url")`;
            empty for arguments.
    """

    def __init__(self, message: str, place: Sequence[str | int] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.place = tuple(place)


class JobHeldError(ResumableSyncError):
    """Another live attempt holds the lease of the job.

    Args:
        owner: Who holds it, as given to `JobStore.acquire`.
        expires_at: When the lease ends unless it is renewed (aware UTC).
        job_id: The job; a store may leave it out, the engine fills it in.
    """

    def __init__(self, owner: str, expires_at: datetime | None, job_id: str | None = None) -> None:
        super().__init__(owner, expires_at, job_id)
        self.owner = owner
        self.expires_at = expires_at
        self.job_id = job_id

    @override
    def __str__(self) -> str:
        until = f" until {self.expires_at.isoformat()} unless renewed" if self.expires_at else ""
        return (
            f"job {self.job_id!r} is held by {self.owner}{until}; wait for it with if_held='wait', "
            "pass over it with if_held='skip', or stop it with store.request_stop(job_id)"
        )


class LeaseLostError(ResumableSyncError):
    """This attempt no longer holds the lease; what it tries to write is refused.

    Args:
        job_id: The job.
        fencing_token: The token this attempt wrote with, or None if it had none.
    """

    def __init__(self, job_id: str, fencing_token: int | None = None) -> None:
        super().__init__(job_id, fencing_token)
        self.job_id = job_id
        self.fencing_token = fencing_token

    @override
    def __str__(self) -> str:
        return (
            f"the lease of job {self.job_id!r} (fencing token {self.fencing_token}) was lost: it expired and "
            "another attempt took over, or the job was deleted; nothing of the batch in hand was saved. Leave the "
            "job to the new owner; if it happens often, raise lease_ttl"
        )


class SourceChangedError(ResumableSyncError):
    """The source is not the one the stored cursor belongs to.

    Args:
        job_id: The job.
        changed: Names of the parts of the fingerprint that differ, at least one; `"anchor"` where the last record
            delivered is not there as it was.
        details: What changed in them, by part, as far as that may be said: names of columns, never values.
        impossible: Those of the parts with whose change no cursor can be resumed, with consent neither.
    """

    def __init__(
        self,
        job_id: str,
        changed: Sequence[str],
        details: Mapping[str, str] | None = None,
        impossible: Sequence[str] = (),
    ) -> None:
        super().__init__(job_id, tuple(changed), dict(details or {}), tuple(impossible))
        self.job_id = job_id
        self.changed = tuple(changed)
        self.details = dict(details or {})
        self.impossible = tuple(impossible)

    @override
    def __str__(self) -> str:
        told = [f"{part} ({self.details[part]})" if self.details.get(part) else part for part in self.changed]
        text = f"the source of job {self.job_id!r} changed since its last checkpoint: {', '.join(told)}; "
        if self.impossible:
            return text + (
                f"after such a change of {' and '.join(self.impossible)} its run cannot go on, not with "
                "if_changed='resume' either: undo it, or start over with if_changed='rerun' or reset_job(job_id)"
            )
        if self.changed == ("anchor",):
            return text + (
                "start over with the connector's if_moved='rerun' or with reset_job(job_id), or go on at the stored "
                "cursor with if_moved='warn'"
            )
        return text + "start over with if_changed='rerun', or go on at the stored cursor with if_changed='resume'"


class CursorError(ResumableSyncError):
    """A cursor that is of an unsupported type, does not advance, has expired, or means nothing to the connector.

    Args:
        message: What is wrong, with the remedy.
        job_id: The job; a connector may leave it out, the engine fills it in.
    """

    def __init__(self, message: str, job_id: str | None = None) -> None:
        super().__init__(message, job_id)
        self.message = message
        self.job_id = job_id

    @override
    def __str__(self) -> str:
        return self.message if self.job_id is None else f"job {self.job_id!r}: {self.message}"


class CrashLoopError(ResumableSyncError):
    """Several attempts in a row died without saving a checkpoint.

    Args:
        job_id: The job.
        stalled_attempts: How many died in a row.
        max_stalled_attempts: How many are allowed.
    """

    def __init__(self, job_id: str, stalled_attempts: int, max_stalled_attempts: int) -> None:
        super().__init__(job_id, stalled_attempts, max_stalled_attempts)
        self.job_id = job_id
        self.stalled_attempts = stalled_attempts
        self.max_stalled_attempts = max_stalled_attempts

    @override
    def __str__(self) -> str:
        return (
            f"{self.stalled_attempts} attempts of job {self.job_id!r} died in a row without saving a checkpoint "
            f"(max_stalled_attempts={self.max_stalled_attempts}); find what kills the process at this place, then "
            "raise max_stalled_attempts, or start over with reset_job(job_id)"
        )


class DeadLetterLimitError(ResumableSyncError):
    """The sink refused more records of a run than may become dead letters; the batch in hand was not committed.

    The error with which the sink refused the first record of that batch is the `__cause__`.

    Args:
        job_id: The job.
        limit: How many dead letters the run may have.
    """

    def __init__(self, job_id: str, limit: int) -> None:
        super().__init__(job_id, limit)
        self.job_id = job_id
        self.limit = limit

    @override
    def __str__(self) -> str:
        return (
            f"the sink refuses more records of job {self.job_id!r} than may become dead letters "
            f"(max_dead_letters={self.limit}); the batch in hand was not committed, the letters of earlier ones are "
            "kept. Mend the source or the sink (the cause of this error says why it refuses), or raise "
            "max_dead_letters, then call again with the same job_id"
        )


class ExecutorBrokenError(ResumableSyncError):
    """The executor of a partitioned sync cannot go on; what it raised is the `__cause__`.

    Args:
        job_id: The job of the whole.
        unfinished: Numbers of the parts that are not completed.
    """

    def __init__(self, job_id: str, unfinished: Sequence[int]) -> None:
        super().__init__(job_id, tuple(unfinished))
        self.job_id = job_id
        self.unfinished = tuple(unfinished)

    @override
    def __str__(self) -> str:
        return (
            f"the executor of job {self.job_id!r} broke: one of its workers was killed (by the kernel, when memory is "
            f"short), its scheduler is gone, or it was shut down; {len(self.unfinished)} parts are not completed. Make "
            "a new executor and call again with the same job_id: only these go on, each at its checkpoint"
        )


class StoreError(ResumableSyncError):
    """The job store could not do what it was asked; the driver's error, if any, is the `__cause__`.

    Args:
        message: What failed, with the remedy.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class StateCorruptError(StoreError):
    """A stored job holds what the library cannot have written; it was left untouched.

    Args:
        job_id: The job, or None where the reader does not know it.
        field: The field of the job that is damaged.
        detail: What is wrong with it, without its value.
    """

    def __init__(self, job_id: str | None, field: str, detail: str) -> None:
        super().__init__(detail)
        self.args = (job_id, field, detail)
        self.job_id = job_id
        self.field = field
        self.detail = detail

    @override
    def __str__(self) -> str:
        return (
            f"the stored state of job {self.job_id!r} is damaged: field {self.field!r} {self.detail}; the row was left "
            "untouched: repair the field, or start over with store.delete(job_id)"
        )


class TransientError(ResumableSyncError):
    """For connectors and sinks to raise: another try may succeed.

    Args:
        message: What happened.
        retry_after: Seconds to wait before the next try, or None for the usual backoff.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)
        self.message = message
        self.retry_after = retry_after

    @override
    def __str__(self) -> str:
        return self.message


class MissingExtraError(ResumableSyncError, ImportError):
    """An optional package is not installed.

    Args:
        package: The package that could not be imported.
        extra: The extra of `resumable_sync` that installs it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(package, extra)
        self.package = package
        self.extra = extra

    @override
    def __str__(self) -> str:
        return f"{self.package} is not installed; install it with: pip install 'resumable_sync[{self.extra}]'"


# Text may be as long as a server likes, so that every pattern takes time in proportion to it: what repeats without a
# bound is possessive. Where it is unclear how far a secret goes, more is masked.
_LONG_NAMES = (
    r"(?:password|passwd|pwd|passphrase|secret|credential|authorization|cookie|(?<!fencing_)(?<!fencing )token"
    r"|(?:api|access|account|private|secret|shared)[_-]?key)s?"
)
# Words of everyday messages too: a colon behind them proves nothing unless they are quoted.
_SHORT_NAMES = r"(?:(?<![A-Za-z])(?:pass|sig|signature|auth)|sess(?:ion)?_?id|(?<=[?&])key)"
_CLOSED = r"\\*+['\"]"
# The closing quote has as many backslashes before it as the opening one.
_QUOTED = rf"b?(?P<quote>{_CLOSED})(?:(?!(?<!\\)(?P=quote)).)*+(?P=quote)?"
# Punctuation ends a value only where something else may begin.
_PLAIN = r"(?:[^\s&,;'\")}\]]|[&,;'\")}\]](?=\w)(?![\w.-]{1,40}\s?=))++"
_VALUE = rf"(?:{_QUOTED}|[(\[{{][^()\[\]{{}}]{{0,400}}+[)\]}}]|{_PLAIN})"
_PLAIN_ANSWER = r"(?!(?:yes|no|none|null|true|false)(?:[\s,;)}\]]|$))"
_SCHEMES = r"(?:basic|bearer|digest|negotiate|token)\b"

_CREDENTIALS = [
    (re.compile(r"(?s)(-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----)(?:(?!-----END ).)*+"), r"\1***"),
    # A header goes on to the end of its line.
    (
        re.compile(
            rf"(?i)\b((?:authorization\s{{0,8}}+(?::|%3A|=(?=\s{{0,8}}{_SCHEMES}))|cookie\s{{0,8}}+(?::|%3A))\s{{0,8}}+)"
            r"(?!['\"\\])[^\r\n]++"
        ),
        r"\1***",
    ),
    (
        re.compile(
            rf"(?is)(\(b?{_CLOSED}[\w.-]{{0,40}}?(?:{_LONG_NAMES}|{_SHORT_NAMES}){_CLOSED}\s{{0,8}},\s{{0,8}}){_QUOTED}"
        ),
        r"\1***",
    ),
    (
        re.compile(
            rf"(?is)((?:(?:{_LONG_NAMES}|{_SHORT_NAMES}){_CLOSED}\s{{0,8}}[=:]|{_LONG_NAMES}\s{{0,8}}(?:[=:]|%3[AD])"
            rf"|{_SHORT_NAMES}\s{{0,8}}(?:=|%3D))>?\s{{0,8}}+){_PLAIN_ANSWER}{_VALUE}"
        ),
        r"\1***",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s{1,8}[A-Za-z0-9._~+/=-]{8,}+"), r"\1 ***"),
]


def mask_credentials(text: str) -> str:
    """Give `text` with passwords, tokens and keys replaced by `***`."""
    text = re.sub(r"://(\S++)", _mask_userinfo, text)
    for pattern, replacement in _CREDENTIALS:
        text = pattern.sub(replacement, text)
    return text


def _mask_userinfo(match: re.Match[str]) -> str:
    # A password that was not percent-encoded may hold anything: whatever stands before the last @ belongs to it.
    userinfo, at, rest = match[1].rpartition("@")
    user, colon, _ = userinfo.partition(":")
    if not at or not user + colon:
        return match[0]
    if match.string[: match.start()][-5:].lower().endswith(("http", "https")):
        # What stands for the user there may be a token.
        in_path = not colon and "/" in user
        return match[0] if in_path else f"://***@{rest}"
    return f"://{user}:***@{rest}" if colon else match[0]


def describe_error(error: BaseException) -> str:
    """Say what an error is, in a form that may be stored and logged.

    A database's error is cut down to its own first line, without values: SQLAlchemy appends the statement and its
    parameters, PostgreSQL details that quote keys and rows, and all would put record values into logs.

    Returns:
        `"Type: message"`, at most 2,000 characters, credentials masked.
    """
    origin = attribute(error, "orig")
    driver_error = origin if isinstance(origin, BaseException) else error
    if driver_error is not error or is_driver_error(error):
        message = ": ".join(masked_arguments(driver_error))
    else:
        message = text_of(error)
    text = f"{type(error).__name__}: {mask_credentials(message)}"
    return text if len(text) <= MAX_ERROR_LENGTH else text[: MAX_ERROR_LENGTH - 1] + "…"
