"""Damage to what a store keeps, by the thousand: any column of any table, by anything that the database takes."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import override

from resumable_sync import Batch, Guarantee, StateCorruptError, plan_full_sync, replay_dead_letters, run_full_sync
from resumable_sync.stores.sql import SQLJobStore
from trouble.parts import JOB_ID, TARGET, Insert, Numbers

TOTAL = 50
BATCH_SIZE = 10
REFUSED = (3, 14)
TABLES = ("resumable_sync_jobs", "resumable_sync_dead_letters", "resumable_sync_attempts")

Row = dict[str, Any]


class Source(Numbers):
    """The numbers, with a fingerprint."""

    fingerprint = {"table": "numbers", "key": "number"}  # noqa: RUF012 - as a user would write it


class Picky(Insert):
    """An `Insert` that refuses two of the numbers."""

    @override
    def write(self, batch: Batch[int], connection: Connection | None) -> None:
        super().write(batch, connection)
        if set(REFUSED) & set(batch.records):
            msg = "refused"
            raise ValueError(msg)


@attrs.frozen
class NoText:
    """Bytes that SQLite keeps as text, though they are none."""

    data: bytes


class State:
    """A half-done job in a database, with dead letters and a lineage, to be damaged and put back again and again."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = create_engine(url)
        self.sqlite = self.engine.dialect.name == "sqlite"
        TARGET.create(self.engine)
        self.store = SQLJobStore(self.engine)
        for limit in (10, 10):
            run_full_sync(
                JOB_ID,
                Source(TOTAL),
                Picky(),
                store=self.store,
                batch_size=10,
                max_records=limit,
                on_refused="dead_letter",
            )
        with self.engine.connect() as connection:
            self.rows = {
                name: [dict(row) for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()]
                for name in TABLES
            }

    def close(self) -> None:
        """Close what is open."""
        self.store.close()
        self.engine.dispose()

    def put(self, rows: dict[str, list[Row]]) -> bool:
        """Make these the rows, and the target empty; False if the database does not take them."""
        try:
            with self.engine.begin() as connection:
                connection.execute(TARGET.delete())
                for name, of_table in rows.items():
                    connection.exec_driver_sql(f"DELETE FROM {name}")
                    for row in of_table:
                        self._insert(connection, name, row)
        except (SQLAlchemyError, OverflowError, UnicodeError, ValueError):
            return False
        return True

    def _insert(self, connection: Connection, table: str, row: Row) -> None:
        quote = self.engine.dialect.identifier_preparer.quote
        names = ", ".join(quote(name) for name in row)
        values = ", ".join(
            f"CAST(:{name} AS TEXT)" if isinstance(value, NoText) else f":{name}" for name, value in row.items()
        )
        plain = {name: value.data if isinstance(value, NoText) else value for name, value in row.items()}
        connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), plain)

    def dump(self) -> list[Any]:
        """Give every byte of the rows."""
        dumped: list[Any] = []
        with self.engine.connect() as connection:
            for name, rows in self.rows.items():
                quote = self.engine.dialect.identifier_preparer.quote
                columns = [quote(column) for column in rows[0]]
                if self.sqlite:
                    columns = [f"typeof({column}) || hex({column})" for column in columns]
                found = connection.execute(text(f"SELECT {', '.join(columns)} FROM {name} ORDER BY 1, 2"))
                dumped.append([tuple(row) for row in found])
        return dumped

    def delivered(self) -> list[int]:
        """Give what was delivered."""
        with self.engine.connect() as connection:
            return sorted(connection.execute(text("SELECT number FROM target")).scalars())


SITUATIONS: Sequence[Row] = (
    {},
    {"status": "running", "finished_at": None, "stalled_attempts": 1},
    {"status": "running", "lease_owner": "elsewhere", "lease_expires_at": 1, "lease_ttl": 60_000_000},
    {"status": "running", "lease_owner": "elsewhere", "lease_expires_at": 10**17, "lease_ttl": 60_000_000},
    {"status": "failed", "error": "ValueError: no"},
    {"status": "incomplete", "cursor": "[1,[50]]", "processed_records": 48, "processed_batches": 5},
    {"status": "completed", "cursor": "[1,[50]]", "processed_records": 50, "processed_batches": 5, "dead_letters": 0},
    {"status": "pending", "cursor": None, "processed_records": 0, "processed_batches": 0, "run": 0, "run_id": None},
    {"cursor": None},
)
"""How the job may have stood before the damage."""

