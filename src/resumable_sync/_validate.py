"""Checks of what callers hand in, shared by the engine and the stores."""

from typing import Any

from resumable_sync._errors import ConfigurationError

__all__ = ["MAX_JOB_ID_LENGTH", "check_job_id"]

MAX_JOB_ID_LENGTH = 255


def check_job_id(job_id: Any) -> str:
    """Give the job id back if it is one.

    Ids are compared exactly, by code point: case, accents and trailing blanks count.

    Raises:
        ConfigurationError: If it is not a str of 1 to 255 characters, or holds U+0000 or a lone surrogate, which not
            every database can keep.
    """
    if type(job_id) is not str:
        msg = f"the job id {job_id!r} is a {type(job_id).__name__}; give a str"
        raise ConfigurationError(msg)
    if not 1 <= len(job_id) <= MAX_JOB_ID_LENGTH:
        shown = job_id if len(job_id) <= MAX_JOB_ID_LENGTH else job_id[:40] + "..."
        msg = f"the job id {shown!r} has {len(job_id)} characters; give it 1 to {MAX_JOB_ID_LENGTH}"
        raise ConfigurationError(msg)
    if "\0" in job_id or any("\ud800" <= character <= "\udfff" for character in job_id):
        msg = f"the job id {job_id!r} holds U+0000 or a lone surrogate, which databases cannot keep; leave them out"
        raise ConfigurationError(msg)
    return job_id
