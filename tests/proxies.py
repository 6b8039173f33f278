"""Links to a server that break in every way a network does.

with tcp_proxy(server.create_database()) as proxy:
    engine = create_engine(proxy.url)
    proxy.cut()
"""

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import make_url

__all__ = ["Link", "TCPProxy", "is_commit", "tcp_proxy"]


class Link:
    """One connection through a proxy."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._sockets = (client, server)

    def cut(self) -> None:
        """Break the connection on both sides at once; what was not forwarded yet never arrives."""
        for side in self._sockets:
            with contextlib.suppress(OSError):
                # Closing resets the connection then, instead of ending it in good order.
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.shutdown(socket.SHUT_RDWR)
            side.close()


Watcher = Callable[[Link, bytes], object]


def is_commit(data: bytes) -> bool:
    """Whether a chunk from a client asks PostgreSQL or MariaDB to commit.

    Not to SET AUTOCOMMIT, to begin a READ COMMITTED transaction, or to make a table that is emptied ON COMMIT.
    """
    return re.search(rb"(?<!AUTO)(?<!ON )COMMIT(?!TED)", data) is not None


class TCPProxy:
    """Forwards connections to a server, and breaks them in every way a network does.

    Attributes:
        to_server: Is called with the link and each chunk from the client before it is forwarded; a chunk whose link it
            cuts is not forwarded. To cut before the server has received a COMMIT: cut when `is_commit(chunk)`.
        to_client: The same for chunks from the server. To cut after the COMMIT was carried out: cut the answer.
    """

    def __init__(self, url: str) -> None:
        self._target = make_url(url)
        self.to_server: Watcher | None = None
        self.to_client: Watcher | None = None
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = False
        self._lock = threading.Lock()
        self._links: list[Link] = []
        self._threads: list[threading.Thread] = []
        self.port = 0
        self._listener: socket.socket | None = None
        self._listen()

    @property
    def url(self) -> str:
        """The target's URL, by way of this proxy."""
        return self._target.set(host="127.0.0.1", port=self.port).render_as_string(hide_password=False)

    def cut(self) -> None:
        """Break all connections that are open; new ones are accepted."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.cut()

    def blackhole(self) -> None:
        """Swallow everything: connections stay open and new ones are accepted, but nothing is forwarded."""
        self._flowing.clear()

    def refuse(self) -> None:
        """Refuse new connections; those that are open go on."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                # Closing alone does not wake the thread that waits in accept.
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def restore(self) -> None:
        """Accept and forward again; what a blackhole has swallowed on connections that are still open arrives now."""
        self._flowing.set()
        if self._listener is None:
            self._listen()

    def close(self) -> None:
        """Break everything and wait for the threads."""
        self._closed = True
        self.refuse()
        self.cut()
        self._flowing.set()
        for thread in self._threads:
            thread.join(10)

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, name="tcp-proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((str(self._target.host), int(self._target.port or 0)), 10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for side in (client, server):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(client, server)
            with self._lock:
                self._links.append(link)
            self._start(self._pump, link, client, server, "to_server")
            self._start(self._pump, link, server, client, "to_client")
            if self._closed:
                self.cut()

    def _pump(self, link: Link, source: socket.socket, target: socket.socket, watcher: str) -> None:
        try:
            while chunk := source.recv(65536):
                self._flowing.wait()
                watch: Watcher | None = getattr(self, watcher)
                if watch is not None:
                    watch(link, chunk)
                target.sendall(chunk)
        except OSError:
            pass
        finally:
            link.cut()


@contextlib.contextmanager
def tcp_proxy(url: str) -> Iterator[TCPProxy]:
    """Give a proxy in front of the server that a SQLAlchemy URL leads to, for the length of the block."""
    proxy = TCPProxy(url)
    try:
        yield proxy
    finally:
        proxy.close()
