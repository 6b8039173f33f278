"""What every adapter on a SQL database needs: engines with bounded waits, write transactions, safe error texts.

All storage settings that matter stand here, with the reason beside each.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote

from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event, inspect, make_url, types
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, StatementError

from resumable_sync import _postgresql
from resumable_sync._driver_errors import is_driver_error, masked_arguments
from resumable_sync._errors import ConfigurationError, MissingExtraError, describe_error, mask_credentials
from resumable_sync._plain import suggestion

__all__ = [
    "LOCK_TIMEOUT",
    "URLOrParts",
    "begin_immediate",
    "begin_write",
    "database_identity",
    "driver_cursor",
    "has_table",
    "is_mysql",
    "libpq_arguments",
    "libpq_conninfo",
    "make_engine",
    "parse_url",
    "plain_type",
    "run_bare",
    "scrub",
    "shown_url",
    "sqlite_path",
    "use_wal",
    "wrap_error",
]

LOCK_TIMEOUT = 10
"""Seconds to wait for a lock or a connection, in one try."""

READ_TIMEOUT = 300
"""Seconds of silence after which a MySQL connection counts as dead; a statement may take as long."""

URLOrParts: TypeAlias = str | URL | Mapping[str, Any]
"""Where a database is: a SQLAlchemy URL, or the parts of one."""

_URL_PARTS = ("drivername", "username", "password", "host", "port", "database", "query")
_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
_EXTRAS = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql"}


def make_engine(url_or_engine: URLOrParts | Engine, *, durable: bool = False) -> Engine:
    """Give an engine whose every wait is bounded; a given engine is taken as it is.

    Args:
        url_or_engine: A SQLAlchemy URL, its parts, or an engine of the caller's.
        durable: Whether commits must survive a power cut (SQLite: `synchronous=FULL`; see also `use_wal`).

    Raises:
        ConfigurationError: If the URL cannot be understood or its database is not supported.
        MissingExtraError: If the driver is not installed.
    """
    if isinstance(url_or_engine, Engine):
        _supported(url_or_engine.dialect.name)
        return url_or_engine
    url = parse_url(url_or_engine)
    backend = url.get_backend_name()
    _supported(backend)
    if url.drivername in _DRIVERS:
        url = url.set(drivername=_DRIVERS[url.drivername])
    try:
        engine = create_engine(url, hide_parameters=True, **_engine_options(url))
    except NoSuchModuleError:
        msg = f"there is no driver named {url.drivername!r}; use sqlite, postgresql+psycopg or mysql+pymysql"
        raise ConfigurationError(msg) from None
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or url.drivername, _EXTRAS.get(backend, "postgres")) from error
    if engine.dialect.driver == "psycopg":
        _postgresql.ask_briefly_for_types(engine.dialect)
    if backend == "sqlite":
        event.listen(engine, "handle_error", _keep_connected)
        if durable:
            _make_durable(engine)
    return engine


def parse_url(url: URLOrParts) -> URL:
    """Give a SQLAlchemy URL as an object.

    Args:
        url: The URL; or its parts, `drivername` and any of `username`, `password`, `host`, `port`, `database` and
            `query` (a dict of text), in which nothing needs to be percent-encoded.

    Raises:
        ConfigurationError: If it cannot be understood.
    """
    if isinstance(url, Mapping):
        return _url_of(url)
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # The text may hold a password, in a place where nothing can find it.
        msg = "the database URL cannot be parsed; write it as dialect://user:password@host:port/database"
        raise ConfigurationError(msg) from None


def _url_of(parts: Mapping[str, Any]) -> URL:
    for name in parts:
        if name not in _URL_PARTS:
            msg = (
                f"a database URL has no part {name!r}{suggestion(name, _URL_PARTS)}; its parts: {', '.join(_URL_PARTS)}"
            )
            raise ConfigurationError(msg, ("url", str(name)))
    if not isinstance(parts.get("drivername"), str):
        msg = "a database URL given by its parts needs a drivername, such as sqlite, postgresql or mysql"
        raise ConfigurationError(msg)
    try:
        texts: dict[str, Any] = {name: value if name == "query" else str(value) for name, value in parts.items()}
        if "port" in texts:
            texts["port"] = int(texts["port"])
        return URL.create(**texts)
    except (ArgumentError, TypeError, ValueError):
        msg = (
            "the parts of the database URL do not fit together; port is a number, query a table of text, the rest text"
        )
        raise ConfigurationError(msg) from None


def shown_url(url: URL) -> str:
    """Give a URL as it may be shown: without the password, neither before the host nor among the parameters."""
    return mask_credentials(url.render_as_string())


def is_mysql(dialect: Dialect) -> bool:
    """Whether a dialect is MySQL's or MariaDB's."""
    return dialect.name in ("mysql", "mariadb")


def plain_type(kind: types.TypeEngine[Any]) -> Any:
    """Give the type that a decorated type or a domain is made of."""
    while True:
        if isinstance(kind, types.TypeDecorator) and not isinstance(kind, types.Interval):
            kind = kind.impl_instance
        elif isinstance(kind, postgresql.DOMAIN):
            kind = kind.data_type
        else:
            return kind


def _supported(backend: str) -> None:
    if backend not in {"sqlite", *_DRIVERS}:
        msg = f"the database {backend!r} is not supported; use sqlite, postgresql, mysql or mariadb"
        raise ConfigurationError(msg)


def libpq_arguments(engine: Engine) -> dict[str, Any]:
    """Give what a connection of an engine on PostgreSQL, made from a URL by `make_engine`, is opened with."""
    url = engine.url
    arguments = {**_engine_options(url)["connect_args"], **engine.dialect.create_connect_args(url)[1]}
    # What is of another type is for the driver itself.
    return {name: value for name, value in arguments.items() if isinstance(value, str | int)}


def libpq_conninfo(url: URL) -> str:
    """Give what a connection to PostgreSQL of a URL is opened with, in the words of libpq itself; its text is UTF-8."""
    query = {name: value if isinstance(value, str) else ",".join(value) for name, value in url.query.items()}
    arguments = {
        **_engine_options(url)["connect_args"],
        **url.translate_connect_args(username="user", database="dbname"),
        **query,
        # ADBC hands on what libpq gives, in the encoding of the database, and Arrow takes it for UTF-8.
        "client_encoding": "UTF8",
    }
    texts = {name: str(value).replace("\\", "\\\\").replace("'", "\\'") for name, value in arguments.items()}
    return " ".join(f"{name}='{text}'" for name, text in texts.items())


def _engine_options(url: URL) -> dict[str, Any]:
    backend = url.get_backend_name()
    given: Mapping[str, Any] = url.query
    connect: dict[str, Any]
    if backend == "sqlite":
        # The heartbeat and the reader have threads of their own; the pool hands a connection to one at a time.
        # With `uri` a file can be attached read-only; what the URL names is a path all the same.
        connect = {"timeout": LOCK_TIMEOUT, "check_same_thread": False, "uri": True}
    elif backend == "postgresql":
        connect = {
            "connect_timeout": LOCK_TIMEOUT,
            # A link that swallows everything is noticed in half a minute instead of two hours.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
            # A successor must not wait for ever for the row lock of a frozen predecessor.
            "options": f"-c lock_timeout={LOCK_TIMEOUT}s",
        }
    else:
        connect = {
            "connect_timeout": LOCK_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "write_timeout": READ_TIMEOUT,
            "charset": "utf8mb4",
            "init_command": (
                f"SET SESSION innodb_lock_wait_timeout={LOCK_TIMEOUT}, SESSION lock_wait_timeout={LOCK_TIMEOUT}"
            ),
        }
    options: dict[str, Any] = {
        "connect_args": {name: value for name, value in connect.items() if name not in given},
        # A connection that died while it lay in the pool must not fail the next batch.
        "pool_pre_ping": backend != "sqlite",
    }
    if backend != "sqlite" or sqlite_path(url) is not None:
        # As many connections as threads ask for: an upper limit would only turn into a wait.
        options |= {"max_overflow": -1, "pool_timeout": LOCK_TIMEOUT}
    return options


def _keep_connected(context: ExceptionContext) -> None:
    # After a KeyboardInterrupt in a statement SQLAlchemy drops the connection; SQLite closes it only when the last
    # cursor is gone, which the traceback keeps, and until then its transaction holds the write lock.
    if not isinstance(context.original_exception, Exception):
        context.is_disconnect = False


def _make_durable(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        try:
            # In WAL mode the usual NORMAL loses the last commits in a power cut.
            cursor.execute("PRAGMA synchronous=FULL")
            # Pages are brought over from the log when it has so many, 8 MB, which takes two more waits for the disk:
            # with the usual 1,000 for every second or third batch.
            cursor.execute("PRAGMA wal_autocheckpoint=2000")
        finally:
            cursor.close()


def use_wal(connection: Connection) -> None:
    """Bring a SQLite file into WAL mode; does nothing on other databases. The connection must be in no transaction.

    Readers of the file then go on while a batch is written, and a commit costs one fsync instead of two. The mode stays
    with the file, so this is for whoever creates tables in it. Where a file system does not support it, the old mode
    stays and everything still works.
    """
    if connection.dialect.name != "sqlite":
        return
    driver_connection: Any = connection.connection.driver_connection
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            if driver_connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                driver_connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.Error as error:
            # SQLite does not wait for the exclusive lock that the change needs.
            if not getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                return
            time.sleep(0.02)
        else:
            return


def has_table(connection: Connection, name: str, schema: str | None = None) -> bool:
    """Whether there is a table of that name; none of a schema is one that needs no schema before its name."""
    if connection.dialect.name == "postgresql":
        return _postgresql.has_table(connection, name, schema)
    return inspect(connection).has_table(name, schema=schema)


def begin_write(connection: Connection) -> None:
    """Begin a write transaction on a connection that has none.

    On SQLite a deferred BEGIN that writes later bypasses the busy timeout ("database is locked" at once), so the
    write lock is got at the beginning.

    Raises:
        ConfigurationError: If a SQLite connection is always in a transaction (`autocommit=False`).
        DBAPIError: If the lock cannot be got.
    """
    if connection.dialect.name != "sqlite":
        return
    if not connection.in_transaction():
        connection.begin()  # SQLAlchemy's notion of it; sends nothing
    begin_immediate(connection, connection.connection.driver_connection)


def begin_immediate(connection: Connection, driver_connection: Any) -> None:
    """Begin a write transaction on a connection to SQLite, without SQLAlchemy's notion of it.

    Args:
        connection: SQLAlchemy's.
        driver_connection: The driver's, on which it is based.

    Raises:
        ConfigurationError: As `begin_write`.
        DBAPIError: Likewise.
    """
    if driver_connection.in_transaction:
        # A listener began it, as SQLAlchemy's documentation shows; nothing was done in it yet.
        driver_connection.rollback()
    if driver_connection.in_transaction:
        msg = "the SQLite engine keeps a deferred transaction open (autocommit=False); make it with the default setting"
        raise ConfigurationError(msg)
    try:
        driver_connection.execute("BEGIN IMMEDIATE")
    except connection.dialect.loaded_dbapi.Error as error:
        wrapped = wrap_error(error, connection)
        raise wrapped from error


def wrap_error(error: Exception, connection: Connection, driver_connection: Any = None) -> DBAPIError:
    """Give a driver's own error the form that it has when it comes through SQLAlchemy.

    Args:
        error: What the driver raised.
        connection: Where.
        driver_connection: The driver's connection that raised it, which may be lost; None: it is not.
    """
    dialect: Any = connection.dialect
    lost = driver_connection is not None and dialect.is_disconnect(error, driver_connection, None)
    base: Any = dialect.loaded_dbapi.Error
    wrapped: Any = DBAPIError.instance(
        None, None, error, base, hide_parameters=True, connection_invalidated=lost, dialect=dialect
    )
    assert isinstance(wrapped, DBAPIError)  # noqa: S101 - for the type checker
    return wrapped


@contextlib.contextmanager
def driver_cursor(connection: Connection) -> Iterator[Any]:
    """Give a cursor of the driver's own, with its errors in the form SQLAlchemy gives them.

    Yields:
        The cursor.
    """
    driver_connection: Any = connection.connection.driver_connection
    error_class = connection.dialect.loaded_dbapi.Error
    try:
        with driver_connection.cursor() as cursor:
            yield cursor
    except error_class as error:
        wrapped = wrap_error(error, connection, driver_connection)
        if wrapped.connection_invalidated:
            # As SQLAlchemy does with its own statements: the next transaction gets a new connection.
            connection.invalidate(error)
        raise wrapped from error


_LOGGER = logging.getLogger("sqlalchemy.engine.Engine")


def run_bare(connection: Connection, statement: str, parameters: Any, *, many: bool = False) -> Any:
    """Run a statement in the driver's own form, and give the driver's cursor; errors are as SQLAlchemy gives them.

    What SQLAlchemy does for a statement takes 60 us and more, as long as SQLite takes for a page of a few rows. It is
    left out on SQLite, unless somebody listens to the engine's statements.

    Args:
        connection: Where; if it is in no transaction, one begins, as with any statement.
        statement: The statement.
        parameters: Its parameters; with `many` a list of them.
        many: Whether to run it once for each.
    """
    engine: Any = connection.engine
    if (engine.dialect.name, engine.dialect.driver) != ("sqlite", "pysqlite") or _is_listened_to(engine):
        return connection.exec_driver_sql(statement, parameters).cursor
    if not connection.in_transaction():
        connection.begin()
    driver_connection: Any = connection.connection.dbapi_connection
    try:
        return (driver_connection.executemany if many else driver_connection.execute)(statement, parameters)
    except sqlite3.Error as error:
        wrapped = wrap_error(error, connection, driver_connection)
        if wrapped.connection_invalidated:
            connection.invalidate(error)
        raise wrapped from error


def _is_listened_to(engine: Any) -> bool:
    if engine.echo or _LOGGER.isEnabledFor(logging.INFO):
        return True
    events = engine.dispatch
    return getattr(engine, "_has_events", True) and bool(  # SQLAlchemy's own short answer; the long one takes long
        events.before_cursor_execute or events.after_cursor_execute or events.before_execute or events.after_execute
    )


def sqlite_path(url: URL) -> Path | None:
    """Give the absolute path of a SQLite URL's file; None if the database is in memory."""
    name = url.database or ""
    if name.startswith("file:"):
        name, _, query = name.removeprefix("file:").partition("?")
        if "mode=memory" in query or "mode=memory" in str(url.query):
            return None
        name = unquote(name.removeprefix("//"))
    return None if name in ("", ":memory:") or url.query.get("mode") == "memory" else Path(name).resolve()


