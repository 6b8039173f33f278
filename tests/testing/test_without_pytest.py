"""Faults and crash tests work without pytest; only the suites need it, and say how to get it."""

import subprocess
import sys

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
"""


def test_only_the_suites_need_pytest() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "pytest is not installed; install it with: pip install 'resumable_sync[testing]'",
        "module 'resumable_sync.testing' has no attribute 'nothing_of_the_kind'",
    ]
