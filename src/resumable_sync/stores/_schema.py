"""The tables of `SQLJobStore`: their columns, their DDL, their versions."""

import hashlib
from collections.abc import Callable
from typing import Any

import attrs
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Dialect,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    inspect,
    text,
)
from sqlalchemy.dialects.mysql import LONGTEXT, MEDIUMTEXT, VARBINARY
from sqlalchemy.schema import CreateIndex, CreateTable, DDLElement
from sqlalchemy.types import TypeDecorator, TypeEngine
from typing_extensions import override

from resumable_sync._database import begin_write, has_table, is_mysql
from resumable_sync._errors import StoreError

__all__ = [
    "ATTEMPTS_SINCE",
    "DEAD_LETTERS_SINCE",
    "HISTORY_SINCE",
    "IDENTIFIER",
    "JOB_COLUMN_SINCE",
    "SCHEMA_VERSION",
    "Names",
    "Tables",
    "clock",
    "create",
    "ddl",
    "migrate",
    "stored_version",
    "tables",
]

SCHEMA_VERSION = 4
"""Version 1 had no dead letters, did not count stalled attempts, and forgot the tokens of deleted jobs.

Version 2 had no lineage, and forgot the batch size that was learned.

Version 3 had no history.
"""

DEAD_LETTERS_SINCE = 2
ATTEMPTS_SINCE = 3
HISTORY_SINCE = 4
JOB_COLUMN_SINCE = {"stalled_attempts": 2, "batch_size": 3, "saved_token": 3}
"""The version that a column of the jobs came with; the others were there from the beginning."""

LOCK_SECONDS = 10

IDLE_SECONDS = 5
"""After how long the server ends a process that is frozen while it makes the tables: before the others give up."""

_WAIT_BEFORE = "@resumable_sync_wait_before"


_CLOCKS = {
    # Older SQLites have no finer clock than milliseconds.
    "sqlite": "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)",
    # now() is the start of the transaction, which a sink may have kept open for long.
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
    "mysql": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
}


def clock(dialect: Dialect) -> str:
    """Give the database's own clock as SQL, in microseconds since 1970."""
    return _CLOCKS["mysql" if is_mysql(dialect) else dialect.name]


class _Encoded(TypeDecorator[str]):
    """Text as its bytes in UTF-8: every collation of text on MySQL ignores trailing blanks, or case, or accents."""

    impl = VARBINARY(1020)
    cache_ok = True

    @override
    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        return value if value is None else value.encode()

    @override
    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        if isinstance(value, bytes):
            try:
                return value.decode()
            except UnicodeDecodeError:
                return value  # damaged; whoever reads the row says so
        return value


IDENTIFIER: TypeEngine[str] = (
    String(255).with_variant(String(255, collation="C"), "postgresql").with_variant(_Encoded(), "mysql", "mariadb")
)
"""Text of 1 to 255 characters that is compared and ordered by code point, exactly."""


