"""A source that changes between attempts, on every database: said, judged, and read by the columns of the start."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, text
from typing_extensions import override

from doubles import FAST, saved
from resumable_sync import (
    Batch,
    Event,
    JobStatus,
    MemoryJobStore,
    Page,
    SourceChangedError,
    SyncResult,
    SyncStarted,
    TransientError,
    plan_full_sync,
    run_full_sync,
)
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.testing import Fault, FaultyConnector, Raise


@pytest.fixture
def source(engine: Engine) -> Engine:
    execute(engine, "CREATE TABLE items (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(20), price INTEGER)")
    with engine.begin() as connection:
        rows = [{"id": number, "name": f"name {number}", "price": number % 3} for number in range(1, 21)]
        connection.execute(text("INSERT INTO items VALUES (:id, :name, :price)"), rows)
    return engine


def execute(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


class Collected:
    """Keeps rows and the columns they came with."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.columns: list[Any] = []

    def __call__(self, batch: Batch[Any]) -> None:
        self.rows += batch.records
        self.columns.append(batch.columns)


@pytest.fixture
def target() -> Collected:
    return Collected()


@pytest.fixture
def half(store: MemoryJobStore, source: Engine, target: Collected) -> Any:
    """Makes a job that was interrupted after ten records, and gives what goes on with it."""

    def go(*arguments: Any, options: Any = None, **connecting: Any) -> SyncResult:
        with closing(SQLConnector(source, *(arguments or ("items",)), **connecting)) as connector:
            return run_full_sync("j", connector, target, store=store, **({"batch_size": 5} | (options or {})))

    return go


WIDER = "ALTER TABLE items ADD COLUMN extra INTEGER"


@pytest.mark.parametrize("arguments", [("items",), ("SELECT * FROM items", "id")], ids=["table", "query"])
def test_a_column_added_in_the_middle_needs_consent_and_changes_no_batch(
    store: MemoryJobStore, source: Engine, target: Collected, half: Any, arguments: tuple[Any, ...]
) -> None:
    half(*arguments, options={"max_records": 5})
    execute(source, WIDER)
    before = saved(store)
    with pytest.raises(SourceChangedError, match=r"columns \(added 'extra'\).*if_changed='resume'") as caught:
        half(*arguments)
    assert (caught.value.changed, caught.value.impossible) == (("columns",), ())
    assert saved(store) == before
    half(*arguments, options={"if_changed": "resume", "max_records": 5})
    result = half(*arguments)  # consent was given once
    assert (result.action, result.status) == ("resume", "completed")
    assert set(target.columns) == {("id", "name", "price")}
    assert [row[0] for row in target.rows] == list(range(1, 21))
    assert {len(row) for row in target.rows} == {3}
    target.rows.clear()
    anew = half(*arguments)
    assert (anew.job.run, {len(row) for row in target.rows}) == (2, {4})


def test_a_column_that_is_gone_is_refused_with_consent_too(
    store: MemoryJobStore, source: Engine, target: Collected, half: Any
) -> None:
    half(options={"max_records": 5})
    execute(source, "ALTER TABLE items DROP COLUMN price")
    for if_changed in ("raise", "resume"):
        with pytest.raises(SourceChangedError, match=r"columns \(gone 'price'\).*reset_job"):
            half(options={"if_changed": if_changed})
    target.rows.clear()
    result = half(options={"if_changed": "rerun"})
    assert (result.action, result.job.run, len(target.rows)) == ("new", 2, 20)


@pytest.mark.parametrize(
    ("arguments", "connecting", "part"),
    [(("items", "-id"), {}, "key"), (("items",), {"paging": "offset"}, "paging")],
)
def test_another_key_or_paging_is_refused_with_consent_too(
    store: MemoryJobStore, half: Any, arguments: tuple[Any, ...], connecting: dict[str, Any], part: str
) -> None:
    half(options={"max_records": 5})
    before = saved(store)
    with pytest.raises(SourceChangedError) as caught:
        half(*arguments, options={"if_changed": "resume"}, **connecting)
    assert (caught.value.changed, caught.value.impossible) == ((part,), (part,))
    assert saved(store) == before


def test_a_narrower_query_needs_consent(target: Collected, half: Any) -> None:
    query = "SELECT id, name FROM items WHERE price < :most"
    half(query, "id", params={"most": 9}, options={"max_records": 5})
    with pytest.raises(SourceChangedError, match="checkpoint: params;"):
        half(query, "id", params={"most": 1})
    with pytest.raises(SourceChangedError, match="checkpoint: query;"):
        half(query + " AND id < 100", "id", params={"most": 9})
    result = half(query, "id", params={"most": 1}, options={"if_changed": "resume"})
    assert (result.action, result.status) == ("resume", "completed")
    assert [row[0] for row in target.rows] == [1, 2, 3, 4, 5, 6, 9, 12, 15, 18]


