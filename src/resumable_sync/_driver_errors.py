"""What may be said of a database driver's error: names of tables and columns, and no values of records.

Databases quote the ones as they quote the others, in as many ways as there are languages. A name is known by the word
before it, in English, or by the SQLSTATE; whatever else is quoted is masked.
"""

import re
from typing import Any

__all__ = ["RAISED", "attribute", "is_driver_error", "mask_values", "masked_arguments", "text_of"]

RAISED = "*** (raised by a function or trigger of the database, whose words may be values)"
"""What is shown of a message that is not the database's own."""

_NAMING = {"08", "0A", "23", "25", "26", "28", "34", "3B", "3D", "3F", "40", "42", "44", "53", "54", "55", "57", "58"}
"""Classes of SQLSTATE in whose messages PostgreSQL quotes names."""
_NAMING_AND_MORE = {"23000", "42000", "42601"}
"""Among them those that MySQL gives to duplicate keys, and PostgreSQL to what is no text of a tsquery or hstore."""

_QUOTES = "\"'\u00ab\u00bb\u201e\u201c\u201d\u201a\u2018\u2019\u2039\u203a\u300c\u300d\u300e\u300f"
_IN_QUOTES = rf"[{_QUOTES}][^{_QUOTES}]*+[{_QUOTES}]"
_BEFORE_NAMES = (
    r"(?:[Cc]olumn(?: name)?:?|constraint|database|encoding|[Ff]ield|file|[Hh]ost(?: name)?|index|option|parameter"
    r"|[Pp]lugin|relation|role|schema|server (?:at|on)|socket|[Tt]able|type|user|[Vv]iew)"
)
_NAME = rf"\b(?:{_BEFORE_NAMES} {_IN_QUOTES}(?:@{_IN_QUOTES})?|error \d+ {_IN_QUOTES})"
# Up to the last quote, since a value may hold quotes itself; MySQL names a column or key behind it.
_VALUE = re.compile(
    rf"(?s)\A((?:{_NAME}|(?<=n)'(?=t\b)|[^{_QUOTES}])*+)([{_QUOTES}])"
    rf"(?:.*(')(?= for (?:column|key) '[^{_QUOTES}]*+'(?: at row \d+)?$)|.*([{_QUOTES}])|.*)"
)
# What PostgreSQL does not quote of a value is a number, or follows a colon. U+0000 is worth knowing, and no secret.
_UNQUOTED = re.compile(
    rf"(?s)(?<=: )(?![{_QUOTES}]|0x00$).+|(?<![A-Za-z0-9_(,])(?<! row )[-+]?(?!0x00$)\d[A-Za-z0-9_.:+-]*+"
)
# MySQL's text of the statement may hold values; a bare word at its beginning is none, as values are quoted there.
_SYNTAX = re.compile(
    r"(?s)((?:syntax error at or |You have .* syntax to use )?near [\"'](?:[^\W\d]\w*+)?)(.*)"
    r"([\"'](?:: syntax error| at line \d+)?)"
)
_RAISED_BY = {"38", "P0001", "P0004"}
"""Class and SQLSTATEs of PostgreSQL for what a function raised, in any language, unless it names another one."""
# Where PostgreSQL says that an error came from: RAISE and ASSERT of PL/pgSQL, and what PL/Python raised.
_RAISING = {"exec_stmt_raise", "exec_stmt_assert", "PLy_elog_impl"}
_SIGNALED = {1642, 1643, 1644}
"""MySQL's numbers for a SIGNAL that names none."""
_LAST_OF_MYSQL = 6_000
"""Greater numbers no server has of itself."""
_NO_PARTITION = 1526
"""MySQL's number for a row that no partition takes, with the value and a SQLSTATE that tells nothing."""


def mask_values(text: str, sqlstate: object = None) -> str:
    """Give what a database says with the values in it replaced by `***`.

    Args:
        text: Its message, in any language.
        sqlstate: Its SQLSTATE, where it gives one.
    """
    kind = sqlstate[:2] if isinstance(sqlstate, str) else ""
    if kind in _RAISED_BY or sqlstate in _RAISED_BY:
        return RAISED
    if kind in _NAMING and sqlstate not in _NAMING_AND_MORE:
        return text
    if syntax := _SYNTAX.fullmatch(text):
        return f"{syntax[1]}{'***' if syntax[2] else ''}{syntax[3]}"
    text = _VALUE.sub(r"\1\2***\3\4", text, count=1)
    return _UNQUOTED.sub("***", text) if kind == "22" else text


def is_driver_error(error: BaseException) -> bool:
    """Whether an error is one that PEP 249 has drivers raise, or has what libpq says of one."""
    named = any(base.__name__ in ("DatabaseError", "InterfaceError") for base in type(error).__mro__)
    return named or attribute(error, "diag") is not None


def masked_arguments(error: BaseException) -> list[str]:
    """Give the arguments of a driver's error as they may be shown, at least one.

    PostgreSQL's details quote keys and whole rows, and are left out.
    """
    diag, sqlstate = attribute(error, "diag"), attribute(error, "sqlstate")
    if _is_raised(error, diag):
        return [*(str(argument) for argument in error.args if isinstance(argument, int)), RAISED]
    primary = attribute(diag, "message_primary")
    if isinstance(primary, str):
        return [mask_values(primary, sqlstate or attribute(diag, "sqlstate"))]
    if error.args and isinstance(error.args[0], dict):  # pg8000's
        return [mask_values(str(error.args[0].get("M")), error.args[0].get("C"))]
    sqlstate = "22000" if error.args[:1] == (_NO_PARTITION,) else sqlstate
    return [_masked(argument, sqlstate) for argument in error.args or (text_of(error),)]


def _is_raised(error: BaseException, diag: object) -> bool:
    """Whether the message is of somebody's own function or trigger, as far as the database tells."""
    first: Any = error.args[0] if error.args else None
    by = first.get("R") if isinstance(first, dict) else attribute(diag, "source_function")  # a dict: pg8000's
    if isinstance(by, str) and by in _RAISING:
        return True
    if isinstance(first, int) and (first in _SIGNALED or first > _LAST_OF_MYSQL):
        return True
    if attribute(error, "sqlite_errorname") != "SQLITE_CONSTRAINT_TRIGGER":
        return False
    import sqlite3  # noqa: PLC0415 - whoever has such an error has it imported

    return sqlite3.sqlite_version_info >= (3, 47)  # before, RAISE took nothing but a literal


def _masked(argument: object, sqlstate: object) -> str:
    text = re.split(r"\n(?:DETAIL|CONTEXT):", text_of(argument))[0]
    return text if isinstance(argument, int) else mask_values(text, sqlstate)


def text_of(value: object) -> str:
    """Give the text of a value, whatever it is."""
    # Saying what failed must not fail: the error would hide the one it is about.
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - it is foreign code
        return f"(the text of this {type(value).__name__} cannot be had)"


def attribute(value: object, name: str) -> object:
    """Give an attribute of a value; None if it cannot be had."""
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001 - a property is foreign code
        return None
