"""Real processes that run a sync, cheap enough to be killed by the thousand.

One clean interpreter imports everything once and then forks a child for every sync. It has no threads and has never
opened a database, so that a child inherits nothing that could matter; each child connects on its own.
"""

import itertools
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, TypeAlias

import attrs

from resumable_sync._errors import ConfigurationError, describe_error
from resumable_sync.testing._faults import FaultyConnector, FaultySink, FaultyStore, Reach, kill_process

__all__ = ["Ended", "KillAtStep", "SyncParts", "SyncProcess", "SyncProcesses", "serve"]

Send: TypeAlias = Callable[[tuple[str, Any]], None]

_HEADER = struct.Struct("!I")
_CHUNK = 65_536


@attrs.frozen(kw_only=True)
class SyncParts:
    """What a child needs for a sync; made in the child, by a function that can be pickled (of a module).

    Attributes:
        job_id: The job.
        connector: The connector.
        sink: The sink, or a plain callable.
        store: The store.
        options: Further arguments of `run_full_sync`.
        run: What is called with all of them; None is `run_full_sync`. (A loop of your own around `FullSync`, say.)
    """

    job_id: str
    connector: Any
    sink: Any
    store: Any
    options: Mapping[str, Any] = attrs.field(factory=dict)
    run: Callable[..., Any] | None = None

    def __call__(self) -> Any:
        """Run the sync."""
        run = self.run
        if run is None:
            from resumable_sync._engine import run_full_sync  # noqa: PLC0415 - only the child needs it

            run = run_full_sync
        return run(self.job_id, self.connector, self.sink, store=self.store, **self.options)


@attrs.frozen(kw_only=True)
class Ended:
    """What became of a child.

    Attributes:
        how: `"returned"`, `"raised"`, or `"died"` without a word.
        action: What restart detection decided, if it returned.
        status: Status of the job, if it returned.
        guarantee: What held for the target, if it returned.
        records: Records delivered by this attempt, if it returned.
        error: Name of the exception's class, if it raised.
        message: `"Type: message"` of the exception, if it raised.
        trace: Its traceback, if it raised.
        step: Where it was killed by `KillAtStep`, e.g. `"before save"`.
        seconds: From its first moment to its end.
    """

    how: Literal["returned", "raised", "died"]
    action: str | None = None
    status: str | None = None
    guarantee: str | None = None
    records: int | None = None
    error: str | None = None
    message: str | None = None
    trace: str = ""
    step: str | None = None
    seconds: float = 0.0


@attrs.frozen
class KillAtStep:
    """Kill the child at the n-th step: each call of a port has one before it and one after it.

    Attributes:
        step: Which step, from 1.
    """

    step: int

    def wrap(self, parts: SyncParts, send: Send) -> SyncParts:
        """Give the parts with every port wrapped, all counting together."""
        steps = itertools.count(1)

        def reach(call: str, when: str) -> None:
            if next(steps) == self.step:  # one operation, so that threads count together
                send(("step", f"{when} {call}"))
                kill_process()

        told: Reach = reach
        return attrs.evolve(
            parts,
            connector=FaultyConnector(parts.connector, told),
            sink=FaultySink(parts.sink, told),
            store=FaultyStore(parts.store, told),
        )


