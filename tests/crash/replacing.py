"""A sync that replaces a table again and again, and a reader who looks at it all the time."""

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence

import attrs
from sqlalchemy import Column, Index, Integer, MetaData, String, Table, cast, create_engine, inspect, literal, select
from sqlalchemy.pool import NullPool
from typing_extensions import override

from crash.programs import JOB_ID, SOURCE, Program
from resumable_sync.stores.sql import SQLJobStore

TARGET = Table(
    "target",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String(40), nullable=False),
    Index("target_by_name", "name"),
)
_INTERIM = re.compile("resumable_sync_[0-9a-f]{16}")
_VERSION = re.compile(r"version (\d+) of (\d+)")


@attrs.frozen(kw_only=True)
class Replacing(Program):
    """A sync that replaces the table `target`; each run brings another version of the same rows."""

    mode: str = "replace"

    @override
    def fill(self) -> None:
        with self.engine(self.source) as engine, engine.begin() as connection:
            SOURCE.create(connection)
            connection.execute(SOURCE.insert(), self._version(1))
        with self.engine(self.target) as engine, engine.begin() as connection:
            TARGET.create(connection)
            connection.execute(TARGET.insert(), self._version(0))

    def _version(self, version: int) -> list[dict[str, object]]:
        return [{"id": one, "name": f"version {version} of {one}"} for one in range(1, self.rows + 1)]

    @override
    def expected(self) -> Sequence[tuple[int, str]]:
        return self._rows(self.source, SOURCE)

    @override
    def delivered(self) -> Sequence[tuple[int, str]]:
        with self.engine(self.target) as engine:
            found = inspect(engine)
            assert leftovers(self) == [], "there are staging tables left at the end of a run"
            assert [index["name"] for index in found.get_indexes("target")] == ["target_by_name"]
            assert found.get_pk_constraint("target")["constrained_columns"] == ["id"]
        return self._rows(self.target, TARGET)

    def _rows(self, url: str, table: Table) -> Sequence[tuple[int, str]]:
        with self.engine(url) as engine, engine.connect() as connection:
            return [(row.id, row.name) for row in connection.execute(select(table).order_by(table.c.id))]

    @override
    def reset(self) -> None:
        """Forget the job, and have the next version in the source; the target stays as it is."""
        with SQLJobStore(self.store) as store:
            store.delete(JOB_ID)
        found = _VERSION.fullmatch(self.expected()[0][1])
        assert found is not None
        with self.engine(self.source) as engine, engine.begin() as connection:
            name = literal(f"version {int(found[1]) + 1} of ") + cast(SOURCE.c.id, String(10))
            connection.execute(SOURCE.update().values(name=name))


def leftovers(program: Program) -> list[str]:
    """Name the tables of runs that are not the target."""
    with program.engine(program.target) as engine:
        return [name for name in inspect(engine).get_table_names() if _INTERIM.match(name)]


@attrs.define
class Watch:
    """What a reader of the target saw.

    Attributes:
        looks: How often the reader looked.
        versions: Which versions the reader saw.
        problems: What no reader should see.
    """

    looks: int = 0
    versions: set[int] = attrs.field(factory=set)
    problems: list[str] = attrs.field(factory=list)

    def check(self, *, least: int = 1) -> None:
        """Say so if the reader saw anything but whole tables, each newer than the one before."""
        assert self.problems == [], self.problems[:10]
        assert len(self.versions) >= least, "the reader has not seen enough of it"

    def look(self, rows: Sequence[tuple[int, str]], expected: int) -> None:
        """Judge what the target holds."""
        found = [_VERSION.fullmatch(name) for _, name in rows]
        versions = {int(match[1]) for match in found if match}
        whole = sorted(one for one, _ in rows) == list(range(1, expected + 1))
        if len(versions) != 1 or None in found or not whole:
            self.problems.append(f"{len(rows)} rows of the versions {sorted(versions)}")
        elif min(versions) < max(self.versions, default=0):
            self.problems.append(f"version {versions} after version {max(self.versions)}")
        self.looks += 1
        self.versions |= versions


@contextlib.contextmanager
def watching(program: Program) -> Iterator[Watch]:
    """Read the target without a pause, from another connection, while the block runs."""
    watch, over = Watch(), threading.Event()
    engine = create_engine(program.target, poolclass=NullPool)

    def read() -> None:
        try:
            with engine.connect() as connection:
                while not over.wait(0.001):
                    found = connection.execute(select(TARGET.c.id, TARGET.c.name)).all()
                    # The next look sees what there is then, not what there was at the first.
                    connection.rollback()
                    watch.look([(row.id, row.name) for row in found], program.rows)
        except Exception as error:
            watch.problems.append(f"{type(error).__name__}: {error}")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield watch
    finally:
        over.set()
        reader.join(60)
        engine.dispose()
    assert not reader.is_alive(), "the reader is stuck"