_NUMBERS = [0, 1, -1, 2, 5, 20, 255, 2**31 - 1, 2**31, -(2**31), 2**53 + 1, 10**17, 253_402_300_800_000_000]
_NUMBERS += [2**62 + 1, 2**63 - 1, -(2**63), 2**64]
_TEXTS = ["", " ", "0", "20", "-1", "null", "NULL", "[]", "{}", "x", "é", "a\0b", "\U0001f600", "running", "completed"]
_TEXTS += [
    "2026-11-24",
    "nan",
    "inf",
    "1e999",
    "x" * 70_000,
    "[" * 3_000,
    '"',
    "\\",
    "12345678-1234-5678-1234-567812345678",
]
_ENCODED = ["[1,[20]]", "[1,[0]]", "[1,[-1]]", "[1,[50]]", "[1,[20.0]]", "[1,20]", '[1,"20"]', "[1,null]", "[1,true]"]
_ENCODED += ["[1]", "[2,[20]]", "[0,[20]]", "[1.0,[20]]", "[true,[20]]", "[1,[20],0]", '["1",[20]]', "[1,[1e999]]"]
_ENCODED += [
    "[1,[NaN]]",
    "[1,[-Infinity]]",
    '[1,{"$int":"0x14"}]',
    '[1,{"$int":"20"}]',
    '[1,{"$int":5}]',
    '[1,{"$x":1}]',
]
_ENCODED += ['[1,{"$tuple":[20]}]', '[1,{"$dict":[["a",20]]}]', '[1,{"$dict":[[1,2]]}]', '[1,{"$dict":5}]', "[1,{}]"]
_ENCODED += [
    '[1,{"$decimal":"x"}]',
    '[1,{"$bytes":"!"}]',
    '[1,{"$date":"2026-99-99"}]',
    '[1,{"$datetime":["x",0,null]}]',
]
_ENCODED += [
    '[1,{"$str":"00"}]',
    '[1,{"$uuid":1}]',
    '[1,{"$tuple":[],"$dict":[]}]',
    "[1," + "[" * 200 + "]" * 200 + "]",
]
_ENCODED += ["[1,[" + "9" * 5_000 + "]]", "[1,[" + "9" * 40 + "]]", '[1,{"$int":"0x' + "f" * 5_000 + '"}]', "[1, [20]]"]
_ENCODED += [
    '[1,{"key":"\\ud800"}]',
    '{"key":"x"}',
    '{"key":5,"table":null}',
    '{"table":"numbers","columns":"x"}',
    "[[]]",
]


class Mutator:
    """Makes damage at random, the same for the same seed."""

    def __init__(self, seed: str, state: State) -> None:
        self._chance = random.Random(seed)
        self._state = state

    def next(self) -> tuple[dict[str, list[Row]], str]:
        """Give the rows with some damage, and what it is."""
        chance = self._chance
        rows = {name: [dict(row) for row in of_table] for name, of_table in self._state.rows.items()}
        situation = chance.choice(SITUATIONS)
        rows[TABLES[0]][0].update(situation)
        table = chance.choices(TABLES, (8, 1, 1))[0]
        row = chance.choice(rows[table])
        done = [f"{situation}"]
        for _ in range(chance.choices((1, 2, 3), (7, 2, 1))[0]):
            name = chance.choice(list(row))
            how = chance.choice(_WAYS)
            row[name] = how(chance, row, name)
            done.append(f"{table}.{name} = {row[name]!r:.200} by {how.__name__}")
        return rows, "; ".join(done)


def _null(_chance: random.Random, _row: Row, _name: str) -> Any:
    return None


def _number(chance: random.Random, _row: Row, _name: str) -> Any:
    return chance.choice([*_NUMBERS, chance.randrange(-(2**63), 2**63), chance.randrange(100)])


def _near(chance: random.Random, row: Row, name: str) -> Any:
    value = row[name]
    return value + chance.choice([-1, 1, -20, 1000]) if type(value) is int else chance.randrange(-2, 60)


def _float(chance: random.Random, _row: Row, _name: str) -> Any:
    return chance.choice([0.0, -0.0, 1.5, 20.0, 1e300, -1e-300, float("inf"), chance.random() * 1e18])


def _text(chance: random.Random, _row: Row, _name: str) -> Any:
    return chance.choice(_TEXTS)


