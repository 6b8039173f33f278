"""What is accepted as a sink: objects with the methods of `Sink`, objects with `write` alone, and plain callables."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import override

from resumable_sync._close import close_if_closable
from resumable_sync._errors import ConfigurationError
from resumable_sync._model import Batch, Job, RecordT
from resumable_sync._protocols import Sink

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from resumable_sync._formats import Format

__all__ = ["as_sink", "transactional"]

_MEMBERS = ("begin", "write", "complete", "transactional", "idempotent")
_ABILITIES = ("prepare", "checkpoint", "part")
_WISHES = ("preferred_batch_size", "preferred_prefetch", "known_formats")
_EXPECTED = "a sink is an object with write(batch, connection), a function f(batch), or transactional(f)"


def as_sink(sink: Sink[Any] | Callable[[Batch[Any]], object] | Any) -> Sink[Any]:
    """Give a sink for whatever may be passed as one.

    Args:
        sink: An object that has all of `Sink` is given back as it is. One with `write` alone, as `write(batch)` or
            `write(batch, connection)`, gets the rest with the defaults: `begin` and `complete` do nothing, and it
            is neither transactional nor idempotent. Any other callable is called as `f(batch)`.

    Raises:
        ConfigurationError: If it is none of these, a class instead of an object, or a coroutine or generator function,
            which would be called and never run.
    """
    if isinstance(sink, type):
        msg = f"the sink is the class {sink.__name__}, not an object of it; {_EXPECTED}"
        raise ConfigurationError(msg)
    write = getattr(sink, "write", None)
    if callable(write):
        takes = _takes(write, f"write of the sink {type(sink).__name__}", at_most=2)
        complete = takes == 2 and all(hasattr(sink, member) for member in _MEMBERS)  # noqa: PLR2004 - batch, connection
        whole: Any = sink
        # What only hands on the methods of another sink wants to see the records themselves.
        partial = _PartialFormattingSink if hasattr(type(sink), "takes") else _PartialSink
        return whole if complete else partial(sink, alone=takes == 1)
    if not callable(sink):
        msg = f"the sink is a {type(sink).__name__}; {_EXPECTED}"
        raise ConfigurationError(msg)
    _takes(sink, "the sink", at_most=1)
    return _CallableSink(sink)


def transactional(function: "Callable[[Batch[RecordT], Connection], object]") -> "_TransactionalSink[RecordT]":
    """Make a sink of a function that writes on the store's connection: exactly once. Also a decorator.

    The function is called inside the transaction that saves the checkpoint, and must neither commit nor roll it back.
    Its rows and the checkpoint commit together. On MySQL and MariaDB it must not contain DDL, which commits.

    Args:
        function: Is called as `function(batch, connection)`, with a SQLAlchemy `Connection`.

    Raises:
        ConfigurationError: If it is no such function.

    Examples:
        >>> from sqlalchemy import text
        >>> @transactional
        ... def load(batch, connection):
        ...     connection.execute(text("INSERT INTO orders (id) VALUES (:id)"), batch.dicts())
        >>> load.transactional
        True
    """
    given: object = function
    if isinstance(given, type) or not callable(given):
        name = given.__name__ if isinstance(given, type) else type(given).__name__
        msg = f"transactional() was given {name}; give it a function f(batch, connection)"
        raise ConfigurationError(msg)
    if _takes(function, "the function given to transactional()", at_most=2) == 1:
        msg = "the function given to transactional() takes only the batch; define it as f(batch, connection)"
        raise ConfigurationError(msg)
    return _TransactionalSink(function)


def _takes(function: Callable[..., object], what: str, *, at_most: int) -> int:
    """Say how many of (batch, connection) a function takes.

    Raises:
        ConfigurationError: If it takes neither one nor as many as it would be given, or would never run.
    """
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    if any(test(one) for one in (function, called) for test in _NEVER_RUN):
        msg = f"{what} is a coroutine or generator function, which a call would not run; make it a plain function"
        raise ConfigurationError(msg)
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some builtins have none
        return at_most
    for count in range(at_most, 0, -1):
        if _binds(signature, count):
            return count
    if at_most == 1 and _binds(signature, 2):
        msg = f"{what} takes (batch, connection); pass it as transactional(f), or let it take the batch alone"
    else:
        msg = f"{what} cannot be called with a batch: its parameters are {signature}; {_EXPECTED}"
    raise ConfigurationError(msg)


_NEVER_RUN = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


class _CallableSink(Sink[RecordT]):
    """A function `f(batch)` as a sink."""

    transactional = False
    idempotent = False

    def __init__(self, function: Callable[[Batch[RecordT]], object]) -> None:
        self._function = function

    @override
    def begin(self, job: Job, connection: "Connection | None") -> None:
        pass

    @override
    def write(self, batch: Batch[RecordT], connection: "Connection | None") -> None:
        _check_ran(self._function(batch))

    @override
    def complete(self, job: Job, connection: "Connection | None") -> None:
        pass

    def part(self, _job: Job) -> "_CallableSink[RecordT]":
        """Give the sink of one part: the same function."""
        return self

    @override
    def __repr__(self) -> str:
        return f"as_sink({_name(self._function)})"


class _PartialSink(Sink[Any]):
    """An object that has `write` and perhaps more of `Sink`, with the rest added."""

    transactional = False
    idempotent = False

    def __init__(self, sink: Any, *, alone: bool) -> None:
        self.transactional = bool(getattr(sink, "transactional", False))
        self.idempotent = bool(getattr(sink, "idempotent", False))
        self.publishes_incomplete = bool(getattr(sink, "publishes_incomplete", False))
        if alone and self.transactional:
            msg = (
                f"the sink {type(sink).__name__} says it is transactional, but its write takes only the batch; define "
                "write(self, batch, connection) and write on that connection"
            )
            raise ConfigurationError(msg)
        self._sink = sink
        self._alone = alone
        for wish in _WISHES:
            if hasattr(sink, wish):
                setattr(self, wish, getattr(sink, wish))
        for ability in _ABILITIES:
            # Protocols are told by their members, so a member may exist only where the object has it.
            if callable(getattr(sink, ability, None)):
                setattr(self, ability, getattr(sink, ability))
        if not any(hasattr(sink, member) for member in ("part", "begin", "complete")):
            self.part = self._whole  # it prepares and publishes nothing

    def _whole(self, _job: Job) -> "_PartialSink":
        # A method, which pickles where the sink does; a function made above would not.
        return self

    @override
    def begin(self, job: Job, connection: "Connection | None") -> None:
        begin = getattr(self._sink, "begin", None)
        if begin is not None:
            begin(job, connection)

    @override
    def write(self, batch: Batch[Any], connection: "Connection | None") -> None:
        _check_ran(self._sink.write(batch) if self._alone else self._sink.write(batch, connection))

    @override
    def complete(self, job: Job, connection: "Connection | None") -> None:
        complete = getattr(self._sink, "complete", None)
        if complete is not None:
            complete(job, connection)

    @override
    def __repr__(self) -> str:
        return f"as_sink({type(self._sink).__name__})"


class _PartialFormattingSink(_PartialSink):
    """One that takes records in formats."""

    def takes(self, format_: "Format", job: Job, /) -> bool:
        """Whether batches of a job may come in a format."""
        return bool(self._sink.takes(format_, job))


class _TransactionalSink(Sink[RecordT], Generic[RecordT]):
    """A function `f(batch, connection)` as a sink that writes on the store's connection; still callable itself."""

    transactional = True
    idempotent = False

    def __init__(self, function: "Callable[[Batch[RecordT], Connection], object]") -> None:
        functools.update_wrapper(self, function)
        self._function = function

    def __call__(self, batch: Batch[RecordT], connection: "Connection") -> object:
        return self._function(batch, connection)

    @override
    def begin(self, job: Job, connection: "Connection | None") -> None:
        self._check(connection)

    @override
    def write(self, batch: Batch[RecordT], connection: "Connection | None") -> None:
        _check_ran(self._function(batch, self._check(connection)))

    @override
    def complete(self, job: Job, connection: "Connection | None") -> None:
        self._check(connection)

    def part(self, _job: Job) -> "_TransactionalSink[RecordT]":
        """Give the sink of one part: the same function."""
        return self

    def _check(self, connection: "Connection | None") -> "Connection":
        if connection is None:
            msg = (
                f"transactional({_name(self._function)}) needs the connection of a transactional store, such as "
                "SQLJobStore; use one, or pass a plain function f(batch)"
            )
            raise ConfigurationError(msg)
        return connection

    @override
    def __reduce__(self) -> Any:
        # The name of a decorated function leads to this object instead of the function, which pickle would refuse.
        found: Any = sys.modules.get(getattr(self._function, "__module__", None) or "")
        for part in _name(self._function).split("."):
            found = getattr(found, part, None)
        return _name(self._function) if found is self else (transactional, (self._function,))

    @override
    def __repr__(self) -> str:
        return f"transactional({_name(self._function)})"


def _check_ran(result: object) -> None:
    """Refuse what a function returns instead of having run: its batch would count as delivered.

    Raises:
        ConfigurationError: If it is a coroutine or another awaitable.
    """
    if result is not None and inspect.isawaitable(result):
        close_if_closable(result)
        msg = "the sink returned an awaitable, which nobody awaits; run it inside the sink, e.g. with asyncio.run"
        raise ConfigurationError(msg)


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))
