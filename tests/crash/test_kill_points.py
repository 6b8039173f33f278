"""A process is killed at every step of a sync, started again, and ends exact."""

from collections.abc import Callable

import pytest

from crash.programs import Program
from resumable_sync.testing import CrashReport, crash_points

KINDS = ["sqlite", "postgresql", "mariadb"]
NewDatabase = Callable[[str], str]


def _run(program: Program, *, deaths: int = 1, first: int = 1, every: int = 1) -> CrashReport:
    program.fill()
    report = crash_points(
        program.make,
        expected=program.expected,
        delivered=program.delivered,
        reset=program.reset,
        deaths=deaths,
        first=first,
        every=every,
    )
    report.check()
    return report


@pytest.mark.parametrize(
    ("first", "kind"), [(1, "sqlite"), pytest.param(2, "postgresql", marks=pytest.mark.crash), (3, "mariadb")]
)
def test_in_the_transaction_of_the_store(new_database: NewDatabase, kind: str, first: int) -> None:
    source, target = new_database(kind), new_database(kind)
    report = _run(Program(source=source, store=target, target=target), first=first, every=12)
    assert report.repeated == 0
    assert report.deaths >= 4


@pytest.mark.parametrize(
    ("first", "kind"),
    [(1, "sqlite"), *(pytest.param(2, kind, marks=pytest.mark.crash) for kind in ("postgresql", "mariadb"))],
)
def test_with_a_plain_callable(new_database: NewDatabase, kind: str, first: int) -> None:
    source, target = new_database(kind), new_database(kind)
    # In one thread, so that every step is the same one in every run.
    options = {"batch_size": 6, "prefetch": 0, "count": False}
    program = Program(source=source, store=target, target=target, sink="plain", options=options)
    report = _run(program, first=first, every=8)
    assert report.deaths >= 6
    assert report.repeated > 0, f"nobody died between the sink's commit and the checkpoint: {report.killed_at}"


# Within SQLite and within PostgreSQL rows do not become Python values.
@pytest.mark.parametrize(
    ("store", "target"),
    [
        ("sqlite", "postgresql"),
        ("sqlite", "sqlite"),
        pytest.param("postgresql", "sqlite", marks=pytest.mark.crash),
    ],
)
def test_between_two_databases(new_database: NewDatabase, store: str, target: str) -> None:
    program = Program(source=new_database(target), store=new_database(store), target=new_database(target), sink="own")
    report = _run(program, every=17)
    assert report.repeated == 0
    assert report.deaths >= 2


@pytest.mark.crash
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("deaths", [1, 4])
@pytest.mark.parametrize("sink", ["store", "own", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_step(new_database: NewDatabase, kind: str, sink: str, deaths: int) -> None:
    source, target = new_database(kind), new_database(kind)
    report = _run(Program(source=source, store=target, target=target, sink=sink), deaths=deaths)
    assert (report.repeated > 0) is (sink == "plain")
    assert {"before page", "after page", "before write", "after write", "before save", "after save"} <= set(
        report.killed_at
    )
    assert {"before release", "after release"} <= set(report.killed_at)
    if sink != "plain":
        assert {"before complete", "after complete"} <= set(report.killed_at)
    if sink == "store":
        assert {"before transaction", "after transaction", "before commit", "after commit"} <= set(report.killed_at)
