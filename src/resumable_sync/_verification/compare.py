"""Comparing rows of two sides by their key, and confirming by a second look what differs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from resumable_sync._ranges import ColumnKind, KeyRanges
from resumable_sync._verification.canonical import canonical, forms
from resumable_sync._verification.tally import Difference, Finding, Tally, plain_key

__all__ = ["Comparison"]

Row: TypeAlias = tuple[Any, ...]
Rows: TypeAlias = list[Row]

_LOOKUPS = 100
"""Keys in one look at a side."""


class _Side:
    """The rows of one side by the common form of their key."""

    def __init__(self, rows: Rows, same: Rows, places: Sequence[int]) -> None:
        self.rows: dict[Row, list[Row]] = defaultdict(list)
        self.keys: dict[Row, Row] = {}
        for row, form in zip(rows, same, strict=True):
            key = tuple(form[place] for place in places)
            self.rows[key].append(form)
            self.keys.setdefault(key, tuple(row[place] for place in places))


class Comparison:
    """Compares rows of the source with rows of the target.

    Args:
        source: The source's ranges, where it can look rows up by their key; else None.
        target: The target's.
        columns: The columns of the rows.
        key: Those of the key, by which rows are matched.
        kinds: What the source's columns hold.
    """

    def __init__(
        self,
        source: KeyRanges | None,
        target: KeyRanges,
        columns: Sequence[str],
        key: Sequence[str],
        kinds: Mapping[str, ColumnKind],
    ) -> None:
        self._source, self._target = source, target
        self._columns = tuple(columns)
        self._places = [self._columns.index(name) for name in key]
        both = [forms(kinds.get(name, ColumnKind("unknown")), target.kinds[name]) for name in columns]
        self._source_forms, self._target_forms = [form for form, _ in both], [form for _, form in both]
        self._strict = any(form.strict for form in self._source_forms)

    def compare(self, source: Rows, target: Rows) -> Finding:
        """Compare the rows of a range. What differs is looked up by its key on both sides before it counts."""
        if not self._strict and source == target:
            return Finding(Tally(equal=len(source)))
        same_source, same_target = canonical(source, self._source_forms), canonical(target, self._target_forms)
        if same_source == same_target:
            return Finding(Tally(equal=len(source)))
        here, there = _Side(source, same_source, self._places), _Side(target, same_target, self._places)
        suspects = [key for key in {**here.rows, **there.rows} if here.rows.get(key) != there.rows.get(key)]
        doubtful = sum(len(here.rows.get(key, ())) for key in suspects)
        return Finding(Tally(equal=len(source) - doubtful)) + self._confirm(suspects, here, there)

    def surplus(self, source: Rows, target: Rows) -> Finding:
        """Find the rows of the target whose key neither these rows of the source have nor any other of it."""
        here = _Side(source, canonical(source, self._source_forms), self._places)
        there = _Side(target, canonical(target, self._target_forms), self._places)
        return self._confirm([key for key in there.rows if key not in here.rows], here, there)

    def _confirm(self, suspects: Sequence[Row], here: _Side, there: _Side) -> Finding:
        found = Finding()
        for start in range(0, len(suspects), _LOOKUPS):
            keys = suspects[start : start + _LOOKUPS]
            raw = [here.keys.get(key) or there.keys[key] for key in keys]
            source, target = self._look_up_source(raw, here), self._look_up_target(raw)
            for key, shown in zip(keys, raw, strict=True):
                rows = source.rows.get(key, [])
                # A row that only the target has in this range, and the source in another: it is met again there.
                if key in here.rows or not rows:
                    found += self._settle(shown, rows, target.rows.get(key, []))
        return found

    def _look_up_source(self, keys: Sequence[Row], here: _Side) -> _Side:
        if self._source is None:
            return here
        rows = self._source.having(keys)
        return _Side(rows, canonical(rows, self._source_forms), self._places)

    def _look_up_target(self, keys: Sequence[Row]) -> _Side:
        rows = self._target.having(keys)
        return _Side(rows, canonical(rows, self._target_forms), self._places)

    def _settle(self, key: Row, source: Rows, target: Rows) -> Finding:
        """Match the rows of one key."""
        surplus, unmatched, equal = list(target), [], 0
        for row in source:
            if row in surplus:
                surplus.remove(row)
                equal += 1
            else:
                unmatched.append(row)
        shown = tuple(plain_key(key))
        pairs = list(zip(unmatched, surplus, strict=False))
        differences = [
            Difference(kind="different", key=shown, columns=self._differing(one, other)) for one, other in pairs
        ]
        differences += [Difference(kind="missing", key=shown)] * (len(unmatched) - len(pairs))
        differences += [Difference(kind="extra", key=shown)] * (len(surplus) - len(pairs))
        tally = Tally(
            equal=equal,
            missing=len(unmatched) - len(pairs),
            extra=len(surplus) - len(pairs),
            different=len(pairs),
        )
        return Finding(tally, tuple(differences))

    def _differing(self, one: Row, other: Row) -> tuple[str, ...]:
        return tuple(name for name, left, right in zip(self._columns, one, other, strict=True) if left != right)
