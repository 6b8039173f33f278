"""Jobs, dead letters, attempts and histories as rows and back, to the letter; no database is needed for it."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import attrs
import pytest

from resumable_sync._errors import ConfigurationError, StateCorruptError
from resumable_sync._history import History, Sample
from resumable_sync._model import AttemptRecord, DeadLetter, Guarantee, Job, JobStatus, Lease, Outcome
from resumable_sync.stores._rows import (
    JOB_COLUMNS,
    attempt_from_row,
    check_room,
    history_from_text,
    is_token,
    job_from_row,
    letter_from_row,
    row_of_job,
    row_of_letter,
    text_of_history,
    time_of,
)

RUN_ID = "0a1b2c3d-0000-4000-8000-0123456789ab"
MICROSECONDS = 1_800_000_000_000_000
MOST = 253_402_300_800_000_000
COUNTS = ("run", "attempt", "processed_records", "processed_batches", "dead_letters", "stalled_attempts")
TIMES = ("created_at", "started_at", "updated_at", "finished_at")
ENCODED = '[1,"'


def at(more: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=MICROSECONDS + more)


JOB = Job(
    id="j",
    status=JobStatus.FAILED,
    run=1,
    run_id=RUN_ID,
    attempt=2,
    cursor=[3],
    processed_records=4,
    processed_batches=5,
    total_records=6,
    dead_letters=7,
    fingerprint="source",
    stalled_attempts=8,
    batch_size=9,
    error="OSError: no",
    created_at=at(1),
    started_at=at(2),
    updated_at=at(3),
    finished_at=at(4),
)
ROW: dict[str, Any] = {
    "status": "failed",
    "run": 1,
    "run_id": RUN_ID,
    "attempt": 2,
    "cursor": "[1,[3]]",
    "processed_records": 4,
    "processed_batches": 5,
    "total_records": 6,
    "dead_letters": 7,
    "fingerprint": "source",
    "stalled_attempts": 8,
    "batch_size": 9,
    "error": "OSError: no",
    "created_at": MICROSECONDS + 1,
    "started_at": MICROSECONDS + 2,
    "updated_at": MICROSECONDS + 3,
    "finished_at": MICROSECONDS + 4,
}
NO_LEASE = {
    "fencing_token": 7,
    "lease_owner": None,
    "lease_expires_at": None,
    "lease_ttl": None,
    "stop_requested": 0,
    "saved_token": 6,
}
LEASE = {**NO_LEASE, "lease_owner": "me", "lease_expires_at": MICROSECONDS, "lease_ttl": 60_000_000}
STORED = {"id": "j", **ROW, **LEASE}

# field, value: what the library cannot have written, of any type that a database may give.
NO_COUNTS: tuple[Any, ...] = (-1, True, 1.0, "1", b"1")
NO_TIMES: tuple[Any, ...] = (1.0, "1", True, 10**18, -(10**18))
NO_TEXTS: tuple[Any, ...] = (5, b"x", "[1,5]", "[1,")
NO_CURSORS: tuple[Any, ...] = ("", "[1,", "[1,null]", 5)
DAMAGES: list[tuple[str, Any]] = [
    *((field, value) for field in COUNTS for value in (*NO_COUNTS, None)),
    *(("total_records", value) for value in NO_COUNTS),
    *(("batch_size", value) for value in (*NO_COUNTS, 0)),
    *((field, value) for field in TIMES for value in NO_TIMES),
    *((field, value) for field in ("fingerprint", "error") for value in NO_TEXTS),
    *(("cursor", value) for value in NO_CURSORS),
    *(("status", value) for value in ("", "FAILED", None, 5)),
    *(("run_id", value) for value in ("", RUN_ID.upper(), RUN_ID[:-1], RUN_ID + "0", RUN_ID.replace("-", ""), 5)),
    *(("fencing_token", value) for value in (*NO_COUNTS, None, MOST + 1)),
    *(("saved_token", value) for value in (-1, 1.0, "1", MOST + 1)),
    *(("stop_requested", value) for value in (2, -1, None, True, False, 1.0, "1")),
    *(("lease_owner", value) for value in (None, "", 5, b"me")),
    *(("lease_expires_at", value) for value in (*NO_TIMES, None)),
    *(("lease_ttl", value) for value in (*NO_COUNTS, None, 0)),
]


def job_of(**changes: Any) -> Job:
    row: Any = {**STORED, **changes}
    return job_from_row(row, MICROSECONDS - 1)


def test_a_job_is_a_row() -> None:
    assert row_of_job(JOB) == ROW
    assert {type(row_of_job(JOB)[name]) for name in TIMES} == {int}
    assert tuple(ROW) == JOB_COLUMNS


def test_what_a_new_job_does_not_have_is_null() -> None:
    missing = {name for name, value in row_of_job(Job(id="j")).items() if value is None}
    assert missing == {"run_id", "cursor", "total_records", "fingerprint", "batch_size", "error", *TIMES}


def test_and_back() -> None:
    row: Any = {"id": "j", **ROW, **NO_LEASE}
    assert job_from_row(row, MICROSECONDS) == JOB
    empty: Any = {"id": "j", **row_of_job(Job(id="j")), **NO_LEASE}
    assert job_from_row(empty, MICROSECONDS) == Job(id="j")


def test_of_older_tables_the_columns_that_there_are() -> None:
    row: Any = {
        name: value for name, value in STORED.items() if name not in ("stalled_attempts", "batch_size", "saved_token")
    }
    job = job_from_row(row, MICROSECONDS)
    assert job == attrs.evolve(JOB, stalled_attempts=0, batch_size=None)


@pytest.mark.parametrize("stop_requested", [0, 1])
def test_a_lease_is_shown_as_long_as_it_is_alive(stop_requested: int) -> None:
    row: Any = {**STORED, "stop_requested": stop_requested}
    lease = Lease(job_id="j", owner="me", fencing_token=7, expires_at=at(0), stop_requested=bool(stop_requested))
    assert job_from_row(row, MICROSECONDS - 1) == attrs.evolve(JOB, lease=lease)
    assert job_from_row(row, MICROSECONDS).lease is None


@pytest.mark.parametrize("saved_token", [None, 0, MOST])
def test_the_token_that_saved_a_job_may_be_any_or_none(saved_token: int | None) -> None:
    assert job_of(saved_token=saved_token).id == "j"


def test_the_greatest_token_is_one() -> None:
    assert job_of(fencing_token=MOST).lease == Lease(job_id="j", owner="me", fencing_token=MOST, expires_at=at(0))
    assert [is_token(value) for value in (0, MOST, MOST + 1, -1, True, None)] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(("field", "value"), DAMAGES)
def test_what_the_library_cannot_have_written_is_named(field: str, value: Any) -> None:
    with pytest.raises(StateCorruptError) as caught:
        job_of(**{field: value})
    assert (caught.value.job_id, caught.value.field) == ("j", field)


@pytest.mark.parametrize("value", [None, 5, b"j"])
def test_a_job_without_a_name_cannot_be_named(value: Any) -> None:
    with pytest.raises(StateCorruptError) as caught:
        job_of(id=value)
    assert (caught.value.job_id, caught.value.field) == (None, "id")


@pytest.mark.parametrize("field", COUNTS)
def test_an_attempt_needs_room_to_count_on(field: str) -> None:
    most: dict[str, Any] = {field: 2**62}
    check_room(attrs.evolve(JOB, **most))
    beyond: dict[str, Any] = {field: 2**62 + 1}
    with pytest.raises(StateCorruptError) as caught:
        check_room(attrs.evolve(JOB, **beyond))
    assert (caught.value.job_id, caught.value.field) == ("j", field)


@pytest.mark.parametrize("field", ["error", "fingerprint"])
@pytest.mark.parametrize(
    ("text", "plain"),
    [("", True), ("no", True), ("[1]", True), ("nö", False), ("n\0", False), ("[1,", False), (ENCODED, False)],
)
def test_text_is_stored_as_it_is_where_every_database_can_keep_it(field: str, text: str, *, plain: bool) -> None:
    changed: dict[str, Any] = {field: text}
    stored = row_of_job(attrs.evolve(JOB, **changed))[field]
    assert (stored == text) is plain
    assert stored.isascii()
    assert "\0" not in stored
    assert getattr(job_of(**{field: stored}), field) == text


LETTER = DeadLetter(
    job_id="j",
    run=1,
    record=[5],
    columns=("n", "m"),
    error="ValueError: nö",
    cursor=[0],
    key="k",
    created_at=at(1),
)
LETTER_ROW: dict[str, Any] = {
    "job_id": "j",
    "run": 1,
    "record": "[1,[5]]",
    "columns": '[1,["n","m"]]',
    "error": '[1,"ValueError: n\\u00f6"]',
    "cursor": "[1,[0]]",
    "key": "k",
    "b_created_at": MICROSECONDS + 1,
}
STORED_LETTER = {**LETTER_ROW, "id": 12, "created_at": MICROSECONDS + 1}


def letter_of(**changes: Any) -> DeadLetter:
    row: Any = {**STORED_LETTER, **changes}
    return letter_from_row(row)


def test_a_letter_is_a_row() -> None:
    assert row_of_letter(LETTER) == LETTER_ROW
    bare = row_of_letter(DeadLetter(job_id="j", run=1, record=None, error="", key="k"))
    missing = {name for name, value in bare.items() if value is None}
    assert missing == {"columns", "cursor", "b_created_at"}


def test_and_a_letter_again() -> None:
    assert letter_of() == attrs.evolve(LETTER, id=12, columns=["n", "m"])
    assert letter_of(columns=None, cursor=None, created_at=None, error=None) == attrs.evolve(
        LETTER, id=12, columns=None, cursor=None, created_at=None, error=""
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("run", value) for value in NO_COUNTS),
        *(("record", value) for value in ("", "[", None, 5)),
        *(("columns", value) for value in ("", "[1,5]", "[1,[5]]", '[1,["n",5]]', '[1,"nm"]', '[1,{"n":1}]')),
        *(("error", value) for value in NO_TEXTS),
        *(("cursor", value) for value in NO_CURSORS),
        *(("key", value) for value in (None, 5, "é")),
        *(("created_at", value) for value in NO_TIMES),
    ],
)
def test_a_damaged_letter_is_named(field: str, value: Any) -> None:
    with pytest.raises(StateCorruptError) as caught:
        letter_of(**{field: value})
    assert (caught.value.job_id, caught.value.field) == ("j", field)


def test_a_record_that_cannot_be_kept_is_told_as_one() -> None:
    with pytest.raises(ConfigurationError, match=r"job 'j'.*key k, .*: .*\brecord\b.*on_refused='fail'") as caught:
        row_of_letter(attrs.evolve(LETTER, record={5}))
    assert caught.value.__suppress_context__


ATTEMPT = AttemptRecord(
    job_id="j",
    run=1,
    attempt=2,
    owner="me",
    fencing_token=7,
    started_at=at(1),
    ended_at=at(2),
    from_cursor=[3],
    from_records=4,
    to_cursor=[5],
    to_records=6,
    outcome="failed",
    error="OSError: no",
)
ATTEMPT_ROW: dict[str, Any] = {
    "job_id": "j",
    "run": 1,
    "attempt": 2,
    "owner": "me",
    "fencing_token": 7,
    "started_at": MICROSECONDS + 1,
    "ended_at": MICROSECONDS + 2,
    "from_cursor": "[1,[3]]",
    "from_records": 4,
    "to_cursor": "[1,[5]]",
    "to_records": 6,
    "outcome": "failed",
    "error": "OSError: no",
}


def attempt_of(**changes: Any) -> AttemptRecord:
    row: Any = {**ATTEMPT_ROW, **changes}
    return attempt_from_row(row)


def test_an_attempt_from_its_row() -> None:
    assert attempt_of() == ATTEMPT
    none: dict[str, Any] = dict.fromkeys(("ended_at", "from_cursor", "to_cursor", "error"))
    assert attempt_of(**none) == attrs.evolve(ATTEMPT, **none)


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_every_outcome_is_one(outcome: str) -> None:
    assert attempt_of(outcome=outcome).outcome == outcome


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            (field, value)
            for field in ("run", "attempt", "fencing_token", "from_records", "to_records")
            for value in NO_COUNTS
        ),
        *((field, value) for field in ("started_at", "ended_at") for value in NO_TIMES),
        ("started_at", None),
        *((field, value) for field in ("from_cursor", "to_cursor") for value in NO_CURSORS),
        *(("owner", value) for value in (None, 5, b"me")),
        *(("outcome", value) for value in (None, 5, "", "done")),
        *(("error", value) for value in NO_TEXTS),
    ],
)
def test_a_damaged_attempt_is_named(field: str, value: Any) -> None:
    with pytest.raises(StateCorruptError) as caught:
        attempt_of(**{field: value})
    assert (caught.value.job_id, caught.value.field) == ("j", field)


def sample(attempt: int, more: int) -> Sample:
    return Sample(
        attempt=attempt,
        started_at=at(more),
        seconds=3.5,
        read_seconds=0.5,
        write_seconds=0.25,
        commit_seconds=0.000_001,
        records=4,
        batches=5,
        failed_tries=6,
        processed_records=7,
    )


HISTORY = History(
    run_id=RUN_ID,
    guarantee=Guarantee.AT_LEAST_ONCE,
    format="arrow",
    samples=(sample(1, 1), sample(2, 2)),
    stops={1: "max_records=4 reached", 2: "SIGTERM"},
)
NUMBERS = "3500000,500000,250000,1,4,5,6,7"
SAMPLES = f"1,{MICROSECONDS + 1},{NUMBERS};2,{MICROSECONDS + 2},{NUMBERS}"
HISTORY_TEXT = f'[1,["{RUN_ID}","at_least_once","arrow","{SAMPLES}",[[1,"max_records=4 reached"],[2,"SIGTERM"]]]]'


def test_a_history_is_a_text_and_back() -> None:
    assert text_of_history(HISTORY) == HISTORY_TEXT
    assert history_from_text("j", HISTORY_TEXT) == HISTORY
    empty = History(run_id=None, guarantee=Guarantee.EXACTLY_ONCE)
    assert text_of_history(empty) == '[1,[null,"exactly_once","records","",[]]]'
    assert history_from_text("j", text_of_history(empty)) == empty


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("[1,", "["),
        (RUN_ID, "5"),
        ("at_least_once", "often"),
        (NUMBERS, NUMBERS + ",8"),
        (NUMBERS, NUMBERS[:-2]),
        (NUMBERS, NUMBERS[:-1] + "-7"),
        (NUMBERS, NUMBERS[:-1] + "x"),
        (f'"{SAMPLES}"', "7"),
        ('[1,"max', '[-1,"max'),
        ('[1,"max', '["max'),
    ],
)
def test_a_damaged_history_is_named(was: str, now: str) -> None:
    assert was in HISTORY_TEXT
    with pytest.raises(StateCorruptError) as caught:
        history_from_text("j", HISTORY_TEXT.replace(was, now, 1))
    assert (caught.value.job_id, caught.value.field) == ("j", "samples")


def test_times_are_microseconds_since_1970() -> None:
    assert time_of(0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert time_of(MICROSECONDS + 1) == at(1)


def test_a_damaged_status_is_told_what_it_may_be() -> None:
    with pytest.raises(StateCorruptError, match=re.escape(", ".join(JobStatus))):
        job_of(status="done")