class SyncProcess:
    """A child that runs a sync, seen from the outside. Made by `SyncProcesses.start`."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._buffer = b""
        self._facts: dict[str, Any] = {}
        self._ended: Ended | None = None
        self._begun = time.monotonic()
        self._pump(60.0, until="pid")
        if "pid" not in self._facts:
            msg = "the child did not start; see its output above"
            raise RuntimeError(msg)
        self._begun = time.monotonic()

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self._facts["pid"])

    def wait(self, timeout: float) -> Ended | None:
        """Wait for its end; None if it still runs after `timeout` seconds."""
        if self._ended is None and self._pump(timeout):
            self._ended = attrs.evolve(
                self._facts.get("ended", Ended(how="died")),
                step=self._facts.get("step"),
                seconds=time.monotonic() - self._begun,
            )
        return self._ended

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Send SIGSTOP, unless it has ended."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Send SIGCONT, unless it has ended."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it for good, if it still runs."""
        self.kill()
        self.wait(60.0)
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def _signal(self, number: int) -> None:
        # Its id is not given to another process before the parent of the child has waited for it.
        if self.wait(0.0) is None:
            os.kill(self.pid, number)

    def _pump(self, timeout: float, until: str | None = None) -> bool:
        """Take in what the child says; give whether it has ended (the other end of the pipe is closed then)."""
        deadline = time.monotonic() + timeout
        while until is None or until not in self._facts:
            ready, _, _ = select.select([self._pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return False
            data = os.read(self._pipe, _CHUNK)
            if not data:
                return True
            self._buffer += data
            self._take()
        return False

    def _take(self) -> None:
        while len(self._buffer) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._buffer)
            if len(self._buffer) < _HEADER.size + length:
                return
            name, fact = pickle.loads(self._buffer[_HEADER.size : _HEADER.size + length])  # noqa: S301 - our own child
            self._facts[name] = fact
            self._buffer = self._buffer[_HEADER.size + length :]


class SyncProcesses:
    """Starts children that run syncs; none of them outlives the `with` block.

    Examples:
            with SyncProcesses() as processes:
                child = processes.start(make)       # a function of a module that gives `SyncParts`
                child.kill()
                ended = processes.start(make).wait(60.0)
    """

    def __init__(self) -> None:
        self._children: list[SyncProcess] = []

    def __enter__(self) -> Self:
        if not hasattr(os, "fork"):
            msg = "real crashes need a POSIX system (os.fork and SIGKILL); run them on Linux"
            raise ConfigurationError(msg)
        self._socket, theirs = socket.socketpair()
        code = f"from resumable_sync.testing._processes import serve; serve({theirs.fileno()})"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with theirs:
            self._server = subprocess.Popen(  # noqa: S603 - this interpreter
                [sys.executable, "-c", code], pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL
            )
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.close()
        self._socket.close()
        try:
            self._server.wait(60.0)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def start(self, make: Callable[[], SyncParts], at: KillAtStep | None = None) -> SyncProcess:
        """Start a child.

        Args:
            make: Gives the parts of the sync; called in the child, and pickled to get there.
            at: Where the child kills itself; None: nowhere.
        """
        self._forget_ended()
        request = pickle.dumps((make, at))
        ours, theirs = os.pipe()
        try:
            try:
                socket.send_fds(self._socket, [_HEADER.pack(len(request))], [theirs])
                self._socket.sendall(request)
            finally:
                os.close(theirs)  # while it is open here, the end of the child would not be seen
            child = SyncProcess(ours)
        except BaseException:
            os.close(ours)
            raise
        self._children.append(child)
        return child

    def _forget_ended(self) -> None:
        for child in [one for one in self._children if one.wait(0.0) is not None]:
            child.close()
            self._children.remove(child)


def serve(descriptor: int) -> None:
    """Fork a child for every request that comes through a socket, until that is closed; then end what still runs."""
    children: set[int] = set()
    with socket.socket(fileno=descriptor) as requests:
        while True:
            header, descriptors, _, _ = socket.recv_fds(requests, _HEADER.size, 1)
            _reap(children)
            if not header:
                break
            (pipe,) = descriptors
            (length,) = _HEADER.unpack(header)
            request = b""
            while len(request) < length:
                request += requests.recv(length - len(request))
            children |= _fork(request, pipe, requests)
            os.close(pipe)
    for child in children:
        # However the parent came to its end: even a frozen child must not stay.
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _reap(children: set[int]) -> None:
    for child in list(children):
        if os.waitpid(child, os.WNOHANG)[0]:
            children.remove(child)


def _fork(request: bytes, pipe: int, requests: socket.socket) -> set[int]:
    try:
        make, at = pickle.loads(request)  # noqa: S301 - our own parent; what it imports is imported for all children
    except Exception:  # noqa: BLE001 - the parent sees that no child came
        traceback.print_exc()
        return set()
    child = os.fork()
    if child == 0:
        try:
            requests.close()
            _run(make, at, pipe)
        finally:
            # Not the way out of the server: its stack is not the child's to unwind.
            os._exit(0)
    return {child}


def _run(make: Callable[[], SyncParts], at: KillAtStep | None, pipe: int) -> None:
    def send(message: tuple[str, Any]) -> None:
        data = pickle.dumps(message)
        os.write(pipe, _HEADER.pack(len(data)) + data)

    send(("pid", os.getpid()))
    try:
        parts = make()
        if at is not None:
            parts = at.wrap(parts, send)
        result = parts()
        ended = Ended(
            how="returned",
            action=getattr(result, "action", None),
            status=str(result.status) if hasattr(result, "status") else None,
            guarantee=str(result.guarantee) if hasattr(result, "guarantee") else None,
            records=getattr(result, "records", None),
        )
    except BaseException as error:  # noqa: BLE001 - it is what became of the child
        ended = Ended(
            how="raised", error=type(error).__name__, message=describe_error(error), trace=traceback.format_exc()
        )
    send(("ended", ended))
