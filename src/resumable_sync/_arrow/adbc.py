"""Databases by ADBC, as engines of SQLAlchemy: what reads and writes tables there works over them as over any other."""

import importlib
import os
import re
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.dialects import registry
from typing_extensions import override

from resumable_sync._arrow.dbapi import ADBC, AdbcConnection, adbc_dbapi, clean
from resumable_sync._database import LOCK_TIMEOUT, database_identity, libpq_conninfo, parse_url, shown_url, sqlite_path
from resumable_sync._errors import ConfigurationError, MissingExtraError

__all__ = ["AdbcDatabase", "Driver"]

Driver: TypeAlias = str | Callable[[str], Any]
"""Name of a package such as `"adbc_driver_snowflake"`, or a function that is given the URI and gives a connection."""

for _name, _class in {"postgresql": "AdbcPostgreSQL", "sqlite": "AdbcSQLite", "adbc": "OtherAdbc"}.items():
    registry.register(f"{_name}.{ADBC}", "resumable_sync._arrow.dialects", _class)
_BY_SCHEME = {
    "postgresql": "adbc_driver_postgresql",
    "postgres": "adbc_driver_postgresql",
    "sqlite": "adbc_driver_sqlite",
}
_KINDS = {"adbc_driver_postgresql": "postgresql", "adbc_driver_sqlite": "sqlite"}
_VENDORS = {"PostgreSQL": "postgresql", "SQLite": "sqlite"}
_SETTINGS = {
    # As `libpq_conninfo` asks for it, on a connection that a function of the caller's gave.
    "postgresql": "SET client_encoding = 'UTF8'",
    # Another writer is waited for as long as anywhere.
    "sqlite": f"PRAGMA busy_timeout = {LOCK_TIMEOUT * 1000}",
}


# What a process that was forked inherited: closing it would end connections that belong to its parent.
_inherited: list[Engine] = []


