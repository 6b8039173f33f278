"""Sphinx: `nox -s docs`. Nothing is fetched from the network."""

from importlib.metadata import version as installed
from typing import Any

project = "resumable_sync"
author = "resumable_sync contributors"
copyright = "2026, resumable_sync contributors"  # noqa: A001 - Sphinx's name
release = version = installed("resumable_sync")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"resumable_sync {release}"
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# In docstrings `name` is code, as in Markdown.
default_role = "literal"


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def show_indented_lines_as_they_are(
    _app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Make literal blocks of what stands deeper than the line above the blank one before it, as in Markdown."""
    shown: list[str] = []
    last = ""  # the last line that is not blank
    literal: int | None = None
    for line in lines:
        blank = not line.strip()
        if literal is not None and not blank and _indent(line) < literal:
            literal = None
        starts = not blank and shown and not shown[-1].strip() and _indent(line) > _indent(last)
        if literal is None and starts and not last.lstrip().startswith("- "):
            literal = _indent(line)
            shown += [f"{' ' * _indent(last)}.. code-block:: none", ""]
        shown.append(line)
        last = last if blank else line
    lines[:] = shown


def setup(app: Any) -> None:
    """Connect to Sphinx's events; before napoleon, which takes docstrings apart."""
    app.connect("autodoc-process-docstring", show_indented_lines_as_they_are, priority=100)
