"""The start of an attempt, function by function: the job it begins with, and what it asks of connector and sink."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from typing_extensions import override

from doubles import FAST, Numbers, Target
from resumable_sync import (
    Checkpoint,
    ConfigurationError,
    Job,
    JobStatus,
    Lease,
    MemoryJobStore,
    SourceChangedError,
    StoreError,
)
from resumable_sync._attempts import start as _start
from resumable_sync._attempts.options import Options
from resumable_sync._attempts.pieces import put_together
from resumable_sync._attempts.start import (
    batch_size_of,
    begin_sink,
    drop_old_letters,
    in_best_format,
    locate,
    of_its_own,
    offered_formats,
    pinned,
    prefetch_of,
    rules_of,
    starting_job,
)
from resumable_sync._fingerprint import fingerprint_text
from resumable_sync._formats import Format
from resumable_sync._parts.plan import PartsPlan
from resumable_sync._restart import Decision, Rules
from resumable_sync._retry import Retrier

BEFORE, NOW = datetime(2026, 11, 23, tzinfo=UTC), datetime(2026, 11, 24, tzinfo=UTC)
RUN_ID, NEW_RUN_ID = "the run", "a new run"
LEASE = Lease(job_id="j", owner="me", fencing_token=7, expires_at=NOW)
CONNECTION = object()
LEFT = Job(
    id="j",
    status=JobStatus.FAILED,
    run=3,
    run_id=RUN_ID,
    attempt=4,
    cursor=[20],
    processed_records=20,
    processed_batches=2,
    total_records=100,
    dead_letters=5,
    fingerprint="source",
    stalled_attempts=1,
    batch_size=10,
    error="OSError: no",
    created_at=BEFORE,
    started_at=BEFORE,
    updated_at=BEFORE,
    finished_at=BEFORE,
)
RESUME = Decision(action="resume", reason="", cursor=[10], processed_records=10, processed_batches=1)
NEW = Decision(action="new", reason="")
FRESH = Decision(action="new", reason="", fresh_run=True)


@pytest.fixture
def failed() -> list[str]:
    """The names of the calls that failed and were tried again."""
    return []


@pytest.fixture
def retrier(failed: list[str]) -> Retrier:
    return Retrier(FAST, lambda _: False, lambda name, *_: failed.append(name))


@pytest.fixture(autouse=True)
def run_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_start, "new_run_id", lambda: NEW_RUN_ID)


def once(answer: Any) -> Callable[..., Any]:
    """Give a function that fails for a moment, and then answers."""
    errors = [ConnectionError("cut")]

    def call(*_: object) -> Any:
        if errors:
            raise errors.pop()
        return answer

    return call


class Placed(Numbers):
    """Knows the cursor after 20 records, and what became of the last record delivered."""

    if_moved = "rerun"

    def __init__(self, moved: str | None = None) -> None:
        super().__init__(100)
        self.what = moved
        self.seen: list[object] = []

    @override
    def cursor_at(self, offset: int) -> list[int] | None:
        self.seen.append(offset)
        return [offset] if offset == 20 else None

    def moved(self, cursor: Any) -> str | None:
        self.seen.append(cursor)
        return self.what

    def pin(self, columns: Sequence[str]) -> Any:
        self.seen.append(columns)
        return self


class TestRules:
    def test_they_are_the_arguments(self, retrier: Retrier) -> None:
        options = Options(
            batch_size=7,
            if_completed="skip",
            if_changed="resume",
            resume_within=60.0,
            max_stalled_attempts=9,
        )
        assert rules_of(Numbers(1, "source"), options, retrier) == Rules(
            batch_size=7,
            fingerprint="source",
            if_completed="skip",
            if_changed="resume",
            resume_within=60.0,
            max_stalled_attempts=9,
            seekable=True,
        )

    def test_batches_that_differ_in_size_are_no_unit(self, retrier: Retrier) -> None:
        assert rules_of(Numbers(1), Options(batch_size="auto"), retrier).batch_size is None

    def test_a_connector_need_not_have_any_ability(self, retrier: Retrier) -> None:
        rules = rules_of(SimpleNamespace(read=None), Options(), retrier)
        assert (rules.fingerprint, rules.seekable, rules.pins) == (None, False, False)

    def test_it_may_have_all(self, retrier: Retrier) -> None:
        rules = rules_of(Placed(), Options(), retrier)
        assert (rules.seekable, rules.pins) == (True, True)

    def test_the_fingerprint_is_asked_for_again(self, retrier: Retrier, failed: list[str]) -> None:
        answer = once({"query": "q"})
        connector: Any = type("Asked", (), {"fingerprint": property(answer)})()
        assert rules_of(connector, Options(), retrier).fingerprint == fingerprint_text({"query": "q"})
        assert failed == ["fingerprint"]


class TestPreferences:
    """What nobody says is as sink and connector prefer, if that can be."""

    @pytest.mark.parametrize(
        ("said", "preferred", "size"),
        [
            (7, {"preferred_batch_size": 5_000}, 7),
            ("auto", {"preferred_batch_size": 5_000}, "auto"),
            (None, {"preferred_batch_size": 5_000}, 5_000),
            (None, {"preferred_batch_size": 1}, 1),
            (None, {"preferred_batch_size": 0}, 1_000),
            (None, {"preferred_batch_size": True}, 1_000),
            (None, {"preferred_batch_size": "7"}, 1_000),
            (None, {}, 1_000),
        ],
    )
    def test_of_a_batch(self, said: Any, preferred: dict[str, Any], size: Any) -> None:
        options = Options(batch_size=said)
        pieces: Any = SimpleNamespace(options=options, sink=SimpleNamespace(**preferred), connector=None)
        assert batch_size_of(pieces) == size

    @pytest.mark.parametrize(
        ("connector", "sink", "size", "pages"),
        [(500, 5_000, 500, 500), (5_000, 500, 500, 500), (5_000, None, 1_000, 5_000), (None, 5_000, 5_000, 1)],
    )
    def test_both_are_asked_and_the_smaller_one_is_taken(
        self, connector: int | None, sink: int | None, size: int, pages: int
    ) -> None:
        ports = [SimpleNamespace(preferred_batch_size=wish, preferred_prefetch=wish) for wish in (connector, sink)]
        pieces: Any = SimpleNamespace(options=Options(), connector=ports[0], sink=ports[1])
        assert (batch_size_of(pieces), prefetch_of(pieces)) == (size, pages)

    def test_the_unit_of_a_job_that_only_counted_is_what_it_always_was(self, retrier: Retrier) -> None:
        assert rules_of(Numbers(1), Options(batch_size=None), retrier).batch_size == 1_000

    @pytest.mark.parametrize(
        ("said", "preferred", "pages"),
        [
            (7, {"preferred_prefetch": 4}, 7),
            (0, {"preferred_prefetch": 4}, 0),
            (None, {"preferred_prefetch": 4}, 4),
            (None, {"preferred_prefetch": 0}, 0),
            (None, {"preferred_prefetch": -1}, 1),
            (None, {"preferred_prefetch": True}, 1),
            (None, {"preferred_prefetch": "7"}, 1),
            (None, {}, 1),
        ],
    )
    def test_of_pages_ahead(self, said: int | None, preferred: dict[str, Any], pages: int) -> None:
        options = Options(prefetch=said)
        pieces: Any = SimpleNamespace(options=options, connector=SimpleNamespace(**preferred), sink=None)
        assert prefetch_of(pieces) == pages


TEXT, LINES = (Format(name=name, columns=("n",), types=("bigint",)) for name in ("text", "lines"))


class Offering(Numbers):
    """Can give records in two formats."""

    def formats(self) -> list[Format]:
        return [TEXT, LINES]

    def in_format(self, format_: Format) -> Any:
        return f"in {format_.name}"


class Taking(Target):
    """Takes records in some formats."""

    def __init__(self, *formats: Format) -> None:
        super().__init__()
        self.formats = formats
        self.asked: list[Any] = []

    def takes(self, format_: Format, job: Job) -> bool:
        self.asked.append((format_, job))
        return format_ in self.formats


class Wrapper:
    """Hands on the attributes of another object."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class TestFormats:
    @pytest.fixture
    def pieces(self, retrier: Retrier) -> Callable[..., Any]:
        def make(connector: Any, sink: Any, **options: Any) -> Any:
            return put_together("j", connector, sink, Letters([]), Options(**options))

        return make

    @pytest.mark.parametrize(
        ("options", "offered"),
        [({}, [TEXT, LINES]), ({"fast_path": False}, []), ({"on_refused": "dead_letter"}, [])],
    )
    def test_they_are_offered_to_whom_they_suit(
        self, pieces: Any, options: dict[str, Any], offered: list[Format]
    ) -> None:
        sink = Taking()
        sink.transactional = True
        assert list(offered_formats(pieces(Offering(1), sink, **options))) == offered

    def test_what_a_sink_does_not_know_at_all_is_not_offered(self, pieces: Any) -> None:
        sink: Any = Taking()
        sink.known_formats = ("lines",)
        assert list(offered_formats(pieces(Offering(1), sink))) == [LINES]

    @pytest.mark.parametrize(
        ("connector", "sink"),
        [
            (Offering(1), Target()),
            (Numbers(1), Taking()),
            (Wrapper(Offering(1)), Taking()),
            (Offering(1), Wrapper(Taking())),
        ],
    )
    def test_where_one_of_them_knows_none_there_is_none(self, pieces: Any, connector: Any, sink: Any) -> None:
        assert offered_formats(pieces(connector, sink)) == ()

    @pytest.mark.parametrize(("taken", "asked"), [(TEXT, [TEXT]), (LINES, [TEXT, LINES])])
    def test_the_first_is_taken_that_suits(self, pieces: Any, taken: Format, asked: list[Format]) -> None:
        sink = Taking(taken)
        given = pieces(Offering(1), sink)
        found: Any = in_best_format(given, LEFT)
        assert (found.connector, found.format) == (f"in {taken.name}", taken.name)
        assert sink.asked == [(format_, LEFT) for format_ in asked]
        assert attrs.evolve(found, connector=given.connector, format=given.format) == given

    def test_where_none_suits_records_stay_what_they_are(self, pieces: Any) -> None:
        given = pieces(Offering(1), Taking())
        assert in_best_format(given, LEFT) is given
        assert given.format == "records"

    def test_they_are_asked_for_again(self, pieces: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        class Moody(Offering):
            formats = once([TEXT])

        told: list[Any] = []
        given = pieces(Moody(1), Taking(TEXT), observers=(told.append,), retry=FAST)
        assert in_best_format(given, LEFT).format == "text"
        assert [event.call for event in told] == ["formats"]


class TestPlace:
    @pytest.fixture
    def pieces(self, retrier: Retrier) -> Any:
        return SimpleNamespace(job_id="j", retrier=retrier, whole=None)

    def test_the_columns_are_pinned_that_the_run_began_with(self, retrier: Retrier) -> None:
        connector = Placed()
        assert pinned(connector, RESUME, retrier) is connector
        assert connector.seen == []
        assert pinned(connector, attrs.evolve(RESUME, columns=("a", "b")), retrier) is connector
        assert connector.seen == [("a", "b")]

    def test_all_columns_are_read_by_a_connector_of_its_own(self, retrier: Retrier) -> None:
        class Forking(Placed):
            @override
            def pin(self, columns: Sequence[str]) -> Any:
                return tuple(columns)

        connector: Any = Forking()
        named = fingerprint_text({"columns": '["a","b"]'})
        own: Any = of_its_own(connector, named, retrier)
        assert own == ("a", "b")
        assert of_its_own(connector, fingerprint_text({"query": "q"}), retrier) is connector
        assert of_its_own(connector, None, retrier) is connector
        for other in (Numbers(1), Wrapper(connector)):
            given: Any = other
            assert of_its_own(given, named, retrier) is given

    def test_what_was_begun_in_parts_is_refused(self, pieces: Any) -> None:
        decision = attrs.evolve(RESUME, cursor=PartsPlan([[None, 5], [5, None]]).cursor("j"))
        with pytest.raises(ConfigurationError, match="job 'j' was begun in parts"):
            locate(pieces, Numbers(100), decision)

    def test_a_number_of_records_becomes_a_cursor(self, pieces: Any) -> None:
        connector = Placed(moved="is gone")
        decision = attrs.evolve(RESUME, cursor=None, seek=20, processed_records=20)
        assert locate(pieces, connector, decision) == attrs.evolve(decision, cursor=[20], seek=None)
        assert connector.seen == [20]

    def test_where_there_is_no_such_place_a_new_run_begins(self, pieces: Any) -> None:
        decision = attrs.evolve(RESUME, cursor=None, seek=30, processed_records=30, replacing=7)
        found = locate(pieces, Placed(), decision)
        assert found == Decision(
            action="new", reason=found.reason, fresh_run=True, cursor=None, replacing=7, warning=True
        )
        assert "30 records were processed" in found.reason

    def test_a_last_record_that_is_there_changes_nothing(self, pieces: Any) -> None:
        connector = Placed()
        assert locate(pieces, connector, RESUME) == RESUME
        assert connector.seen == [[10]]

    def test_one_that_moved_is_decided_about(self, pieces: Any) -> None:
        found = locate(pieces, Placed("is gone"), RESUME)
        assert (found.action, found.fresh_run, found.warning) == ("new", True, True)
        assert "is gone" in found.reason

    def test_the_job_is_named(self, pieces: Any) -> None:
        connector = Placed("is gone")
        connector.if_moved = "cry"
        with pytest.raises(ConfigurationError, match="job 'j'"):
            locate(pieces, connector, RESUME)

    def test_a_part_begins_no_run(self, pieces: Any) -> None:
        pieces.whole = Job(id="whole")
        connector = Placed("is gone")
        connector.if_moved = "rerun"
        found = locate(pieces, connector, RESUME)
        assert (found.action, type(found.error)) == ("refuse", SourceChangedError)
        assert "'whole'" in str(found.error)
        assert "is gone; a part begins no run of its own" in str(found.error)

    def test_it_is_not_asked_for_where_none_was_delivered(self, pieces: Any) -> None:
        connector = Placed("is gone")
        assert locate(pieces, connector, NEW) == NEW
        assert connector.seen == []

    def test_a_connector_that_cannot_look_is_not_asked(self, pieces: Any) -> None:
        assert locate(pieces, Numbers(100), RESUME) == RESUME


def begun(job: Job, decision: Decision, fingerprint: str | None = "source") -> Job:
    return starting_job(job, decision, fingerprint, NOW)


class TestStartingJob:
    def test_a_run_goes_on_at_its_checkpoint(self) -> None:
        assert begun(LEFT, RESUME) == attrs.evolve(
            LEFT,
            status=JobStatus.RUNNING,
            attempt=5,
            cursor=[10],
            processed_records=10,
            processed_batches=1,
            stalled_attempts=2,
            error=None,
            finished_at=None,
        )

    def test_what_the_job_of_another_tool_lacks_is_made_up_for(self) -> None:
        job = begun(Job(id="j", processed_records=20), RESUME)
        assert (job.run, job.run_id, job.started_at, job.fingerprint) == (1, NEW_RUN_ID, NOW, "source")

    @pytest.mark.parametrize(
        ("decision", "fingerprint", "kept"),
        [
            (RESUME, "another", "another"),
            (RESUME, None, "source"),
            (NEW, "another", "another"),
            (NEW, None, None),
        ],
    )
    def test_the_fingerprint_is_of_what_is_read_now(
        self, decision: Decision, fingerprint: str | None, kept: str | None
    ) -> None:
        assert begun(LEFT, decision, fingerprint).fingerprint == kept

    def test_the_columns_that_the_run_began_with_are_kept(self) -> None:
        two, three = fingerprint_text({"columns": '["a","b"]'}), fingerprint_text({"columns": '["a","b","c"]'})
        job = begun(attrs.evolve(LEFT, fingerprint=two), attrs.evolve(RESUME, columns=("a", "b")), three)
        assert job.fingerprint == '{"columns":{"read":["a","b"],"seen":["a","b","c"]}}'

    def test_a_new_run_forgets_the_one_before(self) -> None:
        assert begun(LEFT, FRESH) == Job(
            id="j",
            status=JobStatus.RUNNING,
            run=4,
            run_id=NEW_RUN_ID,
            attempt=1,
            fingerprint="source",
            stalled_attempts=2,
            batch_size=10,
            created_at=BEFORE,
            started_at=NOW,
            updated_at=NOW,
        )

    def test_a_run_that_delivered_nothing_yet_is_begun_again_as_the_same(self) -> None:
        job = begun(LEFT, NEW)
        assert (job.run, job.run_id, job.attempt) == (3, RUN_ID, 5)
        assert (job.total_records, job.dead_letters, job.started_at, job.updated_at) == (None, 0, NOW, NOW)

    def test_but_not_on_another_source(self) -> None:
        job = begun(LEFT, NEW, "another")
        assert (job.run, job.run_id, job.attempt) == (3, NEW_RUN_ID, 1)

    def test_nor_without_the_identity_of_a_run(self) -> None:
        job = begun(attrs.evolve(LEFT, run=0, run_id=None), NEW)
        assert (job.run, job.run_id, job.attempt) == (1, NEW_RUN_ID, 1)

    @pytest.mark.parametrize("run", [0, 3])
    def test_a_job_that_was_reset_begins_its_next_run(self, run: int) -> None:
        job = begun(attrs.evolve(LEFT, status=JobStatus.PENDING, run=run), NEW)
        assert (job.run, job.run_id) == (run + 1, RUN_ID)


class Book:
    """Stands for the checkpoints: notes in which order what was saved, or done in a transaction."""

    def __init__(self, job: Job, events: list[Any]) -> None:
        self.job = job
        self.events = events

    def save(self, job: Job) -> None:
        self.events.append(("save", job))
        self.job = job

    def transact(self, call: str, work: Callable[[Any], Job]) -> None:
        self.events.append(("transact", call))
        self.job = work(SimpleNamespace(connection=CONNECTION))


class Letters(MemoryJobStore):
    """Looks like a store that has transactions and keeps dead letters."""

    def __init__(self, events: list[Any]) -> None:
        super().__init__()
        self.events = events

    def transaction(self) -> None: ...
    def enlist(self) -> None: ...
    def add_dead_letters(self) -> None: ...
    def dead_letters(self) -> None: ...
    def remove_dead_letter(self) -> None: ...
    def purge_dead_letters(self, job_id: str, transaction: Any) -> None:
        self.events.append(("purge", job_id, transaction.connection))


BEGUN = starting_job(LEFT, FRESH, "source", NOW)
GOING_ON = starting_job(LEFT, attrs.evolve(RESUME, cursor=[20], processed_records=20, processed_batches=2), None, NOW)


@pytest.fixture
def events() -> list[Any]:
    return []


def test_a_new_run_drops_the_dead_letters_of_earlier_ones(events: list[Any]) -> None:
    book: Any = Book(BEGUN, events)
    drop_old_letters(Letters(events), book)
    assert events == [("transact", "begin"), ("purge", "j", CONNECTION)]
    assert book.job == BEGUN


def test_a_run_that_goes_on_keeps_them(events: list[Any]) -> None:
    going_on: Any = Book(GOING_ON, events)
    drop_old_letters(Letters(events), going_on)
    new: Any = Book(BEGUN, events)
    drop_old_letters(MemoryJobStore(), new)
    assert events == []


class Keeper:
    """Stands for the keeper of the lease."""

    lease = LEASE

    def __init__(self, events: list[Any]) -> None:
        self.events = events

    def assure(self, patient: Retrier) -> None:
        self.events.append(("assure", patient))


class Sink(Target):
    """A sink that tells what it is asked for."""

    def __init__(self, events: list[Any]) -> None:
        super().__init__()
        self.events = events

    @override
    def begin(self, job: Job, connection: object) -> None:
        self.events.append(("begin", job, connection))


class Prepared(Sink):
    def prepare(self, columns: Any) -> None:
        self.events.append(("prepare", columns))


class Keeping(Sink):
    """A sink that keeps its own checkpoint."""

    kept: Checkpoint | None = None

    def checkpoint(self, job: Job) -> Checkpoint | None:
        self.events.append(("checkpoint", job))
        return self.kept


class Described(Numbers):
    def columns(self) -> list[str]:
        return ["a", "b"]


def kept(batches: int, run_id: str | None = RUN_ID) -> Checkpoint:
    return Checkpoint(run_id=run_id, cursor=[batches * 10], processed_records=batches * 10, processed_batches=batches)


class TestSink:
    @pytest.fixture
    def store(self, events: list[Any]) -> MemoryJobStore:
        return MemoryJobStore()

    @pytest.fixture
    def pieces(self, store: MemoryJobStore, retrier: Retrier) -> Any:
        return SimpleNamespace(store=store, connector=Described(1), retrier=retrier, patient="patient")

    @pytest.fixture(autouse=True)
    def refusals(self, events: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(job: Job, connection: object) -> None:
            events.append(("look", job, connection))

        monkeypatch.setattr(_start, "refuse_unpublished", refuse)

    def test_it_is_prepared_and_begun_under_a_lease_that_is_sure(self, pieces: Any, events: list[Any]) -> None:
        book: Any = Book(BEGUN, events)
        begin_sink(pieces, Prepared(events), book, Keeper(events))  # type: ignore[arg-type]
        leased = attrs.evolve(BEGUN, lease=LEASE)
        assert events == [("prepare", ["a", "b"]), ("assure", "patient"), ("begin", leased, None)]

    def test_columns_are_asked_for_again(self, pieces: Any, events: list[Any], failed: list[str]) -> None:
        pieces.connector.columns = once(["a"])
        begin_sink(pieces, Prepared(events), Book(BEGUN, events), Keeper(events))  # type: ignore[arg-type]
        assert (events[0], failed) == (("prepare", ["a"]), ["columns"])

    @pytest.mark.parametrize("kind", [Prepared, Sink])
    def test_nothing_is_prepared_where_nobody_describes_or_asks(
        self, pieces: Any, events: list[Any], kind: type[Sink]
    ) -> None:
        if kind is Prepared:
            pieces.connector = Numbers(1)
        begin_sink(pieces, kind(events), Book(BEGUN, events), Keeper(events))  # type: ignore[arg-type]
        assert [event[0] for event in events] == ["assure", "begin"]

    def test_it_begins_again(self, pieces: Any, events: list[Any], failed: list[str]) -> None:
        sink: Any = Sink(events)
        sink.begin = once(None)
        begin_sink(pieces, sink, Book(BEGUN, events), Keeper(events))  # type: ignore[arg-type]
        assert failed == ["begin"]

    def test_in_the_stores_transaction_where_both_can(self, pieces: Any, events: list[Any]) -> None:
        pieces.store, sink = Letters(events), Sink(events)
        sink.transactional = True
        book: Any = Book(GOING_ON, events)
        begin_sink(pieces, sink, book, Keeper(events))  # type: ignore[arg-type]
        leased = attrs.evolve(GOING_ON, lease=LEASE)
        assert events[1:] == [("transact", "begin"), ("begin", leased, CONNECTION), ("look", leased, CONNECTION)]
        assert book.job == GOING_ON

    def test_outside_of_it_a_run_that_goes_on_is_looked_at(self, pieces: Any, events: list[Any]) -> None:
        pieces.store = Letters(events)
        book: Any = Book(GOING_ON, events)
        begin_sink(pieces, Sink(events), book, Keeper(events))  # type: ignore[arg-type]
        leased = attrs.evolve(GOING_ON, lease=LEASE)
        assert events[1:] == [("begin", leased, None), ("transact", "begin"), ("look", leased, CONNECTION)]
        assert book.job == GOING_ON

    @pytest.mark.parametrize("transactions", [False, True])
    def test_where_there_is_nothing_to_look_at_nobody_looks(
        self, pieces: Any, events: list[Any], *, transactions: bool
    ) -> None:
        if transactions:
            pieces.store = Letters(events)
        job = BEGUN if transactions else GOING_ON
        begin_sink(pieces, Sink(events), Book(job, events), Keeper(events))  # type: ignore[arg-type]
        assert [event[0] for event in events] == ["assure", "begin"]


class TestOwnCheckpoint:
    """A sink that keeps its own checkpoint."""

    @pytest.fixture
    def start(self, events: list[Any], retrier: Retrier) -> Callable[..., Book]:
        def call(job: Job, own: Checkpoint | None, stored: Job | None) -> Book:
            store = MemoryJobStore()
            if stored is not None:
                store.save(stored, store.acquire("j", owner="me", ttl=60))
            pieces: Any = SimpleNamespace(store=store, connector=Numbers(1), retrier=retrier, patient="patient")
            sink = Keeping(events)
            sink.kept = own
            book: Any = Book(job, events)
            begin_sink(pieces, sink, book, Keeper(events))  # type: ignore[arg-type]
            return book  # type: ignore[no-any-return]

        return call

    def test_it_is_taken_over_where_it_is_ahead(self, start: Any, events: list[Any]) -> None:
        leased = attrs.evolve(GOING_ON, lease=LEASE)
        ahead = attrs.evolve(GOING_ON, cursor=[30], processed_records=30, processed_batches=3)
        assert start(GOING_ON, kept(3), GOING_ON).job == ahead
        assert events[1:] == [
            ("checkpoint", leased),
            ("save", ahead),
            ("begin", attrs.evolve(ahead, lease=LEASE), None),
        ]

    @pytest.mark.parametrize("job", [BEGUN, GOING_ON])
    def test_where_it_is_not_nothing_changes(self, start: Any, events: list[Any], job: Job) -> None:
        own = kept(2) if job is GOING_ON else None
        assert start(job, own, job).job == job
        assert [event[0] for event in events] == ["assure", "checkpoint", "begin"]

    def test_that_of_another_run_is_none(self, start: Any) -> None:
        assert start(BEGUN, kept(3, "another"), BEGUN).job == BEGUN

    def test_an_empty_one_is_as_good_as_none(self, start: Any) -> None:
        assert start(BEGUN, kept(0, NEW_RUN_ID), BEGUN).job == BEGUN

    @pytest.mark.parametrize(
        ("job", "own", "shown"),
        [
            (GOING_ON, kept(1), 10),
            (GOING_ON, kept(2, "another"), 0),
            (GOING_ON, None, 0),
            (attrs.evolve(GOING_ON, processed_batches=0), kept(2, "another"), 0),
            (attrs.evolve(GOING_ON, processed_batches=0), None, 0),
        ],
    )
    def test_a_target_that_lacks_what_the_store_says_is_refused(
        self, start: Any, events: list[Any], job: Job, own: Checkpoint | None, shown: int
    ) -> None:
        with pytest.raises(StoreError, match=rf"job 'j'.* 20 records of run 3 .* shows {shown};"):
            start(job, own, job)
        assert [event[0] for event in events] == ["assure", "checkpoint"]

    @pytest.mark.parametrize("stored", [None, attrs.evolve(GOING_ON, run_id=None)])
    def test_a_store_that_does_not_keep_the_run_is_refused(
        self, start: Any, events: list[Any], stored: Job | None
    ) -> None:
        with pytest.raises(ConfigurationError, match=r"job 'j'.* MemoryJobStore does not keep run_id"):
            start(GOING_ON, kept(3), stored)
        assert [event[0] for event in events] == ["assure"]
