"""`JobStoreSuite`, third part: rows and checkpoint commit together; dead letters are part of that."""

# ruff: noqa: PT012, DOC501 - a block that is to fail as a whole, by an error raised in it

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, create_engine, text

from resumable_sync._cursor import encode_cursor
from resumable_sync._errors import ConfigurationError, LeaseLostError
from resumable_sync._model import DeadLetter, Job, JobStatus
from resumable_sync._protocols import DeadLetterStore, JobStore, StoreTransaction, TransactionalJobStore
from resumable_sync.testing._samples import CURSORS
from resumable_sync.testing._store_base import LONG, StoreBase

__all__ = ["StoredTogether"]

_TABLE = "resumable_sync_suite_rows"


class StoredTogether(StoreBase):
    """What `TransactionalJobStore` and `DeadLetterStore` promise; skipped for stores that are neither."""

    @pytest.fixture
    def transactional_store(self, store: JobStore) -> TransactionalJobStore:
        """Give the store, if it has transactions."""
        if not isinstance(store, TransactionalJobStore):
            pytest.skip("the store is not transactional")
        return store

    @pytest.fixture
    def dead_letter_store(self, store: JobStore) -> DeadLetterStore:
        """Give the store, if it keeps dead letters."""
        if not isinstance(store, DeadLetterStore):
            pytest.skip("the store keeps no dead letters")
        return store

    @pytest.fixture
    def rows_engine(self, transactional_store: TransactionalJobStore) -> Iterator[Engine]:
        """Give an engine on the store's database, which holds an empty table for rows.

        Yields:
            The engine; the table is dropped afterwards.
        """
        with transactional_store.transaction() as transaction:
            engine = transaction.connection.engine
        with engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE {_TABLE} (n INTEGER NOT NULL)"))
        yield engine
        with engine.begin() as connection:
            connection.execute(text(f"DROP TABLE {_TABLE}"))

    def test_rows_and_job_commit_together(
        self, transactional_store: TransactionalJobStore, rows_engine: Engine
    ) -> None:
        """At the end of the block both are there, and the answer extends the lease."""
        store = transactional_store
        job, lease = self.begin(store)
        with store.transaction() as transaction:
            _insert(transaction.connection, 1)
            saved = transaction.save(_advanced(job), lease)
        assert saved.fencing_token == lease.fencing_token
        assert saved.expires_at >= lease.expires_at
        assert _rows(rows_engine) == [1]
        assert self.facts(store.load("job")) == self.facts(_advanced(job))

    @pytest.mark.parametrize("error", [RuntimeError("the sink failed"), KeyboardInterrupt(), GeneratorExit()])
    def test_rows_and_job_roll_back_together(
        self, transactional_store: TransactionalJobStore, rows_engine: Engine, error: BaseException
    ) -> None:
        """An exception that leaves the block undoes both, and arrives as it is."""
        store = transactional_store
        job, lease = self.begin(store)
        with pytest.raises(type(error)) as caught, store.transaction() as transaction:
            _insert(transaction.connection, 1)
            transaction.save(_advanced(job), lease)
            raise error
        assert caught.value is error
        assert _rows(rows_engine) == []
        assert self.facts(store.load("job")) == self.facts(job)
        with store.transaction() as transaction:
            _insert(transaction.connection, 2)
            transaction.save(_advanced(job), lease)
        assert _rows(rows_engine) == [2]

    @pytest.mark.parametrize("error", [None, RuntimeError("the sink failed")])
    def test_leaving_a_transaction_twice_is_harmless(
        self, transactional_store: TransactionalJobStore, rows_engine: Engine, error: Exception | None
    ) -> None:
        """`__exit__` may come again, after a signal handler cut it short; the first one decided."""
        store = transactional_store
        job, lease = self.begin(store)
        block = store.transaction()
        transaction = block.__enter__()
        _insert(transaction.connection, 1)
        transaction.save(_advanced(job), lease)
        kind = None if error is None else type(error)
        for _ in range(2):
            block.__exit__(kind, error, None)
        assert _rows(rows_engine) == ([1] if error is None else [])
        assert self.facts(store.load("job")) == self.facts(job if error else _advanced(job))
        with store.transaction() as transaction:
            _insert(transaction.connection, 2)
            transaction.save(_advanced(job), lease)
        assert _rows(rows_engine)[-1] == 2

    def test_the_rows_of_a_zombie_are_rolled_back(
        self, transactional_store: TransactionalJobStore, rows_engine: Engine
    ) -> None:
        """A transaction whose lease was lost leaves nothing behind."""
        store = transactional_store
        job, lease = self.begin(store)
        store.acquire("job", owner="two", ttl=LONG, replacing=lease.fencing_token)
        before = store.load("job")
        with pytest.raises(LeaseLostError), store.transaction() as transaction:
            _insert(transaction.connection, 1)
            transaction.save(_advanced(job), lease)
        assert _rows(rows_engine) == []
        assert store.load("job") == before

    def test_a_stop_is_seen_in_a_transaction(self, transactional_store: TransactionalJobStore) -> None:
        """The answer of a transaction's `save` tells whether a stop was requested."""
        store = transactional_store
        job, lease = self.begin(store)
        store.request_stop("job")
        with store.transaction() as transaction:
            saved = transaction.save(_advanced(job), lease)
        assert saved.stop_requested

    @pytest.mark.parametrize("call", ["commit", "rollback"])
    def test_the_block_may_not_end_the_transaction(
        self, transactional_store: TransactionalJobStore, rows_engine: Engine, call: str
    ) -> None:
        """A sink that would commit or roll back is stopped before it can."""
        store = transactional_store
        job, lease = self.begin(store)
        with pytest.raises(ConfigurationError), store.transaction() as transaction:
            _insert(transaction.connection, 1)
            getattr(transaction.connection, call)()
        assert _rows(rows_engine) == []
        assert self.facts(store.load("job")) == self.facts(job)
        with store.transaction() as transaction:
            transaction.save(_advanced(job), lease)
        assert self.facts(store.load("job")) == self.facts(_advanced(job))

    def test_savepoints_work(self, transactional_store: TransactionalJobStore, rows_engine: Engine) -> None:
        """A part of the transaction can be undone (that is how refused records are found)."""
        store = transactional_store
        job, lease = self.begin(store)
        with store.transaction() as transaction:
            with pytest.raises(RuntimeError), transaction.connection.begin_nested():
                _insert(transaction.connection, 1)
                msg = "refused"
                raise RuntimeError(msg)
            with transaction.connection.begin_nested():
                _insert(transaction.connection, 2)
            transaction.save(_advanced(job), lease)
        assert _rows(rows_engine) == [2]

    def test_enlisting_follows_the_transaction_of_the_caller(
        self, transactional_store: TransactionalJobStore, rows_engine: Engine
    ) -> None:
        """The job is saved when the caller's transaction commits, and not before."""
        store = transactional_store
        job, lease = self.begin(store)
        with rows_engine.begin() as connection:
            _insert(connection, 1)
            transaction = store.enlist(connection)
            assert transaction.connection is connection
            transaction.save(_advanced(job), lease)
        assert _rows(rows_engine) == [1]
        assert self.facts(store.load("job")) == self.facts(_advanced(job))
        further = attrs.evolve(_advanced(job), processed_records=30)
        with pytest.raises(RuntimeError), rows_engine.begin() as connection:
            _insert(connection, 2)
            store.enlist(connection).save(further, lease)
            msg = "the caller failed"
            raise RuntimeError(msg)
        assert _rows(rows_engine) == [1]
        assert self.facts(store.load("job")) == self.facts(_advanced(job))

    def test_enlisting_fences_zombies(self, transactional_store: TransactionalJobStore, rows_engine: Engine) -> None:
        """A lost lease saves nothing in the caller's transaction either."""
        store = transactional_store
        job, lease = self.begin(store)
        store.acquire("job", owner="two", ttl=LONG, replacing=lease.fencing_token)
        with pytest.raises(LeaseLostError), rows_engine.begin() as connection:
            _insert(connection, 1)
            store.enlist(connection).save(_advanced(job), lease)
        assert _rows(rows_engine) == []

    def test_enlisting_in_another_database_is_refused(self, transactional_store: TransactionalJobStore) -> None:
        """A transaction of another database cannot carry the checkpoint."""
        elsewhere = create_engine("sqlite://")
        try:
            with elsewhere.begin() as connection, pytest.raises(ConfigurationError):
                transactional_store.enlist(connection)
        finally:
            elsewhere.dispose()

    def test_dead_letters_come_back_as_they_were(self, dead_letter_store: DeadLetterStore) -> None:
        """Letters come in the order in which they were added, with every type intact."""
        store = dead_letter_store
        self.begin(store)
        letters = [_letter("job", {"value": value}, cursor=value) for value in CURSORS.values()]
        letters.append(_letter("job", (1, None, "x"), columns=("id", "gone", "name"), cursor=None))
        with store.transaction() as transaction:
            store.add_dead_letters(letters[:2], transaction)
            store.add_dead_letters([], transaction)
        with store.transaction() as transaction:
            store.add_dead_letters(letters[2:], transaction)
        stored = list(store.dead_letters("job"))
        assert [encode_cursor(letter.record) for letter in stored] == [encode_cursor(one.record) for one in letters]
        assert [encode_cursor(letter.cursor) for letter in stored] == [encode_cursor(one.cursor) for one in letters]
        assert [_plain(letter) for letter in stored] == [_plain(letter) for letter in letters]
        ids = [letter.id for letter in stored]
        assert ids == sorted(set(ids))
        assert list(store.dead_letters("nobody")) == []

    def test_dead_letters_are_part_of_the_transaction(self, dead_letter_store: DeadLetterStore) -> None:
        """Adding, removing and purging are undone with everything else."""
        store = dead_letter_store
        self.begin(store)
        with store.transaction() as transaction:
            store.add_dead_letters([_letter("job", {"n": 1})], transaction)
        (kept,) = store.dead_letters("job")
        msg = "failed"
        changes: list[Callable[[StoreTransaction], None]] = [
            lambda transaction: store.add_dead_letters([_letter("job", {"n": 2})], transaction),
            lambda transaction: store.remove_dead_letter(kept, transaction),
            lambda transaction: store.purge_dead_letters("job", transaction),
        ]
        for change in changes:
            with pytest.raises(RuntimeError), store.transaction() as transaction:
                change(transaction)
                raise RuntimeError(msg)
            assert list(store.dead_letters("job")) == [kept]

    def test_dead_letters_are_removed_one_by_one_or_all(self, dead_letter_store: DeadLetterStore) -> None:
        """Only what is named goes: one letter, the letters of one job."""
        store = dead_letter_store
        for job_id in ("job", "JOB"):
            self.begin(store, job_id)
            with store.transaction() as transaction:
                store.add_dead_letters([_letter(job_id, {"n": number}) for number in range(3)], transaction)
        first, second, third = store.dead_letters("job")
        for _ in range(2):
            with store.transaction() as transaction:
                store.remove_dead_letter(second, transaction)
            assert list(store.dead_letters("job")) == [first, third]
        with store.transaction() as transaction:
            store.purge_dead_letters("job", transaction)
        assert list(store.dead_letters("job")) == []
        assert [letter.record for letter in store.dead_letters("JOB")] == [{"n": 0}, {"n": 1}, {"n": 2}]

    def test_listed_dead_letters_are_a_snapshot(self, dead_letter_store: DeadLetterStore) -> None:
        """Letters may be removed while they are gone through."""
        store = dead_letter_store
        self.begin(store)
        with store.transaction() as transaction:
            store.add_dead_letters([_letter("job", {"n": number}) for number in range(5)], transaction)
        seen = []
        for letter in store.dead_letters("job"):
            seen.append(letter.record["n"])
            with store.transaction() as transaction:
                store.remove_dead_letter(letter, transaction)
        assert seen == [0, 1, 2, 3, 4]
        assert list(store.dead_letters("job")) == []

    def test_deleting_a_job_forgets_its_dead_letters(self, dead_letter_store: DeadLetterStore) -> None:
        """A job that comes again has none of them."""
        store = dead_letter_store
        for job_id in ("job", "other"):
            self.begin(store, job_id)
            with store.transaction() as transaction:
                store.add_dead_letters([_letter(job_id, {"n": 1})], transaction)
        store.delete("job")
        self.begin(store, "job")
        assert list(store.dead_letters("job")) == []
        assert len(list(store.dead_letters("other"))) == 1


def _advanced(job: Job) -> Job:
    return attrs.evolve(job, status=JobStatus.RUNNING, cursor=[20], processed_records=20, processed_batches=2)


def _letter(job_id: str, record: Any, **fields: Any) -> DeadLetter:
    return DeadLetter(job_id=job_id, run=1, record=record, error="ValueError: no", key="0" * 32, **fields)


def _plain(letter: DeadLetter) -> tuple[Any, ...]:
    columns = None if letter.columns is None else tuple(letter.columns)
    return (letter.job_id, letter.run, letter.error, letter.key, columns)


def _insert(connection: Any, number: int) -> None:
    connection.execute(text(f"INSERT INTO {_TABLE} (n) VALUES ({number})"))  # noqa: S608 - our own table and number


def _rows(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text(f"SELECT n FROM {_TABLE} ORDER BY n")).scalars())  # noqa: S608 - our own table