def _long_text(mysql_type: type[LONGTEXT | MEDIUMTEXT]) -> TypeEngine[str]:
    # MariaDB's TEXT holds 65,535 bytes, one short of the largest cursor.
    return Text().with_variant(mysql_type(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


class Names:
    """The names of the tables of a store, which start with its prefix."""

    def __init__(self, prefix: str) -> None:
        self.meta = f"{prefix}meta"
        self.jobs = f"{prefix}jobs"
        self.dead_letters = f"{prefix}dead_letters"
        self.attempts = f"{prefix}attempts"
        self.history = f"{prefix}history"


@attrs.frozen
class Tables:
    """The tables of a store, to make them: statements need no more than their names."""

    meta: Table
    jobs: Table
    dead_letters: Table
    attempts: Table
    history: Table


def tables(names: Names) -> Tables:
    """Give the tables of these names."""
    metadata = MetaData()
    options: dict[str, Any] = {
        # Another default engine would have no transactions.
        f"{dialect}_{name}": value
        for dialect in ("mysql", "mariadb")
        for name, value in {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}.items()
    }
    meta = Table(
        names.meta,
        metadata,
        Column("name", String(64), primary_key=True),
        Column("value", BigInteger, nullable=False),
        **options,
    )
    dead_letters = Table(
        names.dead_letters,
        metadata,
        Column("id", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True, autoincrement=True),
        Column("job_id", IDENTIFIER, nullable=False),
        Column("run", BigInteger, nullable=False),
        Column("record", _long_text(LONGTEXT), nullable=False),
        Column("columns", _long_text(LONGTEXT)),
        Column("error", _long_text(MEDIUMTEXT), nullable=False),
        Column("cursor", _long_text(MEDIUMTEXT)),
        Column("key", String(255), nullable=False),
        Column("created_at", BigInteger),
        Index(f"{names.dead_letters}_job", "job_id", "id"),
        # An id that was once given must not be given again: letters are told apart by it.
        sqlite_autoincrement=True,
        **options,
    )
    jobs = Table(names.jobs, metadata, *_job_columns(), **options)
    attempts = Table(names.attempts, metadata, *_attempt_columns(), **options)
    history = Table(
        names.history,
        metadata,
        Column("job_id", IDENTIFIER, primary_key=True),
        # That of the newest lease, whether or not it has written anything: an older one writes nothing any more.
        Column("fencing_token", BigInteger, nullable=False),
        Column("samples", _long_text(MEDIUMTEXT)),
        **options,
    )
    return Tables(meta, jobs, dead_letters, attempts, history)


def _job_columns() -> list[Column[Any]]:
    return [
        Column("id", IDENTIFIER, primary_key=True),
        Column("status", String(16), nullable=False),
        Column("run", BigInteger, nullable=False),
        Column("run_id", String(36)),
        Column("attempt", BigInteger, nullable=False),
        Column("cursor", _long_text(MEDIUMTEXT)),
        Column("processed_records", BigInteger, nullable=False),
        Column("processed_batches", BigInteger, nullable=False),
        Column("total_records", BigInteger),
        Column("dead_letters", BigInteger, nullable=False),
        Column("fingerprint", _long_text(MEDIUMTEXT)),
        Column("stalled_attempts", BigInteger, nullable=False, server_default="0"),
        Column("batch_size", BigInteger),
        Column("error", _long_text(MEDIUMTEXT)),
        Column("created_at", BigInteger),
        Column("started_at", BigInteger),
        Column("updated_at", BigInteger),
        Column("finished_at", BigInteger),
        Column("fencing_token", BigInteger, nullable=False),
        Column("lease_owner", IDENTIFIER),
        Column("lease_expires_at", BigInteger),
        Column("lease_ttl", BigInteger),
        Column("stop_requested", SmallInteger, nullable=False),
        # The token that the job was last saved under: whether its newest lease was put to use.
        Column("saved_token", BigInteger),
    ]


def _attempt_columns() -> list[Column[Any]]:
    # What is empty in the row of an attempt that has not ended stands in the row of its job.
    return [
        Column("job_id", IDENTIFIER, primary_key=True),
        Column("fencing_token", BigInteger, primary_key=True, autoincrement=False),
        Column("owner", IDENTIFIER, nullable=False),
        Column("from_cursor", _long_text(MEDIUMTEXT)),
        Column("from_records", BigInteger, nullable=False),
        Column("to_cursor", _long_text(MEDIUMTEXT)),
        Column("to_records", BigInteger),
        Column("error", _long_text(MEDIUMTEXT)),
        Column("started_at", BigInteger, nullable=False),
        Column("ended_at", BigInteger),
        Column("outcome", String(16)),
        Column("run", BigInteger, nullable=False),
        Column("attempt", BigInteger, nullable=False),
    ]


def ddl(names: Names, dialect: Dialect) -> list[str]:
    """Give the statements that make the tables, each harmless where it was run before.

    The meta table comes last: only once it has its rows do the tables count as made.
    """
    made = tables(names)
    indexes = [index for index in made.dead_letters.indexes if not is_mysql(dialect)]
    elements: list[DDLElement] = [
        CreateTable(made.jobs, if_not_exists=True),
        CreateTable(made.dead_letters, if_not_exists=True),
        CreateTable(made.attempts, if_not_exists=True),
        CreateTable(made.history, if_not_exists=True),
        *(CreateIndex(index, if_not_exists=True) for index in indexes),
        CreateTable(made.meta, if_not_exists=True),
    ]
    statements = [str(element.compile(dialect=dialect)).strip() for element in elements]
    if is_mysql(dialect):
        # CREATE INDEX IF NOT EXISTS is MariaDB's alone; inside CREATE TABLE both know it.
        statements[1] = _with_index(statements[1], made.dead_letters, dialect)
    return statements + [_insert_meta(names, dialect, *row) for row in _META.items()]


_META = {"newest_deleted_token": 0, "schema_version": SCHEMA_VERSION}


def _with_index(statement: str, table: Table, dialect: Dialect) -> str:
    (index,) = table.indexes
    name = dialect.identifier_preparer.format_index(index)
    primary_key = statement.index("PRIMARY KEY (")
    return f"{statement[:primary_key]}INDEX {name} (job_id, id), \n\t{statement[primary_key:]}"


def _insert_meta(names: Names, dialect: Dialect, name: str, value: int) -> str:
    # A prefix that begins with a digit, or on PostgreSQL one with capitals, makes a name that must be quoted.
    insert = f"INTO {_quoted(dialect, names.meta)} (name, value) VALUES ('{name}', {value})"
    return f"INSERT IGNORE {insert}" if is_mysql(dialect) else f"INSERT {insert} ON CONFLICT DO NOTHING"


def stored_version(connection: Connection, names: Names) -> int | None:
    """Give the version of the tables that are there; None if there are none.

    Raises:
        StoreError: If there are tables, and what they are cannot be told.
    """
    if not has_table(connection, names.meta):
        return None
    query = text(f"SELECT value FROM {_quoted(connection.dialect, names.meta)} WHERE name = 'schema_version'")
    version: Any = connection.execute(query).scalar_one_or_none()
    if version is None and not _has_jobs(connection, names):
        return None  # a creation that died half-way, on a database where DDL has no transactions
    if type(version) is not int or version < 1:
        msg = (
            f"the row 'schema_version' of table {names.meta} is missing or damaged; nothing was changed: "
            f"put it back (this library writes {SCHEMA_VERSION})"
        )
        raise StoreError(msg)
    if version > SCHEMA_VERSION:
        msg = (
            f"the tables {names.meta}, ... have version {version}, this library knows versions up to "
            f"{SCHEMA_VERSION}; upgrade resumable_sync, or use another table_prefix"
        )
        raise StoreError(msg)
    return version


def _has_jobs(connection: Connection, names: Names) -> bool:
    query = text(f"SELECT id FROM {_quoted(connection.dialect, names.jobs)} LIMIT 1")
    return has_table(connection, names.jobs) and connection.execute(query).first() is not None


def _quoted(dialect: Dialect, name: str) -> str:
    return dialect.identifier_preparer.quote(name)


def create(connection: Connection, names: Names) -> None:
    """Make the tables, in the transaction of `connection`, unless another process did so meanwhile."""
    with _Exclusive(connection, names):
        if stored_version(connection, names) is None:
            for statement in ddl(names, connection.dialect):
                connection.exec_driver_sql(statement)
            connection.commit()


def migrate(connection: Connection, names: Names) -> None:
    """Bring older tables to this version, in the transaction of `connection`, unless another process did meanwhile."""
    with _Exclusive(connection, names):
        version = stored_version(connection, names) or SCHEMA_VERSION
        for older in range(version, SCHEMA_VERSION):
            MIGRATIONS[older](connection, names)
            update = (
                f"UPDATE {_quoted(connection.dialect, names.meta)} SET value = :version WHERE name = 'schema_version'"
            )
            connection.execute(text(update), {"version": older + 1})
        connection.commit()


def _add_what_is_missing(connection: Connection, names: Names) -> None:
    # Each step looks first, since on MariaDB a death may have left the one done and not the other.
    dialect, jobs = connection.dialect, tables(names).jobs
    compiler = dialect.ddl_compiler(dialect, CreateTable(jobs))
    there = {column["name"] for column in inspect(connection).get_columns(names.jobs)}
    for name in JOB_COLUMN_SINCE:
        if name not in there:
            definition = compiler.get_column_specification(jobs.c[name])
            connection.exec_driver_sql(f"ALTER TABLE {_quoted(connection.dialect, names.jobs)} ADD COLUMN {definition}")
    for statement in ddl(names, dialect):
        connection.exec_driver_sql(statement)


MIGRATIONS: dict[int, Callable[[Connection, Names], None]] = dict.fromkeys((1, 2, 3), _add_what_is_missing)
"""How to get from a version to the next one; each may be run again after a death in its middle."""


class _Exclusive:
    """Keep other processes from making or changing the same tables; begins the transaction for it.

    PostgreSQL's CREATE TABLE IF NOT EXISTS fails when two processes run it at once.
    """

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection = connection
        self._name = names.meta
        self._digest = hashlib.sha256(self._name.encode()).digest()

    def __enter__(self) -> None:
        connection = self._connection
        if is_mysql(connection.dialect):
            self._take_lock()
            return
        begin_write(connection)
        if connection.dialect.name == "postgresql":
            limit = "set_config('idle_in_transaction_session_timeout', :limit, true)"
            connection.execute(text(f"SELECT {limit}"), {"limit": f"{IDLE_SECONDS}s"})
            key = int.from_bytes(self._digest[:8], "big", signed=True)
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})

    def _take_lock(self) -> None:
        # DDL commits: it is the session that is idle in a process that is frozen, not a transaction.
        name = "@@SESSION.wait_timeout"
        limit = f"SET {_WAIT_BEFORE} = {name}, SESSION wait_timeout = LEAST({name}, {IDLE_SECONDS})"
        self._connection.exec_driver_sql(limit)
        taken = False
        try:
            query = text(f"SELECT GET_LOCK(:name, {LOCK_SECONDS})")
            taken = self._connection.execute(query, {"name": self._lock}).scalar() == 1
        finally:
            if not taken and not self._connection.invalidated:
                self._put_back()
        if not taken:
            msg = f"another process has been making the tables {self._name}, ... for {LOCK_SECONDS} s; try again"
            raise StoreError(msg)

    def _put_back(self) -> None:
        self._connection.exec_driver_sql(f"SET SESSION wait_timeout = {_WAIT_BEFORE}")

    def __exit__(self, *_: object) -> None:
        # When the link was lost, the server has ended the session, and with it the lock and the limit.
        if is_mysql(self._connection.dialect) and not self._connection.invalidated:
            self._connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": self._lock})
            self._put_back()

    @property
    def _lock(self) -> str:
        # Names of locks are common to all databases of a server.
        database = self._connection.engine.url.database or ""
        return "resumable_sync " + hashlib.sha256(database.encode() + self._digest).hexdigest()[:32]