def test_what_is_harmless_needs_no_consent(target: Collected, half: Any) -> None:
    half("SELECT id, name FROM items", "id", options={"max_records": 5})
    half(
        "SELECT id,\n  name\nFROM items -- all\n", ["id"], paging="stream", options={"batch_size": 3, "max_records": 3}
    )
    result = half("SELECT id, name FROM items;", [("id", "asc")], options={"throttle": lambda: 0.0, "prefetch": 0})
    assert (result.action, result.status) == ("resume", "completed")
    assert [row[0] for row in target.rows] == list(range(1, 21))


def test_plan_says_the_same(store: MemoryJobStore, source: Engine, target: Collected, half: Any) -> None:
    half(options={"max_records": 5})
    execute(source, WIDER)
    with closing(SQLConnector(source, "items")) as connector:
        plan = plan_full_sync("j", connector, target, store=store)
        assert plan.action == "refuse"
        assert "added 'extra'" in plan.reason
        plan = plan_full_sync("j", connector, target, store=store, if_changed="resume")
        assert (plan.action, plan.processed_records) == ("resume", 5)
    assert saved(store).status is JobStatus.INTERRUPTED


MOVES = {
    "is gone": "DELETE FROM items WHERE id = 5",
    "is not what it was": "UPDATE items SET name = 'changed' WHERE id = 5",
}


@pytest.mark.parametrize("moved", list(MOVES))
def test_a_last_row_that_moved_is_a_warning(  # noqa: PLR0917 - fixtures
    store: MemoryJobStore,
    source: Engine,
    target: Collected,
    half: Any,
    caplog: pytest.LogCaptureFixture,
    moved: str,
) -> None:
    half(options={"max_records": 5})
    execute(source, MOVES[moved])
    with closing(SQLConnector(source, "items")) as connector:
        plan = plan_full_sync("j", connector, target, store=store)
    assert plan.action == "resume"
    assert f"the last record delivered {moved}" in plan.reason
    caplog.clear()
    assert half().status == "completed"
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"the last record delivered {moved}" in warning
    assert "changed'" not in warning
    assert [row[0] for row in target.rows] == list(range(1, 21))


@pytest.mark.parametrize("paging", ["keyset", "stream", "offset"])
@pytest.mark.parametrize("moved", list(MOVES))
def test_a_last_row_that_moved_is_refused_or_starts_anew(  # noqa: PLR0917 - fixtures
    store: MemoryJobStore, source: Engine, target: Collected, half: Any, moved: str, paging: Any
) -> None:
    half(options={"max_records": 5}, paging=paging)
    execute(source, MOVES[moved])
    before = saved(store)
    # At the offset of a row that is gone stands another one.
    events: list[Event] = []
    told = "is not what it was" if paging == "offset" else moved
    with pytest.raises(SourceChangedError, match=f"anchor .the last record delivered {told}.; start over") as caught:
        half(if_moved="raise", paging=paging, options={"observers": [events.append]})
    assert caught.value.changed == ("anchor",)
    assert (saved(store), events) == (before, [])
    with closing(SQLConnector(source, "items", paging=paging, if_moved="raise")) as connector:
        assert plan_full_sync("j", connector, target, store=store).action == "refuse"
    target.rows.clear()
    result = half(if_moved="rerun", paging=paging)
    assert (result.action, result.job.run, result.status) == ("new", 2, "completed")
    assert len(target.rows) == (19 if moved == "is gone" else 20)


def test_a_run_that_starts_anew_because_the_last_row_moved_reads_the_columns_that_were_added(
    source: Engine, target: Collected, half: Any
) -> None:
    half(options={"max_records": 5})
    execute(source, WIDER, "UPDATE items SET name = 'new' WHERE id = 5")
    target.rows.clear()
    result = half(if_moved="rerun", options={"if_changed": "resume"})
    assert (result.action, result.job.run) == ("new", 2)
    assert (len(target.rows), {len(row) for row in target.rows}) == (20, {4})


def test_a_source_that_stays_moves_nothing(source: Engine, target: Collected, half: Any) -> None:
    half(options={"max_records": 5})
    execute(source, "DELETE FROM items WHERE id IN (4, 6)", "UPDATE items SET price = 9 WHERE id <> 5", WIDER)
    half(options={"max_records": 5, "if_changed": "resume"}, if_moved="raise")
    half(options={"max_records": 3}, if_moved="raise", paging="stream")
    assert half(if_moved="raise").status == "completed"
    assert [row[0] for row in target.rows] == [1, 2, 3, 4, 5, *range(7, 21)]


