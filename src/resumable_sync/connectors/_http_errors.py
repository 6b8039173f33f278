"""What an API's answers mean: go on, try again, the place is gone, or an error for good."""

import re
import time
from collections.abc import Callable, Container, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from typing_extensions import override

from resumable_sync._errors import ResumableSyncError, TransientError

__all__ = ["HTTPResponseError", "PlaceGoneError", "check_status", "retry_after"]

# Timeout, too early, too many; every 5xx but those that say that it will never be.
_TRANSIENT = {408, 425, 429}
_FINAL = {501, 505, 506, 508, 510}
_REFUSED = {401, 403, 407}
_LATER = "Retry-After"
# A fraction is against the standard, and given.
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?")
_MOST_SECONDS = 999_999_999_999.0


class HTTPResponseError(ResumableSyncError):
    """An API answered what no further try will change, or what cannot be read.

    Args:
        message: What is wrong, with the remedy; neither query nor body are in it.
        status: The status of the answer, or None where there is none or it does not matter.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message, status)
        self.message = message
        self.status = status

    @override
    def __str__(self) -> str:
        return self.message


class PlaceGoneError(Exception):
    """The API no longer knows the place that it was asked for.

    Args:
        status: The status of its answer.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def check_status(status: int, headers: Mapping[str, str], url: str, gone: Container[int]) -> None:
    """Let only an answer pass that is what was asked for.

    Args:
        status: Its status.
        headers: Its headers; names in any case.
        url: What was asked, as it may be shown.
        gone: The statuses that mean that the place is gone.

    Raises:
        PlaceGoneError: If the place is gone.
        TransientError: If another try may succeed, with the time that the API asks to wait.
        HTTPResponseError: For anything else.
    """
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return
    wait = retry_after(headers)
    # Some APIs say "forbidden" where others say "too many requests".
    patient = status == HTTPStatus.FORBIDDEN and wait is not None
    if status in _TRANSIENT or patient or (status >= HTTPStatus.INTERNAL_SERVER_ERROR and status not in _FINAL):
        told = "" if wait is None else f" and asks to wait {wait:g} s"
        msg = (
            f"{url} answered {_named(status)}{told}; where that is not enough, raise the limits of "
            "Retry(timeout=..., max_tries=...)"
        )
        raise TransientError(msg, wait)
    if status in gone:
        raise PlaceGoneError(status)
    raise HTTPResponseError(f"{url} answered {_named(status)}; {_remedy(status)}", status)


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _remedy(status: int) -> str:
    if status in _REFUSED:
        return "check the credentials in auth=, headers= or params=, and what they may read"
    if status == HTTPStatus.NOT_FOUND:
        return "check the url"
    return "check url, params and paging against the API's documentation"


def retry_after(headers: Mapping[str, str], clock: Callable[[], float] = time.time) -> float | None:
    """Give the seconds that an answer asks to wait; None if it does not say, or not understandably.

    Args:
        headers: Those of the answer. A date is compared with the server's own clock, where the answer tells it.
        clock: Tells the time where it does not.
    """
    text = headers.get(_LATER, "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), _MOST_SECONDS)
    until = _timestamp(text)
    if until is None:
        return None
    now = _timestamp(headers.get("Date", ""))
    return max(0.0, until - (clock() if now is None else now))


def _timestamp(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
