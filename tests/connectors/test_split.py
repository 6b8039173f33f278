"""Parts of a source: about as many rows in each, wherever keys are crowded, none left out and none in two."""

import pickle
import random
from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from typing import Any, cast

import pytest
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.pool import NullPool
from typing_extensions import override

from resumable_sync import ConfigurationError, CursorError, OffsetConnector
from resumable_sync._cursor import decode_cursor, encode_cursor
from resumable_sync.connectors import _split
from resumable_sync.connectors._split import Span
from resumable_sync.connectors.sql import SQLConnector, SQLQueryTemplate

ROWS = 2_000


def execute(url: str, statement: str, rows: Sequence[tuple[Any, ...]] = ()) -> None:
    mark = "?" if make_url(url).get_backend_name() == "sqlite" else "%s"
    with create_engine(url, poolclass=NullPool).begin() as connection:
        if rows:
            connection.exec_driver_sql(statement.replace("?", mark), list(rows))
        else:
            connection.exec_driver_sql(statement)


def crowded() -> list[int]:
    """Keys of which 90 % are in the hundredth part of the range."""
    chance = random.Random(20261128)
    dense = chance.sample(range(500_000, 510_000), ROWS * 9 // 10)
    sparse = chance.sample([*range(500_000), *range(510_000, 1_000_000)], ROWS // 10)
    return sorted([*dense, *sparse])


@pytest.fixture
def source(database_url: str) -> str:
    execute(database_url, "CREATE TABLE items (id integer NOT NULL PRIMARY KEY, name varchar(20) NOT NULL)")
    execute(database_url, "INSERT INTO items VALUES (?, ?)", [(key, f"name {key}") for key in crowded()])
    return database_url


@pytest.fixture
def connector(source: str) -> Iterator[SQLConnector]:
    with closing(SQLConnector(source, "items")) as made:
        yield made


def ids(connector: Any, cursor: Any = None) -> list[int]:
    return [row[0] for page in connector.read(cursor, 300) for row in page.records]


def test_parts_are_even_where_keys_are_crowded(connector: SQLConnector) -> None:
    split = connector.split(16)
    sizes = [len(ids(part)) for part in split]
    assert len(sizes) == 16
    assert max(sizes) <= 1.3 * sum(sizes) / len(sizes)
    assert [key for part in split for key in ids(part)] == crowded()


def test_parts_stay_whole_and_disjoint_while_rows_come_and_go(connector: SQLConnector, source: str) -> None:
    split = connector.split(8)
    before = ids(split[0])
    ends = [part.place[1][0] for part in split]
    execute(source, "DELETE FROM items WHERE id = ?", [(key,) for key in crowded() if key % 3 == 0])
    new = sorted({key for end in ends for key in (end - 1, end + 1)}.difference(crowded()))
    execute(source, "INSERT INTO items VALUES (?, ?)", [(key, "new") for key in new])
    read = [key for part in split for key in ids(part)]
    stayed = [key for key in crowded() if key % 3]
    assert len(read) == len(set(read))
    assert set(stayed) <= set(read) <= {*stayed, *new}
    # The bound is that of the split: what was added behind it belongs to the next run.
    assert max(read) <= ends[-1]
    assert ids(split[0]) != before


def test_a_part_is_a_connector(connector: SQLConnector) -> None:
    part = connector.split(4)[2]
    keys = ids(part)
    travelled = pickle.loads(pickle.dumps(part))
    assert ids(travelled) == keys
    assert ids(connector.part(decode_cursor(encode_cursor(part.place)))) == keys
    assert part.count() == len(keys) == 500
    assert [column.name for column in part.columns()] == ["id", "name"]
    assert part.fingerprint == {**connector.fingerprint, "range": part.fingerprint["range"]}
    assert len({one.fingerprint["range"] for one in connector.split(4)}) == 4
    assert ids(part, part.cursor_at(499)) == keys[499:]
    assert [part.cursor_at(0), part.cursor_at(501)] == [None, None]
    assert ids(part.pin(["id"])) == keys
    last = list(part.read(None, 100))[-1].cursor
    assert part.moved(last) is None
    for whole in (connector.split(4)[0], part):
        assert [key for smaller in whole.split(3) for key in ids(smaller)] == ids(whole)
        assert [smaller.count() for smaller in whole.split(3)] == [166, 167, 167]
    assert connector.place is None
    assert "part of" in repr(part)
    with pytest.raises(ConfigurationError, match="verify the whole"):
        part.ranges()


def test_a_stream_splits_too(source: str) -> None:
    with closing(SQLConnector(source, "items", key="-id", paging="stream")) as connector:
        assert [key for part in connector.split(5) for key in ids(part)] == crowded()[::-1]


def test_an_empty_source_has_no_parts(database_url: str) -> None:
    execute(database_url, "CREATE TABLE items (id integer NOT NULL PRIMARY KEY)")
    with closing(SQLConnector(database_url, "items")) as connector:
        assert connector.split(4) == []


def test_there_are_no_more_parts_than_rows(database_url: str) -> None:
    execute(database_url, "CREATE TABLE items (id integer NOT NULL PRIMARY KEY)")
    execute(database_url, "INSERT INTO items VALUES (?)", [(1,), (5,), (9,)])
    with closing(SQLConnector(database_url, "items")) as connector:
        assert [ids(part) for part in connector.split(64)] == [[1], [5], [9]]


def test_a_key_that_is_not_unique_is_refused_before_splitting(database_url: str) -> None:
    execute(database_url, "CREATE TABLE items (id integer NOT NULL, name integer)")
    execute(database_url, "INSERT INTO items VALUES (?, 1)", [(1,), (1,), (2,)])
    with (
        closing(SQLConnector(database_url, "items", key="id")) as connector,
        pytest.raises(ConfigurationError, match="not unique"),
    ):
        connector.split(2)


def test_what_has_no_parts_says_so(sqlite_url: str) -> None:
    execute(sqlite_url, "CREATE TABLE items (id integer NOT NULL PRIMARY KEY)")
    with (
        closing(SQLConnector(sqlite_url, "items", paging="offset")) as by_offset,
        pytest.raises(ConfigurationError, match="name unique columns"),
    ):
        by_offset.split(2)
    with closing(SQLConnector(sqlite_url, "items")) as connector:
        with pytest.raises(CursorError, match="two keys"):
            connector.part([1, 2])
        with pytest.raises(CursorError, match="does not fit the key"):
            ids(connector.part([[1, 2], [3, 4]]))


class Rows:
    """In place of the statements that look at a span: keys in memory, of which some come and go at every look."""

    def __init__(self, rows: int, changes: int = 0) -> None:
        self.chance = random.Random(rows)
        self.keys = [key * 10 for key in range(1, rows + 1)]
        self.changes = changes

    def within(self, span: Span) -> list[int]:
        for _ in range(self.changes):
            if self.keys and self.chance.random() < 0.7:
                self.keys.pop(self.chance.randrange(len(self.keys)))
            else:
                insort(self.keys, self.chance.randrange(len(self.keys) * 10 + 10))
        after = -1 if span.after is None else span.after[0]
        return [key for key in self.keys if after < key <= span.upto[0]]

    def key_at(self, _connection: object, span: Span, offset: int) -> list[int] | None:
        found = self.within(span)
        return [found[offset]] if offset < len(found) else None

    def count(self, _connection: object, span: Span) -> int:
        return len(self.within(span))


@pytest.fixture
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_split, "_FIRST_STEP", 7)


@pytest.mark.usefixtures("short_steps")
@pytest.mark.parametrize("parts", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("rows", [1, 6, 7, 8, 49, 112, 113, 500, 1_801])
def test_sizes_differ_by_one_at_most_however_many_rows_there_are(rows: int, parts: int) -> None:
    probes: Any = Rows(rows)
    ends = _split._walked_ends(cast("Any", None), probes, Span(None, [rows * 10]), parts)
    places = [0, *(end[0] // 10 for end in ends), rows]
    sizes = [upto - after for after, upto in pairwise(places)]
    assert len(sizes) == min(rows, parts)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.usefixtures("short_steps")
@pytest.mark.parametrize("rows", range(100, 700, 20))
def test_ends_are_in_order_whatever_comes_and_goes_between_two_looks(rows: int) -> None:
    probes: Any = Rows(rows, changes=rows // 60)
    upto = [rows * 10]
    ends = _split._walked_ends(cast("Any", None), probes, Span(None, upto), 16)
    assert [*ends, upto] == sorted([*ends, upto])
    assert len({end[0] for end in [*ends, upto]}) == len(ends) + 1


@pytest.mark.usefixtures("short_steps")
@pytest.mark.parametrize("key", ["id", "-id", ["name", "id"]])
def test_marks_are_keys_of_any_kind(source: str, key: Any) -> None:
    with closing(SQLConnector(source, "items", key=key)) as connector:
        split = connector.split(3)
        assert [len(ids(part)) for part in split] == [666, 667, 667]
        assert sorted(number for part in split for number in ids(part)) == crowded()


def sent(engine: Engine, act: Callable[[], object]) -> list[tuple[str, Any]]:
    """The statements that reach the database meanwhile."""
    found: list[tuple[str, Any]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        found.append((statement, parameters))

    act()
    event.remove(engine, "before_cursor_execute", note)
    return found


@pytest.mark.parametrize("key", ["id", ["grp", "at"]])
def test_the_index_alone_is_looked_at(sqlite_url: str, key: Any) -> None:
    execute(sqlite_url, "CREATE TABLE items (id text PRIMARY KEY NOT NULL, grp int NOT NULL, at int NOT NULL, more)")
    execute(sqlite_url, "CREATE UNIQUE INDEX by_group ON items (grp, at)")
    execute(sqlite_url, "INSERT INTO items VALUES (?, ?, ?, 'x')", [(f"k{n}", n % 3, n) for n in range(100)])
    engine = create_engine(sqlite_url, poolclass=NullPool)
    with closing(SQLConnector(engine, "items", key=key)) as connector:
        assert len(connector.split(2)) == 2
        statements = sent(engine, lambda: connector.split(5))
    probes = [(text, values) for text, values in statements if "OFFSET" in text or "count" in text]
    # The bound, that its row is found, a mark that is not there, the count of the rest, and four ends.
    assert len(probes) == 8
    with engine.connect() as connection:
        for text, values in probes:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all()
            assert all("USING COVERING INDEX" in row[3] for row in plan), (text, plan)


class Letters(OffsetConnector[str]):
    def __init__(self, count: int | None = 26, fingerprint: Any = None) -> None:
        self.known, self.fingerprint = count, fingerprint

    @override
    def fetch(self, offset: int, limit: int) -> Sequence[str]:
        return list("abcdefghijklmnopqrstuvwxyz"[offset : offset + min(limit, 5)])

    @override
    def count(self) -> int | None:
        return self.known


@pytest.mark.parametrize("known", [0, 1, 5, 25, 26, 40])
def test_offsets_are_split_by_the_count_and_read_to_the_end(known: int) -> None:
    split = Letters(known).split(4)
    assert len(split) == max(1, min(4, known))
    read = ["".join(record for page in part.read(None, 3) for record in page.records) for part in split]
    assert "".join(read) == "abcdefghijklmnopqrstuvwxyz"
    for part, records in zip(split, read, strict=True):
        cursors = [page.cursor for page in part.read(None, 2)]
        for cursor in cursors:
            rest = [record for page in part.read(cursor, 7) for record in page.records]
            assert "".join(rest) == "abcdefghijklmnopqrstuvwxyz"[cursor[0] : part.place[0] + len(records)]


def test_an_offset_part_is_a_connector() -> None:
    part = Letters(fingerprint="letters").split(4)[1]
    assert part.place == [6, 13]
    assert part.count() == 7
    assert part.fingerprint == {"source": "letters", "range": "[6, 13]"}
    assert Letters(fingerprint={"list": "x"}).part([6, None]).fingerprint == {"list": "x", "range": "[6, None]"}
    assert [Letters().part([20, None]).count(), Letters(None).part([20, None]).count()] == [6, None]
    seekable: Any = part
    assert [seekable.cursor_at(offset) for offset in (0, 1, 7, 8)] == [None, [7], [13], None]
    assert "[6, 13]" in repr(part)
    for cursor in ([6], [14], "x", [True]):
        with pytest.raises(CursorError, match=r"\[6, 13\]"):
            list(part.read(cursor, 2))


def test_an_offset_part_prefers_what_the_whole_prefers() -> None:
    whole: Any = Letters(10)
    part: Any = whole.part([0, 5])
    assert (part.preferred_batch_size, part.preferred_prefetch) == (None, None)
    whole.preferred_batch_size, whole.preferred_prefetch = 50, 3
    part = whole.part([0, 5])
    assert (part.preferred_batch_size, part.preferred_prefetch) == (50, 3)


def test_a_source_that_nobody_can_count_is_not_split(sqlite_url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"override count\(\)"):
        Letters(None).split(3)
    execute(sqlite_url, "CREATE TABLE items (id integer NOT NULL PRIMARY KEY)")
    execute(sqlite_url, "INSERT INTO items VALUES (?)", [(number,) for number in range(10)])
    page = "SELECT id FROM items ORDER BY id LIMIT :limit OFFSET :offset"
    with closing(SQLQueryTemplate(sqlite_url, page)) as uncounted, pytest.raises(ConfigurationError):
        uncounted.split(3)
    with closing(SQLQueryTemplate(sqlite_url, page, "SELECT count(*) FROM items")) as counted:
        assert [ids(part) for part in counted.split(3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
        assert [ids(pickle.loads(pickle.dumps(part))) for part in counted.split(1)] == [list(range(10))]
