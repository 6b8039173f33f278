"""What type checkers say of the public interface. Checked by mypy and pyright (`nox -s typing`), never run.

Every public name is used here as its users do, and what it gives is stated. A line with an `ignore` is a mistake that
must be found: both checkers report an `ignore` that is not needed.
"""

import concurrent.futures
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, assert_type

import attrs
import pytest
import sqlalchemy as sa
from typing_extensions import override

from resumable_sync import (
    AnchoredConnector,
    ArrowRows,
    AttemptRecord,
    Batch,
    BatchCommitted,
    Checkpoint,
    CheckpointingSink,
    Column,
    ColumnKind,
    ConfigurationError,
    Connector,
    ConnectorPart,
    CopyText,
    CrashLoopError,
    Cursor,
    CursorError,
    DeadLetter,
    DeadLetterLimitError,
    DeadLetterStore,
    DescribingConnector,
    Difference,
    Event,
    ExecutorBrokenError,
    Format,
    FormattingConnector,
    FormattingSink,
    FullSync,
    Guarantee,
    History,
    HistoryStore,
    Job,
    JobHeldError,
    JobStatus,
    JobStore,
    KeyPage,
    KeyRanges,
    KeysetConnector,
    Lease,
    LeaseLostError,
    LineageStore,
    MemoryJobStore,
    MissingExtraError,
    Observer,
    OffsetConnector,
    Page,
    Part,
    PartitionableSink,
    PartsProgressed,
    PinnableConnector,
    Plan,
    PreparingSink,
    RangeConnector,
    RecordRefused,
    ResumableSyncError,
    Retry,
    Sample,
    SeekableConnector,
    SingleWorkerJobStore,
    Sink,
    SourceChangedError,
    SplittableConnector,
    SQLiteWindow,
    StaleRecordsError,
    StateCorruptError,
    StoreError,
    StoreTransaction,
    SyncFinished,
    SyncResult,
    SyncStarted,
    Throttle,
    TokenConnector,
    TransactionalJobStore,
    TransientError,
    TryFailed,
    VerifyResult,
    begin_partitioned_sync,
    complete_partitioned_sync,
    decode_cursor,
    encode_cursor,
    part_of,
    plan_full_sync,
    registry,
    replay_dead_letters,
    reset_job,
    run_full_sync,
    run_partitioned_sync,
    transactional,
    verify_full_sync,
)
from resumable_sync.connectors.files import CSVConnector, JSONLinesConnector
from resumable_sync.connectors.http import (
    HTTPConnector,
    HTTPResponseError,
    KeysetPaging,
    LinkPaging,
    OffsetPaging,
    PagePaging,
    RequestConnector,
    TokenPaging,
)
from resumable_sync.connectors.parquet import ParquetConnector
from resumable_sync.connectors.sql import SQLConnector, SQLQueryTemplate
from resumable_sync.observers.log import StructuredLog
from resumable_sync.observers.opentelemetry import OpenTelemetryObserver
from resumable_sync.observers.rich import RichProgress
from resumable_sync.observers.tqdm import TqdmProgress
from resumable_sync.report import job_report, store_report
from resumable_sync.sinks.files import CSVSink, JSONLinesSink
from resumable_sync.sinks.parquet import ParquetSink
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.redis import RedisJobStore
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import ConnectorSuite, JobStoreSuite, SinkSuite

if TYPE_CHECKING:
    import httpx2


@attrs.frozen
class Order:
    id: int
    customer: str


class ByOffset(OffsetConnector[Order]):
    @override
    def fetch(self, offset: int, limit: int) -> list[Order]:
        return [Order(offset, "a")][:limit]


class ByKey(KeysetConnector[Order, int]):
    fingerprint = "orders"

    @override
    def fetch(self, after: int | None, limit: int) -> Sequence[Order]:
        return [Order((after or 0) + 1, "a")][:limit]

    @override
    def key_of(self, record: Order) -> int:
        return record.id


class ByToken(TokenConnector[Order, str]):
    @override
    def fetch(self, token: str | None, limit: int) -> tuple[Sequence[Order], str | None]:
        return [Order(1, token or "")][:limit], None


class ByRequest(RequestConnector[Order]):
    @override
    def request(self, cursor: Any, limit: int) -> "httpx2.Request":
        raise NotImplementedError

    @override
    def parse(self, response: "httpx2.Response") -> tuple[Sequence[Order], Any]:
        return [], None


