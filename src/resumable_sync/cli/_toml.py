"""A TOML file, and the line of each of its keys: `tomllib` tells what the values are, not where they stand."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from resumable_sync import ConfigurationError
from resumable_sync._plain import Place

__all__ = ["Document", "read_document"]

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r'\s*("(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|[A-Za-z0-9_-]+)\s*')
_STRING = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL)
_BARE_VALUE = re.compile(r"[^,\]}\n#]*")


@attrs.frozen
class Document:
    """What a file holds.

    Attributes:
        name: The file, as it was named.
        data: The values.
        lines: The line of each key, from 1, by its place.
    """

    name: str
    data: dict[str, Any]
    lines: dict[tuple[str | int, ...], int]

    def says(self, place: Place, text: str) -> str:
        """Give a text about a place with file and line in front."""
        return f"{self.name}{self._line(tuple(place))}: {text}"

    def _line(self, place: tuple[str | int, ...]) -> str:
        """Give the line of a key; where it is missing, that of the table that it should be in."""
        for length in range(len(place), 0, -1):
            if place[:length] in self.lines:
                return f", line {self.lines[place[:length]]}"
        return ""


def read_document(path: str | Path) -> Document:
    """Read a TOML file.

    Raises:
        ConfigurationError: If it cannot be read, or is not TOML; names file and line.
    """
    name = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        msg = f"{name} is not UTF-8 text; save it as UTF-8"
        raise ConfigurationError(msg) from None
    except OSError as error:
        msg = f"{name} cannot be read: {error.strerror or error}; give the path of a sync file"
        raise ConfigurationError(msg) from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, where = str(error).partition(" (at ")
        line = re.match(r"line (\d+)", where)
        place = f", line {line[1]}" if line else ", at its end"
        msg = f"{name}{place}: this is not TOML: {what}; text needs quotes, and a key stands once in its table"
        raise ConfigurationError(msg) from None
    return Document(name, data, _Scanner(text.replace("\r\n", "\n")).lines)


class _Scanner:
    """Goes through a text that is known to be TOML, and notes the line where each key begins."""

    def __init__(self, text: str) -> None:
        self.lines: dict[tuple[str | int, ...], int] = {}
        self._text = text
        self._at = 0
        self._tables: dict[tuple[str | int, ...], int] = {}
        """How many tables an array of tables has so far."""
        table: tuple[str | int, ...] = ()
        while self._skip() < len(text):
            if text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _skip(self) -> int:
        """Go behind white space and comments."""
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return self._at

    def _header(self) -> tuple[str | int, ...]:
        start = self._at
        many = self._text.startswith("[[", start)
        self._at += 2 if many else 1
        place: tuple[str | int, ...] = ()
        for key in self._keys():
            place = self._inside(place)
            place += (key,)
        if many:
            self._tables[place] = self._tables.get(place, 0) + 1
        self._at += 2 if many else 1
        self._note(place, start)
        return self._note(self._inside(place), start)

    def _inside(self, place: tuple[str | int, ...]) -> tuple[str | int, ...]:
        """Give the last table of an array of tables; any other table as it is."""
        return (*place, self._tables[place] - 1) if place in self._tables else place

    def _pair(self, table: tuple[str | int, ...]) -> None:
        start = self._at
        place = table
        for key in self._keys():
            place = self._note((*place, key), start)
        self._at += 1
        self._value(place)

    def _keys(self) -> Iterator[str]:
        while found := _KEY.match(self._text, self._at):
            self._at = found.end()
            key = found[1]
            yield tomllib.loads(f"key = {key}")["key"] if key[0] in "\"'" else key
            if not self._text.startswith(".", self._at):
                return
            self._at += 1

    def _value(self, place: tuple[str | int, ...]) -> None:
        self._skip()
        opened = self._text[self._at]
        if opened in "[{":
            self._at += 1
            index = 0
            while self._text[self._skip()] not in "]}":
                if opened == "{":
                    self._pair(place)
                else:
                    self._value(self._note((*place, index), self._at))
                    index += 1
                if self._text[self._skip()] == ",":
                    self._at += 1
            self._at += 1
        else:
            found = _STRING.match(self._text, self._at) or _BARE_VALUE.match(self._text, self._at)
            self._at = found.end() if found else self._at

    def _note(self, place: tuple[str | int, ...], start: int) -> tuple[str | int, ...]:
        self.lines.setdefault(place, self._text.count("\n", 0, start) + 1)
        return place
