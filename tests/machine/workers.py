"""Attempts that are driven step by step, in one process and one thread, and that can die or fall asleep at any call.

A worker hands the engine its ports wrapped (`FaultyStore` and its like), which tell it of every call. There its script
may act: raise an error, let others act while it sleeps, or die. A dead worker does nothing more: every further call of
a port ends in `Death` before it does anything, so nothing is released or recorded; a transaction that was open is
rolled back, as by a database whose connection is gone.
"""

import contextlib
import threading
from collections.abc import Callable, Generator
from typing import Any

import attrs
from sqlalchemy import Connection
from typing_extensions import override

from machine.world import JOB_ID, TTL, Row, Seen, World, position, rows_of
from resumable_sync import Batch, FullSync, Job, Retry, SyncResult, replay_dead_letters, reset_job
from resumable_sync._engine import SinkRun
from resumable_sync._lease import LeaseKeeper
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.testing import FaultyConnector, FaultySink, FaultyStore

FAST = Retry(max_tries=3, wait_initial=0.0, wait_max=0.0)

INSERT = "INSERT INTO target VALUES (?, ?)"


class Death(BaseException):
    """The process is dead."""


class RefusedError(Exception):
    """The sink refuses a record for good."""


@attrs.frozen(kw_only=True)
class Options:
    """The options of a start that the machine varies."""

    batch_size: Any = 2
    on_refused: str = "fail"
    max_dead_letters: int | None = 100
    if_completed: str = "rerun"
    if_changed: str = "resume"
    max_stalled_attempts: int = 50
    max_records: int | None = None
    count: bool = False
    commits: bool = True


@attrs.define
class Script:
    """Something that happens once, at the so-many-th call of a port.

    Attributes:
        at: Which call, from 0.
        act: What happens; may raise.
        name: For messages.
        acts_on_world: Whether other workers act, which a transaction of this one would keep out.
    """

    at: int
    act: Callable[["Worker"], None]
    name: str
    acts_on_world: bool = False
    calls: int = 0
    done: bool = False


Outcome = tuple[str, Any]
"""`("delivered", batch)`, `("ended", result)`, `("failed", error)` or `("dead", None)`."""


