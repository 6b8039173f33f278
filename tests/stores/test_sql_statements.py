"""The statements of the store, to the letter, and what of them differs from database to database.

PostgreSQL's way of writing them shows the types of the parameters too.
"""

from typing import Any

import pytest
from sqlalchemy import Dialect
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.dialects.postgresql import psycopg

from resumable_sync.stores import _schema, _statements
from resumable_sync.stores._rows import JOB_COLUMNS
from resumable_sync.stores._statements import Statements

TABLES = _schema.tables("p_")
DIALECTS: list[Any] = [psycopg.dialect, mysql.dialect, sqlite.dialect]
POSTGRESQL, MYSQL, SQLITE = (dialect() for dialect in DIALECTS)
NOW = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"

JOB = "p_jobs.id = %(b_id)s::VARCHAR"
NEWEST = "p_jobs.fencing_token = %(b_token)s::BIGINT"
LETTERS = "p_dead_letters.job_id = %(b_id)s::VARCHAR"
GRANT = """
    UPDATE p_jobs SET
    stop_requested=CASE WHEN (p_jobs.lease_owner = %(b_owner)s::VARCHAR)
    THEN p_jobs.stop_requested ELSE %(param_1)s::INTEGER END,
    fencing_token=GREATEST(p_jobs.fencing_token + %(fencing_token_1)s::BIGINT, <now>,
    coalesce((SELECT p_meta.value FROM p_meta WHERE p_meta.name = %(name_1)s::VARCHAR), %(coalesce_1)s::INTEGER)
    + %(coalesce_2)s::BIGINT),
    lease_owner=%(b_owner)s::VARCHAR, lease_ttl=%(b_ttl)s::BIGINT, lease_expires_at=(<now> + %(b_ttl)s::BIGINT)
"""
STATEMENTS = {
    "held_batches": f"""
        SELECT p_jobs.processed_batches FROM p_jobs WHERE {JOB} AND {NEWEST} AND p_jobs.lease_ttl IS NOT NULL""",
    "create": """
        INSERT INTO p_jobs
        (id, status, run, attempt, processed_records, processed_batches, dead_letters, stalled_attempts,
        created_at, fencing_token, stop_requested) VALUES
        (%(b_id)s::VARCHAR, %(status)s::VARCHAR, %(run)s::BIGINT, %(attempt)s::BIGINT, %(processed_records)s::BIGINT,
        %(processed_batches)s::BIGINT, %(dead_letters)s::BIGINT, %(stalled_attempts)s::BIGINT,
        <now>, %(fencing_token)s::BIGINT, %(stop_requested)s::SMALLINT)
        ON CONFLICT DO NOTHING""",
    "grant": f"""
        {GRANT} WHERE {JOB} AND
        (p_jobs.lease_owner IS NULL OR p_jobs.lease_owner = %(b_owner)s::VARCHAR OR p_jobs.lease_expires_at <= <now>)
        """,
    "replace": f"{GRANT} WHERE {JOB} AND {NEWEST}",
    "renew": f"""
        UPDATE p_jobs SET lease_expires_at=(<now> + %(b_ttl)s::BIGINT), lease_ttl=%(b_ttl)s::BIGINT
        WHERE {JOB} AND {NEWEST} AND p_jobs.lease_ttl IS NOT NULL
        RETURNING p_jobs.lease_expires_at, p_jobs.stop_requested""",
    "release": f"""
        UPDATE p_jobs SET lease_owner=%(lease_owner)s::VARCHAR, lease_expires_at=%(lease_expires_at)s::BIGINT,
        lease_ttl=%(lease_ttl)s::BIGINT, stop_requested=%(stop_requested)s::SMALLINT
        WHERE {JOB} AND {NEWEST}""",
    "request_stop": f"""
        UPDATE p_jobs SET stop_requested=%(stop_requested)s::SMALLINT
        WHERE {JOB} AND p_jobs.lease_expires_at > <now>""",
    "token_to_delete": f"SELECT p_jobs.fencing_token FROM p_jobs WHERE {JOB} FOR UPDATE",
    "note_deleted": """
        UPDATE p_meta SET value=GREATEST(p_meta.value, %(b_token)s::BIGINT) WHERE p_meta.name = %(name_1)s::VARCHAR""",
    "delete": f"DELETE FROM p_jobs WHERE {JOB}",
    "add_letter": """
        INSERT INTO p_dead_letters (created_at) VALUES (coalesce(%(b_created_at)s::BIGINT, <now>))
        RETURNING p_dead_letters.id""",
    "remove_letter": f"DELETE FROM p_dead_letters WHERE {LETTERS} AND p_dead_letters.id = %(b_letter)s::BIGINT",
    "purge_letters": f"DELETE FROM p_dead_letters WHERE {LETTERS}",
}
NUMBERS = ("run", "attempt", "processed_records", "processed_batches", "dead_letters", "stalled_attempts")
GRANTED = {"param_1": 0, "fencing_token_1": 1, "name_1": "newest_deleted_token", "coalesce_1": 0, "coalesce_2": 1}
VALUES: dict[str, dict[str, Any]] = {
    "create": {"status": "pending", **dict.fromkeys(NUMBERS, 0), "fencing_token": 0, "stop_requested": 0},
    "grant": GRANTED,
    "replace": GRANTED,
    "release": {"stop_requested": 0},
    "request_stop": {"stop_requested": 1},
    "note_deleted": {"name_1": "newest_deleted_token"},
}
"""The parameters that are always the same."""