class AdbcDatabase:
    """A database by its URI, and the engine on it.

    Args:
        uri: Where it is.
        driver: What reaches it; None: what the URI's scheme says.
        options: Further arguments of the driver (`db_kwargs`), such as keys.

    Raises:
        ConfigurationError: If the URI does not say which driver.
    """

    as_driven = False

    def __init__(self, uri: str, driver: Driver | None = None, options: Mapping[str, str] | None = None) -> None:
        self._uri = uri
        self._options = dict(options or {})
        scheme = re.match(r"(\w+)(\+\w+)?:", uri)
        named: Driver | None = driver or _BY_SCHEME.get(scheme[1] if scheme else "")
        if named is None:
            msg = "the URI's scheme names no driver of ADBC's: it is neither postgresql:// nor sqlite:///; name the"
            raise ConfigurationError(f"{msg} package in driver=, such as driver='adbc_driver_snowflake'")
        self._driver: Driver = named
        self._kind = _KINDS.get(self._driver, "other") if isinstance(self._driver, str) else None
        self._url = None if self._kind is None else self._url_of(self._kind)
        self._made: tuple[int, Engine] | None = None

    @property
    def engine(self) -> Engine:
        """The engine; made when it is first asked for, and again in a process that was forked."""
        if self._made is None or self._made[0] != os.getpid():
            if self._made is not None:
                _inherited.append(self._made[1])
            self._made = os.getpid(), self._make()
        return self._made[1]

    @property
    def identity(self) -> str:
        """Which database it is, without credentials."""
        return self.place if self._kind == "other" else database_identity(self.engine)

    @property
    def place(self) -> str:
        """The same to be shown."""
        if self._url is not None and self._kind != "other":
            return shown_url(self._url.set(drivername=self._kind))
        # A password may hold anything, so whatever stands before the last @ may be part of it.
        head, at, rest = self._uri.rpartition("@")
        scheme = re.match(r"\w[\w+.-]*://", head or rest)
        return (scheme[0] if scheme and at else "") + re.split(r"[?;#]", rest)[0]

    def anew(self) -> "AdbcDatabase":
        """Give the same database with connections of its own."""
        return AdbcDatabase(*self.__getstate__())

    def close(self) -> None:
        """Close the connections; new ones are opened when it is used again."""
        if self._made is not None and self._made[0] == os.getpid():
            self._made[1].dispose()

    def _make(self) -> Engine:
        adbc_dbapi()
        if self._kind is None:
            first = self._connector()()
            self._kind = first.kind
            self._url = self._url_of(first.kind)
            first.close()
        assert self._url is not None  # noqa: S101 - for the type checker
        engine = create_engine(
            self._url.set(drivername=f"{'adbc' if self._kind == 'other' else self._kind}+{ADBC}"),
            creator=self._connector(),
            hide_parameters=True,
            # A connection that died while it lay in the pool must not fail the next batch.
            pool_pre_ping=self._kind != "sqlite",
            # As many connections as threads ask for: an upper limit would only turn into a wait.
            max_overflow=-1,
            pool_timeout=LOCK_TIMEOUT,
        )
        weakref.finalize(self, _dispose, engine, os.getpid())
        return engine

    def _url_of(self, kind: str) -> URL:
        if kind == "other" or callable(self._driver):
            return make_url("adbc://") if kind == "other" else make_url(f"{kind}://")
        url = parse_url(re.sub(r"^postgres(?=[:+])", "postgresql", self._uri))
        if kind == "sqlite":
            path = sqlite_path(url)
            if path is None:
                msg = "a SQLite database in memory is another one for each connection; give the path of a file"
                raise ConfigurationError(msg)
            url = url.set(database=str(path))
        return url

    def _connector(self) -> Callable[[], AdbcConnection]:
        """Give what connects, without holding this, whose end ends the connections."""
        uri = self._uri
        if self._url is not None and isinstance(self._driver, str):
            own: dict[str | None, Callable[[URL], str]] = {
                "postgresql": libpq_conninfo,
                "sqlite": lambda url: str(url.database),
            }
            uri = own[self._kind](self._url) if self._kind in own else uri
        return partial(_connect, uri, self._driver, self._options, self._kind)

    @override
    def __getstate__(self) -> tuple[str, Driver | None, dict[str, str]]:
        return self._uri, self._driver, self._options

    def __setstate__(self, state: tuple[str, Driver | None, dict[str, str]]) -> None:
        self.__init__(*state)  # type: ignore[misc]


def _connect(uri: str, driver: Driver, options: Mapping[str, str], kind: str | None) -> AdbcConnection:
    connect: Callable[..., Any] = _connect_of(driver) if isinstance(driver, str) else driver
    try:
        connection = connect(uri, db_kwargs=options) if options else connect(uri)
    except adbc_dbapi().Error as error:
        failed = clean(error, kind or "other")
    else:
        return _opened(connection, kind)
    raise failed


def _connect_of(package: str) -> Callable[..., Any]:
    try:
        return importlib.import_module(f"{package}.dbapi").connect  # type: ignore[no-any-return]
    except ModuleNotFoundError as error:
        if error.name is not None and not error.name.startswith(package):
            raise
    if package in _KINDS:
        raise MissingExtraError(package, "arrow")
    msg = f"there is no package {package!r} with a DBAPI of ADBC; install it, or correct driver="
    raise ConfigurationError(msg)


def _opened(connection: Any, kind: str | None) -> AdbcConnection:
    if kind is None:
        kind = _VENDORS.get(str(connection.adbc_get_info().get("vendor_name")), "other")
    opened = AdbcConnection(connection, kind)
    if kind in _SETTINGS:
        with opened.cursor() as cursor:
            cursor.run(_SETTINGS[kind])
    return opened


def _dispose(engine: Engine, pid: int) -> None:
    if pid == os.getpid():
        engine.dispose()
    else:
        _inherited.append(engine)
