"""The INSERT statements of `SQLSink`, row by row in one executemany."""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from resumable_sync._database import is_mysql
from resumable_sync.sinks._target import Target, quote

__all__ = ["conflict_clause", "insert_statement", "insert_target"]


def insert_statement(connection: Connection, target: Target, columns: Sequence[str], key: Sequence[str]) -> str:
    """Give the statement that writes a row, in the form of the driver.

    The databases run it row by row, so of several rows of the same key the last one stays.

    Args:
        connection: To the target's database.
        target: The target.
        columns: The columns of the rows.
        key: Rows of the same key are replaced; without one each row is added.
    """
    formats = connection.dialect.paramstyle in ("format", "pyformat")
    name = (lambda text: text.replace("%", "%%")) if formats else str
    values = ", ".join(["%s" if formats else "?"] * len(columns))
    statement = f"{name(insert_target(connection, target, columns))} VALUES ({values})"
    if not key:
        return statement
    if not is_mysql(connection.dialect):
        return f"{statement} {name(conflict_clause(connection, columns, key))}"
    updates = ", ".join(
        f"{column} = VALUES({column})" for column in _others(lambda each: quote(connection, each), columns, key)
    )
    same = quote(connection, key[0])
    statement = f"{statement} ON DUPLICATE KEY UPDATE {name(updates or f'{same} = {same}')}"
    # The drivers join the rows of an INSERT to one statement, and forget the doubled % behind its VALUES then.
    return f"/* row by row */ {statement}" if "%" in updates + same else statement


def insert_target(connection: Connection, target: Target, columns: Sequence[str]) -> str:
    """Give `INSERT INTO table (columns)`."""
    overriding = connection.dialect.name == "postgresql" and any(target.columns[name].generated for name in columns)
    names = ", ".join(quote(connection, column) for column in columns)
    return f"INSERT INTO {target.quoted} ({names}){' OVERRIDING SYSTEM VALUE' if overriding else ''}"


def conflict_clause(connection: Connection, columns: Sequence[str], key: Sequence[str]) -> str:
    """Give `ON CONFLICT (key) DO UPDATE SET ...`."""
    updates = ", ".join(
        f"{column} = excluded.{column}" for column in _others(lambda each: quote(connection, each), columns, key)
    )
    names = ", ".join(quote(connection, column) for column in key)
    return f"ON CONFLICT ({names}) DO {f'UPDATE SET {updates}' if updates else 'NOTHING'}"


def _others(quoted: Callable[[str], str], columns: Sequence[str], key: Sequence[str]) -> list[str]:
    return [quoted(column) for column in columns if column not in key]
