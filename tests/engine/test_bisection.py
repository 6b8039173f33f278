"""Delivering one batch, to the letter: the transaction, its savepoints, and which records are set aside."""

import hashlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from doubles import FAST
from resumable_sync import Batch, DeadLetter, DeadLetterLimitError, Job, LeaseLostError, MemoryJobStore
from resumable_sync._attempts.dead_letters import Bisection, is_refusal, letter_key
from resumable_sync._attempts.deliver import Delivery
from resumable_sync._attempts.options import Options
from resumable_sync._retry import Retrier

JOB = Job(id="j", run=3, processed_records=40, dead_letters=2)
BATCH: Batch[Any] = Batch(
    records=list(range(8)),
    cursor=[8],
    previous_cursor=[0],
    job_id="j",
    run=3,
    sequence=4,
    fencing_token=7,
    key="0123",
)


@pytest.fixture
def failed() -> list[str]:
    return []


@pytest.fixture
def retrier(failed: list[str]) -> Retrier:
    return Retrier(FAST, lambda _: False, lambda name, *_: failed.append(name))


class Savepoints:
    """Stands for a connection: what was written since a savepoint goes with it.

    Attributes:
        written: What was written.
        failure: What a rollback to a savepoint fails with.
        events: What happened, in order.
    """

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.events: list[Any] = []
        self.failure: Exception | None = None

    def begin_nested(self) -> Any:
        before = len(self.written)
        self.events.append("savepoint")

        def rollback() -> None:
            self.events.append("rollback")
            if self.failure is not None:
                raise self.failure
            del self.written[before:]

        return SimpleNamespace(rollback=rollback, commit=lambda: self.events.append("release"))


class Strict:
    """A sink that writes and then refuses some records."""

    transactional = True
    idempotent = False

    def __init__(
        self, *refused: Any, error: Callable[[Any], Exception] = lambda value: ValueError(f"no {value}")
    ) -> None:
        self.refused = refused
        self.error = error
        self.batches: list[Batch[Any]] = []

    def begin(self, job: Job, connection: Any) -> None: ...

    def write(self, batch: Batch[Any], connection: Any) -> None:
        self.batches.append(batch)
        for record in getattr(batch.records, "to_pylist", lambda: batch.records)():
            connection.written.append(record)
            if record in self.refused:
                raise self.error(record)

    def complete(self, job: Job, connection: Any) -> None:
        connection.events.append(("complete", job))


