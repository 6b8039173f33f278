"""Every command of the project, each in an environment of its own: `nox -s NAME -- arguments`.

Without a name: lint, typing, and the tests on every supported Python that is installed.
"""

import os
import shutil
from pathlib import Path

import nox
from nox.virtualenv import UV

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "typing", "tests"]
# CI=true would turn it on, and not every machine has every Python; .ci/run sees to it that tests were run.
nox.options.error_on_missing_interpreters = False
# A Python that is not installed is skipped, not looked for on the network.
nox.options.download_python = "never"


def switch_on_pyenv() -> None:
    """Make pyenv's commands work for each supported Python it has; those of versions not switched on fail."""
    root = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    versions = [path.name for python in PYTHONS for path in sorted(root.glob(f"versions/{python}.*"))[-1:]]
    if versions:
        os.environ.setdefault("PYENV_VERSION", ":".join(versions))


switch_on_pyenv()
# uv compiles nothing. Where Python may not keep what it compiled, each process that a test starts would compile all of
# its imports again, and so would pytest with the tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def install(session: nox.Session, *groups: str) -> None:
    """Install the wheel, which is what users get, with all extras and the dependency groups."""
    session.install(".[all]", *nox.project.dependency_groups(PROJECT, *groups))


# What differs from Python to Python is in the engine and in what works on SQLite; with other versions of what is
# imported, also what the adapters do on a server. The conformance suites do the same things in every order and size.
ONCE_MORE = ("-m", "not crash and not kills and not once and not suite and not server")
# What differs on a Python between the oldest and the newest one is in the engine, if anywhere.
BETWEEN = (
    *("-m", "not crash and not kills and not once and not suite and not server and not adapter"),
    *(f"--ignore=tests/{name}" for name in ("cli", "connectors", "observers", "partitions", "report", "sinks")),
    *(f"--ignore=tests/{name}" for name in ("testing", "worked")),
)
LOWEST = ("-m", "not crash and not kills and not once and not suite and (not server or adapter)")
# All of their tests are left out by these marks: they need not even be imported.
KILLS = tuple(f"--ignore=tests/{name}" for name in ("crash", "machine", "trouble"))
# One more than a small machine has processors: many tests wait, for leases to end and for servers.
PARALLEL = ("--numprocesses=3", "--dist=worksteal")
seen: list[object] = []


