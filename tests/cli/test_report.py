"""The page and the facts of `resumable-sync report`."""

import json
import os
from collections.abc import Callable

import pytest

from cli.commands import Shop
from cli.conftest import Told

Call = Callable[..., Told]


@pytest.fixture(autouse=True)
def interrupted(call: Call, shop: Shop) -> None:
    assert call("run", "--max-records", "300", "-q").status == 75


def test_a_page_is_written(call: Call, shop: Shop) -> None:
    found = call("report", "orders")
    assert (found.status, found.out) == (0, "the report is in report.html\n")
    page = (shop.folder / "report.html").read_text(encoding="utf-8")
    assert "Run 1 was stopped: 300" in page
    assert "max_records=300 reached" in page
    assert call("report", "orders", "-o", "here.html").out == "the report is in here.html\n"
    assert (shop.folder / "here.html").stat().st_mode & 0o777 == 0o666 & ~umask()
    assert sorted(path.name for path in shop.folder.glob("*.html")) == ["here.html", "report.html"]
    assert [path.name for path in shop.folder.glob(".*")] == []


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_all_jobs_are_on_one_page(call: Call, shop: Shop) -> None:
    assert call("report", "--all", "-o", "-").out.count("<details class=") == 1
    listed = call("report", "--all", "--json").out.splitlines()
    assert [json.loads(line)["id"] for line in listed] == ["orders"]


def test_facts_are_those_of_the_page(call: Call, shop: Shop) -> None:
    facts = json.loads(call("report", "orders", "--json").out)
    assert (facts["standing"], facts["guarantee"], facts["processed_records"]) == ("interrupted", "exactly_once", 300)
    assert (facts["next"]["action"], facts["path"], facts["errors"]) == ("resume", None, {})
    assert facts["history"]["stops"] == {"1": "max_records=300 reached"}
    assert sum(sample["records"] for sample in facts["history"]["samples"]) == 300
    assert set(facts["seconds"]) == {"read", "write", "commit", "wait", "away"}
    assert facts["attempts"][0]["outcome"] == "interrupted"
    assert not list(shop.folder.glob("*.html"))
    assert json.loads(call("report", "orders", "--json", "-o", "x.html").out)["path"] == "x.html"
    assert (shop.folder / "x.html").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("report",), "give a JOB, or --all"),
        (("report", "orders", "--all"), "give a JOB, or --all"),
        (("report", "order"), "did you mean 'orders'?"),
        (("report", "orders", "-o", "nowhere/x.html"), "nowhere/x.html cannot be written: No such file or directory"),
        (("report", "orders", "--json", "-o", "-"), "give one of them"),
    ],
)
def test_what_cannot_be_is_usage(call: Call, arguments: tuple[str, ...], said: str) -> None:
    found = call(*arguments)
    assert (found.status, said in found.err) == (2, True), found
