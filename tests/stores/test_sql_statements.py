"""The statements of the store, to the letter, and what of them differs from database to database."""

from typing import Any

import pytest
from sqlalchemy import Dialect
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.dialects.postgresql import psycopg

from resumable_sync.stores import _statements
from resumable_sync.stores._rows import JOB_COLUMNS
from resumable_sync.stores._schema import SCHEMA_VERSION, Names
from resumable_sync.stores._sql_text import SQLText
from resumable_sync.stores._statements import Statements

DIALECTS: list[Any] = [psycopg.dialect, mysql.dialect, sqlite.dialect]
POSTGRESQL, MYSQL, SQLITE = (dialect() for dialect in DIALECTS)
NOW = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"

THIS = "id = %(b_id)s::VARCHAR"
NEWEST = "fencing_token = %(b_token)s"
LETTERS = "job_id = %(b_id)s::VARCHAR"
GRANT = """
    UPDATE p_jobs SET
    stop_requested = CASE WHEN lease_owner = %(b_owner)s::VARCHAR THEN stop_requested ELSE 0 END,
    fencing_token = GREATEST( fencing_token + 1, <now>,
    COALESCE((SELECT value FROM p_meta WHERE name = 'newest_deleted_token'), 0) + 1 ),
    lease_owner = %(b_owner)s::VARCHAR, lease_ttl = %(b_ttl)s, lease_expires_at = <now> + %(b_ttl)s
"""
STATEMENTS = {
    "held_batches": f"SELECT processed_batches FROM p_jobs WHERE {THIS} AND {NEWEST} AND lease_ttl IS NOT NULL",
    "create": """
        INSERT INTO p_jobs
        ( id, status, run, attempt, processed_records, processed_batches, dead_letters, stalled_attempts,
        created_at, fencing_token, stop_requested )
        VALUES (%(b_id)s::VARCHAR, 'pending', 0, 0, 0, 0, 0, 0, <now>, 0, 0) ON CONFLICT DO NOTHING""",
    "grant": f"""
        {GRANT} WHERE {THIS} AND
        (lease_owner IS NULL OR lease_owner = %(b_owner)s::VARCHAR OR lease_expires_at <= <now>) RETURNING <job>""",
    "replace": f"{GRANT} WHERE {THIS} AND {NEWEST} RETURNING <job>",
    "renew": f"""
        UPDATE p_jobs SET lease_ttl = %(b_ttl)s, lease_expires_at = <now> + %(b_ttl)s
        WHERE {THIS} AND {NEWEST} AND lease_ttl IS NOT NULL RETURNING lease_expires_at, stop_requested""",
    "release": f"""
        UPDATE p_jobs SET lease_owner = NULL, lease_ttl = NULL, lease_expires_at = NULL, stop_requested = 0
        WHERE {THIS} AND {NEWEST}""",
    "request_stop": f"UPDATE p_jobs SET stop_requested = 1 WHERE {THIS} AND lease_expires_at > <now>",
    "token_to_delete": f"SELECT fencing_token FROM p_jobs WHERE {THIS} FOR UPDATE",
    "note_deleted": "UPDATE p_meta SET value = GREATEST(value, %(b_token)s) WHERE name = 'newest_deleted_token'",
    "delete": f"DELETE FROM p_jobs WHERE {THIS}",
    "add_letter": """
        INSERT INTO p_dead_letters (job_id, run, record, columns, error, cursor, key, created_at)
        VALUES (%(job_id)s::VARCHAR, %(run)s, %(record)s, %(columns)s, %(error)s, %(cursor)s, %(key)s,
        COALESCE(%(b_created_at)s, <now>))""",
    "remove_letter": f"DELETE FROM p_dead_letters WHERE {LETTERS} AND id = %(b_letter)s",
    "purge_letters": f"DELETE FROM p_dead_letters WHERE {LETTERS}",
}


class Written:
    """Stands for a statement that is prepared."""

    def __init__(self, statement: Any, dialect: Dialect, *, returns: bool) -> None:
        self.statement = statement
        self.returns = returns


@pytest.fixture(autouse=True)
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_statements, "Prepared", Written)


def statements(dialect: Dialect, version: int = SCHEMA_VERSION, *, relaxed: bool = False, prefix: str = "p_") -> Any:
    return Statements(SQLText(Names(prefix), dialect), version, relaxed=relaxed)


def sql(name: str, dialect: Dialect, version: int = SCHEMA_VERSION, **options: Any) -> str:
    statement: Any = getattr(statements(dialect, version, **options), name)
    if isinstance(statement, Written):
        statement = statement.statement
    return " ".join(str(statement.compile(dialect=dialect)).split())


@pytest.mark.parametrize("name", STATEMENTS)
def test_they_are_what_they_should_be(name: str) -> None:
    job = sql("load", POSTGRESQL).removeprefix("SELECT ").partition(" FROM p_jobs")[0]
    assert sql(name, POSTGRESQL) == " ".join(STATEMENTS[name].replace("<now>", NOW).replace("<job>", job).split())