class Whole:
    """A connector that inherits nothing."""

    fingerprint: str | None = None

    def read(self, cursor: Cursor | None, batch_size: int) -> Iterator[Page[Order]]:
        yield Page([Order(1, "a")][:batch_size], [1])

    def count(self) -> int | None:
        return None


class Numbers(OffsetConnector[int]):
    @override
    def fetch(self, offset: int, limit: int) -> range:
        return range(offset, offset + limit)


class WrongKey(KeysetConnector[Order, int]):
    @override
    def fetch(self, after: int | None, limit: int) -> Sequence[Order]:
        return []

    @override
    def key_of(self, record: Order) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return record.customer


class WrongRecords(OffsetConnector[Order]):
    @override
    def fetch(self, offset: int, limit: int) -> list[int]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return []


def connectors() -> None:
    orders: Connector[Order] = ByOffset()
    orders = ByKey()
    orders = ByToken()
    orders = ByRequest()
    orders = Whole()
    orders = Numbers()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    for page in orders.read(None, 100):
        assert_type(page, Page[Order])
        assert_type(page.records, Sequence[Order])
    assert_type(orders.count(), int | None)
    objects: Connector[object] = orders  # who can bear any record bears an order
    numbers: Connector[int] = orders  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del objects, numbers

    assert_type(ByOffset().split(4), Sequence[ConnectorPart[Order]])
    splittable: SplittableConnector[Order] = ByOffset()
    assert_type(splittable.part([0, 10]), ConnectorPart[Order])
    seekable: SeekableConnector = ByOffset()
    assert_type(seekable.cursor_at(3) is None, bool)


def built_in_connectors(engine: sa.Engine, table: sa.Table) -> None:
    rows: Connector[tuple[Any, ...]] = SQLConnector("sqlite:///shop.db", "orders")
    rows = SQLConnector(engine, sa.select(table), key=["region", ("at", "desc"), "id"], paging="stream")
    rows = SQLConnector(engine, "SELECT 1", "id", params={"at": 1}, if_moved="raise")
    rows = SQLQueryTemplate(engine, "SELECT * FROM orders LIMIT :limit OFFSET :offset")
    rows = CSVConnector(Path("orders.csv"), delimiter=";", compression=None)
    orders: Connector[Order] = SQLConnector(engine, table)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del rows, orders
    SQLConnector(engine, table, paging="page")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    SQLConnector(engine, table, if_moved="resume")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    anything: Connector[Order] = JSONLinesConnector("events-*.jsonl.gz", storage_options={"anon": True})
    anything = ParquetConnector("orders.parquet", columns=["id"])
    anything = HTTPConnector("https://api.example.com/orders", paging=OffsetPaging(), records="data", concurrency=4)
    anything = HTTPConnector("https://api.example.com/orders", paging=PagePaging(), auth=("etl", "secret"))
    anything = HTTPConnector("https://api.example.com/orders", paging=TokenPaging(token="next", token_param="cursor"))
    anything = HTTPConnector("https://api.example.com/orders", paging=LinkPaging())
    anything = HTTPConnector("https://api.example.com/orders", paging=KeysetPaging(key={"since_id": "id"}))
    del anything
    HTTPConnector("https://api.example.com/orders")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    HTTPConnector("https://api.example.com/", paging="offset")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def abilities(connector: SQLConnector, file: CSVConnector, pinnable: PinnableConnector[Order]) -> None:
    assert_type(pinnable.pin(["id"]), Connector[Order])
    assert_type(connector.split(4), Sequence[SQLConnector])
    assert_type(file.split(4), Sequence[CSVConnector])
    assert_type(connector.pin(["id"]), SQLConnector)
    anchored: AnchoredConnector = connector
    assert_type(anchored.moved([1]), str | None)
    ranged: RangeConnector = connector
    ranges = ranged.ranges(["id"])
    assert_type(ranges, KeyRanges)
    page = ranges.page(None, [7], 100)
    assert_type(page, KeyPage)
    assert_type(page.rows, list[tuple[Any, ...]])
    assert_type(ranges.kinds, Mapping[str, ColumnKind])
    formatting: FormattingConnector = connector
    for one in formatting.formats():
        assert_type(one, Format)
        assert_type(one.columns, tuple[str, ...])
    describing: DescribingConnector = file
    assert_type(describing.columns(), Sequence[Column])
    for column in describing.columns():
        assert_type(column.name, str)
        assert_type(column.nullable, bool)
    assert_type(CopyText(b"1\ta\n", 1)[0], bytes)
    assert_type(len(ArrowRows(None)), int)
    window = SQLiteWindow(
        uri="", select="", counted="", parameters=(), last="", last_parameters=(), digest=None, rows=1
    )
    assert_type(window[0], tuple[Any, ...])


