"""Writing statements on the tables of one store in the words of its database.

They are text: with SQLAlchemy's own expressions a process took 25 ms more until its first batch, as long as PostgreSQL
took to run them.
"""

import re
from collections.abc import Iterable

from sqlalchemy import Dialect, TextClause, TextualSelect, bindparam, text

from resumable_sync._database import is_mysql
from resumable_sync.stores._schema import IDENTIFIER, Names, clock

__all__ = ["SQLText"]

_IDENTIFIERS = re.compile(r":(b_id|b_owner|b_job_id|job_id)\b")
"""Parameters that go to columns of `IDENTIFIER`: MySQL would take any other for text, and find no row by it."""


class SQLText:
    """Writes statements from templates, which hold words in braces and parameters as `:name`.

    `{jobs}`, `{attempts}`, `{dead_letters}`, `{history}` and `{meta}` are the tables. `{clock}` is the database's own
    clock, in microseconds since 1970, and `{greatest}` its function for the greatest of several integers. `{insert}`
    and `{unless_there}` at the end make an INSERT that leaves a row of the same key as it is. `{for_update}` at the end
    of a SELECT locks the row, where the whole database is not locked anyway.

    Attributes:
        dialect: The database.
    """

    def __init__(self, names: Names, dialect: Dialect) -> None:
        self.dialect = dialect
        self._quote = dialect.identifier_preparer.quote
        sqlite, mysql = dialect.name == "sqlite", is_mysql(dialect)
        self._words = {
            "jobs": self._quote(names.jobs),
            "attempts": self._quote(names.attempts),
            "dead_letters": self._quote(names.dead_letters),
            "history": self._quote(names.history),
            "meta": self._quote(names.meta),
            "clock": clock(dialect),
            "greatest": "max" if sqlite else "GREATEST",
            "insert": "INSERT IGNORE INTO" if mysql else "INSERT INTO",
            "unless_there": "" if mysql else "ON CONFLICT DO NOTHING",
            "for_update": "" if sqlite else "FOR UPDATE",
        }

    def names(self, columns: Iterable[str]) -> str:
        """Give the names of columns with commas between, quoted where the database wants that."""
        return ", ".join(map(self._quote, columns))

    def values(self, columns: Iterable[str]) -> str:
        """Give what sets columns to the parameters of their names."""
        return ", ".join(f"{self._quote(name)} = :{name}" for name in columns)

    def write(self, template: str) -> TextClause:
        """Give the statement of a template."""
        sql = template.format_map(self._words)
        typed = (bindparam(name, type_=IDENTIFIER) for name in set(_IDENTIFIERS.findall(sql)))
        return text(sql).bindparams(*typed)

    def query(self, template: str, *identifiers: str) -> TextualSelect:
        """Give the SELECT of a template, with the names of its columns that hold identifiers."""
        return self.write(template).columns(**dict.fromkeys(identifiers, IDENTIFIER))