class Table:
    """Behaves as a table of pyarrow does."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def to_pylist(self) -> list[Any]:
        return self.rows

    def slice(self, offset: int, length: int) -> "Table":
        return Table(self.rows[offset : offset + length])


@pytest.fixture
def connection() -> Savepoints:
    return Savepoints()


@pytest.fixture
def bisect(connection: Savepoints, retrier: Retrier) -> Callable[..., Bisection]:
    def call(sink: Strict, batch: Batch[Any] = BATCH, **room: Any) -> Bisection:
        bisection = Bisection(sink, batch, connection, retrier, **room)
        bisection.write()
        return bisection

    return call


def key_of(part: str, key: str = "0123") -> str:
    return hashlib.blake2b(f"{key}:{part}".encode(), digest_size=16).hexdigest()


class TestBisection:
    def test_a_batch_that_is_accepted_is_written_as_it_is(self, bisect: Any, connection: Savepoints) -> None:
        sink = Strict()
        done = bisect(sink)
        assert (done.accepted, done.letters, done.first_error) == (8, [], None)
        assert sink.batches == [BATCH]
        assert sink.batches[0] is BATCH
        assert connection.events == ["savepoint", "release"]

    def test_halves_are_halved_until_the_refused_record_stands_alone(self, bisect: Any, connection: Savepoints) -> None:
        sink = Strict(5)
        done = bisect(sink)
        assert [batch.records for batch in sink.batches] == [
            [0, 1, 2, 3, 4, 5, 6, 7],
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [4, 5],
            [4],
            [5],
            [6, 7],
        ]
        assert (done.accepted, str(done.first_error)) == (7, "no 5")
        assert connection.written == [0, 1, 2, 3, 4, 6, 7]
        assert connection.events.count("rollback") == 4

    def test_a_part_is_the_batch_with_its_records_and_a_key_of_its_own(self, bisect: Any) -> None:
        sink = Strict(5)
        bisect(sink)
        assert sink.batches[4] == attrs.evolve(BATCH, records=[4], key=key_of("4:5"))
        assert sink.batches[1] == attrs.evolve(BATCH, records=[0, 1, 2, 3], key=key_of("0:4"))

    def test_a_letter_holds_what_is_needed_to_deliver_it_later(self, bisect: Any) -> None:
        (letter,) = bisect(Strict(5)).letters
        assert letter == DeadLetter(job_id="j", run=3, record=5, error="ValueError: no 5", cursor=[0], key="0123")

    def test_columns_are_kept_as_a_list(self, bisect: Any) -> None:
        (letter,) = bisect(Strict((5,)), attrs.evolve(BATCH, records=[(5,)], columns=("n",))).letters
        assert (letter.record, letter.columns) == ((5,), ["n"])

    def test_letters_come_in_order_and_the_first_error_is_kept(self, bisect: Any, connection: Savepoints) -> None:
        done = bisect(Strict(2, 3, 6))
        assert [letter.record for letter in done.letters] == [2, 3, 6]
        assert (done.accepted, str(done.first_error)) == (5, "no 2")
        assert connection.written == [0, 1, 4, 5, 7]

    def test_arrow_records_are_sliced(self, bisect: Any, connection: Savepoints) -> None:
        table: Any = Table([{"n": number} for number in (4, 5, 6, 7)])
        sink = Strict({"n": 6})
        (letter,) = bisect(sink, attrs.evolve(BATCH, records=table)).letters
        assert letter.record == {"n": 6}
        assert connection.written == [{"n": 4}, {"n": 5}, {"n": 7}]
        assert [len(batch) for batch in sink.batches] == [4, 2, 2, 1, 1]

    def test_without_a_limit_all_may_be_refused(self, bisect: Any) -> None:
        done = bisect(Strict(*range(8)))
        assert (len(done.letters), done.overfull) == (8, False)

    @pytest.mark.parametrize(("room", "letters", "accepted"), [(0, 1, 1), (2, 3, 3), (3, 3, 5)])
    def test_where_there_is_no_room_it_ends(self, bisect: Any, room: int, letters: int, accepted: int) -> None:
        done = bisect(Strict(1, 3, 5), room=room)
        assert (len(done.letters), done.overfull, done.accepted) == (letters, letters > room, accepted)

    def test_a_transient_error_is_no_refusal(self, bisect: Any, connection: Savepoints) -> None:
        with pytest.raises(ConnectionError):
            bisect(Strict(5, error=lambda _: ConnectionError("cut")))
        assert connection.events == ["savepoint"]

    def test_an_error_that_ended_the_transaction_is_no_refusal(self, bisect: Any, connection: Savepoints) -> None:
        connection.failure = LookupError("no such savepoint")
        with pytest.raises(ValueError, match="no 5") as caught:
            bisect(Strict(5))
        assert caught.value.__cause__ is connection.failure

    def test_going_back_may_fail_for_a_moment(self, bisect: Any, connection: Savepoints) -> None:
        connection.failure = ConnectionError("cut")
        with pytest.raises(ConnectionError):
            bisect(Strict(5))


def test_what_is_a_refusal(retrier: Retrier) -> None:
    assert is_refusal(ValueError("no"), retrier)
    assert not is_refusal(ConnectionError("cut"), retrier)
    assert not is_refusal(LeaseLostError("j", 7), retrier)


def test_a_letter_has_a_key_of_its_own() -> None:
    letter = DeadLetter(id=12, job_id="j", run=3, record=5, error="", key="ab")
    assert letter_key(letter) == key_of("letter:12", "ab")


class Book:
    """Stands for the checkpoints, with one transaction on one connection; what fails in it is undone."""

    def __init__(self, connection: Savepoints, retrier: Retrier) -> None:
        self.job = JOB
        self.connection = connection
        self.retrier = retrier
        self.calls: list[Any] = []

    def save(self, job: Job) -> None:
        self.calls.append(("save", job))
        self.job = job

    def transact(self, call: str, work: Callable[[Any], Job]) -> None:
        self.calls.append(call)
        try:
            self.job = work(SimpleNamespace(connection=self.connection))
        except Exception:
            self.connection.written.clear()
            raise


class Letters(MemoryJobStore):
    """Looks like a store that has transactions and keeps dead letters."""

    kept: list[DeadLetter] | None = None

    def transaction(self) -> None: ...
    def enlist(self) -> None: ...
    def dead_letters(self) -> None: ...
    def remove_dead_letter(self) -> None: ...
    def purge_dead_letters(self) -> None: ...

    def add_dead_letters(self, letters: list[DeadLetter], transaction: Any) -> None:
        assert isinstance(transaction.connection, Savepoints)
        self.kept = list(letters)


def after(batch: Batch[Any], refused: int) -> Job:
    return attrs.evolve(JOB, cursor=batch.cursor, dead_letters=JOB.dead_letters + refused)


class TestTogether:
    """Sink and checkpoint in one transaction."""

    @pytest.fixture
    def book(self, connection: Savepoints, retrier: Retrier) -> Book:
        return Book(connection, retrier)

    @pytest.fixture
    def store(self) -> Letters:
        return Letters()

    @pytest.fixture
    def delivery(self, book: Book, store: Letters, retrier: Retrier) -> Callable[..., Delivery]:
        def make(sink: Any, **options: Any) -> Delivery:
            pieces: Any = SimpleNamespace(store=store, retrier=retrier, options=Options(**options))
            return Delivery(pieces, sink, book)  # type: ignore[arg-type]

        return make

    def test_rows_and_checkpoint_commit_in_one(self, delivery: Any, book: Book, connection: Savepoints) -> None:
        assert delivery(Strict(), on_refused="dead_letter").deliver(BATCH, after) == []
        assert (book.calls, book.job) == (["write"], after(BATCH, 0))
        assert (connection.written, connection.events) == (list(range(8)), [])

    def test_a_refusal_fails_unless_letters_are_wanted(self, delivery: Any, book: Book, store: Letters) -> None:
        with pytest.raises(ValueError, match="no 5"):
            delivery(Strict(5)).deliver(BATCH, after)
        assert (book.calls, store.kept) == (["write"], None)

    def test_a_failure_that_is_none_is_raised(self, delivery: Any, book: Book) -> None:
        with pytest.raises(LeaseLostError):
            delivery(Strict(5, error=lambda _: LeaseLostError("j", 7)), on_refused="dead_letter").deliver(BATCH, after)
        assert book.calls == ["write"]

    def test_refused_records_are_kept_with_the_rows(
        self, delivery: Any, book: Book, store: Letters, connection: Savepoints
    ) -> None:
        letters = delivery(Strict(5, 6), on_refused="dead_letter").deliver(BATCH, after)
        assert [letter.record for letter in letters] == [5, 6]
        assert (book.calls, book.job) == (["write", "write"], after(BATCH, 2))
        assert (store.kept, connection.written) == (letters, [0, 1, 2, 3, 4, 7])

    def test_the_tries_before_are_not_counted(self, delivery: Any, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
        work: list[Callable[[Any], Job]] = []
        transact = book.transact

        def twice(call: str, given: Callable[[Any], Job]) -> None:
            work.append(given)
            transact(call, given)
            if len(work) == 2:
                given(SimpleNamespace(connection=Savepoints()))  # the commit failed, and all is done again

        monkeypatch.setattr(book, "transact", twice)
        letters = delivery(Strict(5), on_refused="dead_letter").deliver(BATCH, after)
        assert [letter.record for letter in letters] == [5]

    @pytest.mark.parametrize(("limit", "refused"), [(4, 2), (None, 7)])
    def test_as_many_are_kept_as_may_be(self, delivery: Any, limit: int | None, refused: int) -> None:
        delivering = delivery(Strict(*range(refused)), on_refused="dead_letter", max_dead_letters=limit)
        assert len(delivering.deliver(BATCH, after)) == refused

    @pytest.mark.parametrize(("limit", "before", "refused"), [(4, 2, 3), (1, 2, 1), (0, 0, 1)])
    def test_and_no_more(self, delivery: Any, book: Book, limit: int, before: int, refused: int) -> None:
        book.job = attrs.evolve(JOB, dead_letters=before)
        with pytest.raises(DeadLetterLimitError, match=f"max_dead_letters={limit}") as caught:
            delivery(Strict(*range(refused)), on_refused="dead_letter", max_dead_letters=limit).deliver(BATCH, after)
        assert (caught.value.job_id, str(caught.value.__cause__)) == ("j", "no 0")
        assert book.job.dead_letters == before

    def test_where_nothing_was_ever_accepted_the_refusal_itself_is_raised(
        self, delivery: Any, book: Book, store: Letters
    ) -> None:
        book.job = attrs.evolve(JOB, processed_records=0)
        with pytest.raises(ValueError, match="no 0"):
            delivery(Strict(*range(8)), on_refused="dead_letter").deliver(BATCH, after)
        assert store.kept is None

    @pytest.mark.parametrize(("records", "refused"), [(0, 7), (40, 8)])
    def test_where_anything_was_accepted_it_is_not(self, delivery: Any, book: Book, records: int, refused: int) -> None:
        book.job = attrs.evolve(JOB, processed_records=records)
        delivering = delivery(Strict(*range(refused)), on_refused="dead_letter")
        assert len(delivering.deliver(BATCH, after)) == refused

    def test_what_failed_only_at_first_is_delivered(self, delivery: Any, book: Book) -> None:
        book.job = attrs.evolve(JOB, processed_records=0)
        sink, errors = Strict(), [ValueError("once")]
        write = sink.write

        def moody(batch: Batch[Any], connection: Any) -> None:
            if errors:
                raise errors.pop()
            write(batch, connection)

        sink.write = moody  # type: ignore[method-assign]
        assert delivery(sink, on_refused="dead_letter").deliver(BATCH, after) == []

    def test_the_end_of_the_run_commits_with_it(self, delivery: Any, book: Book, connection: Savepoints) -> None:
        done = after(BATCH, 0)
        delivery(Strict()).complete(done)
        assert (book.calls, book.job, connection.events) == (["complete"], done, [("complete", done)])


class Outside:
    """A sink that writes elsewhere, and fails for a moment at each call."""

    transactional = False
    idempotent = False

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.errors = [ConnectionError("cut"), ConnectionError("cut")]

    def write(self, batch: Batch[Any], connection: None) -> None:
        self._note("write", batch, connection)

    def complete(self, job: Job, connection: None) -> None:
        self._note("complete", job, connection)

    def _note(self, *call: Any) -> None:
        if call[0] not in [before[0] for before in self.calls] and self.errors:
            self.calls.append((call[0], "cut"))
            raise self.errors.pop()
        self.calls.append(call)


def test_elsewhere_the_sink_comes_first_and_then_the_checkpoint(
    connection: Savepoints, retrier: Retrier, failed: list[str]
) -> None:
    book, sink = Book(connection, retrier), Outside()
    pieces: Any = SimpleNamespace(store=Letters(), retrier=retrier, options=Options())
    delivery = Delivery(pieces, sink, book)  # type: ignore[arg-type]
    assert delivery.deliver(BATCH, after) == []
    assert book.calls == [("save", after(BATCH, 0))]
    delivery.complete(JOB)
    assert book.calls[1:] == [("save", JOB)]
    assert sink.calls[1::2] == [("write", BATCH, None), ("complete", JOB, None)]
    assert failed == ["write", "complete"]
