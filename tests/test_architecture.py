"""A module imports only modules below it, and optional packages only where they are needed.

`MODULES` is the architecture, from the bottom to the top: a module may import those above it in this table, as far as
`MAY_USE` lets its part. A new module of the core gets one line; one in an adapter's folder needs none.
"""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

# Found, not imported: the rules are about the text.
SPEC = find_spec("resumable_sync")
assert SPEC is not None
assert SPEC.origin is not None
ROOT = Path(SPEC.origin).parent
MAX_LINES = 450

pytestmark = pytest.mark.once

MODULES = {
    "_driver_errors": "contract",
    "_errors": "contract",
    "_cursor": "contract",
    "_fingerprint": "contract",
    "_python_values": "contract",
    "_model": "contract",
    "_events": "contract",
    "_ranges": "contract",
    "_protocols": "contract",
    "_formats": "contract",
    "_history": "contract",
    "_split": "contract",
    "_validate": "shared",
    "_close": "shared",
    "_cycle": "shared",
    "_hidden": "shared",
    "_plain": "shared",
    "_anchor": "shared",
    "_offset_part": "shared",
    "_bases": "shared",
    "_sinks": "shared",
    "_postgresql": "adapter",
    "_database": "adapter",
    "_driver_rows": "adapter",
    "_arrow": "adapter",
    "_arrow.columns": "adapter",
    "_arrow.cast": "adapter",
    "_arrow.dbapi": "adapter",
    "_arrow.dialects": "adapter",
    "_arrow.adbc": "adapter",
    "_zstd": "adapter",
    "_fsspec": "adapter",
    "_attempts": "engine",
    "_attempts.host": "engine",
    "_prefetch": "engine",
    "_retry": "engine",
    "_restart": "engine",
    "_attempts.stop": "engine",
    "_attempts.throttle": "engine",
    "_attempts.sizer": "engine",
    "_attempts.observers": "engine",
    "_attempts.options": "engine",
    "_attempts.ports": "engine",
    "_attempts.pieces": "engine",
    "_lease": "engine",
    "_attempts.reader": "engine",
    "_attempts.pages": "engine",
    "_attempts.count": "engine",
    "_attempts.acquire": "engine",
    "_attempts.early": "engine",
    "_attempts.checkpoint": "engine",
    "_attempts.unpublished": "engine",
    "_parts": "engine",
    "_parts.plan": "engine",
    "_attempts.dead_letters": "engine",
    "_attempts.start": "engine",
    "_attempts.deliver": "engine",
    "_attempts.report": "engine",
    "_attempts.recorder": "engine",
    "_attempts.attempt": "engine",
    "_attempts.session": "engine",
    "_default_store": "engine",
    "_replay": "engine",
    "_reset": "engine",
    "_engine": "engine",
    "_parts.part": "engine",
    "_parts.workers": "engine",
    "_parts.whole": "engine",
    "_parts.coordinator": "engine",
    "_partition": "engine",
    "_verification": "engine",
    "_verification.tally": "engine",
    "_verification.canonical": "engine",
    "_verification.compare": "engine",
    "_verification.walk": "engine",
    "_verify": "engine",
    # It finds the adapters by name, and imports none.
    "registry": "engine",
    "__main__": "cli",
}

# The modules of a folder may use what stands beside them with an underscore, and nothing of another folder.
FOLDERS = {
    "connectors": "adapter",
    "sinks": "adapter",
    "stores": "adapter",
    "testing": "testing",
    "observers": "observer",
    "report": "report",
    "cli": "cli",
}

MAY_USE = {
    "contract": {"contract"},
    "shared": {"contract", "shared"},
    "engine": {"contract", "shared", "engine"},
    "adapter": {"contract", "shared", "adapter"},
    # As far as it loads neither SQLAlchemy nor an extra, which test_package.py sees to.
    "facade": {"contract", "shared", "engine", "adapter"},
    "testing": {"contract", "shared", "engine", "adapter", "facade", "testing"},
    "observer": {"contract", "observer"},
    "report": {"contract", "shared", "engine", "report"},
    # On top of everything.
    "cli": {"contract", "shared", "engine", "adapter", "facade", "observer", "report", "cli"},
}

# What a part may use of the modules below it, where that is less than all of them.
ONLY = {"observer": {"_errors", "_events"}}

