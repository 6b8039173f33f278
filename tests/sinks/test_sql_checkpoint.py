"""`SQLSink(url=...)`: rows, checkpoint and fencing token move together, whatever is lost on the way."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, Integer, create_engine, event, text, update
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from proxies import TCPProxy, is_commit
from resumable_sync import Checkpoint, Column, LeaseLostError, StateCorruptError, StoreError
from resumable_sync._retry import is_transient
from resumable_sync.sinks.sql import SQLSink
from sinks.driving import CHECKPOINTS_TABLE, JOB_ID, batch, job, kept

COLUMNS = [Column(name="n", type=Integer())]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = create_engine(database_url, poolclass=NullPool)
    yield made
    made.dispose()


@pytest.fixture
def make(engine: Engine) -> Iterator[Callable[..., SQLSink]]:
    sinks: list[SQLSink] = []

    def sink(url: str | None = None, mode: Any = "append") -> SQLSink:
        sinks.append(SQLSink("numbers", mode, url=url or engine.url))
        sinks[-1].prepare(COLUMNS)
        return sinks[-1]

    yield sink
    for each in sinks:
        each.close()


def rows(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT n FROM numbers ORDER BY n")).scalars())


def numbers(number: int, **changes: Any) -> Any:
    """Batch 0 holds 0 to 2, batch 1 3 to 5, and so on."""
    return batch([(3 * number + each,) for each in range(3)], ["n"], number=number, **changes)


def begin(sink: SQLSink, **changes: Any) -> Checkpoint | None:
    found = sink.checkpoint(job(**changes))
    sink.begin(job(**changes), None)
    return found


def test_rows_and_checkpoint_move_together(engine: Engine, make: Any) -> None:
    sink = make()
    assert begin(sink) is None
    sink.write(numbers(0), None)
    assert kept(engine) == [Checkpoint(run_id="run 1", cursor="[1,[1]]", processed_records=3, processed_batches=1)]
    sink.write(numbers(1), None)
    assert begin(make(), token=2) == Checkpoint(run_id="run 1", cursor=[2], processed_records=6, processed_batches=2)
    assert rows(engine) == list(range(6))


def test_a_batch_that_is_there_already_is_not_written_again(engine: Engine, make: Any) -> None:
    sink = make()
    begin(sink)
    sink.write(numbers(0), None)
    sink.write(numbers(0), None)
    sink.write(numbers(1), None)
    sink.write(numbers(1, token=5), None)
    assert rows(engine) == list(range(6))


@pytest.mark.parametrize("number", [0, 2])
def test_a_batch_out_of_sequence_is_refused_and_not_written(engine: Engine, make: Any, number: int) -> None:
    sink = make()
    begin(sink)
    sink.write(numbers(0), None)
    strange = numbers(number, previous_cursor=[7], cursor=[9])
    with pytest.raises(StoreError, match=r"does not follow.*reset_job") as caught:
        sink.write(strange, None)
    assert not is_transient(caught.value)
    assert rows(engine) == [0, 1, 2]
    sink.write(numbers(1), None)
    assert rows(engine) == list(range(6))


def test_an_older_token_changes_nothing(engine: Engine, make: Any) -> None:
    zombie, successor = make(), make()
    begin(zombie, token=1)
    zombie.write(numbers(0, token=1), None)
    begin(successor, token=2, cursor=[1], processed_records=3, processed_batches=1)
    calls: list[Callable[[], Any]] = [
        lambda: zombie.write(numbers(1, token=1), None),
        lambda: zombie.write(numbers(0, token=1), None),
        lambda: zombie.checkpoint(job(token=1)),
        lambda: zombie.begin(job(token=1), None),
        lambda: zombie.complete(job(token=1), None),
        lambda: zombie.complete(attrs.evolve(job(), lease=None), None),
    ]
    for call in calls:
        with pytest.raises(LeaseLostError):
            call()
    assert kept(engine)[0].processed_records == 3
    successor.write(numbers(1, token=2), None)
    # The engine gets a new token when it settles what became of a commit; the batch in hand keeps the old one.
    successor.checkpoint(job(token=2))
    successor.write(numbers(2, token=3), None)
    assert rows(engine) == list(range(9))


def test_a_deleted_checkpoint_is_a_lost_lease_and_not_a_new_one(engine: Engine, make: Any) -> None:
    sink = make()
    begin(sink)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM resumable_sync_checkpoints"))
    with pytest.raises(LeaseLostError):
        sink.write(numbers(0), None)
    assert rows(engine) == []


def test_a_new_run_starts_its_checkpoint_and_keeps_the_rows(engine: Engine, make: Any) -> None:
    sink = make()
    begin(sink)
    sink.write(numbers(0), None)
    sink.complete(attrs.evolve(job(), lease=None), None)
    assert begin(sink, run_id="run 2", token=2) is None
    assert kept(engine) == [Checkpoint(run_id="run 2", cursor="[1,null]", processed_records=0, processed_batches=0)]
    sink.write(numbers(0, token=2), None)
    assert rows(engine) == [0, 0, 1, 1, 2, 2]


def test_the_run_that_died_before_the_store_knew_goes_on(engine: Engine, make: Any) -> None:
    sink = make()
    begin(sink)
    sink.write(numbers(0), None)
    # The store shows no progress, and even an engine that overlooked the checkpoint must not lose it.
    again = make()
    assert begin(again, token=2) == Checkpoint(run_id="run 1", cursor=[1], processed_records=3, processed_batches=1)
    again.write(numbers(1, token=2), None)
    again.complete(job(token=2), None)
    # Nor one that died in the completion.
    assert begin(make(), token=3, cursor=[2], processed_records=6) is not None
    assert rows(engine) == list(range(6))


def test_runs_without_id_are_told_by_number_and_by_having_ended(engine: Engine, make: Any) -> None:
    sink = make()
    begin(sink, run_id=None)
    sink.write(numbers(0), None)
    progress: dict[str, Any] = {"cursor": [1], "processed_records": 3}
    assert begin(sink, run_id=None, **progress) == Checkpoint(
        run_id=None, cursor=[1], processed_records=3, processed_batches=1
    )
    sink.complete(job(run_id=None, **progress), None)
    assert begin(sink, run_id=None, token=2, **progress) is not None
    assert begin(sink, run_id=None, token=3) is None
    sink.write(numbers(0, token=3), None)


def test_progress_that_the_target_does_not_have_is_refused(engine: Engine, make: Any) -> None:
    sink = make()
    with pytest.raises(StoreError, match="no checkpoint of that run"):
        begin(sink, cursor=[4], processed_records=12)
    assert rows(engine) == []


def test_jobs_and_targets_have_a_checkpoint_each(engine: Engine, make: Any) -> None:
    sink, other = make(), SQLSink("others", "append", url=engine.url)
    other.prepare(COLUMNS)
    begin(sink)
    begin(other)
    sink.write(numbers(0), None)
    jobs = ["JOB", "job ", "jöb", "Jöb%'\"", "x" * 255]
    for name in jobs:
        sink.checkpoint(attrs.evolve(job(), id=name))
        sink.begin(attrs.evolve(job(), id=name), None)
        sink.write(numbers(0, job_id=name), None)
    begin(sink)
    sink.write(numbers(1), None)
    other.write(numbers(0), None)
    other.close()
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT job_id, target, processed_records FROM resumable_sync_checkpoints")
        ).all()
    shown = sorted((*[each.decode() if isinstance(each, bytes) else each for each in row[:2]], row[2]) for row in found)
    assert shown == sorted([("job", "numbers", 6), ("job", "others", 3), *[(name, "numbers", 3) for name in jobs]])


@pytest.mark.parametrize(
    ("field", "value"), [("cursor", "'nonsense'"), ("cursor", "'[9,1]'"), ("processed_records", "-1")]
)
def test_a_damaged_checkpoint_is_told_and_left_alone(engine: Engine, make: Any, field: str, value: str) -> None:
    begin(make())
    with engine.begin() as connection:
        connection.execute(update(CHECKPOINTS_TABLE).values({field: text(value)}))
    before = kept(engine)
    with pytest.raises(StateCorruptError, match="job"):
        begin(make(), token=2)
    assert kept(engine) == before


def test_several_processes_make_the_tables_at_once(engine: Engine, make: Any) -> None:
    sinks = [make() for _ in range(8)]
    barrier = threading.Barrier(len(sinks))
    errors: list[BaseException] = []

    def start(number: int, sink: SQLSink) -> None:
        try:
            barrier.wait(30)
            mine = attrs.evolve(job(), id=f"job {number}")
            sink.checkpoint(mine)
            sink.begin(mine, None)
            sink.write(numbers(number, job_id=mine.id, previous_cursor=None), None)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=start, args=pair) for pair in enumerate(sinks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert rows(engine) == list(range(24))


def test_a_batch_costs_one_statement_beside_its_rows_and_one_commit(engine: Engine, make: Any) -> None:
    sink = make()
    begin(sink)
    sink.write(numbers(0), None)
    statements: list[str] = []
    commits: list[Any] = []
    event.listen(sink._link.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    event.listen(sink._link.engine, "commit", commits.append)
    sink.write(numbers(1), None)
    extra = [each for each in statements if not each.startswith(("INSERT INTO", "BEGIN"))]
    assert len(extra) == 1
    assert "UPDATE resumable_sync_checkpoints" in extra[0]
    assert len(commits) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_commit_whose_answer_is_lost_happens_once(engine: Engine, make: Any, moment: str) -> None:
    sink = make()
    begin(sink)
    sink.write(numbers(0), None)
    own = sink._link.engine
    commit = own.dialect.do_commit

    def lose(connection: Any) -> None:
        own.dialect.do_commit = commit
        if moment == "after":
            commit(connection)
        raise own.dialect.loaded_dbapi.OperationalError("the answer was lost")

    own.dialect.do_commit = lose
    with pytest.raises(OperationalError, match="the answer was lost"):
        sink.write(numbers(1), None)
    assert len(rows(engine)) == (6 if moment == "after" else 3)
    sink.write(numbers(1), None)
    sink.write(numbers(2), None)
    assert rows(engine) == list(range(9))


def test_an_interrupt_inside_the_transaction_leaves_nothing(engine: Engine, make: Any) -> None:
    sink = make()
    begin(sink)
    writer = sink._writers[JOB_ID]
    write = writer.write

    def interrupted(connection: Any, each: Any) -> None:
        write(connection, each)
        raise KeyboardInterrupt

    writer.write = interrupted
    with pytest.raises(KeyboardInterrupt):
        sink.write(numbers(0), None)
    writer.write = write
    assert rows(engine) == []
    sink.write(numbers(0), None)
    assert rows(engine) == [0, 1, 2]


@pytest.fixture(params=["postgresql", "mariadb"])
def server_url(request: Any, new_database: Callable[[str], str]) -> str:
    return new_database(request.param)


@pytest.fixture
def far(server_url: str, tcp_proxy: Callable[[str], TCPProxy]) -> Iterator[Any]:
    """A sink behind a proxy, begun and with a first batch; the engine goes straight to the server."""
    proxy = tcp_proxy(server_url)
    engine = create_engine(server_url, poolclass=NullPool)
    sink = SQLSink("numbers", "append", url=proxy.url)
    sink.prepare(COLUMNS)
    begin(sink)
    sink.write(numbers(0), None)
    yield proxy, engine, sink
    sink.close()


def patiently(write: Callable[[], None]) -> int:
    """Call again after transient errors, as the engine does; the number of tries."""
    for number in range(1, 20):
        try:
            write()
        except DBAPIError as error:
            if not is_transient(error):
                raise
        else:
            return number
    raise AssertionError("no end of transient errors")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_connection_cut_around_the_commit_writes_once(far: Any, moment: str) -> None:
    proxy, engine, sink = far
    committing = threading.Event()

    def to_server(link: Any, data: bytes) -> None:
        if is_commit(data):
            committing.set()
            if moment == "before":
                proxy.to_server = None
                link.cut()

    def to_client(link: Any, _data: bytes) -> None:
        if committing.is_set() and moment == "after":
            proxy.to_client = None
            link.cut()

    for number in range(1, 6):
        committing.clear()
        proxy.to_server, proxy.to_client = to_server, to_client
        assert patiently(lambda number=number: sink.write(numbers(number), None)) > 1  # type: ignore[misc]
        assert committing.is_set()
    proxy.to_server = proxy.to_client = None
    assert rows(engine) == list(range(18))
    assert kept(engine)[0].processed_batches == 6


def test_a_connection_that_died_between_batches_is_replaced(far: Any) -> None:
    proxy, engine, sink = far
    for number in range(1, 4):
        proxy.cut()
        assert patiently(lambda number=number: sink.write(numbers(number), None)) <= 2  # type: ignore[misc]
    assert rows(engine) == list(range(12))


def test_a_commit_in_flight_is_waited_for(far: Any) -> None:
    """The COMMIT is on its way when the client gives up; its successor sees what became of it, and not before."""
    proxy, engine, sink = far
    on_its_way, go_on = threading.Event(), threading.Event()

    def hold(_link: Any, data: bytes) -> None:
        if is_commit(data):
            proxy.to_server = None
            on_its_way.set()
            assert go_on.wait(30)

    proxy.to_server = hold
    frozen = threading.Thread(target=lambda: sink.write(numbers(1), None))
    frozen.start()
    assert on_its_way.wait(30)
    successor = SQLSink("numbers", "append", url=engine.url)
    found: list[Any] = []
    asking = threading.Thread(target=lambda: found.append(successor.checkpoint(job(token=2))))
    asking.start()
    asking.join(0.3)
    assert asking.is_alive()  # held by the row's lock
    go_on.set()
    for thread in (asking, frozen):
        thread.join(30)
    assert found == [Checkpoint(run_id="run 1", cursor=[2], processed_records=6, processed_batches=2)]
    with pytest.raises(LeaseLostError):
        sink.write(numbers(2), None)
    assert rows(engine) == list(range(6))
    successor.close()


def test_a_connection_cut_amid_the_rows_leaves_nothing(far: Any) -> None:
    proxy, engine, sink = far
    big = batch([(number,) for number in range(3, 40_000)], ["n"], number=1)
    seen = 0

    def amid(link: Any, data: bytes) -> None:
        nonlocal seen
        seen += len(data)
        if seen > 100_000:
            proxy.to_server = None
            link.cut()

    proxy.to_server = amid
    assert patiently(lambda: sink.write(big, None)) > 1
    assert rows(engine) == list(range(40_000))


def test_its_connections_close_with_it(postgres_url: str) -> None:
    engine = create_engine(postgres_url, poolclass=NullPool)
    ours = "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'sink'"
    url = f"{postgres_url}?application_name=sink"

    def connected() -> int:
        with engine.connect() as connection:
            return int(connection.execute(text(ours)).scalar_one())

    def drained() -> bool:
        # The server takes a moment to notice.
        return any(connected() == 0 for _ in range(1000))

    sink = SQLSink("numbers", "append", url=url)
    sink.prepare(COLUMNS)
    begin(sink)
    assert connected() == 1
    sink.close()
    assert drained()
    sink.write(numbers(0), None)
    assert connected() == 1
    del sink
    assert drained()
