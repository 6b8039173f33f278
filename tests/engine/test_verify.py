"""Verifying real tables: every kind of difference, keys of every kind, and what the call promises around it."""

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from resumable_sync import (
    ConfigurationError,
    Difference,
    JobStatus,
    MemoryJobStore,
    Page,
    TransientError,
    VerifyResult,
    replay_dead_letters,
    run_full_sync,
    transactional,
    verify_full_sync,
)
from resumable_sync.connectors.sql import SQLConnector, SQLQueryTemplate
from resumable_sync.stores.sql import SQLJobStore

NewDatabase = Callable[[str], str]


@contextlib.contextmanager
def opened(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url.replace("mariadb://", "mariadb+pymysql://"), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def execute(url: str, statement: str, rows: Sequence[tuple[Any, ...]] | None = None) -> None:
    with opened(url) as connection:
        mark = "?" if connection.dialect.name == "sqlite" else "%s"
        connection.exec_driver_sql(statement.replace("?", mark), None if rows is None else list(rows))


def make(url: str, rows: Sequence[tuple[Any, ...]], table: str = "t (id INTEGER PRIMARY KEY, name VARCHAR(20))") -> str:
    execute(url, f"CREATE TABLE {table}")
    if rows:
        execute(url, f"INSERT INTO {table.partition(' ')[0]} VALUES ({', '.join('?' * len(rows[0]))})", rows)
    return url


def verified(source: Any, target: Any, **options: Any) -> VerifyResult:
    made = [SQLConnector(side, "t", key="id") if isinstance(side, str) else side for side in (source, target)]
    try:
        return verify_full_sync(*made, **{"store": MemoryJobStore(), **options})
    finally:
        for side in made:
            getattr(side, "close", lambda: None)()


def listed(result: VerifyResult) -> list[tuple[Any, ...]]:
    return [(each.kind, *each.key, *each.columns) for each in result.differences]


def numbered(*numbers: int) -> list[tuple[int, str]]:
    return [(number, f"name {number}") for number in numbers]


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def pair(request: pytest.FixtureRequest, new_database: NewDatabase) -> tuple[str, str]:
    return new_database(request.param), new_database(request.param)


def test_each_kind_of_difference_is_found_and_no_other(pair: tuple[str, str]) -> None:
    source = make(pair[0], numbered(*range(10, 1_000, 2)))
    target = make(pair[1], numbered(*range(10, 1_000, 2)))
    execute(target, "DELETE FROM t WHERE id IN (10, 500, 998)")
    execute(target, "UPDATE t SET name = 'other' WHERE id = 502")
    execute(target, "UPDATE t SET name = NULL WHERE id = 504")
    execute(target, "INSERT INTO t VALUES (?, ?)", [*numbered(-7, 9, 11, 505, 997, 999), (2_000, "")])
    for size in (7, 100):
        result = verified(source, target, batch_size=size)
        assert sorted(listed(result)) == sorted([
            *[("missing", number) for number in (10, 500, 998)],
            *[("extra", number) for number in (-7, 9, 11, 505, 997, 999, 2_000)],
            ("different", 502, "name"),
            ("different", 504, "name"),
        ])
        assert (result.missing, result.extra, result.different, result.equal) == (3, 7, 2, 490)
        assert (result.source_records, result.target_records) == (495, 499)
        assert not result.ok
        assert result.complete


def test_one_row_missing_of_a_hundred_thousand(new_database: NewDatabase) -> None:
    source, target = new_database("sqlite"), new_database("sqlite")
    for url in (source, target):
        make(url, numbered(*range(100_000)))
    execute(target, "DELETE FROM t WHERE id = 77777")
    result = verified(source, target, batch_size=5_000)
    assert listed(result) == [("missing", 77_777)]
    assert result.equal == 99_999


@pytest.mark.parametrize(("rows", "more"), [([], []), ([], [1, 2, 3]), ([1, 2, 3], []), ([5], [1, 2, 3, 5, 7, 8, 9])])
def test_an_empty_side_and_many_extra_rows(new_database: NewDatabase, rows: list[int], more: list[int]) -> None:
    source, target = make(new_database("sqlite"), numbered(*rows)), make(new_database("sqlite"), numbered(*more))
    result = verified(source, target, batch_size=1)
    assert {key for kind, key in listed(result) if kind == "missing"} == set(rows) - set(more)
    assert {key for kind, key in listed(result) if kind == "extra"} == set(more) - set(rows)
    assert (result.source_records, result.target_records) == (len(rows), len(more))
    assert result.ok is (rows == more)


@pytest.mark.parametrize("pair", ["sqlite", "mariadb"], indirect=True)
def test_duplicates_in_a_target_without_a_unique_key_are_extra(pair: tuple[str, str]) -> None:
    source = make(pair[0], numbered(*range(50)))
    target = make(pair[1], numbered(*range(50), *[20] * 7, 49, 49, 0), "t (id INTEGER, name VARCHAR(20))")
    execute(target, "INSERT INTO t VALUES (30, 'other')")
    for size in (3, 100):
        result = verified(source, target, batch_size=size)
        assert sorted(listed(result)) == sorted([("extra", n) for n in [20] * 7 + [49, 49, 0, 30]])
        assert (result.equal, result.target_records) == (50, 61)


@pytest.mark.parametrize("pair", ["sqlite", "mariadb"], indirect=True)
def test_composite_and_descending_keys(pair: tuple[str, str]) -> None:
    rows = [(region, number, f"{region} {number}") for region in ("a", "b", "c") for number in range(20)]
    table = "t (region VARCHAR(5), number INTEGER, name VARCHAR(20), PRIMARY KEY (region, number))"
    source, target = make(pair[0], rows, table), make(pair[1], rows, table)
    execute(target, "DELETE FROM t WHERE region = 'b' AND number = 19")
    execute(target, "UPDATE t SET name = '' WHERE region = 'c' AND number = 0")
    execute(target, "INSERT INTO t VALUES ('bb', 1, 'x')")
    for key in (
        ["region", "number"],
        ["-region", ("number", "desc")],
        ["region", "-number"],
        ["number", "region"],
        None,
    ):
        for size in (2, 7):
            result = verified(SQLConnector(source, "t"), SQLConnector(target, "t"), key=key, batch_size=size)
            found = {(each.kind, *sorted(map(str, each.key)), *each.columns) for each in result.differences}
            assert found == {("missing", "19", "b"), ("extra", "1", "bb"), ("different", "0", "c", "name")}
            assert len(result.differences) == 3


@pytest.mark.parametrize(
    ("source_kind", "target_kind"),
    [("sqlite", "postgresql"), ("postgresql", "mariadb"), ("mariadb", "sqlite"), ("mariadb", "mariadb")],
)
def test_keys_of_text_that_the_databases_order_and_compare_differently(
    new_database: NewDatabase, source_kind: str, target_kind: str
) -> None:
    words = ["a", "AA", "ab", "b-c", "bc", "b c", "C", "z", "_", "é1", "10", "9", "Zz", "straße"]
    rows = [(word, number) for number, word in enumerate(words)]
    table = "t (id VARCHAR(20) PRIMARY KEY, n INTEGER)"
    binary = "t (id VARCHAR(20) CHARACTER SET utf8mb4, n INTEGER, PRIMARY KEY (id))"
    source = make(new_database(source_kind), rows, binary if source_kind == "mariadb" else table)
    target = make(new_database(target_kind), rows, binary if target_kind == "mariadb" else table)
    assert verified(source, target, batch_size=3).ok
    execute(target, "DELETE FROM t WHERE id = 'C'")
    execute(target, "INSERT INTO t VALUES ('c', 7)")
    execute(target, "UPDATE t SET n = -1 WHERE id = 'b-c'")
    result = verified(source, target, batch_size=3)
    assert set(listed(result)) == {("missing", "C"), ("extra", "c"), ("different", "b-c", "n")}
    assert len(result.differences) == 3


@pytest.mark.server
def test_a_key_padded_with_blanks_finds_its_row_where_blanks_are_compared(new_database: NewDatabase) -> None:
    rows = [("ab", 1), ("b", 2), ("B", 3)]
    source = make(new_database("postgresql"), rows, "t (id CHAR(5) PRIMARY KEY, n INTEGER)")
    columns = "id CHAR(5) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin, n INTEGER, PRIMARY KEY (id)"
    target = make(new_database("mariadb"), [("ab", 9), *rows[1:]], f"t ({columns})")
    for one, other, key in ((source, target, "ab   "), (target, source, "ab")):
        assert listed(verified(one, other)) == [("different", key, "n")]


def test_differences_outlast_a_stop_and_are_reported_once(new_database: NewDatabase) -> None:
    source, target = [make(new_database("sqlite"), numbered(*range(300))) for _ in range(2)]
    lost = sorted(random.Random(3).sample(range(300), 40))
    execute(target, f"DELETE FROM t WHERE id IN ({', '.join(map(str, lost))})")
    attempts = 0
    with SQLJobStore(target) as store:
        while True:
            result = verified(source, target, store=store, batch_size=10, max_records=1)
            attempts += 1
            if result.complete:
                break
            assert result.sync.status is JobStatus.INTERRUPTED
            assert not result.ok
            assert len(result.differences) == result.missing
        assert attempts > 3
        assert listed(result) == [("missing", number) for number in lost]
        assert result.sync.status is JobStatus.INCOMPLETE
        # The next starts anew, and forgets what the last one found.
        execute(target, "INSERT INTO t VALUES (?, ?)", numbered(*lost[1:]))
        again = verified(source, target, store=store, batch_size=50)
        assert again.sync.action == "new"
        assert listed(again) == [("missing", lost[0])]
        execute(target, "INSERT INTO t VALUES (?, ?)", numbered(lost[0]))
        proof = verified(source, target, store=store)
        assert proof.ok
        assert proof.sync.status is JobStatus.COMPLETED
        assert proof.differences == ()


def test_no_more_differences_are_kept_than_asked_for_and_all_are_counted(new_database: NewDatabase) -> None:
    source, target = make(new_database("sqlite"), numbered(*range(250))), make(new_database("sqlite"), [])
    with SQLJobStore(target) as store:
        for most, size in ((0, 100), (25, 10), (1_000, 2)):
            result = verified(source, target, store=store, batch_size=size, max_differences=most)
            assert listed(result) == [("missing", number) for number in range(min(most, 250))]
            assert (result.missing, result.equal, result.ok) == (250, 0, False)
            assert result.sync.status is JobStatus.INCOMPLETE
            assert result.sync.job.dead_letters == max(1, -(-min(most, 250) // size))
        unnamed = verified(source, target, store=store, batch_size=10, max_differences=0)
        assert (unnamed.sync.status, unnamed.sync.job.dead_letters) == (JobStatus.INCOMPLETE, 1)
        make(target, numbered(*range(250)), "u (id INTEGER PRIMARY KEY, name VARCHAR(20))")
        same = verified(source, SQLConnector(target, "u"), store=store, max_differences=0)
        assert (same.ok, same.sync.status) == (True, JobStatus.COMPLETED)


def test_a_verification_is_not_replayed(new_database: NewDatabase) -> None:
    source, target = make(new_database("sqlite"), numbered(1, 2)), make(new_database("sqlite"), [])

    @transactional
    def load(_batch: Any, _connection: Any) -> None:
        pytest.fail("was written")

    with SQLJobStore(target) as store:
        result = verified(source, target, store=store, job_id="proof")
        with pytest.raises(ConfigurationError, match=r"job 'proof' is a verification, whose dead letters"):
            replay_dead_letters("proof", load, store=store)
        assert store.load("proof") == result.sync.job


def test_a_table_that_is_not_there_is_named_with_its_side(new_database: NewDatabase) -> None:
    source, target = make(new_database("sqlite"), numbered(1)), new_database("sqlite")
    with pytest.raises(ConfigurationError, match=f"the target: there is no table 't' in {target};"):
        verified(source, target)
    with pytest.raises(ConfigurationError, match=f"the source: there is no table 't' in {target};"):
        verified(target, source)
    make(target, [(1, 1), (1, 2)], "t (id INTEGER NOT NULL, name INTEGER)")
    with pytest.raises(ConfigurationError, match=r"the source: the key .* of the table 't' is not unique"):
        verified(target, source)


def test_the_order_in_which_columns_are_named_does_not_matter(new_database: NewDatabase) -> None:
    table = "t (id INTEGER PRIMARY KEY, name TEXT, extra TEXT)"
    source = make(new_database("sqlite"), [(1, "x", "y")], table)
    target = make(new_database("sqlite"), [("y", 1, "x")], "t (extra TEXT, id INTEGER PRIMARY KEY, name TEXT)")
    orders = [None, ["id", "extra", "name"], ["name", "extra"], ["extra", "id", "name", "name"]]
    found = [verified(source, target, columns=columns) for columns in orders]
    assert all(result.ok for result in found)
    assert len({result.sync.job.id for result in found}) == 1
    assert verified(source, target, columns=["name"]).sync.job.id != found[0].sync.job.id


def test_columns_must_be_the_same_or_chosen(new_database: NewDatabase) -> None:
    source = make(new_database("sqlite"), [(1, "x", 5)], "t (id INTEGER PRIMARY KEY, name TEXT, own INTEGER)")
    target = make(new_database("sqlite"), [("x", 1, "y")], "t (name TEXT, id INTEGER PRIMARY KEY, theirs TEXT)")
    with pytest.raises(ConfigurationError, match=r"the target has no column 'own' to compare.*columns="):
        verified(source, target)
    with pytest.raises(ConfigurationError, match=r"the source has no column 'theirs', and the target has"):
        verified(SQLConnector(source, "SELECT id, name FROM t", key="id"), target)
    with pytest.raises(ConfigurationError, match=r"the source has no column 'theirs' to compare"):
        verified(source, target, columns=["theirs"])
    assert verified(source, target, columns=["name"]).ok
    execute(target, "UPDATE t SET name = 'y'")
    assert listed(verified(source, target, columns=["name"])) == [("different", 1, "name")]


class Numbers:
    """A source of dicts or tuples that can do nothing but be read."""

    fingerprint: str | None = "numbers"

    def __init__(self, records: Sequence[Any], columns: Sequence[str] | None = None) -> None:
        self.records, self.names, self.failures = records, columns, 0

    def read(self, cursor: Any, batch_size: int) -> Iterator[Page[Any]]:
        for start in range(cursor or 0, len(self.records), batch_size):
            if self.failures:
                self.failures -= 1
                msg = "not now"
                raise TransientError(msg)
            yield Page(self.records[start : start + batch_size], start + batch_size, self.names)

    def count(self) -> int:
        return len(self.records)


def test_a_source_that_is_no_database(sqlite_url: str) -> None:
    target = make(sqlite_url, numbered(*range(20)))
    dicts = Numbers([{"name": name, "id": number} for number, name in numbered(*range(20))])
    assert verified(dicts, target, key="id", batch_size=3).ok
    tuples = Numbers([(name, number) for number, name in numbered(*range(19), 30)], ("name", "id"))
    tuples.failures = 2
    result = verified(tuples, target, key="id", batch_size=3)
    assert sorted(listed(result)) == [("extra", 19), ("missing", 30)]
    assert verified(Numbers([{"id": number} for number in range(20)]), target, columns=["id"]).ok
    with pytest.raises(ConfigurationError, match="no column 'name', and the target has"):
        verified(Numbers([{"id": 1}]), target)
    with pytest.raises(ConfigurationError, match=r"the target has no column 'more', and the source's records have"):
        verified(Numbers([{"id": 0, "name": "name 0", "more": 1}]), target)
    with pytest.raises(ConfigurationError, match="column names"):
        verified(Numbers([(1, "x")]), target)
    nameless = Numbers([])
    nameless.fingerprint = None
    with pytest.raises(ConfigurationError, match="job_id="):
        verified(nameless, target)
    assert verified(nameless, target, job_id="mine").extra == 20


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"key": 5}, "key='id'"),
        ({"key": []}, "key='id'"),
        ({"key": "no_such"}, "no column 'no_such'"),
        ({"columns": "name"}, "list of their names"),
        ({"columns": []}, "list of their names"),
        ({"job_id": ""}, "1 to 255"),
        ({"max_differences": -1}, "at least 0"),
        ({"max_differences": True}, "at least 0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"on_refused": "fail"}, "leave it out"),
        ({"count": True}, "leave it out"),
        ({"connector": object()}, "no connector"),
        ({"target_connector": SQLQueryTemplate}, "ranges of a key"),
        ({"target_connector": Numbers([])}, "give a SQLConnector"),
        ({"store": object()}, "no job store"),
    ],
)
def test_arguments_are_checked_before_anything_is_read(sqlite_url: str, arguments: dict[str, Any], says: str) -> None:
    make(sqlite_url, numbered(1))
    connector = SQLConnector(sqlite_url, "t")
    store = MemoryJobStore()
    given = {"connector": connector, "target_connector": connector, "store": store, **arguments}
    with pytest.raises(ConfigurationError, match=says):
        verify_full_sync(**given)
    assert list(store.jobs()) == []
    connector.close()