def test_names_are_quoted_where_the_database_wants_that() -> None:
    assert ", error, `cursor`, `key`, created_at" in sql("letters", MYSQL)
    assert ", `cursor` = %s, " in sql("save", MYSQL)
    assert sql("delete", POSTGRESQL, prefix="Etl_").startswith('DELETE FROM "Etl_jobs" WHERE ')
    assert sql("note_deleted", SQLITE, prefix="1_").startswith('UPDATE "1_meta" SET value = max(value, ?) WHERE ')


def test_nothing_is_locked_where_all_is_locked_anyway() -> None:
    assert sql("token_to_delete", SQLITE) == "SELECT fencing_token FROM p_jobs WHERE id = ?"


@pytest.mark.parametrize("dialect", [POSTGRESQL, MYSQL, SQLITE], ids=["first", "second", "third"])
def test_jobs_are_read_with_the_clock(dialect: Dialect) -> None:
    load, jobs, letters = (sql(name, dialect) for name in ("load", "jobs", "letters"))
    assert jobs.endswith(" AS now FROM p_jobs ORDER BY id")
    assert load.startswith(jobs.partition(" FROM p_jobs")[0])
    assert " FROM p_jobs WHERE id = " in load
    assert " saved_token, " in load
    assert letters.startswith("SELECT id, job_id, run, ")
    assert " FROM p_dead_letters WHERE job_id = " in letters
    assert letters.endswith(" ORDER BY id")


@pytest.mark.parametrize(
    ("version", "missing"), [(1, {"stalled_attempts", "batch_size", "saved_token"}), (2, {"batch_size", "saved_token"})]
)
def test_of_older_tables_those_columns_are_read_that_there_are(version: int, missing: set[str]) -> None:
    now, then = (set(sql("load", SQLITE, of)[len("SELECT ") :].split(", ")) for of in (SCHEMA_VERSION, version))
    assert now - then == missing


@pytest.mark.parametrize("name", ["grant", "replace"])
def test_the_grant_gives_the_job_where_an_update_can(name: str) -> None:
    assert " RETURNING " not in sql(name, MYSQL)
    for dialect in (POSTGRESQL, SQLITE):
        job = sql(name, dialect).partition(" RETURNING ")[2]
        assert sql("load", dialect).startswith(f"SELECT {job} FROM p_jobs ")
        assert getattr(statements(dialect), name).get_execution_options()["stream_results"] is False


@pytest.mark.parametrize("name", ["save", "renew"])
def test_the_update_tells_what_it_made_of_the_lease_or_else_a_select_does(name: str) -> None:
    asked = " WHERE id = %s AND fencing_token = %s AND lease_ttl IS NOT NULL"
    assert sql(name, MYSQL).endswith(asked)
    assert sql("extended", MYSQL) == "SELECT lease_expires_at, stop_requested FROM p_jobs WHERE id = %s"
    assert statements(MYSQL).extended.returns
    assert not getattr(statements(MYSQL), name).returns
    for dialect in (POSTGRESQL, SQLITE):
        assert statements(dialect).extended is None
        assert getattr(statements(dialect), name).returns
    assert sql(name, SQLITE).endswith(" RETURNING lease_expires_at, stop_requested")


def test_saving_extends_the_lease_and_sets_every_column_of_the_job() -> None:
    text = sql("save", POSTGRESQL)
    extended = f"lease_expires_at = {NOW} + lease_ttl WHERE {THIS} AND {NEWEST} AND lease_ttl IS NOT NULL "
    assert f", saved_token = fencing_token, {extended}" in text
    for column in JOB_COLUMNS:
        assert f" {column} = %({column})s, " in text


def test_saving_limits_how_long_the_transaction_may_be_idle_where_the_server_can() -> None:
    limit = "set_config('idle_in_transaction_session_timeout', CAST(LEAST(GREATEST(lease_ttl / 1000, 10000), "
    assert limit in sql("save", POSTGRESQL)
    assert "set_config" not in sql("save", SQLITE) + sql("save", MYSQL)


def test_a_relaxed_save_asks_for_the_run_and_the_batches_that_it_stands_on_and_lets_the_commit_not_wait() -> None:
    where, _, told = sql("save", POSTGRESQL).partition(" RETURNING ")
    run = "CAST(%(b_run)s AS VARCHAR(36))"
    bounds = f"processed_batches BETWEEN %(b_least)s AND %(b_most)s AND ({run} IS NULL OR run_id = {run})"
    enlisted = f"{where} AND {bounds} RETURNING {told}"
    assert sql("save_enlisted", POSTGRESQL, relaxed=True) == enlisted  # how it commits is its caller's business
    assert sql("save", POSTGRESQL, relaxed=True) == (
        f"{enlisted}, set_config('synchronous_commit', CASE status WHEN 'running' THEN 'off' "
        "ELSE current_setting('synchronous_commit') END, true)"
    )


def test_otherwise_a_save_is_the_same_in_any_transaction() -> None:
    for dialect in (POSTGRESQL, MYSQL, SQLITE):
        made = statements(dialect)
        assert made.save_enlisted is made.save


def test_a_row_of_the_same_key_is_left_as_it_is() -> None:
    assert sql("create", MYSQL).startswith("INSERT IGNORE INTO p_jobs ")
    assert "CONFLICT" not in sql("create", MYSQL)
    assert sql("create", SQLITE).startswith("INSERT INTO p_jobs ")
    assert sql("create", SQLITE).endswith(" ON CONFLICT DO NOTHING")