class OrderSink(Sink[Order]):
    transactional = True
    idempotent = False

    @override
    def begin(self, job: Job, connection: sa.Connection | None) -> None:
        assert_type(job.has_progress, bool)

    @override
    def write(self, batch: Batch[Order], connection: sa.Connection | None) -> None:
        for order in batch.records:
            assert_type(order, Order)

    @override
    def complete(self, job: Job, connection: sa.Connection | None) -> None:
        assert_type(job.status, JobStatus)

    def part(self, job: Job) -> "OrderSink":
        return self

    def prepare(self, columns: Sequence[Column]) -> None: ...

    def checkpoint(self, job: Job) -> Checkpoint | None:
        return Checkpoint(run_id="7d7e", cursor=[1], processed_records=1, processed_batches=1)

    def takes(self, format_: Format, job: Job, /) -> bool:
        return format_.name == "mine"


def write_orders(batch: Batch[Order]) -> None:
    assert_type(batch.records, Sequence[Order])
    assert_type(batch.dicts(), list[dict[str, Any]])
    assert_type(len(batch), int)
    assert_type(batch.key, str)
    assert_type(batch.fencing_token, int)
    assert_type(batch.columns, Sequence[str] | None)


def write_numbers(batch: Batch[int]) -> None: ...


def write_anything(batch: Batch[object]) -> int:
    return len(batch)


@transactional
def insert_orders(batch: Batch[Order], connection: sa.Connection) -> None:
    connection.execute(sa.text("INSERT INTO orders VALUES (:id)"), [{"id": order.id} for order in batch.records])


def sinks() -> None:
    orders: Sink[Order] = OrderSink()
    orders = insert_orders
    orders = SQLSink("orders", mode="replace")
    orders = SQLSink("orders", mode="upsert", key=["id"], url="postgresql://etl@db/dw", on_schema_change="evolve")
    orders = JSONLinesSink(Path("orders.jsonl"))
    orders = CSVSink("orders.csv", columns=["id"])
    orders = ParquetSink("lake/orders", mode="append")
    numbers: Sink[int] = OrderSink()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del orders, numbers
    SQLSink("orders")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    SQLSink("orders", mode="merge")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    transactional(write_orders)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    preparing: PreparingSink = OrderSink()
    checkpointing: CheckpointingSink = SQLSink("orders", mode="append", url="sqlite:///elsewhere.db")
    formatting: FormattingSink = OrderSink()
    partitionable: PartitionableSink[Order] = OrderSink()
    del preparing, checkpointing, formatting, partitionable


def abilities_of_sinks(checkpointing: CheckpointingSink, partitionable: PartitionableSink[Order]) -> None:
    assert_type(checkpointing.checkpoint(Job(id="orders")), Checkpoint | None)
    assert_type(partitionable.part(Job(id="orders")), Sink[Order])


