"""The link to the server is cut around a commit, at any other message, at random moments, or swallows everything."""

import contextlib
import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from proxies import Link, TCPProxy, is_commit
from resumable_sync import (
    Batch,
    BatchCommitted,
    Event,
    FullSync,
    Job,
    JobHeldError,
    LeaseLostError,
    ResumableSyncError,
    Retry,
    StoreError,
    SyncResult,
    run_full_sync,
)
from resumable_sync.stores.sql import SQLJobStore
from trouble.parts import (
    JOB_ID,
    PATIENT,
    TARGET,
    Insert,
    Numbers,
    check_consistent,
    check_exact,
    empty_target,
    engine_of,
    make_target,
    with_query,
)

KINDS = ["postgresql", "mariadb"]
TOTAL, BATCH_SIZE = 60, 10
IMPATIENT = Retry(max_tries=1)
BOUND = 60.0
"""Seconds within which a busy machine gets over what takes a few."""
CUTS = int(os.environ.get("RESUMABLE_SYNC_TEST_CUTS", "500"))
"""How many cuts each of the long tests makes, per kind of database: before COMMITs, after them, at random moments."""

NewDatabase = Callable[[str], str]
OpenProxy = Callable[[str], TCPProxy]


class Scissors:
    """Cuts one link of a proxy, once.

    Attributes:
        cut: Whether it has.
        count: How many such moments there were.

    Args:
        proxy: The proxy.
        moment: `"before commit"` (the COMMIT never arrives), `"after commit"` (its answer never does), `"request"` or
            `"answer"` (any message).
        nth: At which of these, from 1.
        act: What happens there instead of a cut.
    """

    def __init__(self, proxy: TCPProxy, moment: str, nth: int, act: Callable[[Link], object] = Link.cut) -> None:
        self.cut = False
        self.count = 0
        self._proxy, self._moment, self._nth, self._act = proxy, moment, nth, act
        self._answer_on: Link | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._proxy.to_server, self._proxy.to_client = self._request, self._answer
        return self

    def __exit__(self, *_: object) -> None:
        self._proxy.to_server = self._proxy.to_client = None

    def _request(self, link: Link, chunk: bytes) -> None:
        if self._moment == "request" or (self._moment == "before commit" and is_commit(chunk)):
            self._at(link)
        elif self._moment == "after commit" and is_commit(chunk):
            with self._lock:
                self.count += 1
                if self.count == self._nth:
                    self._answer_on = link

    def _answer(self, link: Link, _chunk: bytes) -> None:
        if self._moment == "answer":
            self._at(link)
        elif self._answer_on is link and not self.cut:
            self.cut = True
            self._act(link)

    def _at(self, link: Link) -> None:
        with self._lock:
            self.count += 1
            if self.count != self._nth:
                return
            self.cut = True
        self._act(link)


