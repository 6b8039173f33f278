"""What is read: a table or a query, its columns, and what its schema proves about a key."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy import Connection, FromClause, Select, Table, TextClause
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.sql import ColumnElement

from resumable_sync._database import shown_url
from resumable_sync._errors import ConfigurationError
from resumable_sync.connectors._catalog import Found, look_up, unique_sets
from resumable_sync.connectors._keyset import KeyPart
from resumable_sync.connectors._statements import Statement, compile_statement

__all__ = ["Source", "TableOrQuery", "is_query", "query_text", "resolve", "select_statement"]

TableOrQuery = str | Table | Select[Any]

_QUERY = re.compile(r"(?is)^(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(?:select|with|values)\b.*\s")
_COMPOUND = re.compile(r"(?i)\b(union|intersect|except)\b")
_MOST_NAMES = 40
_ALIAS = "resumable_sync_source"


@attrs.frozen(kw_only=True)
class Source:
    """A table or a query, ready to be selected from.

    Attributes:
        label: What it is called in messages.
        selectable: What statements select from.
        columns: Its columns by name, in order.
        nullable: For each column whether it may hold NULL, as far as the schema says.
        primary_key: The columns of the primary key of a table; empty if there is none.
        unique: Sets of columns of which the schema proves that no two rows agree in them.
        is_table: Whether it is a table.
        compound: Whether it is a query with UNION or the like.
    """

    label: str
    selectable: FromClause
    columns: Mapping[str, ColumnElement[Any]]
    nullable: Mapping[str, bool] = attrs.field(factory=dict)
    primary_key: tuple[str, ...] = ()
    unique: Sequence[frozenset[str]] = ()
    is_table: bool = False
    compound: bool = False

    def narrowed(self, names: Sequence[str]) -> "Source":
        """Give the same source with some of its columns, in this order.

        Raises:
            ConfigurationError: If one of them is not there.
        """
        gone = [name for name in names if name not in self.columns]
        if gone:
            msg = f"{self.label} has no column {', '.join(map(repr, gone))} any more, which the run began with"
            raise ConfigurationError(f"{msg}; give it back, or start over with if_changed='rerun'")
        return attrs.evolve(self, columns={name: self.columns[name] for name in names})

    def key_columns(self, key: Sequence[KeyPart]) -> list[ColumnElement[Any]]:
        """Give the columns of a key.

        Raises:
            ConfigurationError: If there is no such column.
        """
        for part in key:
            if part.name not in self.columns:
                raise ConfigurationError(
                    f"{self.label} has no column {part.name!r} for the key; it has {_listed(self.columns)}: name "
                    "the key by those"
                )
        return [self.columns[part.name] for part in key]


def is_query(text: str) -> bool:
    """Whether a text is a statement rather than the name of a table."""
    return _QUERY.match(text) is not None


def query_text(text: str, params: Mapping[str, Any] | None, own: Sequence[str] = ()) -> TextClause:
    """Give a query with its parameters bound.

    Args:
        text: The query, with `:name` for parameters.
        params: Their values.
        own: Names of parameters that get their values later.

    Raises:
        ConfigurationError: If parameters and values do not fit together.
    """
    # The line's end: what is put behind the query must not become part of its last comment.
    clause = sa.text(text.strip().rstrip(";") + "\n")
    found = set(clause._bindparams)  # noqa: SLF001 - the names that text() found
    if not found.issuperset(own):
        raise ConfigurationError(f"the query needs the parameters :{' and :'.join(own)}; put both into it")
    named = found - set(own)
    given = set(params or {})
    if named != given:
        missing, unknown = sorted(named - given), sorted(given - named)
        what = f"no value for :{', :'.join(missing)}" if missing else f"values for unknown {', '.join(unknown)}"
        raise ConfigurationError(
            f"the query's parameters and params do not fit: {what}; give params={{name: value}} for every :name of the "
            "query (a colon that is no parameter is written \\:)"
        )
    numbers = [sa.bindparam(name, None, type_=sa.BigInteger()) for name in own]
    return clause.bindparams(*numbers, **(params or {}))


def resolve(connection: Connection, table_or_query: TableOrQuery, params: Mapping[str, Any] | None) -> Source:
    """Look up what is to be read.

    Raises:
        ConfigurationError: If there is no such table, or a query has two columns of one name.
    """
    if isinstance(table_or_query, Table):
        return _table(connection, table_or_query.name, table_or_query.schema, table_or_query)
    if not isinstance(table_or_query, str):
        return _select(connection, table_or_query, params)
    if is_query(table_or_query):
        return _text(connection, table_or_query, params)
    schema, _, name = table_or_query.rpartition(".")
    return _table(connection, name, schema or None, None)


def _table(connection: Connection, name: str, schema: str | None, given: Table | None) -> Source:
    shown = repr(f"{schema}.{name}" if schema else name)
    found = look_up(connection, name, schema)
    if found is None:
        inspector = sa.inspect(connection)
        there = _listed(inspector.get_table_names(schema) if schema in (None, *inspector.get_schema_names()) else [])
        msg = f"there is no table {shown} in {shown_url(connection.engine.url)}; it has {there}"
        raise ConfigurationError(f"{msg}: correct the name, or the database in the URL")
    selectable: FromClause
    if given is None:
        selectable = sa.table(name, *(sa.column(c.name, c.type) for c in found.columns), schema=schema)
    else:
        selectable = given
    columns = {column.name: column for column in selectable.columns}
    return Source(
        label=f"the table {shown}",
        selectable=selectable,
        columns=columns,
        nullable=_nullable(connection, found),
        primary_key=found.primary_key,
        unique=unique_sets(found, columns),
        is_table=True,
        compound=_is_compound_view(connection, name, schema, found.primary_key),
    )


def _nullable(connection: Connection, found: Found) -> dict[str, bool]:
    # SQLite lets NULL into a primary key that is not declared NOT NULL; and not every row need be under the key.
    proven = connection.dialect.name != "sqlite" and found.primary_key in found.constraints
    trusted = found.primary_key if proven else ()
    return {column.name: column.nullable and column.name not in trusted for column in found.columns}


def _is_compound_view(connection: Connection, name: str, schema: str | None, primary_key: Sequence[str]) -> bool:
    if connection.dialect.name != "sqlite" or primary_key:
        return False
    inspector = sa.inspect(connection)
    if name not in inspector.get_view_names(schema):
        return False
    return _COMPOUND.search(inspector.get_view_definition(name, schema) or "") is not None


def _select(connection: Connection, query: Any, params: Mapping[str, Any] | None) -> Source:
    names = [column.key or column.name for column in query.selected_columns]
    _check_names(names)
    text = select_statement(query, params, connection.dialect).text
    selectable = query.params(**(params or {})).subquery(_ALIAS)
    return Source(
        label="the query",
        selectable=selectable,
        columns=dict(zip(names, selectable.columns, strict=True)),
        compound=_COMPOUND.search(text) is not None,
    )


def _text(connection: Connection, query: str, params: Mapping[str, Any] | None) -> Source:
    clause = query_text(query, params)
    unknown = sa.select(sa.text("*")).select_from(clause.columns().subquery(_ALIAS)).where(sa.false())
    fetched = compile_statement(unknown, connection.dialect).run(connection)
    names = [column[0] for column in fetched.driver_cursor.description]
    _check_names(names)
    selectable = clause.columns(*(sa.column(name) for name in names)).subquery(_ALIAS)
    return Source(
        label="the query",
        selectable=selectable,
        columns={name: selectable.c[name] for name in names},
        compound=_COMPOUND.search(query) is not None,
    )


def select_statement(query: Any, params: Mapping[str, Any] | None, dialect: Dialect) -> Statement:
    """Compile a `select()` with its parameters bound.

    Raises:
        ConfigurationError: If a parameter has no value, or this is no `select()`.
    """
    if not isinstance(query, sa.Select | sa.CompoundSelect):
        msg = f"a source cannot be a {type(query).__name__}; give a table name, a Table, a select() or a SELECT text"
        raise ConfigurationError(msg)
    try:
        return compile_statement(query.params(**(params or {})), dialect)
    except InvalidRequestError as error:
        msg = f"the query cannot be compiled: {error.args[0]}; give params={{name: value}} for its parameters"
        raise ConfigurationError(msg) from None


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"the query has several columns named {', '.join(twice)}; give each a name of its own with AS"
        raise ConfigurationError(msg)


def _listed(names: Any) -> str:
    shown = list(names)
    more = f" and {len(shown) - _MOST_NAMES} more" if len(shown) > _MOST_NAMES else ""
    return (", ".join(map(repr, shown[:_MOST_NAMES])) or "none") + more
