"""The engine of a connector on a SQL database."""

import weakref

from sqlalchemy import URL, Engine
from typing_extensions import override

from resumable_sync._database import database_identity, make_engine, shown_url
from resumable_sync._errors import ConfigurationError
from resumable_sync.connectors._statements import set_utc

__all__ = ["SourceEngine"]


class SourceEngine:
    """The engine of a connector: its own, made from a URL, or one of the caller's."""

    def __init__(self, url_or_engine: str | URL | Engine) -> None:
        self._url = None if isinstance(url_or_engine, Engine) else url_or_engine
        self.engine = make_engine(url_or_engine)
        if self._url is not None:
            set_utc(self.engine)
            self._finalizer = weakref.finalize(self, self.engine.dispose)

    @property
    def own(self) -> bool:
        """Whether the engine is our own, and nobody has changed how it connects."""
        return self._url is not None

    @property
    def as_driven(self) -> bool:
        """Whether rows are certain to be what SQLite's driver gives by itself, with nobody's converters."""
        url = self.engine.url
        plain = (self.engine.dialect.name, self.engine.dialect.driver) == ("sqlite", "pysqlite")
        return self.own and plain and "detect_types" not in url.query

    @property
    def identity(self) -> str:
        """Which database it is, without credentials."""
        return database_identity(self.engine)

    @property
    def place(self) -> str:
        """The same, to be shown."""
        return shown_url(self.engine.url)

    def close(self) -> None:
        """Close the connections, if the engine is our own; it opens new ones when it is used again."""
        if self._url is not None:
            self.engine.dispose()

    @override
    def __getstate__(self) -> str | URL:
        if self._url is None:
            msg = "a connector on an engine does not pickle; make it from a URL, then it travels to other processes"
            raise ConfigurationError(msg)
        return self._url

    def __setstate__(self, url: str | URL) -> None:
        self.__init__(url)  # type: ignore[misc]
