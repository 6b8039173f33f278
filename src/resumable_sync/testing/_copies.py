"""Text of COPY for the few types that the suites write and compare: whole numbers, texts and NULL."""

from collections.abc import Sequence
from typing import Any

from resumable_sync._formats import CopyText

__all__ = ["copy_of", "same_as_copy"]

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def copy_of(rows: Sequence[Sequence[int | str | None]]) -> CopyText:
    """Write rows as PostgreSQL's COPY does."""
    return CopyText("".join("\t".join(map(_field, row)) + "\n" for row in rows).encode(), len(rows))


def same_as_copy(copied: CopyText, rows: Sequence[Sequence[Any]]) -> bool:
    """Whether lines of COPY hold these rows, as far as their values are whole numbers, texts or NULL."""
    lines = [line.decode().removesuffix("\n").split("\t") for line in copied]
    return len(lines) == len(rows) and all(
        len(line) == len(row) and all(_is(field, value) for field, value in zip(line, row, strict=True))
        for line, row in zip(lines, rows, strict=True)
    )


def _field(value: int | str | None) -> str:
    return r"\N" if value is None else str(value).translate(_ESCAPES)


def _is(field: str, value: Any) -> bool:
    return field == _field(value) if value is None or type(value) in (int, str) else field != _field(None)
