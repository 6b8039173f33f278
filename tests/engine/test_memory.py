"""Memory holds no more pages than were asked for."""

import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest
from pyarrow import parquet
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from typing_extensions import override

from connectors.http_api import api_of
from doubles import Pages
from resumable_sync import (
    FullSync,
    KeysetConnector,
    MemoryJobStore,
    OffsetConnector,
    Page,
    TokenConnector,
    run_full_sync,
    run_partitioned_sync,
)
from resumable_sync.connectors import _readers
from resumable_sync.connectors._http_reading import Reading
from resumable_sync.connectors.files import CSVConnector, JSONLinesConnector
from resumable_sync.connectors.http import HTTPConnector, OffsetPaging, TokenPaging
from resumable_sync.connectors.parquet import ParquetConnector
from resumable_sync.connectors.sql import SQLConnector

RECORDS = 50


class Records(list[Any]):
    """Records that can be counted while somebody has them."""

    __slots__ = ("__weakref__",)
    __hash__ = object.__hash__  # type: ignore[assignment]


class Alive:
    """What of the records is alive, and how many pages of them at most when another one was read."""

    def __init__(self) -> None:
        self.most = 0
        self._records: weakref.WeakSet[Records] = weakref.WeakSet()

    def read(self, records: Sequence[Any]) -> Records:
        """Give records of which it is known whether they are alive."""
        self.most = max(self.most, sum(1 for _ in self._records))
        made = Records(records)
        self._records.add(made)
        return made


@pytest.fixture
def alive() -> Alive:
    return Alive()


def test_memory_holds_no_more_pages_than_promised(store: MemoryJobStore, prefetch: int, alive: Alive) -> None:
    class Counting(Pages):
        @override
        def read(self, cursor: Any, batch_size: int) -> Iterator[Page[int]]:
            for number in range(RECORDS):
                yield Page(alive.read([number]), [number])

    run_full_sync("j", Counting(), lambda _: None, store=store, prefetch=prefetch)
    assert alive.most <= (prefetch + 1 if prefetch else 0)


class ByOffset(OffsetConnector[int]):
    def __init__(self, alive: Alive) -> None:
        self._alive = alive

    @override
    def fetch(self, offset: int, limit: int) -> Sequence[int]:
        return self._alive.read(range(offset, min(offset + limit, RECORDS)))

    @override
    def count(self) -> int:
        return RECORDS


class ByKey(KeysetConnector[int, int]):
    def __init__(self, alive: Alive) -> None:
        self._alive = alive

    @override
    def fetch(self, after: int | None, limit: int) -> Sequence[int]:
        first = 0 if after is None else after + 1
        return self._alive.read(range(first, min(first + limit, RECORDS)))

    @override
    def key_of(self, record: int) -> int:
        return record


class ByToken(TokenConnector[int, int]):
    def __init__(self, alive: Alive) -> None:
        self._alive = alive

    @override
    def fetch(self, token: int | None, limit: int) -> tuple[Sequence[int], int | None]:
        first = token or 0
        records = self._alive.read(range(first, min(first + limit, RECORDS)))
        return records, first + limit if first + limit < RECORDS else None


@pytest.mark.parametrize("connector", [ByOffset, ByKey, ByToken])
def test_a_page_is_gone_before_the_next_is_read(store: MemoryJobStore, alive: Alive, connector: Any) -> None:
    result = run_full_sync("j", connector(alive), lambda _: None, store=store, prefetch=0, batch_size=10)
    assert (result.records, alive.most) == (RECORDS, 0)


def test_a_page_of_a_part_too(store: MemoryJobStore, alive: Alive) -> None:
    options: dict[str, Any] = {"prefetch": 0, "batch_size": 10, "parts": 2}
    with ThreadPoolExecutor(1) as executor:
        source = ByOffset(alive)
        result = run_partitioned_sync("j", source, _take, store=store, executor=executor, **options)
    assert (result.records, alive.most) == (RECORDS, 0)


def _take(_batch: Any) -> None:
    pass


@pytest.mark.parametrize("paging", ["keyset", "stream", "offset"])
@pytest.mark.parametrize("known", [True, False], ids=["driver", "engine"])
def test_a_page_of_a_table_too(
    store: MemoryJobStore, sqlite_url: str, alive: Alive, monkeypatch: pytest.MonkeyPatch, *, paging: Any, known: bool
) -> None:
    engine = create_engine(sqlite_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO t VALUES (?)", [(number,) for number in range(RECORDS)])
    for name in ("fetch_driven", "fetch_rows"):
        fetch = getattr(_readers, name)
        monkeypatch.setattr(_readers, name, lambda *arguments, fetch=fetch: alive.read(fetch(*arguments)))
    records = 0
    with (
        closing(SQLConnector(sqlite_url if known else engine, "t", paging=paging)) as connector,
        FullSync("j", connector, store=store, prefetch=0, batch_size=10, fast_path=False) as sync,
    ):
        for batch in sync:
            records += len(batch)
            del batch
    assert (records, alive.most) == (RECORDS, 0)


class Taking:
    """The records of a file, counted when they are taken."""

    def __init__(self, records: Any, alive: Alive) -> None:
        self._records = records
        self._alive = alive

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    def take(self, most: int) -> Records:
        return self._alive.read(self._records.take(most))


@pytest.mark.parametrize("connector", [CSVConnector, JSONLinesConnector])
def test_a_page_of_a_file_too(store: MemoryJobStore, alive: Alive, tmp_path: Path, connector: Any) -> None:
    class Counted(connector):  # type: ignore[misc]
        @override
        def _open(self, name: str, place: Any) -> Any:
            return Taking(super()._open(name, place), alive)

    path = tmp_path / "records"
    path.write_text("".join(f"{number}\n" for number in range(RECORDS + 1)), encoding="utf-8")  # CSV has a header
    run_full_sync("j", Counted(path), lambda _: None, store=store, prefetch=0, batch_size=10)
    assert alive.most == 0


def test_a_page_of_parquet_too(store: MemoryJobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def decoded(file: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(pa.total_allocated_bytes() - before)
        return iter_batches(file, *arguments, **options)

    iter_batches = parquet.ParquetFile.iter_batches
    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", decoded)
    parquet.write_table(pa.table({"id": range(100_000)}), tmp_path / "a.parquet", row_group_size=10_000)
    before = pa.total_allocated_bytes()
    connector = ParquetConnector(tmp_path / "a.parquet")
    run_full_sync("j", connector, lambda _: None, store=store, prefetch=0, batch_size=10_000)
    assert seen == [0] * 10


@pytest.mark.parametrize(
    ("route", "paging", "kept"),
    [
        ("token", TokenPaging(token="meta.next", token_param="token"), 0),
        ("offset", OffsetPaging(), 1),  # two pages that are counted are compared
    ],
)
def test_a_page_of_an_api_too(
    store: MemoryJobStore, alive: Alive, monkeypatch: pytest.MonkeyPatch, *, route: str, paging: Any, kept: int
) -> None:
    def counted(self: Any, flight: Any, place: Any) -> Any:
        delivery = delivered(self, flight, place)
        return attrs.evolve(delivery, records=alive.read(delivery.records))

    delivered: Any = Reading._delivery
    monkeypatch.setattr(Reading, "_delivery", counted)
    with api_of([{"id": number} for number in range(RECORDS)]) as api:
        connector = HTTPConnector(f"{api.url}/{route}", paging=paging, records="data.items")
        run_full_sync("j", connector, lambda _: None, store=store, prefetch=0, batch_size=10)
    assert alive.most == kept