_PLACES = ("host", "port", "dbname", "database", "service", "unix_socket")


def database_identity(engine: Engine) -> str:
    """Name the database that an engine leads to, without credentials: equal for two engines on the same one."""
    url = engine.url
    if url.get_backend_name() == "sqlite":
        path = sqlite_path(url)
        return f"sqlite:memory:{id(engine.pool)}" if path is None else f"sqlite:{path}"
    host = url.host or ""
    family = "mysql" if is_mysql(engine.dialect) else url.get_backend_name()
    port = url.port or (3306 if family == "mysql" else 5432)
    place = f"{family}://{'127.0.0.1' if host == 'localhost' else host}:{port}/{url.database or ''}"
    # Drivers take the place from the query too.
    places = [f"{name}={url.query[name]}" for name in _PLACES if name in url.query]
    return f"{place}?{'&'.join(places)}" if places else place


def scrub(error: BaseException) -> BaseException:
    """Take statement, parameters and quoted rows out of a database error's text, in place.

    SQLAlchemy appends the statement and its parameters; PostgreSQL's DETAIL and CONTEXT quote keys and whole rows.
    """
    if isinstance(error, StatementError):
        text = describe_error(error).partition(": ")[2]
        error.statement = None
        error.params = None
        error.args = (text,)
        error.hide_parameters = True
        if isinstance(error, DBAPIError) and error.orig is not None:
            scrub(error.orig)
    elif error.args and is_driver_error(error):
        error.args = (*error.args[:-1], mask_credentials(masked_arguments(error)[-1]))
    return error
