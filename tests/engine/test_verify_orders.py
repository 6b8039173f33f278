"""However the two sides order their keys, each row is judged once and rightly, wherever the work stops."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from resumable_sync import (
    ColumnKind,
    Difference,
    KeyPage,
    KeyRanges,
    MemoryJobStore,
    Page,
    VerifyResult,
    verify_full_sync,
)

Row = tuple[str, int]
Order = Callable[[str], Any]


class Side(KeyRanges):
    """Rows in the order of a database of its own."""

    key = (("id", "asc"),)

    def __init__(
        self, rows: Sequence[Row], order: Order, columns: Sequence[str] = ("id", "n"), digests: Any = None
    ) -> None:
        self.rows, self.order, self.columns, self.digests = rows, order, columns, digests
        self.kinds = {"id": ColumnKind("text"), "n": ColumnKind("integer")}
        self.fingerprint = "side"

    def ranges(self, key: Any = None) -> KeyRanges:
        return self

    @override
    def only(self, columns: Sequence[str]) -> KeyRanges:
        assert list(columns) == ["id", "n"]
        return self

    @override
    def check(self, *, unique: bool) -> None:
        assert not unique or len({key for key, _ in self.rows}) == len(self.rows)

    def between(self, after: Any, upto: Any) -> list[Row]:
        order = self.order
        return sorted(
            (
                row
                for row in self.rows
                if (after is None or order(row[0]) > order(after[0]))
                and (upto is None or order(row[0]) <= order(upto[0]))
            ),
            key=lambda row: (order(row[0]), row[1]),
        )

    @override
    def page(self, after: Any, upto: Any, limit: int | None) -> KeyPage:
        rows = self.between(after, upto)[:limit]
        return KeyPage(list(rows), [rows[-1][0]] if rows else None)

    @override
    def key_at(self, after: Any, offset: int) -> Any:
        rows = self.between(after, None)
        return [rows[offset][0]] if offset < len(rows) else None

    @override
    def having(self, keys: Sequence[Any]) -> list[Any]:
        wanted = {self.order(key[0]) for key in keys}
        return [row for row in self.rows if self.order(row[0]) in wanted]

    @override
    def digest(self, after: Any, upto: Any) -> tuple[int, str] | None:
        rows = self.between(after, upto)
        return len(rows), str(sum(hash(row) for row in rows))

    def read(self, cursor: Any, batch_size: int) -> Iterator[Page[Row]]:
        while (page := self.page(cursor, None, batch_size)).last is not None:
            cursor = page.last
            yield Page(page.rows, cursor, ("id", "n"))

    def count(self) -> None:
        return None


class OnlyRead:
    """A source that cannot look anything up."""

    fingerprint = "source"

    def __init__(self, side: Side) -> None:
        self.read, self.count = side.read, side.count


# The second takes 'a' for 'A', as MariaDB does; the third has little to do with the first.
ORDERS: list[Order] = [
    str,
    lambda key: key.lower(),
    lambda key: (key[-1:], -len(key), key),
    lambda key: tuple(-ord(letter) for letter in key),
]
KEYS = st.text("aAbBcC", min_size=1, max_size=3)
SOURCES = st.dictionaries(KEYS, st.integers(0, 1), max_size=14).map(lambda rows: list(rows.items()))
TARGETS = st.lists(st.tuples(KEYS, st.integers(0, 1)), max_size=14)


def expected(source: Sequence[Row], target: Sequence[Row]) -> tuple[int, list[tuple[str, str]]]:
    equal, found = 0, []
    for key in {key for key, _ in [*source, *target]}:
        ours, theirs = [n for k, n in source if k == key], [n for k, n in target if k == key]
        same = sum(min(ours.count(n), theirs.count(n)) for n in set(ours))
        pairs = min(len(ours), len(theirs)) - same
        equal += same
        found += [("different", key)] * pairs
        found += [("missing", key)] * (len(ours) - same - pairs)
        found += [("extra", key)] * (len(theirs) - same - pairs)
    return equal, sorted(found)


def listed(differences: Sequence[Difference]) -> list[tuple[str, Any]]:
    return sorted((each.kind, each.key[0]) for each in differences)


def verified(
    source: Any, target: Side, stop_after: int | None, **options: Any
) -> tuple[VerifyResult, list[Difference]]:
    store = MemoryJobStore()
    found: list[Difference] = []
    while True:
        result = verify_full_sync(source, target, key="id", store=store, max_records=stop_after, job_id="v", **options)
        found += result.differences
        if result.complete:
            return result, found


@st.composite
def cases(draw: st.DrawFn) -> tuple[Side, Side]:
    ours, theirs = draw(st.sampled_from(ORDERS)), draw(st.sampled_from(ORDERS))
    # A source's key is unique by its own order.
    source = list({ours(key): (key, number) for key, number in draw(SOURCES)}.values())
    target = draw(st.one_of(TARGETS, st.just(source[::-1])))
    way = "sum" if draw(st.booleans()) and ours is theirs else None
    return Side(source, ours, digests=way), Side(target, theirs, digests=way)


@settings(deadline=None, max_examples=100)
@given(cases(), st.integers(1, 4), st.one_of(st.none(), st.integers(1, 2)))
def test_every_difference_is_found_once_whatever_the_orders(
    sides: tuple[Side, Side], batch_size: int, stop_after: int | None
) -> None:
    ours, theirs = sides
    source, target = ours.rows, theirs.rows
    result, found = verified(ours, theirs, stop_after, batch_size=batch_size, prefetch=0)
    equal, differences = expected(source, target)
    assert listed(found) == differences
    assert (result.equal, result.source_records, result.target_records) == (equal, len(source), len(target))
    assert result.ok is (differences == [])


@settings(deadline=None, max_examples=30)
@given(SOURCES, TARGETS, st.integers(1, 4), st.one_of(st.none(), st.integers(1, 2)))
def test_a_source_that_can_only_be_read_is_verified_in_the_order_it_shares(
    source: list[Row], target: list[Row], batch_size: int, stop_after: int | None
) -> None:
    result, found = verified(
        OnlyRead(Side(source, str)), Side(target, str), stop_after, batch_size=batch_size, prefetch=0
    )
    equal, differences = expected(source, target)
    assert listed(found) == differences
    assert (result.equal, result.source_records, result.target_records) == (equal, len(source), len(target))


@settings(deadline=None, max_examples=30)
@given(SOURCES, TARGETS, st.sampled_from([ORDERS[0], *ORDERS[2:]]), st.integers(1, 4))
def test_a_source_in_another_order_is_never_taken_for_complete(
    source: list[Row], target: list[Row], order: Order, batch_size: int
) -> None:
    result, _ = verified(OnlyRead(Side(source, order)), Side(target, str), None, batch_size=batch_size, prefetch=0)
    equal, differences = expected(source, target)
    assert result.equal == equal
    assert (result.missing, result.different) == tuple(
        sum(kind == wanted for kind, _ in differences) for wanted in ("missing", "different")
    )
    assert result.extra >= sum(kind == "extra" for kind, _ in differences)
