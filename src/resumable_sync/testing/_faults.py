"""Faults: wrappers around a connector, sink or store that fail, die, freeze or wait at a given call.

A wrapper offers what the thing it wraps offers, no more and no less: it answers every `isinstance` check of the
protocols as that does. It is picklable if that is, and counts its calls anew wherever it is unpickled.
"""

import inspect
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, ClassVar, Generic, Literal, Self, TypeAlias

import attrs
from typing_extensions import TypeVar, override

from resumable_sync._close import close_if_closable
from resumable_sync._formats import Format
from resumable_sync._model import Cursor, Page, RecordT
from resumable_sync._protocols import StoreTransaction

__all__ = [
    "Fault",
    "FaultyConnector",
    "FaultySink",
    "FaultyStore",
    "Raise",
    "Reach",
    "freeze_process",
    "kill_process",
    "lose_answer",
]

Moment: TypeAlias = Literal["before", "after"]

Reach: TypeAlias = Callable[[str, Moment], object]
"""Is called with the name of a call, before it and after it, in whatever thread makes it."""


def kill_process() -> None:
    """End this process as `kill -9` does: at once, with nothing flushed, closed or rolled back."""
    os.kill(os.getpid(), signal.SIGKILL)


def freeze_process() -> None:
    """Stop this process with SIGSTOP, until somebody continues it with SIGCONT."""
    os.kill(os.getpid(), signal.SIGSTOP)


@attrs.frozen
class Raise:
    """Raise an error when called.

    Attributes:
        error: The exception class to raise.
        arguments: What it is made of.
    """

    error: type[BaseException]
    arguments: tuple[Any, ...] = ()

    def __call__(self) -> None:
        """Raise it, a new one each time."""
        raise self.error(*self.arguments)


@attrs.frozen
class Fault:
    """What happens at which call.

    The calls are the names of the methods. Three more come with what a method opens: `"page"` is the getting of each
    page from the iterator that `read` gave (the n-th of the wrapper, over all its reads), `"commit"` and `"rollback"`
    the end of a block of `transaction`. `"save"` counts the saves of the store and those of its transactions.

    Attributes:
        call: The call, e.g. `"write"`.
        nth: Which of these calls, from 1.
        effect: What happens: `kill_process`, `freeze_process`, `Raise(ConnectionError, ("cut",))`, or any function
            without arguments (a delay, a barrier).
        when: `"before"` the real call, or `"after"` it, when its work is done and its answer not yet given.
        times: At how many calls in a row, from the n-th on.
    """

    call: str
    nth: int
    effect: Callable[[], object]
    when: Moment = "before"
    times: int = 1


def lose_answer(call: str, nth: int = 1) -> Fault:
    """Let a call do its work, and its answer be lost: `ConnectionError` is raised afterwards.

    `lose_answer("commit")` is the connection that is cut after the server has committed.

    Args:
        call: The call, as in `Fault`.
        nth: Which of these calls, from 1.

    Examples:
        >>> lose_answer("commit").when
        'after'
    """
    return Fault(call, nth, Raise(ConnectionError, (f"the answer to {call} was lost",)), when="after")


@attrs.define(eq=False)
class _Plan:
    faults: Sequence[Fault]
    _counts: dict[tuple[str, Moment], int] = attrs.field(factory=dict, init=False)
    _lock: Any = attrs.field(factory=threading.Lock, init=False)

    def __call__(self, call: str, when: Moment) -> None:
        with self._lock:
            count = self._counts[call, when] = self._counts.get((call, when), 0) + 1
        for fault in self.faults:
            if (fault.call, fault.when) == (call, when) and fault.nth <= count < fault.nth + fault.times:
                fault.effect()


InnerT = TypeVar("InnerT", default=Any)


