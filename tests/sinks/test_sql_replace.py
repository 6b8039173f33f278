"""`SQLSink(mode="replace")`: the old table or the new one, and what happens to staging tables on the bad days."""

from typing import Any

import pytest
from sqlalchemy import inspect
from sqlalchemy.exc import SQLAlchemyError

from resumable_sync import Column, ConfigurationError, LeaseLostError, StoreError
from sinks.driving import JOB_ID, Target
from sinks.replacing import COLUMNS, Attempt, death, loaded, rows, stagings, states, tables

OLD = [(7, "old")]
MAKE = "CREATE TABLE target (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(50))"


@pytest.fixture
def old(target: Target) -> Target:
    target.execute(MAKE, "INSERT INTO target VALUES (7, 'old')")
    return target


def first(target: Target, **options: Any) -> Attempt:
    return Attempt(target.engine, target.own, **options)


def test_the_target_is_replaced_when_the_run_completes(old: Target) -> None:
    attempt = first(old).begin().write(2)
    assert rows(old.engine) == OLD
    attempt.write().complete()
    assert rows(old.engine) == loaded(3)
    assert tables(old.engine) == {"target"}


def test_a_missing_target_is_there_when_the_run_completes(target: Target) -> None:
    attempt = first(target).begin().write(2)
    assert "target" not in tables(target.engine)
    attempt.complete()
    assert rows(target.engine) == loaded(2)
    assert tables(target.engine) == {"target"}
    looked = inspect(target.engine)
    assert looked.get_pk_constraint("target")["constrained_columns"] == ["id"]
    assert looked.get_indexes("target") == []


def test_a_missing_target_gets_the_key_that_was_named(target: Target) -> None:
    first(target, options={"key": "name"}).begin().write().complete()
    assert inspect(target.engine).get_pk_constraint("target")["constrained_columns"] == ["name"]


def test_a_run_goes_on_over_many_attempts(old: Target) -> None:
    attempt = first(old)
    for _ in range(4):
        attempt.begin().write()
        assert rows(old.engine) == OLD
        assert len(stagings(old.engine)) == 1
        attempt = attempt.next()
    attempt.begin().complete()
    assert rows(old.engine) == loaded(4)
    assert stagings(old.engine) == []


def test_runs_of_two_jobs_take_turns(old: Target) -> None:
    for number in range(2):
        for job_id in ("one", "two"):
            first(old, job_id=job_id, run_id=f"{job_id} {number}").begin().write(number).complete()
            assert rows(old.engine) == loaded(number)
    assert tables(old.engine) == {"target"}
    assert sorted(states(old.engine)) == [("one 1", "superseded"), ("two 1", "swapped")]


def test_two_jobs_load_at_a_time(old: Target) -> None:
    one, two = first(old, job_id="one").begin().write(), first(old, job_id="two").begin().write(2)
    assert len(stagings(old.engine)) == 2
    one.complete()
    assert rows(old.engine) == loaded(1)
    two.write().complete()
    assert rows(old.engine) == loaded(3)
    assert stagings(old.engine) == []


def test_staging_tables_of_dead_runs_are_dropped_and_nothing_else(old: Target) -> None:
    attempt = first(old).begin().write()
    dead = stagings(old.engine)
    other_job = first(old, job_id="other").begin()
    other_target = first(old, table="other").begin()
    left_alone = set(stagings(old.engine)) - set(dead)
    similar = [f"{dead[0][:-1]}x", f"{dead[0]}0", "resumable_sync_staging_2", "resumable_sync_00000000000000000000"]
    old.execute(*(f"CREATE TABLE {name} (id INTEGER)" for name in similar))
    attempt = attempt.next(run_id="run 2", done=0).begin()
    assert not set(dead) & tables(old.engine)
    assert {*left_alone, *similar} < tables(old.engine)
    attempt.write().complete()
    assert tables(old.engine) == {"target", *left_alone, *similar}
    other_job.write(2).complete()
    other_target.write().complete()
    assert tables(old.engine) == {"target", "other", *similar}


def test_a_run_without_progress_begins_anew(old: Target) -> None:
    attempt = first(old)
    for _ in range(3):
        attempt = attempt.begin().next()
    assert len(stagings(old.engine)) == 1
    attempt.begin().begin().complete()
    assert rows(old.engine) == []
    assert tables(old.engine) == {"target"}
    # Completed, and its death noticed only afterwards: it is the same again.
    attempt.next().begin().complete()
    assert rows(old.engine) == []
    assert tables(old.engine) == {"target"}