def syncs(store: JobStore, observer: Observer) -> None:
    result = run_full_sync("orders", ByKey(), OrderSink(), store=store)
    assert_type(result, SyncResult)
    assert_type(result.job, Job)
    assert_type(result.status, JobStatus)
    assert_type(result.guarantee, Guarantee)
    assert_type(result.reason, str | None)
    assert_type(result.seconds, float)
    run_full_sync("orders", ByOffset(), write_orders)
    run_full_sync("orders", ByToken(), write_anything)
    run_full_sync("orders", Whole(), insert_orders)
    run_full_sync("orders", ByRequest(), SQLSink("orders", mode="append"))
    run_full_sync("orders", ByRequest(), lambda batch: assert_type(batch, Batch[Order]))
    seen: list[Order] = []
    run_full_sync("orders", ByKey(), lambda batch: seen.extend(batch.records))
    run_full_sync("rows", SQLConnector("sqlite:///shop.db", "orders"), SQLSink("orders", mode="replace"))
    run_full_sync("rows", SQLConnector("sqlite:///shop.db", "orders"), lambda batch: batch.records[0][0])

    run_full_sync("orders", Numbers(), OrderSink())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run_full_sync("orders", Numbers(), write_orders)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run_full_sync("orders", Whole(), write_numbers)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run_full_sync("orders", Numbers(), insert_orders)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run_full_sync("orders", [1, 2], write_numbers)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run_full_sync("orders", Numbers, write_numbers)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run_full_sync("orders", Numbers(), print, store="jobs.db")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run_full_sync("orders", Numbers())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    run_full_sync("orders", SQLConnector("sqlite://", "orders"), write_orders)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    run_full_sync(
        "orders",
        ByKey(),
        write_orders,
        batch_size="auto",
        count=False,
        if_completed="skip",
        if_held="wait",
        if_changed="resume",
        resume_within=86_400.0,
        on_refused="fail",
        max_dead_letters=None,
        retry=Retry(on=OSError, max_tries=3, timeout=10.0),
        lease_ttl=30,
        prefetch=2,
        max_stalled_attempts=3,
        max_runtime=3_600,
        max_records=1_000,
        should_stop=lambda: False,
        stop_on_signals=True,
        throttle=Throttle(500),
        observers=[observer],
        fast_path=False,
    )
    run_full_sync("orders", ByKey(), write_orders, if_held="retry")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run_full_sync("orders", ByKey(), write_orders, batch=10)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    run_full_sync("orders", ByKey(), write_orders, should_stop=lambda: None)  # type: ignore[arg-type,return-value]  # pyright: ignore[reportArgumentType]
    run_full_sync("orders", ByKey(), write_orders, observers=observer)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def plans(store: JobStore) -> None:
    plan = plan_full_sync("orders", ByKey(), write_orders, store=store, if_completed="skip")
    assert_type(plan, Plan)
    assert_type(plan.action, Literal["new", "resume", "skip", "held", "refuse"])
    assert_type(plan.job, Job | None)
    plan_full_sync("orders", Numbers(), write_orders)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plan_full_sync("orders", ByKey(), write_orders, if_held="retry")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def own_loop(store: JobStore, engine: sa.Engine) -> None:
    with FullSync("orders", ByKey(), store=store, max_records=10) as sync:
        assert_type(sync, FullSync[Order])
        for batch in sync:
            assert_type(batch, Batch[Order])
            with engine.begin() as connection:
                sync.commit(batch, connection)
    assert_type(sync.job, Job)
    assert_type(sync.result, SyncResult)
    FullSync("orders", ByKey(), write_orders)  # type: ignore[call-arg,arg-type]  # pyright: ignore[reportCallIssue]


def parts(store: JobStore, executor: concurrent.futures.Executor) -> None:
    result = run_partitioned_sync("orders", ByOffset(), write_orders, store=store, executor=executor, parts=8)
    assert_type(result, SyncResult)
    run_partitioned_sync("orders", ByOffset(), OrderSink(), store=store, executor=executor)
    run_partitioned_sync("orders", Numbers(), write_orders, store=store, executor=executor)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run_partitioned_sync("orders", Numbers(), write_numbers, store=store)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    found = begin_partitioned_sync("orders", ByOffset(), write_orders, store=store, parts=8)
    assert_type(found, Sequence[Part])
    begin_partitioned_sync("orders", Numbers(), write_orders, store=store, parts=8)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    part = part_of("orders", 3, store=store)
    assert_type(part, Part)
    assert_type(part.parent, Job)
    assert_type(part.run(ByOffset(), write_orders, store=store, max_runtime=60), SyncResult)
    part.run(Numbers(), write_orders, store=store)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(complete_partitioned_sync("orders", ByOffset(), write_orders, store=store), SyncResult)
    complete_partitioned_sync("orders", Numbers(), write_orders, store=store)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def afterwards(store: SQLJobStore, connector: SQLConnector, file: CSVConnector) -> None:
    assert_type(replay_dead_letters("orders", insert_orders, store=store), SyncResult)
    assert_type(reset_job("orders", store=store), Job)
    verdict = verify_full_sync(file, connector, key="id", columns=["customer"], store=store, batch_size=100)
    assert_type(verdict, VerifyResult)
    assert_type(verdict.ok, bool)
    for difference in verdict.differences:
        assert_type(difference, Difference)
        assert_type(difference.kind, Literal["missing", "extra", "different"])
    verify_full_sync(connector, file)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(encode_cursor([1, "a"]), str)
    decode_cursor(encode_cursor(None))


class JobsTable(SingleWorkerJobStore):
    @override
    def load(self, job_id: str) -> Job | None:
        return Job(id=job_id, status=JobStatus.FAILED, processed_records=3)

    @override
    def save(self, job: Job, lease: Lease) -> Lease:
        assert_type(lease.expires_at, datetime)
        return lease


