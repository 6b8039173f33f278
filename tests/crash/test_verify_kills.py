"""A verification whose processes are killed at random moments finds each difference once, and loses none."""

import os
import random
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from resumable_sync import SyncResult, verify_full_sync
from resumable_sync._verification.tally import Difference, Place
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import SyncParts, SyncProcesses

KILLS = int(os.environ.get("RESUMABLE_SYNC_KILLS", "1000"))
KINDS = ["sqlite", "postgresql", "mariadb"]
NewDatabase = Callable[[str], str]
JOB_ID = "proof"


def verify(job_id: str, connector: Any, sink: Any, *, store: Any, **options: Any) -> SyncResult:
    return verify_full_sync(
        connector, sink, job_id=job_id, store=store, key="id", max_differences=10_000, **options
    ).sync


@attrs.frozen(kw_only=True)
class Proof:
    """Two tables of a known difference.

    Attributes:
        source: URL of the source.
        target: URL of the target, in whose database the store is.
        rows: How many rows the source has.
    """

    source: str
    target: str
    rows: int

    def make(self) -> SyncParts:
        """Give the parts; in each process anew."""
        return SyncParts(
            job_id=JOB_ID,
            connector=SQLConnector(self.source, "t"),
            sink=SQLConnector(self.target, "t", key="id"),
            store=SQLJobStore(self.target),
            options={"batch_size": 20, "max_stalled_attempts": 1_000_000},
            run=verify,
        )

    def fill(self) -> list[tuple[Any, ...]]:
        """Make both tables; give the differences."""
        rows = [(number, f"name {number}") for number in range(self.rows)]
        picked = random.Random(self.rows).sample(range(self.rows), self.rows // 20)
        third = len(picked) // 3
        missing, changed, doubled = set(picked[:third]), set(picked[third : 2 * third]), picked[2 * third :]
        there = [(number, "other" if number in changed else name) for number, name in rows if number not in missing]
        # A gap that holds more extra rows than many batches, and some behind the last.
        there += [(number, "extra") for number in (*doubled, *range(-150, 0), *range(self.rows, self.rows + 70))]
        self._table(self.source, rows, "id INTEGER PRIMARY KEY")
        self._table(self.target, there, "id INTEGER")
        extra = [("extra", number) for number in (*doubled, *range(-150, 0), *range(self.rows, self.rows + 70))]
        different = [("different", number, "name") for number in changed]
        return sorted([("missing", number) for number in missing] + different + extra)

    def found(self) -> tuple[list[tuple[Any, ...]], Sequence[int]]:
        """Give the differences that the store keeps, and the numbers of rows."""
        with SQLJobStore(self.target) as store:
            job = store.load(JOB_ID)
            assert job is not None
            letters = [
                Difference.decoded(one) for letter in store.dead_letters(JOB_ID) for one in letter.record["differences"]
            ]
        tally = Place.of(job.cursor).tally
        counts = (tally.equal, tally.missing, tally.extra, tally.different)
        return sorted((each.kind, *each.key, *each.columns) for each in letters), counts

    def _table(self, url: str, rows: Sequence[tuple[Any, ...]], key: str) -> None:
        engine = sa.create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE TABLE t ({key}, name VARCHAR(20))")
            mark = "?, ?" if engine.dialect.name == "sqlite" else "%s, %s"
            connection.exec_driver_sql(f"INSERT INTO t VALUES ({mark})", list(rows))
        engine.dispose()


def kill_often(proof: Proof, kills: int) -> None:
    expected = proof.fill()
    chance, deaths, finished = random.Random(7), 0, 0
    with SyncProcesses() as processes:
        undisturbed = processes.start(proof.make).wait(60.0)
        assert undisturbed is not None
        assert undisturbed.how == "returned", undisturbed
        while deaths < kills:
            child = processes.start(proof.make)
            ended = child.wait(chance.uniform(0.0, 0.4) * undisturbed.seconds)
            if ended is None:
                child.kill()
                ended = child.wait(60.0)
            assert ended is not None
            assert ended.how in ("died", "returned"), ended
            deaths += ended.how == "died"
            if ended.how == "returned":
                finished += 1
                check(proof, expected)
        last = processes.start(proof.make).wait(60.0)
        assert last is not None
        assert last.how == "returned", last
    check(proof, expected)
    print(proof.target.split(":")[0], f"{deaths} deaths, {finished + 2} verifications came to their end")


def check(proof: Proof, expected: Sequence[tuple[Any, ...]]) -> None:
    found, counts = proof.found()
    assert found == expected
    numbers = [sum(kind == each[0] for each in expected) for kind in ("missing", "extra", "different")]
    equal = proof.rows - numbers[0] - numbers[2]
    assert list(counts) == [equal, *numbers]


@pytest.mark.parametrize("kind", ["mariadb"])
def test_a_few_kills(new_database: NewDatabase, kind: str) -> None:
    kill_often(Proof(source=new_database(kind), target=new_database(kind), rows=300), 3)


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("source", "target"), [*zip(KINDS, KINDS, strict=True), ("postgresql", "sqlite"), ("sqlite", "mariadb")]
)
def test_many_kills(new_database: NewDatabase, source: str, target: str) -> None:
    kill_often(Proof(source=new_database(source), target=new_database(target), rows=2_000), max(1, KILLS // 5))
