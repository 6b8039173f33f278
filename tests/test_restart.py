"""Restart detection, row by row of the table in the design."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from resumable_sync import ConfigurationError, CrashLoopError, Job, JobHeldError, JobStatus, Lease, SourceChangedError
from resumable_sync._fingerprint import carried_on, changes, fingerprint_text, pinned_columns
from resumable_sync._restart import Decision, Rules, after_move, decide

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LEASE = Lease(job_id="j", owner="other", fencing_token=7, expires_at=NOW + timedelta(seconds=30))
HALFWAY = Job(
    id="j",
    status=JobStatus.RUNNING,
    run=2,
    run_id="r",
    cursor=[250],
    processed_records=250,
    processed_batches=3,
    updated_at=NOW - timedelta(hours=1),
)


def job(**changes: Any) -> Job:
    return attrs.evolve(HALFWAY, **changes)


@pytest.mark.parametrize(
    ("stored", "action", "fresh_run"),
    [
        (None, "new", False),
        (Job(id="j"), "new", False),
        (job(status=JobStatus.RUNNING, cursor=None, processed_records=0), "new", False),
        (job(status=JobStatus.FAILED, cursor=None, processed_records=0), "new", False),
        (job(lease=LEASE), "held", False),
        (job(), "resume", False),
        (job(status=JobStatus.INTERRUPTED), "resume", False),
        (job(status=JobStatus.FAILED), "resume", False),
        (job(status=JobStatus.COMPLETED), "new", True),
        (job(status=JobStatus.INCOMPLETE), "new", True),
        (job(status=JobStatus.COMPLETED, lease=LEASE), "held", False),
        (job(status=JobStatus.PENDING), "new", True),
    ],
)
def test_stored_job_decides(stored: Job | None, action: str, fresh_run: bool) -> None:
    decision = decide(stored, Rules(), now=NOW)
    assert (decision.action, decision.fresh_run) == (action, fresh_run)


def test_resume_goes_on_at_the_checkpoint() -> None:
    decision = decide(job(), Rules(), now=NOW)
    assert (decision.cursor, decision.processed_records, decision.processed_batches) == ([250], 250, 3)


OLD, NEW = "one", "another"


@pytest.mark.parametrize(
    ("stored", "rules", "reason"),
    [
        (None, Rules(), "the job is not known yet"),
        (Job(id="j"), Rules(), "nothing was delivered yet"),
        (job(lease=LEASE), Rules(), "held by other"),
        (job(), Rules(), "the last attempt ended: the process died"),
        (job(status=JobStatus.FAILED), Rules(), "the last attempt ended: failed"),
        (job(status=JobStatus.COMPLETED), Rules(), "run 2 is completed"),
        (job(status=JobStatus.COMPLETED), Rules(if_completed="skip"), "run 2 is completed and if_completed='skip'"),
        (job(), Rules(resume_within=60), "the checkpoint is 3600 s old, more than resume_within=60"),
        (job(fingerprint=OLD), Rules(fingerprint=NEW, if_changed="rerun"), "the source changed: fingerprint"),
        (
            job(fingerprint=OLD),
            Rules(fingerprint=NEW, if_changed="resume"),
            "the last attempt ended: the process died (the source changed: fingerprint)",
        ),
        (
            job(fingerprint=fingerprint_text({"a": "1", "b": "1"})),
            Rules(fingerprint=fingerprint_text({"a": "2", "b": "2"}), if_changed="rerun"),
            "the source changed: a, b",
        ),
        (
            job(cursor=None),
            Rules(),
            "250 records were processed, but the connector has no cursor_at to find the place",
        ),
        (job(cursor=None), Rules(seekable=True), "not one whole batch was processed"),
        (
            job(cursor=None),
            Rules(seekable=True, batch_size=100),
            "the last attempt ended: the process died; resuming at the last whole batch of 100",
        ),
    ],
    ids=lambda value: type(value).__name__,  # a reason is no name
)
def test_every_decision_says_why(stored: Job | None, rules: Rules, reason: str) -> None:
    assert decide(stored, rules, now=NOW).reason == reason


def test_what_refuses_is_the_reason() -> None:
    for stored, rules in ((job(stalled_attempts=5), Rules()), (job(fingerprint=OLD), Rules(fingerprint=NEW))):
        decision = decide(stored, rules, now=NOW)
        assert decision.reason == str(decision.error)
        assert getattr(decision.error, "job_id", None) == "j"


def test_taking_over_from_the_dead_asks_the_same_as_any_start() -> None:
    aged = decide(job(lease=LEASE), Rules(resume_within=60), now=NOW, owner_gone=True)
    assert (aged.action, aged.fresh_run, aged.replacing) == ("new", True, 7)
    finished = job(status=JobStatus.COMPLETED, lease=LEASE)
    assert decide(finished, Rules(), now=NOW, owner_gone=True, before=Job(id="j")).action == "skip"


def test_a_crash_loop_tells_how_many_died_of_how_many() -> None:
    error = decide(job(stalled_attempts=6), Rules(max_stalled_attempts=4), now=NOW).error
    assert isinstance(error, CrashLoopError)
    assert (error.job_id, error.stalled_attempts, error.max_stalled_attempts) == ("j", 6, 4)


def test_a_moved_source_is_named() -> None:
    resume = Decision(action="resume", reason="going on", replacing=7)
    error = after_move(resume, "is gone", "raise", "j").error
    assert isinstance(error, SourceChangedError)
    assert error.job_id == "j"


def test_what_was_finished_by_another_attempt_says_so() -> None:
    decision = decide(job(status=JobStatus.COMPLETED), Rules(), now=NOW, before=Job(id="j"))
    assert decision.reason == "completed meanwhile by another attempt"


def test_one_whole_batch_is_found_again() -> None:
    decision = decide(job(cursor=None, processed_records=10), Rules(seekable=True, batch_size=10), now=NOW)
    assert (decision.action, decision.seek, decision.processed_batches) == ("resume", 10, 1)


def test_columns_are_pinned_where_the_connector_can_and_the_run_goes_on() -> None:
    stored = job(fingerprint=fingerprint_text({"columns": '["a"]'}))
    now = fingerprint_text({"columns": '["a", "b"]'})
    resumed = decide(stored, Rules(fingerprint=now, if_changed="resume", pins=True), now=NOW)
    assert (resumed.action, resumed.columns) == ("resume", ("a",))
    assert decide(stored, Rules(fingerprint=now, if_changed="resume"), now=NOW).columns is None
    started = decide(attrs.evolve(stored, cursor=None), Rules(fingerprint=now, if_changed="resume", pins=True), now=NOW)
    assert (started.action, started.columns) == ("new", None)


def test_held_says_by_whom() -> None:
    error = decide(job(lease=LEASE), Rules(), now=NOW).error
    assert isinstance(error, JobHeldError)
    assert (error.owner, error.expires_at, error.job_id) == ("other", LEASE.expires_at, "j")


@pytest.mark.parametrize("status", [JobStatus.RUNNING, JobStatus.COMPLETED])
def test_a_dead_owner_on_this_host_is_replaced_at_once(status: JobStatus) -> None:
    decision = decide(job(status=status, lease=LEASE), Rules(), now=NOW, owner_gone=True)
    assert decision.replacing == 7
    assert decision.action == ("resume" if status is JobStatus.RUNNING else "new")


@pytest.mark.parametrize("lease", [None, LEASE])
@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.INCOMPLETE])
def test_skip_of_a_finished_job_comes_before_its_lease(status: JobStatus, lease: Lease | None) -> None:
    assert decide(job(status=status, lease=lease), Rules(if_completed="skip"), now=NOW).action == "skip"


@pytest.mark.parametrize("before", [Job(id="j"), job(), job(status=JobStatus.COMPLETED, run=1)])
def test_finished_between_two_looks_is_skip(before: Job) -> None:
    decision = decide(job(status=JobStatus.COMPLETED), Rules(), now=NOW, before=before)
    assert decision.action == "skip"
    assert "meanwhile" in decision.reason


def test_finished_at_both_looks_is_a_new_run() -> None:
    done = job(status=JobStatus.COMPLETED)
    assert decide(done, Rules(), now=NOW, before=done).action == "new"


def test_changed_source_is_refused_by_the_names_of_its_parts() -> None:
    old = fingerprint_text({"query": "a", "key": "id"})
    new = fingerprint_text({"query": "b", "key": "id"})
    decision = decide(job(fingerprint=old), Rules(fingerprint=new), now=NOW)
    assert decision.action == "refuse"
    assert isinstance(decision.error, SourceChangedError)
    assert decision.error.changed == ("query",)


PARTS = {"source": "db", "table": "t", "key": "id", "paging": "keyset", "columns": '["id", "name"]', "params": "none"}


def stored(**changed: str) -> str:
    text = fingerprint_text(PARTS | changed)
    assert text is not None
    return text


@pytest.mark.parametrize(
    ("changed", "told", "impossible"),
    [
        ({}, [], False),
        ({"source": "other"}, ["source"], False),
        ({"table": "u", "params": "some"}, ["params", "table"], False),
        ({"key": "-id"}, ["key"], True),
        ({"paging": "offset", "table": "u"}, ["paging", "table"], True),
        ({"columns": '["id", "name", "extra"]'}, ["columns (added 'extra')"], False),
        ({"columns": '["id"]'}, ["columns (gone 'name')"], True),
        ({"columns": '["id", "nom"]', "key": "nom"}, ["columns (added 'nom'; gone 'name')", "key"], True),
        ({"columns": '["name", "id"]'}, ["columns (in another order)"], False),
        ({"columns": "id to name"}, ["columns"], False),
        ({"new": "part"}, ["new"], False),
    ],
)
def test_what_changed_is_said_and_judged_part_by_part(
    changed: dict[str, str], told: list[str], impossible: bool
) -> None:
    found = changes(stored(), stored(**changed))
    assert [str(change) for change in found] == told
    assert any(change.impossible for change in found) is impossible
    at = job(fingerprint=stored())
    assert decide(at, Rules(fingerprint=stored(**changed)), now=NOW).action == ("refuse" if told else "resume")
    consent = decide(at, Rules(fingerprint=stored(**changed), if_changed="resume"), now=NOW)
    assert consent.action == ("refuse" if impossible else "resume")
    anew = decide(at, Rules(fingerprint=stored(**changed), if_changed="rerun"), now=NOW)
    assert (anew.action, anew.fresh_run) == (("new", True) if told else ("resume", False))
    if impossible:
        assert isinstance(consent.error, SourceChangedError)
        assert consent.error.impossible
        assert "reset_job(job_id)" in str(consent.error)


def test_no_part_but_the_names_of_columns_is_kept_readable() -> None:
    text = fingerprint_text({"query": "SELECT secret", "columns": '["id"]', "params": "s3cret", "path": "/home/me"})
    assert text is not None
    assert not [word for word in ("SELECT", "s3cret", "/home") if word in text]
    assert '"columns":["id"]' in text


def test_a_fingerprint_of_the_older_form_still_compares() -> None:
    # Columns were one digest like the other parts, and a query had none.
    older = fingerprint_text(PARTS | {"columns": "id, name"})
    assert changes(older, stored()) == ()
    assert [str(change) for change in changes(older, stored(columns='["id"]'))] == ["columns"]
    without = fingerprint_text({name: part for name, part in PARTS.items() if name != "columns"})
    assert changes(without, stored()) == ()
    assert pinned_columns(older, stored()) is None
    assert [change.impossible for change in changes("plain text", stored(columns="x"))] == [False] * 6
    # A stream was a paging of its own, though its cursors are those of keyset paging.
    assert changes(stored(paging="stream"), stored()) == ()
    assert [str(change) for change in changes(stored(paging="stream"), stored(paging="offset"))] == ["paging"]


def test_a_list_of_columns_without_end_is_kept_as_a_digest() -> None:
    many = json.dumps([f"a column with a long name {number}" for number in range(1_000)])
    more = json.dumps([*json.loads(many), "extra"])
    assert len(stored(columns=many)) < 400
    assert changes(stored(columns=many), stored(columns=many)) == ()
    assert [str(change) for change in changes(stored(columns=many), stored(columns=more))] == ["columns"]


def test_a_run_goes_on_with_the_columns_that_it_began_with() -> None:
    wider = stored(columns='["extra", "id", "name"]')
    rules = Rules(fingerprint=wider, if_changed="resume", pins=True)
    decision = decide(job(fingerprint=stored()), rules, now=NOW)
    assert decision.columns == ("id", "name")
    kept = carried_on(stored(), wider, decision.columns)
    # The next resume needs no consent for the same column again, and reads the same columns.
    again = decide(job(fingerprint=kept), Rules(fingerprint=wider, pins=True), now=NOW)
    assert (again.action, again.columns) == ("resume", ("id", "name"))
    assert carried_on(kept, wider, again.columns) == kept
    other = decide(
        job(fingerprint=kept), Rules(fingerprint=stored(columns='["id", "name", "more"]'), pins=True), now=NOW
    )
    assert isinstance(other.error, SourceChangedError)
    assert other.error.details == {"columns": "added 'more'"}
    back = decide(job(fingerprint=kept), Rules(fingerprint=stored(), pins=True), now=NOW)
    assert (back.action, back.columns) == ("resume", None)


def test_another_order_of_columns_is_none_for_a_connector_that_pins_them() -> None:
    turned = stored(columns='["name", "id"]')
    decision = decide(job(fingerprint=stored()), Rules(fingerprint=turned, pins=True), now=NOW)
    assert (decision.action, decision.columns) == ("resume", ("id", "name"))
    kept = carried_on(stored(), turned, decision.columns)
    assert kept == stored()


@pytest.mark.parametrize(("if_changed", "action", "fresh"), [("rerun", "new", True), ("resume", "resume", False)])
def test_changed_source_by_consent(if_changed: str, action: str, fresh: bool) -> None:
    rules = Rules(fingerprint="b", if_changed=if_changed)  # type: ignore[arg-type]
    decision = decide(job(fingerprint="a"), rules, now=NOW)
    assert (decision.action, decision.fresh_run) == (action, fresh)


@pytest.mark.parametrize("fingerprint", [None, "a"])
def test_a_missing_fingerprint_is_not_checked(fingerprint: str | None) -> None:
    assert decide(job(fingerprint=fingerprint), Rules(fingerprint="a"), now=NOW).action == "resume"
    assert decide(job(fingerprint="a"), Rules(fingerprint=fingerprint), now=NOW).action == "resume"


@pytest.mark.parametrize(("seconds", "action"), [(3599, "new"), (3600, "resume"), (None, "resume")])
def test_an_old_checkpoint_starts_a_new_run(seconds: float | None, action: str) -> None:
    decision = decide(job(), Rules(resume_within=seconds), now=NOW)
    assert (decision.action, decision.fresh_run) == (action, action == "new")


@pytest.mark.parametrize(("records", "batches"), [(1_234, 3), (1, 0)])
def test_without_cursor_and_with_auto_the_count_itself_is_the_place(records: int, batches: int) -> None:
    stored = job(cursor=None, processed_records=records, processed_batches=batches)
    decision = decide(stored, Rules(batch_size=None, seekable=True), now=NOW)
    assert (decision.action, decision.seek) == ("resume", records)
    assert (decision.processed_records, decision.processed_batches) == (records, batches)
    assert f"after the {records} records" in decision.reason
    assert decide(stored, Rules(batch_size=None), now=NOW).action == "new"


def test_a_job_with_only_a_count_resumes_at_the_last_whole_batch() -> None:
    decision = decide(job(cursor=None), Rules(batch_size=100, seekable=True), now=NOW)
    assert (decision.action, decision.seek, decision.processed_records, decision.processed_batches) == (
        "resume",
        200,
        200,
        2,
    )


def test_a_job_with_only_a_count_starts_anew_where_the_place_cannot_be_found() -> None:
    decision = decide(job(cursor=None), Rules(batch_size=100), now=NOW)
    assert (decision.action, decision.fresh_run, decision.warning) == ("new", True, True)


@pytest.mark.parametrize("progress", [True, False])
def test_attempts_that_die_one_after_the_other_are_refused(progress: bool) -> None:
    stored = job(stalled_attempts=5) if progress else job(stalled_attempts=5, cursor=None, processed_records=0)
    decision: Decision = decide(stored, Rules(), now=NOW)
    assert decision.action == "refuse"
    assert isinstance(decision.error, CrashLoopError)
    assert decide(stored, Rules(max_stalled_attempts=6), now=NOW).action in ("new", "resume")


@pytest.mark.parametrize(
    ("if_moved", "action", "fresh_run", "warning"),
    [("warn", "resume", False, True), ("raise", "refuse", False, False), ("rerun", "new", True, True)],
)
def test_what_became_of_the_last_record_decides_again(
    if_moved: str, action: str, fresh_run: bool, warning: bool
) -> None:
    resume = decide(job(lease=LEASE), Rules(), now=NOW, owner_gone=True)
    decision = after_move(resume, "is gone", if_moved, "j")
    assert (decision.action, decision.fresh_run, decision.warning) == (action, fresh_run, warning)
    assert decision.replacing == 7
    assert "the last record delivered is gone" in decision.reason
    assert (decision.cursor, decision.processed_records) == ((None, 0) if fresh_run else ([250], 250))
    if action == "refuse":
        assert isinstance(decision.error, SourceChangedError)
        assert (decision.error.changed, decision.error.impossible) == (("anchor",), ())
        assert "if_moved='warn'" in str(decision.error)


def test_an_unknown_answer_to_a_move_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="if_moved is 'skip'; let it be 'warn'"):
        after_move(decide(job(), Rules(), now=NOW), "is gone", "skip", "j")