def test_a_cursor_of_before_there_were_anchors_goes_on(
    store: MemoryJobStore, source: Engine, target: Collected, half: Any
) -> None:
    half(options={"max_records": 5})
    lease = store.acquire("j", owner="editor", ttl=60)
    store.save(attrs.evolve(saved(store), cursor=(saved(store).cursor or [])[:2]), lease)
    store.release(lease)
    execute(source, MOVES["is gone"])
    assert half(if_moved="raise").status == "completed"
    assert [row[0] for row in target.rows] == list(range(1, 21))


def test_one_connector_for_many_runs_sees_what_was_added_between_them(
    store: MemoryJobStore, source: Engine, target: Collected
) -> None:
    with closing(SQLConnector(source, "items")) as connector:
        run_full_sync("j", connector, target, store=store, max_records=5, batch_size=5)
        execute(source, WIDER)
        run_full_sync("j", connector, target, store=store, if_changed="resume")
        assert set(target.columns) == {("id", "name", "price")}
        run_full_sync("j", connector, target, store=store)
    assert target.columns[-1] == ("id", "name", "price", "extra")


class Widening(Collected):
    """While the first batch is written, another thread changes the source, and asks something of its connector."""

    def __init__(self, source: Engine, ask: Callable[[], object]) -> None:
        super().__init__()
        self._source = source
        self._ask = ask

    @override
    def __call__(self, batch: Batch[Any]) -> None:
        if not self.columns:
            execute(self._source, WIDER, "INSERT INTO items (id, name) VALUES (99, 'beyond the bound')")
            with ThreadPoolExecutor(1) as other:
                other.submit(self._ask).result()
        super().__call__(batch)


@pytest.mark.parametrize("done", [0, 5], ids=["new", "resume"])
def test_a_plan_that_is_made_meanwhile_changes_no_batch_of_a_run(
    store: MemoryJobStore, source: Engine, target: Collected, done: int
) -> None:
    """It looks the source up anew, and once the run read on by what it found as soon as a page had to be read again."""
    with closing(SQLConnector(source, "items")) as connector:
        if done:
            run_full_sync("j", connector, target, store=store, batch_size=5, max_records=done)
        sink = Widening(source, lambda: plan_full_sync("another", connector, target, store=store))
        flaky = FaultyConnector(connector, [Fault("page", 2, Raise(TransientError, ("busy",)))])
        result = run_full_sync("j", flaky, sink, store=store, batch_size=5, prefetch=0, retry=FAST)
    assert (result.action, result.status) == ("resume" if done else "new", "completed")
    assert set(sink.columns) == {("id", "name", "price")}
    assert [row[0] for row in sink.rows] == list(range(done + 1, 21))


def test_what_only_hands_on_to_a_connector_is_read_itself(store: MemoryJobStore, source: Engine) -> None:
    """An attempt reads by a connector of its own, which is not that one's inner one; Python 3.11 takes it for that."""

    class Upper:
        def __init__(self, inner: SQLConnector) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def read(self, cursor: Any, batch_size: int) -> Iterator[Page[Any]]:
            for page in self.inner.read(cursor, batch_size):
                yield attrs.evolve(page, records=[(row[0], row[1].upper(), *row[2:]) for row in page.records])

    sink = Collected()
    with closing(SQLConnector(source, "items")) as connector:
        wrapped: Any = Upper(connector)
        run_full_sync("j", wrapped, sink, store=store, batch_size=5, max_records=5)
        execute(source, WIDER)
        run_full_sync("j", wrapped, sink, store=store, batch_size=5, if_changed="resume")
    assert [row[1] for row in sink.rows] == [f"NAME {number}" for number in range(1, 21)]


def test_a_run_that_starts_anew_has_not_counted_yet(
    store: MemoryJobStore, source: Engine, target: Collected, half: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its first line told the number of the run before."""
    half(options={"max_records": 5, "count": False})
    lease = store.acquire("j", owner="editor", ttl=60)
    store.save(attrs.evolve(saved(store), total_records=20), lease)
    store.release(lease)
    execute(source, MOVES["is gone"])
    events: list[Event] = []
    with closing(SQLConnector(source, "items", if_moved="rerun")) as connector:
        assert plan_full_sync("j", connector, target, store=store).total_records is None
    with caplog.at_level(logging.INFO, "resumable_sync"):
        half(if_moved="rerun", options={"observers": [events.append]})
    (begun,) = [record.getMessage() for record in caplog.records if ": new (" in record.getMessage()]
    assert "at record 0 of an unknown number" in begun
    assert isinstance(events[0], SyncStarted)
    assert (events[0].job.total_records, events[0].plan.total_records) == (None, None)
