"""What stands outside of the engine: source, stores, targets, and a look at all of them that asks nobody."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Literal

import attrs
from sqlalchemy import Engine, create_engine, event
from typing_extensions import override

from resumable_sync import Connector, Cursor, DeadLetter, Job, JobStatus, JobStore, KeysetConnector, MemoryJobStore
from resumable_sync._cursor import decode_cursor
from resumable_sync._model import same_cursor
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.stores.sql import SQLJobStore

JOB_ID = "j"
BYSTANDER = "bystander"
BEGINNING = -1_000_000
STAGINGS = "resumable_sync_staging"
KNOWN_TABLES = {"target", "foreign_table", "sqlite_sequence", "resumable_sync_checkpoints", STAGINGS} | {
    f"resumable_sync_{name}" for name in ("jobs", "dead_letters", "meta", "attempts", "history")
}
TTL = 1_000_000.0  # ends only when the machine says so

Row = tuple[int, int]
"""A key, and a number that no other state of any row has."""

SinkKind = Literal["transactional", "table", "replace", "plain", "own", "own_replace", "loop", "loop_plain"]


@attrs.frozen(kw_only=True)
class Kind:
    """What an example is made of.

    Attributes:
        store: `"sql"` (a SQLite file) or `"memory"`.
        sink: `"transactional"` (a function on the store's connection), `"table"` (`SQLSink` on the store's
            connection), `"replace"` (the same with `mode="replace"`), `"plain"` (a function outside of any
            transaction), `"own"` and `"own_replace"` (`SQLSink` with a database and a checkpoint of its own), `"loop"`
            (`FullSync` with transactions of the caller's), `"loop_plain"` (without).
        source: `"sql"` (a table of another SQLite file) or `"memory"`.
        prefetch: Pages read ahead. Other threads read at any time, so such a source never changes.
    """

    store: Literal["sql", "memory"]
    sink: SinkKind
    source: Literal["sql", "memory"] = "memory"
    prefetch: int = 0

    @property
    def exact(self) -> bool:
        return self.sink not in {"plain", "loop_plain"}

    @property
    def own(self) -> bool:
        return self.sink.startswith("own")

    @property
    def replaces(self) -> bool:
        return self.sink.endswith("replace")

    @property
    def loop(self) -> bool:
        return self.sink.startswith("loop")

    @override
    def __str__(self) -> str:
        return f"{self.store}-{self.sink}-{self.source}-{self.prefetch}"


KINDS = (
    Kind(store="sql", sink="transactional"),
    Kind(store="sql", sink="transactional", source="sql"),
    Kind(store="sql", sink="transactional", prefetch=2),
    Kind(store="sql", sink="table"),
    Kind(store="sql", sink="table", source="sql", prefetch=1),
    Kind(store="sql", sink="plain"),
    Kind(store="memory", sink="plain"),
    Kind(store="memory", sink="plain", prefetch=2),
    Kind(store="sql", sink="own"),
    Kind(store="memory", sink="own", source="sql"),
    Kind(store="sql", sink="replace"),
    Kind(store="sql", sink="replace", source="sql"),
    Kind(store="sql", sink="own_replace"),
    Kind(store="memory", sink="own_replace"),
    Kind(store="sql", sink="loop"),
    Kind(store="sql", sink="loop_plain"),
    Kind(store="memory", sink="loop_plain"),
)


class Rows(KeysetConnector[dict[str, int], int]):
    """The rows of the source, ordered by `k`."""

    column_names = None

    def __init__(self, world: "World") -> None:
        self._world = world
        self.fingerprint = f"columns {world.columns}"

    @override
    def fetch(self, after: int | None, limit: int) -> list[dict[str, int]]:
        rows = dict(self._world.source)
        keys = sorted(key for key in rows if after is None or key > after)
        return [{"k": key, "v": rows[key]} for key in keys[:limit]]

    @override
    def key_of(self, record: dict[str, int]) -> int:
        return record["k"]

    @override
    def count(self) -> int:
        return len(self._world.source)


@attrs.frozen(kw_only=True)
class Seen:
    """The job as it is stored, with what its row tells of the lease."""

    job: Job
    token: int
    owner: str | None
    alive: bool
    stop_requested: bool

    @property
    def position(self) -> int:
        """The key of the cursor."""
        return position(self.job.cursor)


def position(cursor: Cursor | None) -> int:
    """Give the key that a cursor stands at, or what comes before every key."""
    if cursor is None:
        return BEGINNING
    key = cursor[0]
    return int(key[0] if isinstance(key, list) else key)


@attrs.define
class RunModel:
    """What is known of a run since its first save.

    Attributes:
        standing: Keys that have been in the source ever since.
        before: What was in the target before it.
    """

    standing: set[int]
    before: Counter[Row]


class World:
    """Three SQLite files, made once and emptied for every example; all in one process, with nothing to wait for.

    Args:
        folder: Where the files are made.
        wait: Seconds that a connection waits for a lock.
    """

    def __init__(self, folder: Path, wait: float) -> None:
        self._wait = wait
        self._engines: list[Engine] = []
        self._urls = {name: f"sqlite:///{folder / name}.db" for name in ("store", "target", "source")}
        self._look = self._connect(folder / "store.db")
        self._target = self._connect(folder / "target.db")
        self._source = self._connect(folder / "source.db")
        for connection in (self._look, self._target, self._source):
            connection.execute("PRAGMA journal_mode=WAL")
        for connection in (self._look, self._target):
            connection.execute("CREATE TABLE target (k INTEGER, v INTEGER)")
        self._look.execute("CREATE TABLE foreign_table (n INTEGER)")
        self._look.execute("INSERT INTO foreign_table VALUES (1)")
        self._stores = [SQLJobStore(self.engine("store")) for _ in range(4)]
        self.owner_engine = self.engine("store")
        self.engine_of_source = self.engine("source")
        self.engine_of_target = self.engine("target")
        self._make_bystander()
        self._bystander = self._bystander_rows()

    def _connect(self, path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    def engine(self, name: str) -> Engine:
        engine = create_engine(
            self._urls[name], connect_args={"timeout": self._wait, "check_same_thread": False}, max_overflow=-1
        )

        @event.listens_for(engine, "connect")
        def configure(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA synchronous=OFF")

        self._engines.append(engine)
        return engine

    def _make_bystander(self) -> None:
        store = self._stores[0]
        lease = store.acquire(BYSTANDER, owner="somebody", ttl=TTL)
        job = store.load(BYSTANDER)
        assert job is not None
        with store.transaction() as transaction:
            store.add_dead_letters(
                [DeadLetter(job_id=BYSTANDER, run=1, record=[1], error="E: no", key="0")], transaction
            )
            transaction.save(attrs.evolve(job, run=1, dead_letters=1, cursor=[3], processed_records=3), lease)

    def close(self) -> None:
        for store in self._stores:
            store.close()
        for engine in self._engines:
            engine.dispose()
        for connection in (self._look, self._target, self._source):
            connection.close()

    # What an example begins with.

    def begin(self, kind: Kind, rows: int, refused: AbstractSet[int]) -> None:
        """Empty everything, and fill the source."""
        self.kind = kind
        self.memory = MemoryJobStore()
        for name in ("jobs", "dead_letters"):
            column = "id" if name == "jobs" else "job_id"
            self._look.execute(f"DELETE FROM resumable_sync_{name} WHERE {column} = ?", [JOB_ID])
        for connection in (self._look, self._target):
            connection.execute("DELETE FROM target")
            names = _tables(connection)
            for name in names - KNOWN_TABLES:
                connection.execute(f"DROP TABLE {name}")
            for name in names & {"resumable_sync_checkpoints", STAGINGS}:
                connection.execute(f"DELETE FROM {name}")
        self._source.execute("DROP TABLE IF EXISTS source")
        self._source.execute("CREATE TABLE source (k INTEGER PRIMARY KEY, v INTEGER)")
        self.source: dict[int, int] = {}
        self.ever: set[Row] = set()
        self.columns = 0
        self.refused = set(refused)
        self.log: list[tuple[str | None, Row]] = []
        self.runs: dict[str, RunModel] = {}
        for key in range(10, 10 * rows + 10, 10):
            self.put(key)

    def store(self, slot: int) -> JobStore:
        return self.memory if self.kind.store == "memory" else self._stores[slot]

    def connector(self) -> Connector[Any]:
        if self.kind.source == "memory":
            return Rows(self)
        return SQLConnector(self.engine_of_source, "source")

    # What happens to the source.

    def put(self, key: int) -> None:
        """Insert or update a row."""
        value = len(self.ever)
        self.ever.add((key, value))
        self.source[key] = value
        if self.kind.source == "sql":
            self._source.execute("INSERT OR REPLACE INTO source (k, v) VALUES (?, ?)", [key, value])

    def remove(self, key: int) -> None:
        self.source.pop(key, None)
        self._source.execute("DELETE FROM source WHERE k = ?", [key])
        for run in self.runs.values():
            run.standing.discard(key)

    def add_column(self) -> None:
        self.columns += 1
        self._source.execute(f"ALTER TABLE source ADD COLUMN extra_{self.columns} INTEGER")

    # What happens to the job from outside.

    def expire(self) -> None:
        """Let the lease end."""
        grant = self.memory._book._grants.get(JOB_ID)
        if grant is not None:
            grant.expires_at = attrs.fields(type(grant)).expires_at.default
        self._look.execute(
            "UPDATE resumable_sync_jobs SET lease_expires_at = 1 WHERE id = ? AND lease_owner IS NOT NULL", [JOB_ID]
        )

    # What there is to see.

    def seen(self) -> Seen | None:
        if self.kind.store == "memory":
            return self._seen_in_memory()
        cursor = self._look.execute(
            "SELECT *, (julianday('now') - 2440587.5) * 86400000000.0 AS now FROM resumable_sync_jobs WHERE id = ?",
            [JOB_ID],
        )
        values = cursor.fetchone()
        if values is None:
            return None
        row = dict(zip([column[0] for column in cursor.description], values, strict=True))
        names = ("run", "run_id", "attempt", "processed_records", "processed_batches", "dead_letters")
        job = Job(
            id=JOB_ID,
            status=JobStatus(row["status"]),
            cursor=None if row["cursor"] is None else decode_cursor(row["cursor"], job_id=JOB_ID),
            fingerprint=row["fingerprint"],
            stalled_attempts=row["stalled_attempts"],
            **{name: row[name] for name in names},
        )
        alive = row["lease_owner"] is not None and row["lease_expires_at"] > row["now"]
        return Seen(
            job=job,
            token=row["fencing_token"],
            owner=row["lease_owner"],
            alive=alive,
            stop_requested=bool(row["stop_requested"]),
        )

    def _seen_in_memory(self) -> Seen | None:
        job, grant = self.memory.load(JOB_ID), self.memory._book._grants.get(JOB_ID)
        if job is None or grant is None:
            return None
        return Seen(
            job=attrs.evolve(job, lease=None),
            token=grant.token,
            owner=grant.owner,
            alive=job.lease is not None,
            stop_requested=grant.stop_requested,
        )

    def letters(self) -> list[tuple[int, int]]:
        """Give run and key of every dead letter."""
        rows = self._look.execute("SELECT run, record FROM resumable_sync_dead_letters WHERE job_id = ?", [JOB_ID])
        return [(run, _key(decode_cursor(record, job_id=JOB_ID))) for run, record in rows]

    @property
    def _database(self) -> sqlite3.Connection:
        return self._target if self.kind.own else self._look

    def target(self, table: str = "target") -> Counter[Row]:
        return Counter(self._database.execute(f"SELECT k, v FROM {table}").fetchall())

    def stagings(self) -> dict[str, tuple[str, str]]:
        """Give state and name of the staging table of each run."""
        if STAGINGS not in _tables(self._database):
            return {}
        rows = self._database.execute(f"SELECT run_id, state, name FROM {STAGINGS} WHERE job_id = ?", [JOB_ID])
        return {run_id: (state, name) for run_id, state, name in rows}

    def left_over(self) -> set[str]:
        """Name the tables that should not be there when everything is done."""
        return _tables(self._database) - KNOWN_TABLES

    def delivered(self, run_id: str) -> Counter[Row]:
        """Give what a run has delivered."""
        if self.kind.replaces:
            state, name = self.stagings().get(run_id, ("none", ""))
            if state == "loading":
                return self.target(name)
            return self.target() if state == "swapped" else Counter()
        if self.kind.exact:
            return self.target() - self.runs[run_id].before
        return Counter(row for of_run, row in self.log if of_run == run_id)

    def everything(self, *, fenced: bool = True) -> Any:
        """Give all that a zombie must not change.

        Args:
            fenced: Whether its target knows of the newer token too.
        """
        job: Any = self._look.execute("SELECT * FROM resumable_sync_jobs WHERE id = ?", [JOB_ID]).fetchone()
        if self.kind.store == "memory":
            job = self._seen_in_memory()
        if not fenced:
            return job, self.letters()
        stagings = {name: self.target(name) for name in self.left_over()}
        return job, self.letters(), self.target(), self._checkpoints(), self.stagings(), stagings

    def target_token(self) -> int:
        return max((row[-1] for row in self._checkpoints()), default=-1)

    def _checkpoints(self) -> list[tuple[Any, ...]]:
        if not self.kind.own or "resumable_sync_checkpoints" not in _tables(self._target):
            return []
        return self._target.execute("SELECT * FROM resumable_sync_checkpoints").fetchall()

    def _bystander_rows(self) -> Any:
        return (
            self._look.execute("SELECT * FROM resumable_sync_jobs WHERE id <> ?", [JOB_ID]).fetchall(),
            self._look.execute("SELECT * FROM resumable_sync_dead_letters WHERE job_id <> ?", [JOB_ID]).fetchall(),
            self._look.execute("SELECT * FROM foreign_table").fetchall(),
        )

    def bystanders_untouched(self) -> bool:
        return bool(self._bystander_rows() == self._bystander)

    def note_run(self) -> None:
        """Remember how the world is when a run begins, before its first batch."""
        seen = self.seen()
        if seen is not None and seen.job.run_id is not None and seen.job.run_id not in self.runs:
            self.runs[seen.job.run_id] = RunModel(standing=set(self.source), before=self.target())


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _key(record: Any) -> int:
    return int(record["k"] if isinstance(record, dict) else record[0])


def rows_of(records: Sequence[Mapping[str, int]]) -> Iterator[Row]:
    """Give the rows of a batch's dicts."""
    for record in records:
        yield record["k"], record["v"]


def same_job(one: Job, other: Job) -> bool:
    """Whether two jobs say the same of the checkpoint."""
    names = ("status", "run", "run_id", "attempt", "processed_records", "processed_batches", "dead_letters")
    return all(getattr(one, name) == getattr(other, name) for name in names) and same_cursor(one.cursor, other.cursor)