def test_a_table_in_the_way_is_not_touched(old: Target) -> None:
    attempt = first(old).begin()
    name = stagings(old.engine)[0]
    old.execute(f"DELETE FROM resumable_sync_staging WHERE name = '{name}'")
    if old.kind == "mariadb":
        attempt = attempt.next(token=attempt.token)  # whose staging table would have the same name
    with pytest.raises(ConfigurationError, match=f"table '{name}'.* not made by this library; look what it holds"):
        attempt.begin()
    assert name in tables(old.engine)


def test_a_staging_table_that_somebody_dropped(old: Target) -> None:
    attempt = first(old).begin().write()
    name = stagings(old.engine)[0]
    old.execute(f"DROP TABLE {name}")
    with pytest.raises(StoreError, match=r"dropped; start over"):
        attempt.complete()
    with pytest.raises(SQLAlchemyError):
        attempt.write()
    with pytest.raises(StoreError, match=rf"'{name}', with the rows of this run .*dropped; start over"):
        attempt.next().begin()
    assert rows(old.engine) == OLD
    attempt.next(run_id="run 2", done=0).begin().write().complete()
    assert rows(old.engine) == loaded(1)


def test_a_run_that_was_begun_otherwise(old: Target) -> None:
    if old.own:
        pytest.skip("its checkpoint says so")
    with pytest.raises(StoreError, match=r"there is no staging table of that run.*Go on with that one, or start over"):
        first(old, done=1).begin()
    assert rows(old.engine) == OLD


def test_what_comes_after_the_swap_goes_into_the_target(old: Target) -> None:
    """The process died between the swap and the job's completion, or an incomplete run was published."""
    attempt = first(old).begin().write(2).complete()
    attempt = attempt.next().begin()
    assert rows(old.engine) == loaded(2)
    attempt.write()
    assert rows(old.engine) == loaded(3)
    attempt.complete()
    assert rows(old.engine) == loaded(3)
    assert tables(old.engine) == {"target"}


def test_what_comes_after_the_swap_has_no_place_when_another_job_has_swapped(old: Target) -> None:
    attempt = first(old).begin().write(2).complete()
    first(old, job_id="other").begin().write(1).complete()
    with pytest.raises(StoreError, match=r"another job has replaced since.*start a new run"):
        attempt.next().begin()
    assert rows(old.engine) == loaded(1)
    attempt.next(run_id="run 2", done=0).begin().write(3).complete()
    assert rows(old.engine) == loaded(3)


def test_a_target_that_went_away_while_it_was_loaded_is_there_again(old: Target) -> None:
    attempt = first(old).begin().write(2)
    old.execute("DROP TABLE target")
    attempt.complete()
    assert rows(old.engine) == loaded(2)
    assert tables(old.engine) == {"target"}


def test_a_change_of_the_target_is_not_undone(old: Target) -> None:
    attempt = first(old).begin().write()
    old.execute("ALTER TABLE target ADD COLUMN more INTEGER")
    with pytest.raises(ConfigurationError, match=r"altered.*more"):
        attempt.complete()
    old.execute(f"ALTER TABLE {stagings(old.engine)[0]} ADD COLUMN more INTEGER")
    attempt.complete()
    assert rows(old.engine, "target WHERE more IS NULL") == loaded(1)


@pytest.mark.parametrize("columns", [None, []])
def test_a_missing_target_that_cannot_be_made(target: Target, columns: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"does not tell its columns.*create the table"):
        first(target, columns=columns).begin()
    assert tables(target.engine) == set()


def test_columns_that_do_not_fit_are_refused_before_anything_is_made(old: Target) -> None:
    columns = [*COLUMNS, Column(name="more", type=COLUMNS[0].type)]
    with pytest.raises(ConfigurationError, match=r"table 'target': it has no column 'more'"):
        first(old, columns=columns).begin()
    assert tables(old.engine) == {"target"}


def test_a_view_is_refused(old: Target) -> None:
    old.execute("CREATE VIEW seen AS SELECT id, name FROM target")
    with pytest.raises(ConfigurationError, match=r"(?i)seen.*view"):
        first(old, table="seen").begin()
    assert stagings(old.engine) == []


