"""Connections that know until when their request may take, and that can be broken off from another thread.

The transport's own limits are for each byte: an answer of one byte every few seconds would never end.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any

from typing_extensions import override

from resumable_sync._errors import MissingExtraError

try:
    import httpcore2
except ImportError:
    raise MissingExtraError("httpx2", "http") from None  # noqa: EM101 - the package, not a message

__all__ = ["Network"]


class Network(httpcore2.NetworkBackend):
    """Opens connections for one read; used by several threads, each with one request at a time."""

    def __init__(self) -> None:
        self._plain = httpcore2.SyncBackend()
        self._until = threading.local()
        self._lock = threading.Lock()
        self._streams: set[_Stream] = set()
        self._aborted = False

    def allow(self, seconds: float) -> None:
        """Let the request that this thread sends next take so many seconds, from now on."""
        self._until.time = time.monotonic() + seconds

    def left(self, timeout: float | None) -> float:
        """Give the seconds that one step of this thread's request may take.

        Raises:
            ReadTimeout: If its time is over.
        """
        until: float = self._until.time
        left = until - time.monotonic()
        if left <= 0:
            msg = "the whole answer takes too long"
            raise httpcore2.ReadTimeout(msg)
        return left if timeout is None else min(left, timeout)

    def abort(self) -> None:
        """Break off all connections, for good, in whatever thread they are waited for."""
        with self._lock:
            self._aborted = True
            streams = list(self._streams)
        for stream in streams:
            stream.abort()

    def watch(self, stream: "_Stream") -> "_Stream":
        """Take a connection that was opened."""
        with self._lock:
            self._streams.add(stream)
            aborted = self._aborted
        if aborted:
            stream.abort()
        return stream

    def forget(self, stream: "_Stream") -> None:
        """Let go of a connection that is closed."""
        with self._lock:
            self._streams.discard(stream)

    @override
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        if self._aborted:
            msg = "reading has ended"
            raise httpcore2.ConnectError(msg)
        return self.watch(
            _Stream(self, self._plain.connect_tcp(host, port, self.left(timeout), local_address, socket_options))
        )


class _Stream(httpcore2.NetworkStream):
    """A connection of a `Network`."""

    def __init__(self, network: Network, plain: httpcore2.NetworkStream) -> None:
        self._network = network
        self._plain = plain

    @override
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._plain.read(max_bytes, self._network.left(timeout))

    @override
    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._plain.write(buffer, self._network.left(timeout))

    @override
    def close(self) -> None:
        self._network.forget(self)
        self._plain.close()

    @override
    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        secured = self._plain.start_tls(ssl_context, server_hostname, self._network.left(timeout))
        self._network.forget(self)
        return self._network.watch(_Stream(self._network, secured))

    @override
    def get_extra_info(self, info: str) -> Any:
        return self._plain.get_extra_info(info)

    def abort(self) -> None:
        """End what is waited for."""
        # Closing would not wake a thread that waits for a byte.
        with contextlib.suppress(OSError):
            self._plain.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