class _Faulty(Generic[InnerT]):
    """Base of the wrappers.

    The methods stand on a class that is made for what is wrapped: from Python 3.12 on `isinstance` looks for a
    protocol's members on the class and does not ask `__getattr__`.
    """

    _special: ClassVar[frozenset[str]] = frozenset()

    def __new__(cls, inner: InnerT, faults: "Sequence[Fault] | Reach" = ()) -> Self:  # noqa: ARG004 - as __init__
        namespace = {name: _delegate(inner, name) for name in _abilities(inner) if name not in cls._special}
        namespace |= {name: getattr(cls, f"_{name}") for name in cls._special if hasattr(inner, name)}
        fitted: Any = type(cls.__name__, (cls,), {"__module__": cls.__module__, "_wrapper": cls, **namespace})
        made: Self = object.__new__(fitted)
        return made

    def __init__(self, inner: InnerT, faults: "Sequence[Fault] | Reach" = ()) -> None:
        self._inner = inner
        self._faults = faults
        self._reach: Reach = faults if callable(faults) else _Plan(tuple(faults))

    @override
    def __reduce__(self) -> Any:
        return (getattr(type(self), "_wrapper"), (self._inner, self._faults))  # noqa: B009 - set by __new__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in {"_inner", "_faults", "_reach"}:
            raise AttributeError(name)
        return getattr(self._inner, name)

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._inner!r})"

    @property
    def wrapped(self) -> InnerT:
        """What is wrapped."""
        return self._inner

    def _call(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._reach(name, "before")
        answer = function(*args, **kwargs)
        self._reach(name, "after")
        return answer


def _abilities(inner: object) -> Iterator[str]:
    for name in dir(inner):
        if not name.startswith("_") and name != "wrapped":
            yield name
    for name in ("__call__", "__enter__", "__exit__"):
        # Not `hasattr`: every class has the `__call__` that makes its instances.
        if any(name in base.__dict__ for base in type(inner).__mro__):
            yield name


def _delegate(inner: object, name: str) -> Any:
    static = inspect.getattr_static(inner, name)
    if not (callable(static) or isinstance(static, (staticmethod, classmethod))) or isinstance(static, type):
        return property(lambda self: getattr(self._inner, name))
    called = "write" if name == "__call__" else name

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        real = [argument.wrapped if isinstance(argument, _FaultyTransaction) else argument for argument in args]
        named = {key: arg.wrapped if isinstance(arg, _FaultyTransaction) else arg for key, arg in kwargs.items()}
        if name in {"__enter__", "__exit__"}:
            answer = getattr(type(self._inner), name)(self._inner, *real, **named)
            return self if answer is self._inner else answer
        return self._call(called, getattr(self._inner, name), *real, **named)

    method.__name__ = name
    return method


class FaultyConnector(_Faulty[InnerT]):
    """A connector with faults.

    Args:
        inner: The connector.
        faults: What happens at which call; or a function that is told of every call (`Reach`).

    Examples:
        The third page cannot be got, at the first try:

            FaultyConnector(connector, [Fault("page", 3, Raise(TransientError, ("busy",)))])
    """

    _special = frozenset({"read", "split", "part", "pin", "in_format"})
    fingerprint: Any
    count: Any
    read: Any

    def _read(self, cursor: Cursor | None, batch_size: int) -> Iterator[Page[RecordT]]:
        pages = self._call("read", getattr(self._inner, "read"), cursor, batch_size)  # noqa: B009 - of any type
        return self._pages(pages)

    def _pages(self, pages: Iterator[Page[RecordT]]) -> Iterator[Page[RecordT]]:
        try:
            while True:
                self._reach("page", "before")
                try:
                    page = next(pages)
                except StopIteration:
                    self._reach("page", "after")
                    return
                self._reach("page", "after")
                yield page
        finally:
            close_if_closable(pages)

    def _pin(self, columns: Sequence[str]) -> Any:
        pinned = self._call("pin", getattr(self._inner, "pin"), columns)  # noqa: B009 - of any type
        return FaultyConnector(pinned, self._reach)

    def _in_format(self, format_: Format) -> Any:
        formatted = self._call("in_format", getattr(self._inner, "in_format"), format_)  # noqa: B009 - of any type
        return FaultyConnector(formatted, self._reach)

    def _split(self, parts: int) -> Sequence[Any]:
        split = self._call("split", getattr(self._inner, "split"), parts)  # noqa: B009 - of any type
        return [FaultyConnector(part, self._faults) for part in split]

    def _part(self, place: Cursor) -> Any:
        part = self._call("part", getattr(self._inner, "part"), place)  # noqa: B009 - of any type
        return FaultyConnector(part, self._reach)


class FaultySink(_Faulty[InnerT]):
    """A sink with faults, or a plain callable; a call of that is called `"write"` too.

    Args:
        inner: The sink.
        faults: What happens at which call; or a function that is told of every call (`Reach`).

    Examples:
        The process dies when the second batch is written, and neither saved nor committed:

            FaultySink(sink, [Fault("write", 2, kill_process, when="after")])
    """

    transactional: Any
    idempotent: Any
    begin: Any
    write: Any
    complete: Any


class FaultyStore(_Faulty[InnerT]):
    """A store with faults.

    Args:
        inner: The store.
        faults: What happens at which call; or a function that is told of every call (`Reach`).

    Examples:
        The answer to the second commit is lost:

            FaultyStore(store, [lose_answer("commit", 2)])
    """

    _special = frozenset({"transaction", "enlist"})
    load: Any
    jobs: Any
    acquire: Any
    renew: Any
    save: Any
    release: Any
    request_stop: Any
    delete: Any

    def _transaction(self) -> AbstractContextManager[StoreTransaction]:
        return _FaultyBlock(getattr(self._inner, "transaction"), self._reach)  # noqa: B009 - of any type

    def _enlist(self, connection: Any) -> StoreTransaction:
        transaction = self._call("enlist", getattr(self._inner, "enlist"), connection)  # noqa: B009 - of any type
        return _FaultyTransaction(transaction, self._reach)


class _FaultyTransaction:
    def __init__(self, wrapped: StoreTransaction, reach: Reach) -> None:
        self.wrapped = wrapped
        self._reach = reach

    @property
    def connection(self) -> Any:
        return self.wrapped.connection

    def save(self, job: Any, lease: Any) -> Any:
        self._reach("save", "before")
        answer = self.wrapped.save(job, lease)
        self._reach("save", "after")
        return answer

    def __getattr__(self, name: str) -> Any:
        if name in {"wrapped", "_reach"}:
            raise AttributeError(name)
        return getattr(self.wrapped, name)


class _FaultyBlock:
    """A store's transaction whose beginning and end can fail."""

    def __init__(self, open_block: Callable[[], AbstractContextManager[StoreTransaction]], reach: Reach) -> None:
        self._open = open_block
        self._reach = reach
        self._block: Any = None

    def __enter__(self) -> StoreTransaction:
        self._reach("transaction", "before")
        self._block = self._open()
        transaction = self._block.__enter__()
        self._reach_or_roll_back("transaction", "after")
        return _FaultyTransaction(transaction, self._reach)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if kind is not None:
            try:
                self._reach("rollback", "before")
            finally:
                swallowed: bool | None = self._block.__exit__(kind, error, traceback)
            self._reach("rollback", "after")
            return swallowed
        self._reach_or_roll_back("commit", "before")
        self._block.__exit__(None, None, None)
        self._reach("commit", "after")
        return None

    def _reach_or_roll_back(self, call: str, when: Moment) -> None:
        try:
            self._reach(call, when)
        except BaseException as error:
            self._block.__exit__(type(error), error, error.__traceback__)
            raise