def test_a_view_of_the_target_shows_the_new_rows(old: Target) -> None:
    if old.kind == "postgresql":
        pytest.skip("its views are bound to the table itself, and refused")
    old.execute("CREATE VIEW seen AS SELECT id, name FROM target", "CREATE VIEW broken AS SELECT * FROM seen")
    attempt = first(old).begin().write(2)
    assert rows(old.engine, "seen") == OLD
    attempt.complete()
    assert rows(old.engine, "seen") == loaded(2)


def test_it_is_used_in_order(old: Target) -> None:
    attempt = first(old)
    with pytest.raises(ConfigurationError, match="before begin"):
        attempt.write()
    with pytest.raises(ConfigurationError, match=r"before begin|fencing token"):
        attempt.complete()
    attempt.sink.prepare(COLUMNS)
    assert rows(old.engine) == OLD


STRIDES = pytest.mark.parametrize("stride", [9, pytest.param(1, marks=pytest.mark.crash)])
"""Which statements: in the usual session every ninth."""


@STRIDES
@pytest.mark.parametrize("exists", [True, False])
def test_a_death_at_any_statement_of_the_completion(target: Target, *, stride: int, exists: bool) -> None:
    """Readers see a whole table, and the next attempt brings the run to its end."""
    before = OLD if exists else None
    died, nth = True, 1 - stride
    while died:
        nth += stride
        target.execute("DROP TABLE IF EXISTS target", *([MAKE, "INSERT INTO target VALUES (7, 'old')"] * exists))
        attempt = first(target, run_id=f"run {nth}").begin().write(2)
        with death(target.engine, nth) as died_at:
            attempt.complete()
        died = died_at()
        assert (rows(target.engine) if "target" in tables(target.engine) else None) in (before, loaded(2))
        attempt.next().begin().write().complete()
        assert rows(target.engine) == loaded(3)
        assert tables(target.engine) == {"target"}
    assert nth > 5


@STRIDES
@pytest.mark.parametrize("progress", [False, True])
def test_a_death_at_any_statement_of_the_beginning(old: Target, *, stride: int, progress: bool) -> None:
    attempt = first(old)
    died, nth = True, 1 - stride
    while died:
        nth += stride
        attempt = attempt.next(run_id=f"run {nth}", done=0)
        if progress:
            attempt = attempt.begin().write().next()
        with death(old.engine, nth) as died_at:
            attempt.begin()
        died = died_at()
        attempt = attempt.next().begin().write()
        assert len(stagings(old.engine)) == 1
    attempt.complete()
    assert rows(old.engine) == loaded(1 + progress)
    assert tables(old.engine) == {"target"}
    assert nth > 5


def test_an_attempt_that_was_overtaken_changes_nothing(old: Target) -> None:
    """In the store's database that saves the job refuses it; a server that commits with DDL refuses it before."""
    if not old.own and old.kind != "mariadb":
        pytest.skip("the store's transaction is what refuses it")
    zombie = first(old).begin().write(2)
    zombie_at_begin = first(old)
    attempt = first(old, done=2).begin()
    with pytest.raises((LeaseLostError, SQLAlchemyError)):
        zombie.write()
    with pytest.raises(LeaseLostError):
        zombie_at_begin.begin()
    with pytest.raises(LeaseLostError):
        zombie.complete()
    assert rows(old.engine) == OLD
    attempt.write()
    with pytest.raises(LeaseLostError):
        zombie.complete()
    attempt.complete()
    assert rows(old.engine) == loaded(3)
    later = attempt.next(run_id="run 2", done=0).begin().write()
    for late in (zombie.complete, zombie_at_begin.begin):
        with pytest.raises(LeaseLostError):
            late()
    assert rows(old.engine) == loaded(3)
    later.complete()
    assert rows(old.engine) == loaded(1)
    assert tables(old.engine) == {"target"}


def test_one_object_serves_many_jobs(old: Target) -> None:
    if old.own:
        pytest.skip("with url= an object is for one job at a time")
    one, two = first(old, job_id="one"), first(old, job_id="two")
    two.sink = one.sink
    one.begin()
    two.begin().write(2)
    one.write(3)
    two.complete()
    assert rows(old.engine) == loaded(2)
    one.complete()
    assert rows(old.engine) == loaded(3)


def test_without_a_lease(old: Target) -> None:
    sink = first(old).sink
    from resumable_sync import Job

    with pytest.raises(ConfigurationError, match="needs the fencing token"), old.engine.begin() as connection:
        sink.begin(Job(id=JOB_ID), None if old.own else connection)