def test_a_key_that_is_not_unique_or_null_in_the_source_is_refused(new_database: NewDatabase) -> None:
    loose = "t (id INTEGER, name VARCHAR(20))"
    source = make(new_database("sqlite"), numbered(1, 1), loose)
    target = make(new_database("sqlite"), numbered(1), loose)
    with pytest.raises(ConfigurationError, match="not unique"):
        verified(source, target)
    execute(source, "DELETE FROM t")
    execute(source, "INSERT INTO t VALUES (NULL, 'x')")
    with pytest.raises(ConfigurationError, match="NULL"):
        verified(source, target)
    # In the target too: no range of keys holds such a row, so it would not be seen to be extra.
    execute(source, "DELETE FROM t")
    execute(source, "INSERT INTO t VALUES (1, 'name 1')")
    assert verified(source, target).ok
    execute(target, "INSERT INTO t VALUES (NULL, 'x')")
    with pytest.raises(ConfigurationError, match="NULL"):
        verified(source, target)


def test_the_job_of_a_sync_is_not_taken_for_a_verification(new_database: NewDatabase) -> None:
    source = make(new_database("sqlite"), numbered(1, 2, 3))
    connector = SQLConnector(source, "t")
    with SQLJobStore(new_database("sqlite")) as store:
        run_full_sync("sync", connector, lambda batch: None, store=store, batch_size=1, max_records=1)
        before = store.load("sync")
        with pytest.raises(ConfigurationError, match=r"job 'sync' is a sync"):
            verify_full_sync(connector, connector, store=store, job_id="sync")
        assert store.load("sync") == before
    connector.close()


