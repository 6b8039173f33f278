"""Plays the attempts of `SQLSink(mode="replace")`, each with a sink of its own, as another process would have."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import attrs
from sqlalchemy import Connection, Engine, Integer, String, event, inspect, text

from resumable_sync import Column, Job
from resumable_sync._database import begin_write
from resumable_sync.sinks.sql import SQLSink
from sinks.driving import JOB_ID, batch, lease

COLUMNS = [
    Column(name="id", type=Integer(), nullable=False, primary_key=True),
    Column(name="name", type=String(20)),
]


class DiedError(Exception):
    """Ends an attempt where a process would be killed; what it had open is rolled back, as then."""


TOKENS = itertools.count(1)


@attrs.define
class Attempt:
    """One attempt at a run that loads batches of one row each: (1, "a1"), (2, "a2"), ..."""

    engine: Engine
    own: bool
    token: int = attrs.field(factory=lambda: next(TOKENS))
    run_id: str = "run 1"
    done: int = 0
    job_id: str = JOB_ID
    table: str = "target"
    columns: Sequence[Column] | None = attrs.field(factory=lambda: COLUMNS)
    options: dict[str, Any] = attrs.field(factory=dict)
    sink: SQLSink = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.sink = SQLSink(self.table, "replace", url=self.engine if self.own else None, **self.options)

    @property
    def job(self) -> Job:
        return Job(
            id=self.job_id,
            run=1,
            run_id=self.run_id,
            lease=attrs.evolve(lease(self.token), job_id=self.job_id),
            cursor=[self.done] if self.done else None,
            processed_records=self.done,
            processed_batches=self.done,
        )

    def next(self, **changes: Any) -> "Attempt":
        """The next attempt, as after a death."""
        made = Attempt(**{
            "engine": self.engine,
            "own": self.own,
            "token": self.token + 1,
            "run_id": self.run_id,
            "done": self.done,
            "job_id": self.job_id,
            "table": self.table,
            "columns": self.columns,
            "options": self.options,
            **changes,
        })
        self.sink.close()
        return made

    def begin(self) -> "Attempt":
        if self.columns is not None:
            self.sink.prepare(self.columns)
        if self.own:
            kept = self.sink.checkpoint(self.job)
            self.done = self.done if kept is None else kept.processed_batches
        self._do(lambda connection: self.sink.begin(self.job, connection))
        return self

    def write(self, count: int = 1) -> "Attempt":
        for _ in range(count):
            record = {"id": self.done + 1, "name": f"a{self.done + 1}"}
            each = batch([record], number=self.done, token=self.token, job_id=self.job_id)
            self._do(lambda connection, each=each: self.sink.write(each, connection))  # type: ignore[misc]
            self.done += 1
        return self

    def complete(self) -> "Attempt":
        self._do(lambda connection: self.sink.complete(attrs.evolve(self.job, lease=None), connection))
        return self

    def _do(self, work: Callable[[Connection | None], None]) -> None:
        if self.own:
            work(None)
            return
        with self.engine.connect() as connection:
            if self.engine.dialect.name != "sqlite":
                connection.execution_options(isolation_level="READ COMMITTED")
                connection.begin()
            try:
                begin_write(connection)
                work(connection)
                connection.commit()
            except BaseException:
                connection.connection.rollback()  # after a failed commit SQLAlchemy would not
                raise


def rows(engine: Engine, table: str = "target") -> list[Any]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(f"SELECT id, name FROM {table} ORDER BY id"))]


def loaded(count: int) -> list[tuple[int, str]]:
    return [(number, f"a{number}") for number in range(1, count + 1)]


def tables(engine: Engine) -> set[str]:
    """All tables but those that the library keeps."""
    kept = {"resumable_sync_staging", "resumable_sync_checkpoints"}
    return {name for name in inspect(engine).get_table_names() if name not in kept}


def stagings(engine: Engine) -> list[str]:
    return sorted(name for name in tables(engine) if name.startswith("resumable_sync_"))


def states(engine: Engine) -> list[tuple[str, str]]:
    """Run and state of everything in the register."""
    with engine.connect() as connection:
        found = connection.execute(text("SELECT run_id, state FROM resumable_sync_staging ORDER BY token, name")).all()
    return [tuple(part.decode() if isinstance(part, bytes) else part for part in row) for row in found]  # type: ignore[misc]


@contextmanager
def death(engine: Engine, nth: int) -> Iterator[Callable[[], bool]]:
    """Die instead of sending the n-th statement or commit to the database.

    Yields:
        A function that says whether so many were sent.
    """
    sent = 0

    def reached(*_: Any) -> None:
        nonlocal sent
        sent += 1
        if sent == nth:
            raise DiedError

    event.listen(engine, "before_cursor_execute", reached)
    event.listen(engine, "commit", reached)
    try:
        with suppress(DiedError):
            yield lambda: sent >= nth
    finally:
        event.remove(engine, "before_cursor_execute", reached)
        event.remove(engine, "commit", reached)
