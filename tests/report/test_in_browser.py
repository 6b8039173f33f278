"""Reports in a real browser: at three widths, light and dark, they show what the store has, and nothing goes wrong."""

from pathlib import Path
from typing import Any

import pytest

from report.browser import WIDTHS, look
from report.jobs import NOW, Past, Shop
from resumable_sync.report import job_report, store_report
from resumable_sync.report._words import number

pytestmark = [pytest.mark.once, pytest.mark.kills]

PASTS = {
    "killed": [*(Past(seconds=20 + 7 * one, end="died") for one in range(12)), Past(seconds=40, end="completed")],
    "failed": [Past(seconds=9, end="interrupted"), Past(seconds=30, end="failed", rate=123_456)],
    "stopped": [Past(seconds=5, end="interrupted", away=50_000), Past(seconds=900, end="interrupted")],
    "incomplete": [Past(seconds=3, end="incomplete", rate=1_234_567)],
    "died": [Past(seconds=2, end="died", away=90)],
    "running": [Past(seconds=30, end="running")],
    "fresh": [],
    "<script>alert(1)</script> & a name that is far too long for a job": [Past(seconds=1, end="completed")],
}  # fmt: skip


@pytest.fixture(scope="module")
def shop() -> Shop:
    made = Shop(NOW)
    for job_id, pasts in PASTS.items():
        if pasts:
            made.live(job_id, pasts, total=200_000_000, dead_letters=7 if job_id == "incomplete" else 0)
        else:
            made.store.release(made.store.acquire(job_id, owner="o", ttl=60.0))
    return made


@pytest.fixture(scope="module")
def pages(shop: Shop) -> dict[str, str]:
    made = {f"page{place}": job_report(job_id, store=shop.store) for place, job_id in enumerate(PASTS)}
    return made | {"all": store_report(store=shop.store)}


@pytest.fixture(scope="module")
def light(pages: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], list[str]]:
    return look(tmp_path_factory.mktemp("light"), pages)


def test_nothing_is_told_on_the_console(light: tuple[list[dict[str, Any]], list[str]]) -> None:
    assert light[1] == []


def test_every_page_fits_every_screen(light: tuple[list[dict[str, Any]], list[str]], pages: dict[str, str]) -> None:
    seen, _ = light
    assert {(one["name"], one["width"]) for one in seen} == {(name, width) for name in pages for width in WIDTHS}
    wrong = ("overflow", "outside", "overlapping", "flat", "cut", "scripts")
    found = [(one["title"], one["width"], {what: one[what] for what in wrong}) for one in seen]
    wrong_ones = [one for one in found if any(one[2].values())]
    assert not wrong_ones, "\n".join(map(repr, wrong_ones))


def test_figures_are_those_of_the_store(light: tuple[list[dict[str, Any]], list[str]], shop: Shop) -> None:
    seen = {one["name"]: one for one in light[0]}
    for place, (job_id, pasts) in enumerate(PASTS.items()):
        page, job = seen[f"page{place}"], shop.store.load(job_id)
        assert job is not None
        assert page["title"] == job_id
        figures = page["figures"]
        assert figures["processed_records"] == [number(job.processed_records)]
        assert figures["processed_batches"] == [number(job.processed_batches)]
        assert figures["dead_letters"] == [number(job.dead_letters)]
        assert figures["attempts"] == [number(len(pasts))]
        assert page["charts"] == (3 if pasts else 0)
    standing = {one["figures"]["standing"][0] for one in light[0]}
    assert standing == {"completed", "failed", "interrupted", "incomplete", "died", "pending", "running"}


def test_the_dark_is_dark(light: tuple[list[dict[str, Any]], list[str]], pages: dict[str, str], tmp_path: Path) -> None:
    seen, console = look(tmp_path, {"page0": pages["page0"]}, dark=True)
    assert console == []
    assert _bright(light[0][0]["background"]) > 200
    assert _bright(light[0][0]["ink"]) < 60
    assert _bright(seen[0]["background"]) < 60
    assert _bright(seen[0]["ink"]) > 200


def _bright(color: str) -> float:
    numbers = [float(part) for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    return sum(numbers) / 3