def _cursor(chance: random.Random, _row: Row, _name: str) -> Any:
    return chance.choice(_ENCODED)


def _bytes(chance: random.Random, row: Row, name: str) -> Any:
    return chance.choice([b"", b"\0", b"20", b"\xff\xfe", str(row[name]).encode()])


def _no_text(chance: random.Random, row: Row, name: str) -> Any:
    return NoText(chance.choice([b"\xff", b"\xc3\x28 running", str(row[name]).encode() + b"\xff"]))


def _cut(chance: random.Random, row: Row, name: str) -> Any:
    value = str(row[name])
    return value[: chance.randrange(len(value) + 1)]


def _bent(chance: random.Random, row: Row, name: str) -> Any:
    value = str(row[name])
    place = chance.randrange(len(value) + 1)
    instead = chance.choice(["", value[place : place + 1] * 2, *'09[]{}",$-\\\0é'])
    return value[:place] + instead + value[place + 1 :]


def _swapped(chance: random.Random, row: Row, name: str) -> Any:
    other = chance.choice(list(row))
    value, row[other] = row[other], row[name]
    return value


def _as_text(_chance: random.Random, row: Row, name: str) -> Any:
    return str(row[name])


_WAYS: list[Callable[[random.Random, Row, str], Any]] = [
    _null, _number, _near, _float, _text, _cursor, _bytes, _no_text, _cut, _bent, _swapped, _as_text
]  # fmt: skip


def try_out(state: State, batch_size: Any) -> str:
    """Plan, run and replay on the rows as they are; give in a word what came of it.

    Whatever it is, it must be right: delivered is exactly what the row says is missing; or the row is called damaged,
    or says itself why not to go on (a live lease, a source that changed, a crash loop), and not a byte has changed.
    """
    store, before = state.store, state.dump()
    try:
        plan: Any = plan_full_sync(JOB_ID, Source(TOTAL), Insert(), store=store, batch_size=batch_size)
    except StateCorruptError as error:
        plan = error
    assert state.dump() == before, "the plan wrote"
    try:
        result = run_full_sync(JOB_ID, Source(TOTAL), Insert(), store=store, batch_size=batch_size)
    except Exception as error:
        return _refused(state, plan, error, before)
    assert plan.action == result.action in ("new", "resume")
    start = 0 if plan.cursor is None else plan.cursor[0]
    assert state.delivered() == list(range(start, TOTAL)), f"{plan} {result}"
    assert result.records == max(0, TOTAL - start)
    assert result.job.processed_records == plan.processed_records + result.records
    assert result.guarantee is Guarantee.EXACTLY_ONCE
    assert result.status == ("incomplete" if result.job.dead_letters else "completed")
    assert store.load(JOB_ID) == result.job
    lineage = _or_damaged(state, lambda: store.attempts(JOB_ID))
    letters = _or_damaged(state, lambda: store.dead_letters(JOB_ID))
    replayed = _or_damaged(state, lambda: replay_dead_letters(JOB_ID, Insert(), store=store))
    assert letters == replayed
    return f"{result.action}, lineage {lineage}, dead letters {letters}"


def _refused(state: State, plan: Any, error: Exception, before: list[Any]) -> str:
    name = type(error).__name__
    if name == "CursorError":  # the connector cannot read on from it: the attempt failed, and says so
        job = state.store.load(JOB_ID)
        assert job is not None
        assert (job.status, job.lease, state.delivered()) == ("failed", None, [])
        assert plan.action == "resume"
        return name
    if isinstance(error, StateCorruptError):
        # A count that leaves no room is seen when the job is about to be counted on.
        if isinstance(plan, StateCorruptError):
            assert (plan.job_id, plan.field) == (error.job_id, error.field)
        else:
            assert plan.action in ("new", "resume")
            assert "greater" in error.detail
    else:
        expected = {"JobHeldError": "held", "CrashLoopError": "refuse", "SourceChangedError": "refuse"}
        assert name in expected, repr(error)
        assert plan.action == expected[name]
    assert state.dump() == before, f"the rows were changed: {error!r}"
    assert state.delivered() == []
    return name


def _or_damaged(state: State, function: Callable[[], Any]) -> str:
    letters, attempts = state.dump()[1:]
    try:
        function()
    except StateCorruptError:
        now = state.dump()[1:]
        assert now[0] == letters, "a dead letter was changed"
        assert set(attempts) <= set(now[1]), "the lineage was changed"
        return "damaged"
    return "fine"