def stores(engine: sa.Engine) -> None:
    store: JobStore = MemoryJobStore()
    store = JobsTable()
    store = RedisJobStore("redis://cache/0", key_prefix="etl")
    store = SQLJobStore("sqlite:///jobs.db")
    store = SQLJobStore(engine, table_prefix="etl_")
    lease = store.acquire("orders", owner="me", ttl=60.0, replacing=None)
    assert_type(lease, Lease)
    assert_type(store.renew(lease, 60.0), Lease)
    assert_type(store.load("orders"), Job | None)
    assert_type(store.jobs(), Iterable[Job])
    store.acquire("orders", "me", 60.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    wrong: JobStore = {"orders": 1}  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    wrong = OrderSink()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del wrong


def more_of_stores(connection: sa.Connection, job: Job, lease: Lease) -> None:
    with SQLJobStore() as store:
        assert_type(store, SQLJobStore)
        transactional_store: TransactionalJobStore = store
        assert_type(transactional_store.transaction(), AbstractContextManager[StoreTransaction])
        with transactional_store.transaction() as transaction:
            assert_type(transaction.connection, sa.Connection)
            assert_type(transaction.save(job, lease), Lease)
        assert_type(transactional_store.enlist(connection), StoreTransaction)
        letters: DeadLetterStore = store
        for letter in letters.dead_letters("orders"):
            assert_type(letter, DeadLetter)
        lineage: LineageStore = store
        for attempt in lineage.attempts("orders"):
            assert_type(attempt, AttemptRecord)
            assert_type(attempt.host, str | None)
        histories: HistoryStore = store
        if (history := histories.history("orders")) is not None:
            assert_type(history, History)
            assert_type(history.samples, tuple[Sample, ...])
            assert_type(history.stops, Mapping[int, str])
        assert_type(job_report("orders", store=store), str)
        assert_type(store_report(), str)
    memory: TransactionalJobStore = MemoryJobStore()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del memory


def observe(event: Event) -> None:
    match event:
        case SyncStarted():
            assert_type(event.plan, Plan)
        case BatchCommitted():
            assert_type(event.write_seconds, float)
        case PartsProgressed():
            assert_type(event.job, Job)
        case TryFailed():
            assert_type(event.wait, float | None)
        case RecordRefused():
            assert_type(event.error, str)
        case SyncFinished():
            assert_type(event.result, SyncResult)


def built_in_observers() -> None:
    with RichProgress() as progress:
        observers: list[Observer] = [StructuredLog(), TqdmProgress(), progress, OpenTelemetryObserver()]
    run_full_sync("orders", ByKey(), write_orders, observers=observers)


def by_name(environ: Mapping[str, str]) -> None:
    source = registry.connector({"type": "sql", "url": "${SHOP_URL}", "table": "orders"}, environ=environ)
    target = registry.sink({"type": "sql", "table": "orders", "mode": "replace"})
    store = registry.store({"type": "sql", "url": "sqlite:///jobs.db"})
    assert_type(run_full_sync("orders", source, target, store=store), SyncResult)
    assert_type(registry.names("connectors"), list[str])
    registry.names("observers")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def errors() -> None:
    wrong_observer: Observer = write_orders  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del wrong_observer
    try:
        run_full_sync("orders", ByKey(), write_orders, observers=[observe])
    except JobHeldError as error:
        assert_type(error.owner, str)
        assert_type(error.expires_at, datetime | None)
    except (SourceChangedError, CrashLoopError, DeadLetterLimitError) as error:
        assert_type(error.job_id, str)
    except (LeaseLostError, CursorError, StateCorruptError, StoreError, ExecutorBrokenError, HTTPResponseError):
        raise
    except (ConfigurationError, MissingExtraError, StaleRecordsError):
        raise
    except ResumableSyncError as error:
        raise TransientError(str(error), retry_after=2.0) from None


class TestOrders(ConnectorSuite):
    @pytest.fixture
    @override
    def connector(self) -> ByKey:
        return ByKey()

    @pytest.fixture
    @override
    def expected(self) -> list[Order]:
        return []


class TestJobs(JobStoreSuite):
    @pytest.fixture
    @override
    def store(self) -> JobStore:
        return MemoryJobStore()


class TestSink(SinkSuite):
    @pytest.fixture
    @override
    def sink(self) -> OrderSink:
        return OrderSink()
