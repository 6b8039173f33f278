"""What is accepted as a sink."""

import functools
import pickle
from typing import Any

import pytest
from sqlalchemy import create_engine
from typing_extensions import override

from resumable_sync._errors import ConfigurationError
from resumable_sync._formats import Format, FormattingSink
from resumable_sync._model import Batch, Job
from resumable_sync._protocols import CheckpointingSink, PreparingSink, Sink
from resumable_sync._sinks import as_sink, transactional

JOB = Job(id="job")
BATCH: Batch[Any] = Batch(
    records=[1, 2], cursor=[2], previous_cursor=None, job_id="job", run=1, sequence=0, fencing_token=1, key="0" * 32
)


class Whole:
    transactional = False
    idempotent = True

    def begin(self, job: Job, connection: Any) -> None:
        pass

    def write(self, batch: Batch[Any], connection: Any) -> None:
        pass

    def complete(self, job: Job, connection: Any) -> None:
        pass


class Beginner:
    def __init__(self) -> None:
        self.batches: list[Any] = []

    def write(self, batch: Batch[Any]) -> None:
        self.batches.append(batch)


class Preparing(Beginner):
    def prepare(self, columns: Any) -> None:
        self.batches.append(columns)


class Named:
    def __init__(self, write: Any) -> None:
        self.write = write


def plain(batch: Batch[Any]) -> None:
    pass


def load(batch: Batch[Any], connection: Any) -> str:
    return "loaded"


@transactional
def decorated(batch: Batch[Any], connection: Any) -> None:
    connection.exec_driver_sql(f"SELECT {len(batch)}")


async def coroutine(batch: Batch[Any]) -> None:
    pass


def generator(batch: Batch[Any]) -> Any:
    yield batch


def test_a_whole_sink_is_given_back_as_it_is() -> None:
    sink = Whole()
    assert as_sink(sink) is sink
    assert as_sink(decorated) is decorated


@pytest.mark.parametrize("make", [lambda out: out.append, lambda out: lambda batch, extra=None: out.append(batch)])
def test_any_callable_is_a_sink(make: Any) -> None:
    out: list[Any] = []
    sink = as_sink(make(out))
    assert isinstance(sink, Sink)
    assert not isinstance(sink, (PreparingSink, CheckpointingSink))
    assert (sink.transactional, sink.idempotent) == (False, False)
    sink.begin(JOB, None)
    sink.write(BATCH, None)
    sink.complete(JOB, None)
    assert out == [BATCH]


def test_an_object_with_write_alone_is_a_sink() -> None:
    beginner = Beginner()
    sink = as_sink(beginner)
    assert isinstance(sink, Sink)
    assert not isinstance(sink, (PreparingSink, CheckpointingSink))
    sink.begin(JOB, None)
    sink.write(BATCH, None)
    sink.complete(JOB, None)
    assert beginner.batches == [BATCH]


def test_optional_abilities_pass_through_where_they_exist() -> None:
    preparing = Preparing()
    sink = as_sink(preparing)
    assert isinstance(sink, PreparingSink)
    assert not isinstance(sink, CheckpointingSink)
    sink.prepare(["columns"])  # type: ignore[list-item]
    assert preparing.batches == [["columns"]]


def test_what_it_wishes_and_takes_is_kept() -> None:
    class Formatting(FormattingSink):
        transactional = True
        known_formats = ("known",)
        preferred_batch_size = 7
        preferred_prefetch = 3

        @override
        def takes(self, format_: Format, job: Job, /) -> bool:
            return format_.name == "known"

        def write(self, batch: Any, connection: Any) -> None:
            pass

    sink: Any = as_sink(Formatting())
    assert sink.transactional
    assert hasattr(type(sink), "takes")
    assert [sink.takes(Format(name=name, columns=(), types=()), JOB) for name in ("known", "other")] == [True, False]
    assert (sink.known_formats, sink.preferred_batch_size, sink.preferred_prefetch) == (("known",), 7, 3)
    assert not isinstance(as_sink(Beginner()), FormattingSink)
    assert not hasattr(as_sink(Beginner()), "known_formats")


def test_what_it_declares_is_kept_and_what_it_defines_is_called() -> None:
    seen: list[Any] = []

    class Partial:
        transactional = True

        def write(self, batch: Any, connection: Any) -> None:
            seen.append((batch, connection))

        def complete(self, job: Any, connection: Any) -> None:
            seen.append(job)

    sink = as_sink(Partial())
    assert sink.transactional
    assert not sink.idempotent
    sink.begin(JOB, None)
    sink.write(BATCH, "connection")  # type: ignore[arg-type]
    sink.complete(JOB, None)
    assert seen == [(BATCH, "connection"), JOB]


def test_a_transactional_write_needs_the_connection() -> None:
    class Claims:
        transactional = True

        def write(self, batch: Any) -> None:
            pass

    with pytest.raises(ConfigurationError, match=r"write\(self, batch, connection\)"):
        as_sink(Claims())


@pytest.mark.parametrize(
    ("thing", "says"),
    [
        (None, "NoneType"),
        ("orders", "a str"),
        (42, "an? int"),
        (Whole, "class Whole"),
        (list, "class list"),
        (coroutine, "plain function"),
        (generator, "plain function"),
        (functools.partial(coroutine), "plain function"),
        (Named(coroutine), "plain function"),
        (load, r"transactional\(f\)"),
        (lambda: None, r"parameters are \(\)"),
        (Named(lambda a, b, c: None), "parameters are"),
    ],
)
def test_anything_else_is_refused(thing: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        as_sink(thing)


def test_an_awaitable_result_is_not_taken_for_delivered() -> None:
    sink = as_sink(lambda batch: coroutine(batch))  # noqa: PLW0108 - no coroutine function
    with pytest.raises(ConfigurationError, match="awaitable"):
        sink.write(BATCH, None)


def test_a_transactional_function_gets_batch_and_connection() -> None:
    sink = transactional(load)
    assert isinstance(sink, Sink)
    assert (sink.transactional, sink.idempotent) == (True, False)
    assert sink(BATCH, None) == "loaded"  # type: ignore[arg-type]
    with create_engine("sqlite://").begin() as connection:
        sink.begin(JOB, connection)
        decorated.write(BATCH, connection)
        sink.complete(JOB, connection)


def test_a_transactional_function_without_connection_is_refused_with_the_remedy() -> None:
    sink = transactional(load)
    with pytest.raises(ConfigurationError, match="SQLJobStore"):
        sink.begin(JOB, None)
    with pytest.raises(ConfigurationError, match="SQLJobStore"):
        sink.write(BATCH, None)


@pytest.mark.parametrize("thing", [None, "f", Whole, plain, coroutine, lambda: None])
def test_transactional_refuses_what_it_cannot_call(thing: Any) -> None:
    with pytest.raises(ConfigurationError):
        transactional(thing)


@pytest.mark.parametrize(
    "sink", [as_sink(plain), transactional(load), decorated, as_sink(Beginner()), as_sink(Preparing())]
)
def test_sinks_pickle_where_their_functions_do(sink: Any) -> None:
    # importlib mode gives this module a name under which it can be found again.
    copy = pickle.loads(pickle.dumps(sink))
    assert type(copy) is type(sink)
    assert copy.transactional == sink.transactional
    assert isinstance(copy, PreparingSink) == isinstance(sink, PreparingSink)
    assert repr(copy) == repr(sink)
