"""Every "must" of the protocols has a test in a suite: docs/reference/conformance.md says which, and is true."""

import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from resumable_sync import _formats, _history, _protocols, _ranges, _split
from resumable_sync.testing import ConnectorSuite, JobStoreSuite, SinkSuite

pytestmark = pytest.mark.once

PAGE = Path(__file__).parent.parent.parent / "docs/reference/conformance.md"
HEADING = "Implementations must:"
LIST = re.compile(rf"^{HEADING}\n\n((?:- .*\n?(?:  .*\n?)*)+)", re.MULTILINE)
SUITES: dict[str, Any] = {
    "ConnectorSuite": ConnectorSuite,
    "SinkSuite": SinkSuite,
    "JobStoreSuite": JobStoreSuite,
}


class Row(NamedTuple):
    suite: str
    protocol: str
    must: str
    tests: list[str]


def protocols(*modules: ModuleType) -> dict[str, Any]:
    return {
        name: found
        for module in modules
        for name, found in vars(module).items()
        if inspect.isclass(found) and found.__module__ == module.__name__ and getattr(found, "_is_protocol", False)
    }


PROTOCOLS = protocols(_protocols, _split, _ranges, _formats, _history)


def musts(documentation: str) -> list[str]:
    found = LIST.search(inspect.cleandoc(documentation))
    entries = re.split(r"^- ", found[1], flags=re.MULTILINE)[1:] if found else []
    return [" ".join(entry.split()).rstrip(";.") for entry in entries]


def rows(page: str) -> list[Row]:
    found = []
    suite = protocol = ""
    for line in page.splitlines():
        if heading := re.fullmatch(r"## \w+: `(\w+)`", line):
            suite = heading[1]
        elif heading := re.fullmatch(r"### `(\w+)`", line):
            protocol = heading[1]
        elif row := re.fullmatch(r"\| (.*) \| (`.*`) \|", line):
            found.append(Row(suite, protocol, row[1], re.findall(r"`(\w+)`", row[2])))
    return found


def problems(protocols: dict[str, str], page: str) -> list[str]:
    table = rows(page)
    wanted = [(name, must) for name, text in protocols.items() for must in musts(text)]
    listed = [(row.protocol, row.must) for row in table]
    return [
        *(f"has no row: {name}: {must}" for name, must in wanted if (name, must) not in listed),
        *(f"is no must of {name}: {must}" for name, must in listed if (name, must) not in wanted),
        *(f"is listed twice: {name}: {must}" for name, must in set(listed) if listed.count((name, must)) > 1),
        *(
            f"is no test of {row.suite}: {test}"
            for row in table
            for test in row.tests
            if not (test.startswith("test_") and callable(getattr(SUITES.get(row.suite), test, None)))
        ),
    ]


def test_every_must_has_its_tests() -> None:
    documented = {name: protocol.__doc__ or "" for name, protocol in PROTOCOLS.items()}
    assert sum(len(musts(text)) for text in documented.values()) > 40
    assert problems(documented, PAGE.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_a_must_stands_in_the_list(name: str) -> None:
    """Anywhere else in the docstrings of a protocol it would be a must without a test."""
    members = [member for member in vars(PROTOCOLS[name]).values() if inspect.isfunction(member)]
    texts = [member.__doc__ or "" for member in (PROTOCOLS[name], *members)]
    assert [found for text in texts for found in re.findall(r".*\bmust\b.*", text.replace(HEADING, ""))] == []


PAGE_OF_ONE = """## Stores: `JobStoreSuite`

### `Store`

| must | tests |
| --- | --- |
| keep what it was given | `test_every_field_is_kept` |
"""
STORE = "A store.\n\n    Implementations must:\n\n    - keep what it\n      was given.\n    "


@pytest.mark.parametrize(
    ("documentation", "page", "problem"),
    [
        (STORE, PAGE_OF_ONE, None),
        (STORE.replace("given.", "given;\n    - forget nothing."), PAGE_OF_ONE, "has no row: Store: forget nothing"),
        (STORE, PAGE_OF_ONE.replace("keep ", "lose "), "has no row: Store: keep what it was given"),
        (STORE.replace("keep ", "lose "), PAGE_OF_ONE, "is no must of Store: keep what it was given"),
        (STORE, PAGE_OF_ONE.replace("every_field", "nothing"), "is no test of JobStoreSuite: test_nothing_is_kept"),
        (STORE, PAGE_OF_ONE.replace("JobStoreSuite", "SinkSuite"), "is no test of SinkSuite: test_every_field_is_kept"),
        (STORE, PAGE_OF_ONE * 2, "is listed twice: Store: keep what it was given"),
    ],
)
def test_what_is_not_true_is_found(documentation: str, page: str, problem: str | None) -> None:
    found = problems({"Store": documentation}, page)
    assert problem in found if problem else found == []
