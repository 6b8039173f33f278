"""Faults and crash tests work without pytest; only the suites need it, and say how to get it."""

import ast
import subprocess
import sys
from pathlib import Path

from resumable_sync import testing

PROGRAM = """
import sys
sys.modules["pytest"] = None
from resumable_sync import MissingExtraError, testing
assert testing.FaultyStore and testing.crash_points
try:
    testing.JobStoreSuite
except MissingExtraError as error:
    print(error)
try:
    testing.nothing_of_the_kind
except AttributeError as error:
    print(error)
assert "sqlalchemy" not in sys.modules


class Pytest:
    def register_assert_rewrite(*names):
        print(*names)
        sys.exit()


sys.modules["pytest"] = Pytest
testing.JobStoreSuite
"""


def asserts(path: Path) -> bool:
    return any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def test_only_the_suites_need_pytest() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    *said, rewritten = done.stdout.splitlines()
    assert said == [
        "pytest is not installed; install it with: pip install 'resumable_sync[testing]'",
        "module 'resumable_sync.testing' has no attribute 'nothing_of_the_kind'",
    ]
    # So that every failed assert of a suite shows its values.
    files = [path.stem for path in Path(testing.__file__).parent.glob("_*.py") if asserts(path)]
    assert len(files) > 8
    assert {f"resumable_sync.testing.{name}" for name in files} <= set(rewritten.split())
