"""For people who write their own store, connector or sink: conformance suites, faults, and crash tests.

    JobStoreSuite, SingleWorkerSuite, ConnectorSuite, SinkSuite     pytest classes: override one fixture
    FaultyStore, FaultyConnector, FaultySink, Fault                 a port that fails, dies or freezes at a given call
    crash_points, kill_randomly                                     a real process, killed and started again
    SyncProcesses, SyncParts                                        the processes themselves, for tests of your own

The suites need pytest (`pip install 'resumable_sync[testing]'`); they are loaded when they are asked for.
"""

import importlib
import pkgutil
import sys
from typing import TYPE_CHECKING, Any

from resumable_sync._errors import MissingExtraError
from resumable_sync.testing._crash import CrashReport, crash_points, kill_randomly
from resumable_sync.testing._faults import (
    Fault,
    FaultyConnector,
    FaultySink,
    FaultyStore,
    Raise,
    freeze_process,
    kill_process,
    lose_answer,
)
from resumable_sync.testing._processes import Ended, KillAtStep, SyncParts, SyncProcess, SyncProcesses

if TYPE_CHECKING:
    from resumable_sync.testing._connector_suite import ConnectorSuite
    from resumable_sync.testing._sink_suite import SinkSuite
    from resumable_sync.testing._store_suite import JobStoreSuite, SingleWorkerSuite

__all__ = [
    "ConnectorSuite",
    "CrashReport",
    "Ended",
    "Fault",
    "FaultyConnector",
    "FaultySink",
    "FaultyStore",
    "JobStoreSuite",
    "KillAtStep",
    "Raise",
    "SingleWorkerSuite",
    "SinkSuite",
    "SyncParts",
    "SyncProcess",
    "SyncProcesses",
    "crash_points",
    "freeze_process",
    "kill_process",
    "kill_randomly",
    "lose_answer",
]

_SUITES = {
    "ConnectorSuite": "_connector_suite",
    "JobStoreSuite": "_store_suite",
    "SingleWorkerSuite": "_store_suite",
    "SinkSuite": "_sink_suite",
}


def __getattr__(name: str) -> Any:
    module = _SUITES.get(name)
    if module is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        import pytest  # noqa: PLC0415 - the faults work without it
    except ModuleNotFoundError:
        package, extra = "pytest", "testing"
        raise MissingExtraError(package, extra) from None
    # Without it a failed assert of a suite would not show its values; it must come before the import.
    pytest.register_assert_rewrite(*_not_imported())
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def _not_imported() -> list[str]:
    """Give the modules of this folder that are still to be imported; of any other pytest would warn."""
    found = [module.name for module in pkgutil.iter_modules(__path__, f"{__name__}.")]
    return [name for name in found if name not in sys.modules]
