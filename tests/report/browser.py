"""A real browser, in which pages are looked at."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

__all__ = ["WIDTHS", "look"]

NAMES = ("chromium-headless-shell", "chromium", "google-chrome")
WIDTHS = (390, 800, 1400)
"""A phone, a window, a large screen."""

SECONDS = 120

# Looks at each page from outside, at each width: the pages themselves may run nothing.
LOOKING = """<!doctype html><meta charset="utf-8"><body><pre id="seen"></pre><script>
const seen = [];
const shown = (page, selector) => [...page.querySelectorAll(selector)].filter(one => one.checkVisibility());
const boxes = (page, selector) => shown(page, selector).map(one => one.getBoundingClientRect());
const visible = box => box.width > 0 && box.height > 0;
const overlaps = found => {
  let count = 0;
  for (let one = 0; one < found.length; one++)
    for (let other = one + 1; other < found.length; other++) {
      const [a, b] = [found[one], found[other]];
      if (visible(a) && visible(b) && a.left < b.right - 1 && b.left < a.right - 1 &&
          a.top < b.bottom - 1 && b.top < a.bottom - 1) count++;
    }
  return count;
};
const look = (frame, name, width) => {
  const page = frame.contentDocument, root = page.documentElement;
  const labels = shown(page, ".times, .values").map(one => overlaps(boxes(one, "span")));
  const figures = {};
  for (const one of page.querySelectorAll("[data-figure]"))
    (figures[one.dataset.figure] ??= []).push(one.textContent);
  seen.push({
    name, width, figures,
    title: page.querySelector("h1").textContent,
    overflow: root.scrollWidth - root.clientWidth,
    outside: boxes(page, ".times span, .values span, dd, .pill").filter(
      box => visible(box) && (box.left < 0 || box.right > width)).length,
    overlapping: labels.reduce((sum, one) => sum + one, 0) + overlaps(boxes(page, ".facts > div")),
    charts: boxes(page, "svg").filter(visible).length,
    flat: shown(page, "svg").length && !boxes(page, "svg .line").some(box => box.width > 100),
    cut: shown(page, "dd").filter(one => one.scrollWidth > one.clientWidth).map(one => one.textContent).join(),
    scripts: page.scripts.length,
    background: getComputedStyle(page.body).backgroundColor,
    ink: getComputedStyle(page.body).color,
  });
};
let left = PAGES.length * WIDTHS.length;
for (const name of PAGES) for (const width of WIDTHS) {
  const frame = document.createElement("iframe");
  frame.style = `width:${width}px;height:900px;border:0`;
  frame.onload = () => {
    look(frame, name, width);
    if (!--left) document.getElementById("seen").textContent = JSON.stringify(seen);
  };
  frame.src = `${name}.html`;
  document.body.append(frame);
}
</script>"""


def look(folder: Path, pages: Mapping[str, str], *, dark: bool = False) -> tuple[list[dict[str, Any]], list[str]]:
    """Open pages at all widths; give what is seen of each, and what stands on the console of the browser."""
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    looking = LOOKING.replace("PAGES", json.dumps(list(pages))).replace("WIDTHS", json.dumps(WIDTHS))
    (folder / "looking.html").write_text(looking, encoding="utf-8")
    done = _browse(
        f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        "--allow-file-access-from-files",
        "--enable-logging=stderr",
        "--virtual-time-budget=20000",
        "--dump-dom",
        (folder / "looking.html").as_uri(),
    )
    seen = done.stdout.partition('<pre id="seen">')[2].partition("</pre>")[0]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert seen, done.stderr
    return json.loads(seen.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")), console


def _browse(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = _browser()
    fixed = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
    return subprocess.run([*command, *fixed, *arguments], capture_output=True, text=True, timeout=SECONDS, check=True)


def _browser() -> Sequence[str]:
    found = next((path for path in map(shutil.which, NAMES) if path is not None), None)
    if found is None:
        told = f"there is no browser: none of {', '.join(NAMES)} is installed"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    return [found]