def test_the_same_verification_has_the_same_job_and_another_one_another(new_database: NewDatabase) -> None:
    source, target = make(new_database("sqlite"), numbered(1)), make(new_database("sqlite"), numbered(1))
    ids = [verified(source, target, **more).sync.job.id for more in ({}, {}, {"columns": ["id"]}, {"batch_size": 5})]
    assert len({ids[0], ids[1], ids[3]}) == 1
    assert ids[2] != ids[0]
    assert verified(target, source).sync.job.id != ids[0]


def test_a_verification_that_is_held_or_skipped_proves_what_is_known(new_database: NewDatabase) -> None:
    source, target = (make(new_database("sqlite"), numbered(1, 2)) for _ in range(2))
    store = MemoryJobStore()
    lease = store.acquire("proof", owner="somebody", ttl=60)
    held = verified(source, target, store=store, job_id="proof", if_held="skip")
    assert (held.complete, held.ok, held.equal) == (False, False, 0)
    store.release(lease)
    assert verified(source, target, store=store, job_id="proof").ok
    execute(target, "DELETE FROM t")
    assert verified(source, target, store=store, job_id="proof", if_completed="skip").ok
    assert verified(source, target, store=store, job_id="proof", batch_size="auto").missing == 2


def test_rows_that_come_while_both_sides_are_read(new_database: NewDatabase) -> None:
    source, target = (
        make(new_database("sqlite"), numbered(*range(100))),
        make(new_database("sqlite"), numbered(*range(100))),
    )
    batches = 0

    def write(_event: Any) -> None:
        nonlocal batches
        batches += 1
        for url in (source, target):
            execute(url, "INSERT INTO t VALUES (?, ?)", numbered(batches + 1_000, -batches))

    assert verified(source, target, batch_size=10, prefetch=0, observers=[write]).ok


def test_differences_are_what_dead_letters_of_the_job_say(new_database: NewDatabase) -> None:
    source, target = make(new_database("sqlite"), numbered(1, 2)), make(new_database("sqlite"), numbered(2, 3))
    with SQLJobStore(target) as store:
        result = verified(source, target, store=store, job_id="proof")
        errors = [letter.error for letter in store.dead_letters("proof")]
        assert errors == ["RangeDiffersError: 1 missing", "RangeDiffersError: 1 extra"]
        assert result.differences == (Difference(kind="missing", key=(1,)), Difference(kind="extra", key=(3,)))