# Imports that go upwards, each inside a function or for the types alone, with the reason.
DEFERRED = {
    (
        "_attempts.unpublished",
        "sinks._registry",
    ): "the register tells what other sinks would leave unpublished; SQLAlchemy is loaded then",
    ("_default_store", "stores.sql"): "store=None is a SQLJobStore, and who gives a store does not pay for SQLAlchemy",
    ("_default_store", "stores.redis"): "or a RedisJobStore, where the environment names one",
}

# What is not of the standard library, and who may import it; a folder stands for its modules. An optional package
# belongs to the modules that need it.
PACKAGES = {
    "attrs": {"*"},
    "typing_extensions": {"*"},
    "stamina": {"_retry"},
    "sqlalchemy": {
        "_postgresql",
        "_database",
        "_arrow.columns",
        "_arrow.adbc",
        "_arrow.dialects",
        "connectors",
        "sinks",
        "stores",
        "testing",
    },
    "pymysql": {"connectors._statements"},
    "httpx2": {"connectors._http_answer", "connectors._http_link", "connectors.http"},
    "httpcore2": {"connectors._http_link", "connectors._http_network"},
    "psycopg": {"connectors._arrow_pages", "connectors._copy_text"},
    "adbc_driver_manager": {"_arrow.dbapi", "connectors._arrow_pages"},
    "adbc_driver_postgresql": {"connectors._arrow_pages"},
    "pyarrow": {
        "_arrow.columns",
        "_arrow.cast",
        "_arrow.dbapi",
        "_python_values",
        "connectors._arrow_exact",
        "connectors.parquet",
        "sinks._arrow_schema",
        "sinks._adbc_arrow",
        "sinks._ingest",
        "sinks._copy_arrow",
        "sinks.parquet",
    },
    "fsspec": {"_fsspec"},
    "aiohttp": {"_fsspec"},
    "backports": {"_zstd"},
    "compression": {"_zstd"},
    "redis": {"stores._redis_link", "stores.redis"},
    "pytest": {"testing"},
    "rich": {"observers.rich", "cli"},
    "tqdm": {"observers.tqdm"},
    "opentelemetry": {"observers.opentelemetry"},
    "click": {"cli"},
}


class Import(NamedTuple):
    target: str
    line: int
    in_function: bool
    for_types: bool


def imports(node: ast.AST, *, in_function: bool = False, for_types: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, in_function, for_types)
        elif isinstance(child, ast.ImportFrom):
            source = "." * child.level + (child.module or "")
            for target in {f"{source}.{alias.name}" for alias in child.names}:
                # `from package import module` leads to the module, `from module import name` to the module too.
                found = target if target.removeprefix("resumable_sync.") in SOURCES else source
                yield Import(found, child.lineno, in_function, for_types)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from imports(ast.Module(child.body, []), in_function=in_function, for_types=True)
            yield from imports(ast.Module(child.orelse, []), in_function=in_function, for_types=for_types)
        else:
            deeper = in_function or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from imports(child, in_function=deeper, for_types=for_types)


def part_of(module: str) -> str | None:
    return "facade" if not module else part_of_folder(module) or MODULES.get(module)


def part_of_folder(module: str) -> str | None:
    return FOLDERS.get(module.partition(".")[0])


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))}


def problems(module: str, source: str) -> list[str]:
    found = set()
    for entry in imports(ast.parse(source)):
        head, _, rest = entry.target.partition(".")
        if not head:
            problem: str | None = "is relative; write the full name"
        elif head == "resumable_sync":
            problem = own_problem(module, rest, entry)
        else:
            problem = package_problem(module, head, entry)
        if problem is not None:
            found.add(f"line {entry.line}: {entry.target} {problem}")
    return sorted(found)


def own_problem(module: str, target: str, entry: Import) -> str | None:
    part, target_part = part_of(module), part_of(target)
    if part is None or target_part is None:
        return "has no line in MODULES"
    if (module, target) in DEFERRED:
        return None if entry.in_function or entry.for_types else "may be imported inside a function only"
    if target_part != part and target not in ONLY.get(part, {target}):
        return f"is not among what {part!r} may use: {', '.join(sorted(ONLY[part]))}"
    if target_part not in MAY_USE[part]:
        return f"is of the part {target_part!r}, which {part!r} may not use"
    return folder_problem(module, target) if part_of_folder(target) else order_problem(module, target)


def folder_problem(module: str, target: str) -> str | None:
    if part_of_folder(module) is None or part_of(module) in {"testing", "cli"}:
        return None if part_of(module) in {"facade", "testing", "cli"} else f"is above {module}"
    folder, _, name = target.partition(".")
    if folder != module.partition(".")[0]:
        return "is in the folder of another port"
    if module == folder or name.startswith("_"):
        return None
    return "is another adapter; what both need goes into a module with an underscore"


