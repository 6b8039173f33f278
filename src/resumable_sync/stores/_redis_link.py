"""The link of a `RedisJobStore` to its server: bounded waits, scripts, and errors without credentials."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from typing_extensions import override

from resumable_sync._errors import (
    ConfigurationError,
    MissingExtraError,
    StateCorruptError,
    mask_credentials,
)
from resumable_sync.stores import _foreign
from resumable_sync.stores._redis_scripts import Script

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.client import NEVER_DECODE
    from redis.exceptions import NoScriptError, RedisClusterException, RedisError, ResponseError
    from redis.retry import Retry
except ImportError:
    raise MissingExtraError("redis", "redis") from None  # noqa: EM101 - the package, not a message

__all__ = ["Link", "Translated", "is_client", "open_client"]

logger = logging.getLogger("resumable_sync")

TIMEOUT = 10
"""Seconds to wait for a connection or an answer, in one try."""

# Redis quotes what it does not understand, AUTH and its password too.
_QUOTED = ", with args beginning with"


class Translated(_foreign.Translated):
    """Turns every foreign error of its block into a `StoreError`; what it does, see the base."""

    __slots__ = ()

    foreign = (RedisError, RedisClusterException, OSError, ValueError, OverflowError, TypeError)
    remedy = "see to the store's Redis server, then run again"

    @override
    def corrupt(self, error: Exception) -> StateCorruptError | None:
        if isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE"):
            return StateCorruptError(self.job_id, "key", "is of another type of Redis than the store's")
        return None

    @override
    def clean(self, error: Exception) -> None:
        if error.args and isinstance(error.args[0], str):
            text = mask_credentials(error.args[0].partition(_QUOTED)[0])
            error.args = (text, *error.args[1:])


def open_client(url: str) -> "redis.Redis":
    """Give a client whose every wait is bounded; it does not connect yet.

    Args:
        url: As for `redis.Redis.from_url`; what its query says goes before what is set here.

    Raises:
        ConfigurationError: If the URL cannot be understood.
    """
    try:
        _check_database(url)
        client = redis.Redis.from_url(
            url,
            socket_timeout=TIMEOUT,
            **({} if url.startswith("unix:") else {"socket_connect_timeout": TIMEOUT, "socket_keepalive": True}),
            # The engine tries again, within the limits that the caller gave it.
            retry=Retry(NoBackoff(), 0),
            # As many connections as threads ask for: a limit would only turn into an error.
            max_connections=2**31,
            protocol=2,
        )
        pool: Any = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # does not connect, but knows its options
    except (ValueError, TypeError, AttributeError, RedisError):
        # The text may hold a password, in a place where nothing can find it.
        msg = (
            "the Redis URL cannot be used; write it as redis://user:password@host:port/0, rediss://... for TLS, or "
            "unix:///path/to/socket?db=0"
        )
        raise ConfigurationError(msg) from None
    return client


def _check_database(url: str) -> None:
    """See that the database is a number; the driver takes whatever is none for 0.

    Raises:
        ValueError: If it is not.
    """
    parts = urlsplit(url)
    if parts.scheme != "unix" and parts.path not in ("", "/"):
        int(parts.path.removeprefix("/"))


def is_client(given: Any) -> bool:
    """Whether something is a client that a store can use: one of one server, and not of asyncio."""
    return isinstance(given, redis.Redis)


class Link:
    """Runs scripts on a server.

    Args:
        client: The client.
    """

    def __init__(self, client: "redis.Redis") -> None:
        self.client = client

    def run(self, script: Script, keys: Sequence[bytes], arguments: Sequence[str] = ()) -> Any:
        """Run a script; what it gives is bytes, integers, None and lists of them.

        Raises:
            RedisError: As the driver raises it.
        """
        parameters = (len(keys), *keys, *(argument.encode() for argument in arguments))
        try:
            return self.command("EVALSHA", script.digest, *parameters)
        except NoScriptError:  # the server is new, or was restarted
            return self.command("EVAL", script.text, *parameters)

    def command(self, *command: Any) -> Any:
        """Run one command, whose answer is not decoded, however the client is set.

        Raises:
            RedisError: As the driver raises it.
        """
        client: Any = self.client
        try:
            return client.execute_command(*command, **{NEVER_DECODE: True})
        except BaseException as error:
            if not isinstance(error, Exception):
                # An interrupt between question and answer: the next to get that connection would take it for its own.
                self._hang_up()
            raise

    def warn_of_loss(self, shown: str) -> None:
        """Log a warning if the server may lose what it has acknowledged; say nothing where it does not tell."""
        client: Any = self.client
        try:
            settings = {**client.config_get("append*"), **client.config_get("save"), **client.config_get("maxmemory*")}
        except ResponseError:  # the command is forbidden, or has another name
            return
        weakness = _weakness(settings)
        if weakness is not None:
            logger.warning("job store %s: %s", shown, weakness)

    def close(self) -> None:
        """Close the connections; a later call would open new ones."""
        self.client.close()
        self.client.connection_pool.disconnect()

    def _hang_up(self) -> None:
        own: Any = self.client.connection
        if own is not None:
            own.disconnect()
        pool: Any = self.client.connection_pool
        # Those that other threads wait on are left alone, where the pool can tell.
        pool.disconnect(**({"inuse_connections": False} if type(pool) is redis.ConnectionPool else {}))

    def shown(self) -> str:
        """Say where the server is, without the password."""
        pool: Any = self.client.connection_pool
        given: Mapping[str, Any] = pool.connection_kwargs
        user = f"{given['username']}:***@" if given.get("username") else ""
        database = given.get("db") or 0
        if "path" in given:
            return f"unix://{user}{given['path']}?db={database}"
        service = getattr(pool, "service_name", None)
        place = f"{given.get('host', 'localhost')}:{given.get('port', 6379)}" if service is None else f"({service})"
        secure = "rediss" if issubclass(pool.connection_class, redis.SSLConnection) else "redis"
        return f"{secure}://{user}{place}/{database}"


def _weakness(settings: Mapping[str, str]) -> str | None:
    """Say how a server may lose what it has acknowledged; None if it does not when its process dies."""
    if settings.get("maxmemory", "0") != "0" and settings.get("maxmemory-policy", "").startswith("allkeys"):
        return (
            f"the server evicts keys when memory is short (maxmemory-policy {settings['maxmemory-policy']}), and with "
            "them jobs, which would then start over; set maxmemory-policy noeviction"
        )
    if settings.get("appendonly") == "no":
        kept = "writes snapshots only (save), and forgets" if settings.get("save") else "keeps nothing, and forgets"
        since = "all checkpoints since the last one" if settings.get("save") else "all jobs"
        return f"the server {kept} {since} when it ends; set appendonly yes and appendfsync always"
    if settings.get("appendfsync") == "no":
        return "the server leaves it to the system when checkpoints reach the disk; set appendfsync always"
    return None
