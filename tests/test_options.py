"""Options and retries have limits, and say them; what is transient is told by its code."""

from collections.abc import Callable
from typing import Any, cast

import psycopg
import pymysql
import pytest
from psycopg import errors
from sqlalchemy.exc import DBAPIError, InternalError

from resumable_sync import ConfigurationError, Retry
from resumable_sync._attempts.options import make_options
from resumable_sync._retry import is_transient


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("batch_size", 10_000_001, "from 1 to 10,000,000"),
        ("batch_size", 10**30, "from 1 to 10,000,000"),
        ("batch_size", 0, "from 1 to 10,000,000"),
        ("prefetch", 1_001, "from 0 to 1,000"),
        ("prefetch", -1, "from 0 to 1,000"),
    ],
)
def test_sizes_have_an_upper_limit(option: Any, value: int, allowed: str) -> None:
    with pytest.raises(ConfigurationError, match=allowed) as caught:
        make_options("orders", cast("Any", {option: value}))
    assert f"{option}={value}" in str(caught.value)


def test_the_limits_themselves_are_allowed() -> None:
    options = make_options("orders", {"batch_size": 10_000_000, "prefetch": 1_000})
    assert (options.batch_size, options.prefetch) == (10_000_000, 1_000)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("max_tries", [True, False, 0, -1, 1.0, "5", None]),
        ("wait_initial", [float("nan"), float("inf"), -1, True, "x", None]),
        ("wait_max", [float("nan"), float("inf"), -0.1, True, "x", None]),
        ("timeout", [float("nan"), float("inf"), 0, -1, True, "x"]),
        ("on", [None, 5, "OSError", [OSError], (OSError, 5), int, KeyboardInterrupt, (OSError, SystemExit)]),
    ],
)
def test_a_retry_that_cannot_work_says_what_can(field: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ConfigurationError, match="give") as caught:
            Retry(**{field: value})
        assert f"Retry({field}=" in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"on": OSError},
        {"on": (OSError, LookupError)},
        {"on": ()},
        {"on": lambda error: True},
        {"max_tries": 1, "wait_initial": 0, "wait_max": 0, "timeout": 0.5},
        {"timeout": None},
    ],
)
def test_a_retry_that_can_work_is_taken(given: dict[str, Any]) -> None:
    for name, value in given.items():
        assert getattr(Retry(**given), name) == value


def through_sqlalchemy(error: Exception) -> DBAPIError:
    return InternalError("SELECT 1", {}, error)


class NotInTime(psycopg.OperationalError):
    """As psycopg's own for a connection that took too long, which not every version has."""

    __module__ = "psycopg.errors"


@pytest.mark.parametrize("wrap", [lambda error: error, through_sqlalchemy])
@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (pymysql.err.OperationalError(2006, "MySQL server has gone away"), True),
        (pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query"), True),
        (pymysql.err.OperationalError(1927, "Connection was killed"), True),
        (pymysql.err.OperationalError(1053, "Server shutdown in progress"), True),
        (pymysql.err.OperationalError(4031, "The client was disconnected because of inactivity"), True),
        (pymysql.err.InternalError(1927, "Connection was killed"), True),
        (pymysql.err.InterfaceError(0, ""), True),
        (pymysql.err.ProgrammingError(1146, "Table 'x' doesn't exist"), False),
        (pymysql.err.OperationalError(1045, "Access denied"), False),
        (errors.IdleSessionTimeout("57P05"), True),
        (errors.AdminShutdown("57P01"), True),
        (errors.IdleInTransactionSessionTimeout("25P03"), True),
        (errors.ReadOnlySqlTransaction("25006"), False),
        (errors.UndefinedTable("42P01"), False),
        (errors.QueryCanceled("57014"), False),
        (psycopg.OperationalError("server closed the connection unexpectedly"), True),
        (NotInTime("connection timeout expired"), True),
        (psycopg.InternalError("no code"), False),
    ],
)
def test_what_the_servers_say_is_transient(
    error: Exception, transient: bool, wrap: Callable[[Exception], Exception]
) -> None:
    assert is_transient(wrap(error)) is transient