def order_problem(module: str, target: str) -> str | None:
    order = list(MODULES)
    if module in MODULES and order.index(target) >= order.index(module):
        return f"is not below {module}"
    return None


def package_problem(module: str, package: str, entry: Import) -> str | None:
    if package in sys.stdlib_module_names:
        return None
    owners = PACKAGES.get(package)
    if owners is None:
        return "has no line in PACKAGES"
    if owners & {"*", module, module.partition(".")[0]}:
        return None
    if entry.for_types and package == "sqlalchemy":
        return None
    return f"may be imported only in {', '.join(sorted(owners))}"


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_has_its_place(module: str) -> None:
    assert part_of(module) is not None, f"give {module} its line in MODULES, above the modules that import it"


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_imports_only_what_its_place_allows(module: str) -> None:
    assert problems(module, SOURCES[module]) == []


@pytest.mark.parametrize("module", SOURCES)
def test_no_file_is_long(module: str) -> None:
    assert SOURCES[module].count("\n") <= MAX_LINES


def test_every_line_names_a_module() -> None:
    assert [module for module in MODULES if module not in SOURCES] == []


def test_no_modules_import_each_other() -> None:
    graph = {
        module: {
            entry.target.removeprefix("resumable_sync").removeprefix(".")
            for entry in imports(ast.parse(source))
            if entry.target.startswith("resumable_sync") and not entry.in_function
        }
        for module, source in SOURCES.items()
    }
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("_model", "from resumable_sync._errors import StoreError"),
        ("_model", "if TYPE_CHECKING:\n    from sqlalchemy import Connection"),
        ("stores.sql", "from resumable_sync.stores._leases import Grant"),
        ("stores.sql", "from resumable_sync.stores import _leases"),
        ("stores.sql", "import sqlalchemy.dialects.sqlite"),
        ("testing.suites", "from resumable_sync import run_full_sync"),
        ("testing.suites", "from resumable_sync.stores.memory import MemoryJobStore"),
        ("", "from resumable_sync.stores.memory import MemoryJobStore"),
        ("stores", "from resumable_sync.stores.memory import MemoryJobStore"),
        ("observers.rich", "from resumable_sync._events import Event"),
        ("cli.app", "from resumable_sync.observers.rich import RichProgress"),
        ("cli.app", "from resumable_sync import registry, run_full_sync"),
    ],
)
def test_an_import_downwards_is_allowed(module: str, source: str) -> None:
    assert problems(module, source) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("_cursor", "from resumable_sync._model import Job"),
        ("_cursor", "def f():\n    from resumable_sync._model import Job"),
        ("_cursor", "if TYPE_CHECKING:\n    from resumable_sync._model import Job"),
        ("_cursor", "from ._errors import CursorError"),
        ("_attempts.session", "from resumable_sync import Job"),
        ("_attempts.session", "from resumable_sync._unheard_of import thing"),
        ("_attempts.session", "from resumable_sync.stores.sql import SQLJobStore"),
        ("_attempts.session", "from resumable_sync._database import make_engine"),
        ("_attempts.session", "from sqlalchemy import text"),
        ("_attempts.session", "def f():\n    import sqlalchemy.orm"),
        ("_attempts.session", "try:\n    import numpy\nexcept ImportError:\n    pass"),
        ("stores.sql", "from resumable_sync._attempts.session import Session"),
        ("stores.sql", "from resumable_sync.sinks.sql import SQLSink"),
        ("stores.sql", "from resumable_sync.stores.memory import MemoryJobStore"),
        ("stores.sql", "from resumable_sync.stores import memory"),
        ("", "from resumable_sync.testing import JobStoreSuite"),
        ("", "import sqlalchemy"),
        ("stores.sql", "from resumable_sync.testing import JobStoreSuite"),
        ("stores.sql", "import psycopg"),
        ("observers.rich", "from resumable_sync._model import Job"),
        ("observers.rich", "from resumable_sync import Job"),
        ("observers.rich", "from resumable_sync.observers.tqdm import TqdmProgress"),
        ("observers.rich", "import click"),
        ("registry", "from resumable_sync.connectors.sql import SQLConnector"),
        ("stores.sql", "from resumable_sync import registry"),
        ("_attempts.session", "from resumable_sync.cli import main"),
    ],
)
def test_any_other_import_is_found(module: str, source: str) -> None:
    assert len(problems(module, source)) == 1