class Written:
    """Stands for a statement that is prepared."""

    def __init__(self, statement: Any, dialect: Dialect, column_keys: Any = ()) -> None:
        self.statement = statement
        self.dialect = dialect
        self.column_keys = list(column_keys)


@pytest.fixture(autouse=True)
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_statements, "Prepared", Written)


def compiled(statements: Statements, name: str, dialect: Dialect) -> Any:
    statement: Any = getattr(statements, name)
    if isinstance(statement, Written):
        return statement.statement.compile(dialect=statement.dialect, column_keys=statement.column_keys)
    return statement.compile(dialect=dialect)


def sql(name: str, dialect: Dialect, version: int = _schema.SCHEMA_VERSION, *, relaxed: bool = False) -> str:
    return " ".join(str(compiled(Statements(TABLES, dialect, version, relaxed=relaxed), name, dialect)).split())


@pytest.mark.parametrize("name", STATEMENTS)
def test_they_are_what_they_should_be(name: str) -> None:
    made = compiled(Statements(TABLES, POSTGRESQL), name, POSTGRESQL)
    assert sql(name, POSTGRESQL) == " ".join(STATEMENTS[name].replace("<now>", NOW).split())
    assert {key: value for key, value in made.params.items() if value is not None} == VALUES.get(name, {})


@pytest.mark.parametrize("dialect", [POSTGRESQL, MYSQL, SQLITE], ids=["first", "second", "third"])
def test_jobs_are_read_with_the_clock(dialect: Dialect) -> None:
    load, jobs, letters = (sql(name, dialect) for name in ("load", "jobs", "letters"))
    assert jobs.endswith(" AS now FROM p_jobs ORDER BY p_jobs.id")
    assert load.startswith(jobs.partition(" FROM p_jobs")[0])
    assert " FROM p_jobs WHERE p_jobs.id = " in load
    assert "p_jobs.saved_token, " in load
    assert letters.startswith("SELECT p_dead_letters.id, p_dead_letters.job_id, p_dead_letters.run, ")
    assert " FROM p_dead_letters WHERE p_dead_letters.job_id = " in letters
    assert letters.endswith(" ORDER BY p_dead_letters.id")


@pytest.mark.parametrize(
    ("version", "missing"), [(1, {"stalled_attempts", "batch_size", "saved_token"}), (2, {"batch_size", "saved_token"})]
)
def test_of_older_tables_those_columns_are_read_that_there_are(version: int, missing: set[str]) -> None:
    now, then = (set(sql("load", SQLITE, of)[len("SELECT ") :].split(", ")) for of in (_schema.SCHEMA_VERSION, version))
    assert now - then == {f"p_jobs.{name}" for name in missing}


@pytest.mark.parametrize("name", ["save", "renew"])
def test_the_update_tells_what_it_made_of_the_lease_or_else_a_select_does(name: str) -> None:
    asked = " WHERE p_jobs.id = %s AND p_jobs.fencing_token = %s AND p_jobs.lease_ttl IS NOT NULL"
    assert sql(name, MYSQL).endswith(asked)
    assert sql("extended", MYSQL) == (
        "SELECT p_jobs.lease_expires_at, p_jobs.stop_requested FROM p_jobs WHERE p_jobs.id = %s"
    )
    for dialect in (POSTGRESQL, SQLITE):
        assert Statements(TABLES, dialect).extended is None
    assert sql(name, SQLITE).endswith(" RETURNING lease_expires_at, stop_requested")


def test_saving_extends_the_lease_and_sets_every_column_of_the_job() -> None:
    text = sql("save", POSTGRESQL)
    assert f", lease_expires_at=({NOW} + p_jobs.lease_ttl), " in text
    assert "saved_token=p_jobs.fencing_token WHERE " in text
    for column in JOB_COLUMNS:
        assert f" {column}=%({column})s::" in text


def test_saving_limits_how_long_the_transaction_may_be_idle_where_the_server_can() -> None:
    limit = "set_config('idle_in_transaction_session_timeout', CAST(LEAST(GREATEST(lease_ttl / 1000, 10000), "
    assert limit in sql("save", POSTGRESQL)
    assert "set_config" not in sql("save", SQLITE) + sql("save", MYSQL)


def test_a_relaxed_save_asks_for_the_batches_that_it_stands_on_and_lets_the_commit_not_wait() -> None:
    where, _, told = sql("save", POSTGRESQL).partition(" RETURNING ")
    bounds = "p_jobs.processed_batches BETWEEN %(b_least)s::BIGINT AND %(b_most)s::BIGINT"
    enlisted = f"{where} AND {bounds} RETURNING {told}"
    assert sql("save_enlisted", POSTGRESQL, relaxed=True) == enlisted  # how it commits is its caller's business
    assert sql("save", POSTGRESQL, relaxed=True) == (
        f"{enlisted}, set_config('synchronous_commit', CASE status WHEN 'running' THEN 'off' "
        "ELSE current_setting('synchronous_commit') END, true)"
    )


def test_otherwise_a_save_is_the_same_in_any_transaction() -> None:
    for dialect in (POSTGRESQL, MYSQL, SQLITE):
        statements = Statements(TABLES, dialect)
        assert statements.save_enlisted is statements.save


def test_a_row_of_the_same_key_is_left_as_it_is() -> None:
    assert sql("create", MYSQL).startswith("INSERT IGNORE INTO p_jobs ")
    assert "CONFLICT" not in sql("create", MYSQL)
    assert sql("create", SQLITE).startswith("INSERT INTO p_jobs ")
    assert sql("create", SQLITE).endswith(" ON CONFLICT DO NOTHING")
