"""`ParquetSink` in parts, in every mode, local and behind a URL."""

import contextlib
import json
import os
import pickle
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from pyarrow import parquet
from typing_extensions import override

from partitions.programs import KillingParquetSink, process_pool
from partitions.sources import expected, fill
from resumable_sync import (
    Batch,
    ConfigurationError,
    ConnectorPart,
    ExecutorBrokenError,
    LeaseLostError,
    Page,
    begin_partitioned_sync,
    complete_partitioned_sync,
    part_of,
    reset_job,
    run_full_sync,
    run_partitioned_sync,
)
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.parquet import ParquetSink
from resumable_sync.stores.memory import MemoryJobStore
from resumable_sync.stores.sql import SQLJobStore
from sinks.driving import batch

ROWS = 60
KILLS = int(os.environ.get("RESUMABLE_SYNC_TEST_KILLS", "20"))


@pytest.fixture
def connector(sqlite_url: str) -> Iterator[SQLConnector]:
    fill(sqlite_url, ROWS)
    with closing(SQLConnector(sqlite_url, "source")) as made:
        yield made


@pytest.fixture(params=["local", "memory"])
def path(request: Any, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "target")
        return
    yield f"memory://{uuid.uuid4()}/target"
    fsspec.filesystem("memory").store.clear()


def content(path: str) -> list[tuple[Any, ...]]:
    found: list[Any] = []
    for file in sorted(fsspec.open_files(f"{path}/*.parquet"), key=lambda one: one.path):
        with file as opened:
            found += [tuple(row.values()) for row in parquet.read_table(opened).to_pylist()]
    return found


class FailedError(Exception):
    pass


class Failing(ParquetSink):
    """Fails at the second batch of the parts that are in `fails`, and takes them out."""

    fails: ClassVar[set[str]] = set()

    @override
    def write(self, batch: Batch[Any], connection: Any) -> None:
        if batch.sequence == 1 and batch.job_id in self.fails:
            self.fails.remove(batch.job_id)
            raise FailedError
        super().write(batch, connection)


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_parts_fill_the_folder_side_by_side(connector: SQLConnector, path: str, mode: Any) -> None:
    store, sink = MemoryJobStore(), Failing(path, mode)
    arguments: Any = {"store": store, "batch_size": 5}
    # What was read in one piece, and given up, is gone afterwards.
    run_full_sync("j", connector, sink, **arguments, max_records=7)
    reset_job("j", store=store)
    Failing.fails.add("j/0001")
    with ThreadPoolExecutor(2) as executor:
        with pytest.raises(FailedError):
            run_partitioned_sync("j", connector, sink, parts=3, executor=executor, **arguments)
        assert mode == "append" or content(path) == []
        result = run_partitioned_sync("j", connector, sink, parts=3, executor=executor, **arguments)
        assert (result.status, result.guarantee) == ("completed", "exactly_once")
        assert content(path) == expected(ROWS)
        with fsspec.open(f"{path}/_SUCCESS") as file:
            summary = json.load(file)
        assert (summary["records"], summary["files"]) == (ROWS, len(list(fsspec.open_files(f"{path}/*.parquet"))))
        run_partitioned_sync("j", connector, sink, parts=2, executor=executor, **arguments)
    assert sorted(content(path)) == sorted([*expected(ROWS)] * (2 if mode == "append" else 1))
    assert sink._dataset.place.names(".sync") == ["attempts"]


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_part_of_a_run_that_was_given_up_adds_nothing(connector: SQLConnector, tmp_path: Path, mode: Any) -> None:
    store, sink = MemoryJobStore(), ParquetSink(tmp_path / "t", mode)
    begin_partitioned_sync("j", connector, sink, store=store, parts=2)
    whole = store.load("j")
    assert whole is not None
    zombie = pickle.loads(pickle.dumps(sink.part(whole)))
    lease = store.acquire("j/0000", owner="zombie", ttl=300.0)
    part = whole.__class__(id="j/0000", run=1, run_id="of the part", lease=lease)
    zombie.prepare(connector.columns())
    assert zombie.checkpoint(part) is None
    zombie.begin(part, None)
    token = lease.fencing_token
    zombie.write(batch([(1, "a")], ["id", "name"], job_id="j/0000", token=token), None)
    store.release(lease)
    reset_job("j", store=store)
    with ThreadPoolExecutor(2) as executor:
        run_partitioned_sync("j", connector, sink, parts=2, executor=executor, store=store)
    with pytest.raises(LeaseLostError):
        zombie.write(batch([(2, "b")], ["id", "name"], job_id="j/0000", number=1, token=token), None)
    with pytest.raises(LeaseLostError):
        zombie.checkpoint(whole.__class__(id="j/0000", run=1, run_id="again", lease=lease))
    assert content(str(tmp_path / "t")) == expected(ROWS)


def test_workers_that_nobody_here_started(connector: SQLConnector, tmp_path: Path) -> None:
    store, sink = MemoryJobStore(), ParquetSink(tmp_path / "t")
    parts = begin_partitioned_sync("j", connector, sink, store=store, parts=3)
    for part in parts:
        copy = pickle.loads(pickle.dumps(sink))
        assert (
            part_of("j", part.index, store=store).run(connector, copy, store=store, batch_size=7).status == "completed"
        )
    assert content(str(tmp_path / "t")) == []
    assert complete_partitioned_sync("j", connector, sink, store=store).status == "completed"
    assert content(str(tmp_path / "t")) == expected(ROWS)


class Nameless(ConnectorPart[Any]):
    """Has one part, and tells no columns."""

    fingerprint = None
    place = 0

    @override
    def read(self, cursor: Any, batch_size: int) -> Iterator[Page[Any]]:
        if cursor is None:
            yield Page([{"a": 1}], 1)

    @override
    def count(self) -> int:
        return 1

    def split(self, parts: int) -> Sequence["Nameless"]:
        return [self]

    def part(self, place: Any) -> "Nameless":
        return self


def test_each_part_would_find_types_of_its_own(tmp_path: Path) -> None:
    arguments: Any = ("j", Nameless(), ParquetSink(tmp_path / "t"))
    with ThreadPoolExecutor(1) as executor, pytest.raises(ConfigurationError, match="tells no columns"):
        run_partitioned_sync(*arguments, store=MemoryJobStore(), parts=1, executor=executor)


@pytest.mark.crash
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_workers_are_killed_again_and_again(
    connector: SQLConnector, sqlite_url: str, tmp_path: Path, mode: Any
) -> None:
    (tmp_path / "kills").mkdir()
    for number in range(KILLS):
        (tmp_path / "kills" / f"{number:04}").touch()
    sink = KillingParquetSink(str(tmp_path / "t"), str(tmp_path / "kills"), 0.5, mode)
    status: str | None = None
    with SQLJobStore(sqlite_url) as store:
        while status is None:
            with process_pool() as executor, contextlib.suppress(ExecutorBrokenError):
                status = run_partitioned_sync(
                    "j",
                    connector,
                    sink,
                    store=store,
                    parts=6,
                    executor=executor,
                    batch_size=1,
                    max_stalled_attempts=1_000,
                ).status
    assert status == "completed"
    assert content(str(tmp_path / "t")) == expected(ROWS)
    assert len(list((tmp_path / "kills").iterdir())) < KILLS