class Trial:
    """Runs the same sync again and again through a proxy, and judges what came of it."""

    def __init__(self, url: str, proxy: TCPProxy) -> None:
        self.url = url
        self.proxy = proxy
        self.events: list[Event] = []
        self.direct, self.through = SQLJobStore(url), SQLJobStore(proxy.url)
        make_target(url)

    def close(self) -> None:
        """Close what is open."""
        self.direct.close()
        self.through.close()

    def run(self, store: SQLJobStore, **options: Any) -> SyncResult:
        """Run the sync."""
        self.events.clear()
        # A ttl that lets the heartbeat take part.
        arguments: dict[str, Any] = {"batch_size": BATCH_SIZE, "lease_ttl": 0.5, "if_held": "wait"} | options
        return run_full_sync(JOB_ID, Numbers(TOTAL), Insert(), store=store, observers=[self.events.append], **arguments)

    def attempt(self, **options: Any) -> SyncResult | None:
        """Run through the proxy; None if it failed, with an error that says what happened."""
        result, failure = None, None
        try:
            result = self.run(self.through, **options)
        except Exception as error:
            failure = error
        assert failure is None or is_clear(failure), repr(failure)
        job = check_consistent(self.url)
        sequences = [event.sequence for event in self.events if isinstance(event, BatchCommitted)]
        assert sequences == sorted(set(sequences)), "a batch was reported twice"
        if result is not None:
            self._judge(result, job, len(sequences))
        return result

    def _judge(self, result: SyncResult, job: Job | None, reported: int) -> None:
        assert (result.status, result.records, reported) == ("completed", TOTAL, TOTAL // BATCH_SIZE)
        assert job is not None
        assert (result.job.status, result.job.cursor) == (job.status, job.cursor)

    def finish(self) -> None:
        """Start again over a link that holds: every record is there once."""
        assert self.run(self.direct, if_completed="skip").status == "completed"
        check_exact(self.url, TOTAL)


def is_clear(error: Exception) -> bool:
    """Whether an error is the library's, or the driver's about its connection."""
    if isinstance(error, LeaseLostError):
        return False  # nobody else wanted the job
    return isinstance(error, ResumableSyncError) or type(error).__module__.startswith((
        "sqlalchemy",
        "psycopg",
        "pymysql",
    ))


@pytest.fixture
def trial(request: pytest.FixtureRequest, new_database: NewDatabase, tcp_proxy: OpenProxy) -> Iterator[Trial]:
    kind: str = request.param
    url = new_database(kind)
    made = Trial(url, tcp_proxy(url))
    yield made
    made.close()


each_kind = pytest.mark.parametrize("trial", KINDS, indirect=True)
# Half of the pairs in every run of the tests, the others in the long one.
around_commits = pytest.mark.parametrize(
    ("trial", "moment"),
    [
        ("postgresql", "before commit"),
        ("mariadb", "after commit"),
        pytest.param("postgresql", "after commit", marks=pytest.mark.crash),
        pytest.param("mariadb", "before commit", marks=pytest.mark.crash),
    ],
    indirect=["trial"],
)


def sweep(trial: Trial, moment: str, *, first: int = 1, step: int = 1, **options: Any) -> Iterator[SyncResult | None]:
    """Cut at the first, the next, ... such moment of a sync, until a sync has no such moment any more."""
    for nth in itertools.count(first, step):
        empty_target(trial.url)
        with Scissors(trial.proxy, moment, nth) as scissors:
            result = trial.attempt(**options)
        if not scissors.cut:
            assert nth > TOTAL // BATCH_SIZE
            return
        yield result
        if result is None:
            trial.finish()


@around_commits
def test_a_cut_around_any_commit_is_got_over(trial: Trial, moment: str) -> None:
    # Every second one: the batches are alike, and where one half begins the other one does not.
    for result in sweep(trial, moment, retry=PATIENT, first=1 + (moment == "after commit"), step=2):
        assert result is not None


@around_commits
def test_a_cut_around_any_commit_without_another_try(trial: Trial, moment: str) -> None:
    for _ in sweep(trial, moment, retry=IMPATIENT, step=3):
        pass


@around_commits
def test_a_cut_around_the_commit_of_the_callers_own_transaction(trial: Trial, moment: str) -> None:
    def loop(engine: Engine) -> None:
        with FullSync(JOB_ID, Numbers(TOTAL), store=trial.through, batch_size=BATCH_SIZE, retry=PATIENT) as sync:
            for batch in sync:
                with engine.begin() as connection:
                    connection.execute(TARGET.insert(), [{"number": number} for number in batch.records])
                    sync.commit(batch, connection)

    with engine_of(trial.proxy.url) as engine:
        for nth in itertools.count(1, 3):
            empty_target(trial.url)
            with Scissors(trial.proxy, moment, nth) as scissors, contextlib.suppress(SQLAlchemyError):
                loop(engine)
            if not scissors.cut:
                break
            job = check_consistent(trial.url)
            assert job is not None
            assert (job.lease, job.status) in [(None, "failed"), (None, "completed")]
            trial.finish()
    assert nth > TOTAL // BATCH_SIZE


@around_commits
def test_a_plain_sink_is_not_handed_again_what_it_accepted(trial: Trial, moment: str) -> None:
    for nth in itertools.count(1, 3):
        empty_target(trial.url)
        got: list[int] = []

        def sink(batch: Batch[int], got: list[int] = got) -> None:
            got.extend(batch.records)

        with Scissors(trial.proxy, moment, nth) as scissors:
            result = run_full_sync(JOB_ID, Numbers(TOTAL), sink, store=trial.through, batch_size=10, retry=PATIENT)
        assert (result.status, got) == ("completed", list(range(TOTAL)))
        if not scissors.cut:
            break
    assert nth > TOTAL // BATCH_SIZE


@each_kind
@pytest.mark.parametrize("moment", ["request", "answer"])
def test_a_cut_at_any_message_is_got_over(trial: Trial, moment: str) -> None:
    for result in sweep(trial, moment, retry=PATIENT, step=11):
        assert result is not None


@each_kind
@pytest.mark.parametrize(
    ("moment", "nth"), [("request", 3), ("request", 8), ("request", 13), ("request", 17), ("after commit", 2)]
)
def test_a_cut_while_the_tables_are_made(trial: Trial, moment: str, nth: int) -> None:
    with Scissors(trial.proxy, moment, nth) as scissors:
        assert trial.attempt(retry=PATIENT) is not None
    assert scissors.cut
    trial.finish()


@each_kind
def test_cuts_at_random_moments(trial: Trial) -> None:
    cut_randomly(trial, 8)


@pytest.mark.crash
@pytest.mark.timeout(3600)
@each_kind
def test_many_cuts_at_random_moments(trial: Trial) -> None:
    cut_randomly(trial, CUTS)


@pytest.mark.crash
@pytest.mark.timeout(7200)
@each_kind
@pytest.mark.parametrize("moment", ["before commit", "after commit"])
def test_many_cuts_around_a_commit(trial: Trial, moment: str) -> None:
    chance = random.Random(moment)
    with Scissors(trial.proxy, moment, 10**9) as uncut:
        assert trial.attempt() is not None
    cuts, outcomes = 0, Counter[str]()
    for number in range(20 * CUTS):
        if cuts == CUTS:
            break
        empty_target(trial.url)
        with Scissors(trial.proxy, moment, chance.randint(1, uncut.count)) as scissors:
            result = trial.attempt(retry=IMPATIENT if number % 2 else PATIENT)
        cuts += scissors.cut
        outcomes["failed" if result is None else str(result.status)] += scissors.cut
        if result is None:
            trial.finish()
        else:
            check_exact(trial.url, TOTAL)
    print(f"{trial.url.partition(':')[0]} {moment}: {cuts} cuts, {dict(outcomes)}")
    assert cuts == CUTS


def cut_randomly(trial: Trial, count: int) -> None:
    chance = random.Random(count)
    normal = trial.run(trial.through).seconds
    for number in range(count):
        empty_target(trial.url)
        done = threading.Event()
        moments = sorted(chance.uniform(0, normal) for _ in range(1 + number % 3))
        cutter = threading.Thread(target=_cut_at, args=(trial.proxy, moments, done))
        cutter.start()
        try:
            result = trial.attempt(retry=IMPATIENT if number % 4 == 3 else PATIENT)
        finally:
            done.set()
            cutter.join()
        if result is None:
            trial.finish()


def _cut_at(proxy: TCPProxy, moments: list[float], done: threading.Event) -> None:
    started = time.monotonic()
    for moment in moments:
        done.wait(max(0.0, started + moment - time.monotonic()))
        proxy.cut()


@each_kind
@pytest.mark.parametrize("moment", ["before commit", "after commit"])
def test_a_link_that_swallows_a_commit(trial: Trial, moment: str) -> None:
    # MariaDB's driver has a timeout of its own; for PostgreSQL the kernel ends a link on which nothing is acknowledged,
    # which a proxy cannot show.
    mariadb = trial.url.startswith("mysql")
    swallowed, restored = threading.Event(), threading.Event()

    def swallow(_link: Link) -> None:
        trial.proxy.blackhole()
        swallowed.set()
        restored.wait(60)

    def restore() -> None:
        swallowed.wait(60)
        restored.wait(2.5 if mariadb else 0.5)
        trial.proxy.cut()
        trial.proxy.restore()
        restored.set()

    restorer = threading.Thread(target=restore)
    restorer.start()
    url = with_query(trial.proxy.url, read_timeout="1", connect_timeout="1") if mariadb else trial.proxy.url
    with Scissors(trial.proxy, moment, 12, swallow) as scissors, SQLJobStore(url) as store:
        result = trial.run(store, retry=PATIENT)
    restorer.join()
    assert scissors.cut
    assert result.status == "completed"
    assert result.seconds < BOUND
    check_exact(trial.url, TOTAL)


def test_a_server_that_never_answers_again_is_given_up(new_database: NewDatabase, tcp_proxy: OpenProxy) -> None:
    url = new_database("mariadb")
    make_target(url)
    proxy = tcp_proxy(url)
    # More than a busy machine stands still: before the third batch nothing shall take that long.
    impatient = with_query(proxy.url, read_timeout="3", connect_timeout="3")

    def swallow(batch: Batch[int]) -> None:
        if batch.sequence == 2:
            proxy.blackhole()

    with SQLJobStore(impatient) as store:
        began = time.monotonic()
        with pytest.raises((StoreError, SQLAlchemyError)):
            run_full_sync(JOB_ID, Numbers(TOTAL), Insert(swallow), store=store, batch_size=10, retry=IMPATIENT)
        assert time.monotonic() - began < BOUND
    proxy.cut()
    job = check_consistent(url)
    assert job is not None
    assert job.processed_batches == 2
    with SQLJobStore(url) as store:
        lease = job.lease
        assert lease is not None, "nothing could be released"
        with pytest.raises(JobHeldError):  # its owner, this process, is alive
            run_full_sync(JOB_ID, Numbers(TOTAL), Insert(), store=store, batch_size=10)
