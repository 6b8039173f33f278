"""The comparison of two sides as a connector: it reads both, range by range, and yields what it found in each.

So the engine resumes it like any other source. The source is walked in its own order, and the target follows: with each
page of the source it goes on from the last key it has seen to the last key of the page. Whatever the two databases
think of the order of keys, the target's rows are met once each, from its first to its last; a row that is not met
together with its partner is looked up by its key. No order is ever decided here.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import attrs
from typing_extensions import override

from resumable_sync._errors import ConfigurationError
from resumable_sync._model import Cursor, Page, as_records
from resumable_sync._protocols import Connector
from resumable_sync._ranges import Key, KeyRanges
from resumable_sync._verification.compare import Comparison
from resumable_sync._verification.tally import Finding, Place, Tally, plain_key

__all__ = ["Walk", "naming"]

Row: TypeAlias = tuple[Any, ...]
Report: TypeAlias = dict[str, Any]

_SPAN = 100_000
"""Rows that a range may have whose checksum the databases compute: a statement shall not take long."""


@contextmanager
def naming(side: str) -> Iterator[None]:
    """Say in an error of a connector which of the two it is.

    Raises:
        ConfigurationError: If the connector raised one.
    """
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"the {side}: {error.message}") from error.__cause__


@attrs.frozen
class _SourcePage:
    """Rows of the source, the key of the last, and the place after them."""

    rows: list[Row]
    upto: Key
    after: Any


class Walk(Connector[Report]):
    """What two sides differ in, as records: for each range the number of rows, and the differences.

    Args:
        connector: The source.
        source: Its ranges, where it has that ability; else None.
        target: The target's ranges, of the same columns.
        comparison: Compares their rows.
        columns: The columns of the rows.
        whole: Whether the source must have no others.
        key: Those of the key.
        fingerprint: What is compared with what, by what.
        max_differences: How many differences are kept as values.
    """

    def __init__(
        self,
        connector: Connector[Any],
        source: KeyRanges | None,
        target: KeyRanges,
        comparison: Comparison,
        *,
        columns: Sequence[str],
        whole: bool,
        key: Sequence[str],
        fingerprint: Mapping[str, str],
        max_differences: int,
    ) -> None:
        self._connector, self._source, self._target = connector, source, target
        self._comparison = comparison
        self._columns, self._whole = tuple(columns), whole
        self._key_places = [self._columns.index(name) for name in key]
        self._max_differences = max_differences
        self._digests = _same_digests(source, target)
        self._fingerprint = fingerprint

    @property
    @override
    def fingerprint(self) -> Mapping[str, str]:
        """Both sides' fingerprints, and which columns are compared by which key."""
        return self._fingerprint

    @override
    def count(self) -> None:
        """The number of ranges is not known before."""
        return

    @override
    def read(self, cursor: Cursor | None, batch_size: int) -> Iterator[Page[Report]]:
        place = Place.of(cursor)
        if cursor is None:
            if self._source is not None:
                with naming("source"):
                    self._source.check(unique=True)
            with naming("target"):
                self._target.check(unique=False)
            # The job has accepted a record before one can be refused; else the engine would take it for a failure.
            yield self._report(place, Finding())
        steps = self._walk(place, batch_size) if place.phase == "walk" else iter(())
        for place, found in steps:
            yield self._report(place, found)
        while place.phase == "tail":
            place, found = self._tail(place, batch_size)
            yield self._report(place, found)

    def _report(self, place: Place, found: Finding) -> Page[Report]:
        differences = [difference.encoded() for difference in found.differences]
        # The first is told even if none is named, so that the job shows that there are some.
        differs = bool(differences or (found.tally.differing and found.tally.differing == place.tally.differing))
        return Page([{**attrs.asdict(found.tally), "differences": differences, "differs": differs}], place.cursor())

    def _moved(self, place: Place, found: Finding, **changes: Any) -> tuple[Place, Finding]:
        kept = found.differences[: max(self._max_differences - place.tally.kept, 0)]
        tally = attrs.evolve(found.tally, kept=len(kept))
        return attrs.evolve(place, tally=place.tally + tally, **changes), Finding(tally, kept)

    def _walk(self, place: Place, size: int) -> Iterator[tuple[Place, Finding]]:
        if self._source is None:
            yield from self._walk_pages(place, self._read(place.source, size), size)
        else:
            yield from self._walk_ranges(self._source, place, size)

    def _walk_ranges(self, source: KeyRanges, place: Place, size: int) -> Iterator[tuple[Place, Finding]]:
        span = size
        while place.phase == "walk":
            moved = self._by_digest(source, place, span) if self._digests else None
            if moved is not None:
                span = max(size, min(span * 2, _SPAN))
                place, found = moved
                yield place, found
            elif span > size:
                span = size  # a range of a batch is soon found that differs
            else:
                suspected = self._digests
                page = source.page(place.source, None, size)
                last = len(page.rows) < size
                pages = iter([_SourcePage(page.rows, page.last, page.last)] if page.last is not None else [])
                for place, found in self._walk_pages(place, pages, size, last=last):  # noqa: B020 - it goes on there
                    if found.tally.differing:
                        suspected = False
                    yield place, found
                if suspected and page.rows:
                    self._digests = False  # the rows are equal, so the databases do not compute the same

    def _by_digest(self, source: KeyRanges, place: Place, span: int) -> tuple[Place, Finding] | None:
        """Go over a range whose checksums are equal; None if they are not."""
        upto = source.key_at(place.source, span - 1)
        one = source.digest(place.source, upto)
        if one is None or one != self._target.digest(place.target, upto):
            return None
        found = Finding(Tally(equal=one[0]))
        if upto is None:
            return self._moved(place, found, phase="end", source=None)
        return self._moved(place, found, source=list(upto), target=list(upto) if one[0] else place.target)

    def _walk_pages(
        self, place: Place, pages: Iterator[_SourcePage], size: int, *, last: bool = True
    ) -> Iterator[tuple[Place, Finding]]:
        here = place
        for page in pages:
            for here, found in self._page(here, page, size):  # noqa: B020 - it goes on there
                yield here, found
        if last:
            yield self._moved(here, Finding(), phase="tail", source=None)

    def _page(self, place: Place, page: _SourcePage, size: int) -> Iterator[tuple[Place, Finding]]:
        most = max(len(page.rows), size) + 1
        while True:
            there = self._target.page(place.target, page.upto, most + 1)
            middle = self._target.key_at(place.target, size - 1) if len(there.rows) > most else None
            if middle is None:
                break
            # Far more than the source has there: the part up to a key in the middle, then the rest.
            part = self._target.page(place.target, middle, None)
            place, found = self._moved(place, self._comparison.surplus(page.rows, part.rows), target=list(middle))
            yield place, found
        found = self._comparison.compare(page.rows, there.rows)
        reached = plain_key(page.upto) if there.rows else place.target
        yield self._moved(place, found, source=page.after, target=reached)

    def _tail(self, place: Place, size: int) -> tuple[Place, Finding]:
        middle = self._target.key_at(place.target, size - 1)
        rest = self._target.page(place.target, middle, None)
        found = self._comparison.surplus([], rest.rows)
        if middle is None:
            return self._moved(place, found, phase="end", target=None)
        return self._moved(place, found, target=list(middle))

    def _read(self, cursor: Any, size: int) -> Iterator[_SourcePage]:
        for page in self._connector.read(cursor, size):
            rows = [self._row(record, page.columns) for record in as_records(page.records)]
            if rows:
                yield _SourcePage(rows, [rows[-1][place] for place in self._key_places], page.cursor)

    def _row(self, record: Any, columns: Sequence[str] | None) -> Row:
        if not isinstance(record, Mapping):
            if columns is None:
                msg = "the source's records are neither dicts nor tuples with Page(columns=...); give column names"
                raise ConfigurationError(msg)
            record = dict(zip(columns, record, strict=True))
        missing = [name for name in self._columns if name not in record]
        if missing:
            msg = (
                f"the source's records have no column {', '.join(map(repr, missing))}, and the target has; name the "
                "columns to compare in columns="
            )
            raise ConfigurationError(msg)
        if self._whole and len(record) > len(self._columns):
            surplus = [repr(name) for name in record if name not in self._columns]
            msg = f"the target has no column {', '.join(surplus)}, and the source's records have"
            raise ConfigurationError(f"{msg}; name the columns to compare in columns=")
        return tuple(record[name] for name in self._columns)


def _same_digests(source: KeyRanges | None, target: KeyRanges) -> bool:
    if source is None or source.digests is None or source.digests != target.digests:
        return False
    pairs = zip(source.kinds.values(), target.kinds.values(), strict=True)
    return all(one.name == other.name for one, other in pairs)