def run_pytest(session: nox.Session, *arguments: str) -> None:
    """Run pytest and leave a JUnit file for .ci/run."""
    session.run("python", "-m", "pytest", f"--junit-xml=test-results/{session.name}.xml", *arguments, *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests against the built wheel; on the first Python with all kills and servers."""
    install(session, "test")
    seen.append(session.python)
    newer = PYTHONS[PYTHONS.index(str(session.python)) + 1 :]
    between = any(shutil.which(f"python{python}") for python in newer)
    run_pytest(session, *PARALLEL, *((*(BETWEEN if between else ONCE_MORE), *KILLS) if len(seen) > 1 else ()))


@nox.session(python=PYTHONS[0], venv_backend="uv")
def tests_lowest(session: nox.Session) -> None:
    """Run the tests on the oldest Python with the lowest versions that pyproject.toml allows."""
    session.install("--resolution=lowest-direct", "-r", "pyproject.toml", "--all-extras", "--group=test")
    session.install("--no-deps", ".")
    # What these show does not depend on the versions of other packages.
    ours = ("engine", "partitions", "report", "testing", "test_cursor.py", "test_examples.py", "test_sizer.py")
    run_pytest(session, *PARALLEL, *LOWEST, *KILLS, *(f"--ignore=tests/{name}" for name in ours))


@nox.session
def crash(session: nox.Session) -> None:
    """Kill syncs a thousand times per backend; takes long."""
    install(session, "test")
    run_pytest(session, "-m", "crash", "--timeout=7200")


@nox.session
def machine(session: nox.Session) -> None:
    """Let anything happen to a job in any order, 2,000 times 50 steps, and hold it against a model."""
    install(session, "test")
    examples = {"RESUMABLE_SYNC_TEST_EXAMPLES": os.environ.get("RESUMABLE_SYNC_TEST_EXAMPLES", "2000")}
    session.run("python", "-m", "pytest", "tests/machine", "--timeout=7200", *session.posargs, env=examples)


@nox.session(venv_backend="uv")
def mutants(session: nox.Session) -> None:
    """Change the engine a little, thousands of times, and see whether a test notices: `nox -s mutants -- _lease`."""
    # Not the wheel: it is a changed copy of the sources that is tested.
    session.install("-r", "pyproject.toml", "--all-extras", "--group=mutants")
    session.run("python", "tests/mutants/run.py", f"--work={session.create_tmp()}", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure the coverage of the tests, with branches."""
    install(session, "test")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def demo(session: nox.Session) -> None:
    """Show a sync that is killed three times and loses nothing."""
    session.install(".[cli]")
    session.run("resumable-sync", "demo", *session.posargs)


def run_benchmarks(session: nox.Session, *options: str) -> None:
    """Run benchmarks; those with other tools need them in environments of their own."""
    install(session, "test")
    names = [argument for argument in session.posargs if not argument.startswith("-")]
    if not names or {"kills", "peers"} & set(names):
        install_peers(session)
    session.run("python", "-m", "benchmarks._run", *options, *session.posargs)


def install_peers(session: nox.Session) -> None:
    """Make or renew the environment of each tool that benchmarks compare the library with."""
    for group in PROJECT["dependency-groups"]:
        if group.startswith("peer-"):
            folder = str(Path(".nox/peers", group.removeprefix("peer-")).absolute())
            session.run(UV, "venv", "--quiet", "--allow-existing", folder, external=True)
            session.run(UV, "pip", "install", "--quiet", "--python", folder, "--group", group, external=True)


@nox.session
def bench(session: nox.Session) -> None:
    """Run all benchmarks, or those that are named: `nox -s bench -- checkpoint depth`; fails if a bound was missed.

    `nox -s bench -- --keep` keeps the figures in benchmarks/results, and shows them in docs/explanation/performance.md.
    """
    run_benchmarks(session)


@nox.session
def bench_check(session: nox.Session) -> None:
    """Run the benchmarks that have bounds in benchmarks/budget.toml; fails if one was missed, or not measured."""
    run_benchmarks(session, "--check")


@nox.session(venv_backend="none", default=False)
def peers(session: nox.Session) -> None:
    """Make or renew the environments of the tools that benchmarks compare the library with."""
    install_peers(session)


@nox.session
def release(session: nox.Session) -> None:
    """Build wheel and sdist into dist/, check them, and use the wheel alone on every supported Python."""
    session.install(*nox.project.dependency_groups(PROJECT, "release"))
    shutil.rmtree("dist", ignore_errors=True)
    # The wheel is built from the sdist, so what a wheel needs is in both.
    session.run("python", "-m", "build")
    built = sorted(map(str, Path("dist").iterdir()))
    session.run("twine", "check", "--strict", *built)
    for python in PYTHONS:
        session.notify(f"installed-{python}", [path for path in built if path.endswith(".whl")])


USE = """
from importlib.metadata import version
from sqlalchemy import Integer
from resumable_sync import Column, OffsetConnector, __version__, run_full_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore

class Numbers(OffsetConnector):
    def fetch(self, offset, limit):
        return [{"id": number} for number in range(offset, min(offset + limit, 2_500))]

    def columns(self):
        return [Column(name="id", type=Integer(), primary_key=True)]

assert __version__ == version("resumable_sync")
with SQLJobStore("sqlite:///numbers.db") as store:
    assert run_full_sync("numbers", Numbers(), SQLSink("numbers", mode="append"), store=store).status == "completed"
    assert SQLConnector("sqlite:///numbers.db", "numbers").count() == 2_500
"""


@nox.session(python=PYTHONS, default=False)
def installed(session: nox.Session) -> None:
    """Install a wheel with its dependencies and nothing else, and sync with it: `nox -s installed -- dist/*.whl`."""
    session.install(*session.posargs)
    with session.chdir(session.create_tmp()):
        Path("numbers.db").unlink(missing_ok=True)
        session.run("python", "-c", USE)


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types, and that two checkers see the public interface as tests/typing/api.py says."""
    install(session, "typing")
    session.run("mypy", *session.posargs)
    session.run("pyright", env={"PYRIGHT_PYTHON_GLOBAL_NODE": "0"})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session(python=PYTHONS[-1])
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build; every warning is an error."""
    session.install(".[all]", *nox.project.dependency_groups(PROJECT, "docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html", *session.posargs)