@attrs.define(eq=False)
class Worker:
    """One process.

    Attributes:
        world: Where it works.
        slot: Which of the world's stores is its own.
        name: Owner of its leases.
        options: How it was started.
    """

    world: World
    slot: int
    name: str
    options: Options = attrs.field(factory=Options)
    dead: bool = False
    over: bool = False
    replaying: bool = False
    token: int | None = None
    script: Script | None = None
    in_transaction: bool = False
    begun_with: Seen | None = None
    open: bool = False
    delivered: int = 0
    limit: int | None = None
    stop_budget: int | None = None
    zombie_records: int = 0
    left_unchanged: Any = None
    acts: list[str] = attrs.field(factory=list)
    problems: list[str] = attrs.field(factory=list)
    sync: Any = None
    sink: Any = None
    _loop: Generator[Any, str, None] | None = None
    _thread: int = attrs.field(factory=threading.get_ident)

    # What the ports tell.

    def reach(self, call: str, when: str) -> None:
        if threading.get_ident() != self._thread:
            return  # it reads ahead, or counts, which changes nothing; a Death there would be nobody's to catch
        if self.dead:
            raise Death
        if (call, when) == ("transaction", "after"):
            self.in_transaction = True
        if call in {"commit", "rollback"} and when == "after":
            self.in_transaction = False
        if when == "after" and not self.in_transaction and call in {"acquire", "save", "commit"}:
            self._look(call)
        script = self.script
        if script is None or script.done:
            return
        script.calls += 1
        if script.calls <= script.at or (script.acts_on_world and self.in_transaction):
            return
        script.done = True
        self.acts.append(f"{script.name} {when} {call}")
        try:
            script.act(self)
        except BaseException:
            self.in_transaction = False
            raise

    def _look(self, call: str) -> None:
        if call == "acquire":
            seen = self.world.seen()
            if seen is not None and seen.owner == self.name:
                self.token = seen.token
        else:
            self.world.note_run()

    def is_zombie(self) -> bool:
        """Whether its lease belongs to somebody else, or to nobody since the job was deleted."""
        seen = self.world.seen()
        return self.token is not None and (seen is None or seen.token > self.token)

    def is_fenced(self) -> bool:
        """Whether its target knows that, too: one in another database learns of it when the successor begins."""
        return not self.world.kind.own or (self.token is not None and self.world.target_token() > self.token)

    def writing(self, batch: Batch[Any]) -> None:
        """Check a batch on its way into the target: it must be the one that follows the checkpoint."""
        seen = self.world.seen()
        if self.replaying or self.is_zombie() or seen is None:
            return
        job = seen.job
        if batch.sequence != job.processed_batches or position(batch.previous_cursor) != seen.position:
            self.problems.append(f"batch {batch.sequence} after {batch.previous_cursor} does not follow {job}")

    # What it does.

    def start(self) -> Outcome:
        self.begun_with = self.world.seen()
        self._loop = self._run()
        return self._go(next)

    def step(self) -> Outcome:
        return self._go(lambda loop: loop.send("go on"))

    def leave(self) -> Outcome:
        return self._go(lambda loop: loop.send("leave"))

    def throw(self, error: Exception) -> Outcome:
        """Let the caller's own loop raise something."""
        return self._go(lambda loop: loop.throw(error))

    def die(self) -> None:
        """End, with nothing released; what the operating system frees is freed."""
        self.dead = True
        self._end()

    def _end(self) -> None:
        self.over = True
        loop, self._loop = self._loop, None
        if loop is not None:
            with contextlib.suppress(Death):
                loop.close()
        for thing in (self.sink, self.world.store(self.slot)):
            if self.dead or thing is self.sink:
                getattr(thing, "close", lambda: None)()

    def replay(self) -> Outcome:
        self.replaying = True
        return self._call(lambda: replay_dead_letters(JOB_ID, self._sink(), store=self._store()))

    def reset(self) -> Outcome:
        return self._call(lambda: reset_job(JOB_ID, store=self._store()))

    def _call(self, work: Callable[[], Any]) -> Outcome:
        try:
            return "ended", work()
        except Death:
            return "dead", None
        except Exception as error:
            return "failed", error
        finally:
            self.in_transaction = False
            self._end()

    def beat(self) -> None:
        """Let the heartbeat, which has no thread here, renew the lease once."""
        keeper: Any = self.sync._attempt._keeper
        keeper._done = _Once()
        LeaseKeeper._beat(keeper)

    def sleep(self) -> None:
        """Let the process know that it slept for longer than its lease lasted."""
        attempt = None if self.sync is None else self.sync._attempt
        if attempt is not None:
            attempt._keeper._renewed_at -= 2 * TTL

    @property
    def result(self) -> SyncResult:
        result: SyncResult = self.sync.result
        return result

    def _go(self, move: Callable[[Generator[Any, str, None]], Any]) -> Outcome:
        assert self._loop is not None
        try:
            return "delivered", move(self._loop)
        except StopIteration:
            outcome: Outcome = ("ended", self.result)
        except Death:
            outcome = ("dead", None)
        except Exception as error:
            outcome = ("failed", error)
        finally:
            self.in_transaction = False
        self._end()
        return outcome

    def _run(self) -> Generator[Any, str, None]:
        options: dict[str, Any] = attrs.asdict(self.options, filter=lambda field, _: field.name != "commits")
        options |= {"retry": FAST, "lease_ttl": TTL, "prefetch": self.world.kind.prefetch}
        connector = FaultyConnector(self.world.connector(), self.reach)
        if self.world.kind.loop:
            self.sync = FullSync(JOB_ID, connector, store=self._store(), **options)
        else:
            self.sync = SinkRun(JOB_ID, connector, self._sink(), self._store(), options)  # type: ignore[arg-type]
        with self.sync as sync:
            self.open = sync._attempt is not None
            if not self.open:
                return  # passed over
            command = yield None
            for batch in sync if command == "go on" else ():
                self._deliver(sync, batch)
                self.delivered += 1
                command = yield batch
                if command == "leave":
                    break

    def _deliver(self, sync: Any, batch: Batch[Any]) -> None:
        match self.world.kind.sink:
            case "loop":
                self.in_transaction = True
                with self.world.owner_engine.begin() as connection:
                    self.writing(batch)
                    connection.exec_driver_sql(INSERT, list(rows_of(batch.dicts())))
                    sync.commit(batch, connection)
                    self.reach("owner's commit", "before")
                self.in_transaction = False
                self.reach("owner's commit", "after")
            case "loop_plain":
                self.reach("write", "before")
                self.writing(batch)
                self.world.log.extend((self._run_id(), row) for row in rows_of(batch.dicts()))
                self.reach("write", "after")
                if self.options.commits:
                    sync.commit(batch)
            case _:
                sync.deliver(batch)

    def _run_id(self) -> str | None:
        run_id: str | None = self.sync.job.run_id
        return run_id

    def _store(self) -> Any:
        return FaultyStore(self.world.store(self.slot), self.reach)

    def _sink(self) -> Any:
        self.sink = self.sink or _sink_of(self)
        return FaultySink(self.sink, self.reach)


class _Once:
    """In place of the event that ends a heartbeat: one beat, then it has ended."""

    beats = 0

    def wait(self, _seconds: float) -> bool:
        self.beats += 1
        return self.beats > 1

    def is_set(self) -> bool:
        return False

    def set(self) -> None:
        pass


def _sink_of(worker: Worker) -> Any:
    kind = worker.world.kind.sink
    if kind == "transactional":
        return _Insert(worker)
    if kind == "plain":
        return _Log(worker)
    return _Table(worker)


class _Insert:
    """Inserts on the store's connection, row by row until one is refused."""

    transactional = True
    idempotent = False

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def begin(self, job: Job, connection: Connection | None) -> None:
        assert connection is not None

    def write(self, batch: Batch[Any], connection: Connection | None) -> None:
        assert connection is not None
        self._worker.writing(batch)
        for row in rows_of(batch.dicts()):
            connection.exec_driver_sql(INSERT, row)
            if row[0] in self._worker.world.refused:
                raise RefusedError

    def complete(self, job: Job, connection: Connection | None) -> None:
        assert connection is not None


class _Log:
    """Keeps what it gets in a list, outside of any transaction."""

    transactional = False
    idempotent = False

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def begin(self, job: Job, connection: Connection | None) -> None:
        assert connection is None

    def write(self, batch: Batch[Any], connection: Connection | None) -> None:
        assert connection is None
        self._worker.writing(batch)
        rows: list[Row] = list(rows_of(batch.dicts()))
        self._worker.world.log.extend((self._worker._run_id(), row) for row in rows)

    def complete(self, job: Job, connection: Connection | None) -> None:
        assert connection is None


class _Table(SQLSink):
    """`SQLSink`, with a look at every batch."""

    def __init__(self, worker: Worker) -> None:
        kind = worker.world.kind
        url = worker.world.engine_of_target if kind.own else None
        super().__init__("target", mode="replace" if kind.replaces else "append", url=url)
        self._worker = worker

    @override
    def write(self, batch: Batch[Any], connection: Connection | None) -> None:
        self._worker.writing(batch)
        super().write(batch, connection)
