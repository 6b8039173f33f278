"""From file to file: killed at every step and at random moments, every record is in the target once."""

import csv
import gzip
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from pyarrow import parquet

from resumable_sync.connectors.files import CSVConnector, JSONLinesConnector
from resumable_sync.sinks.files import CSVSink, JSONLinesSink
from resumable_sync.sinks.parquet import ParquetSink
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import (
    CrashReport,
    FaultyConnector,
    FaultySink,
    FaultyStore,
    SyncParts,
    crash_points,
    kill_randomly,
)

KILLS = int(os.environ.get("RESUMABLE_SYNC_TEST_FILE_KILLS", "200"))


@attrs.frozen(kw_only=True)
class FileProgram:
    """A sync of several CSV files, one of them compressed, into a file or a folder of Parquet files.

    Attributes:
        folder: Where all of it is.
        mode: Mode of the sink.
        target: Name of the target; one without an ending is a folder.
        rows: How many records there are in each source file.
    """

    folder: Path
    mode: Any
    target: str
    rows: int = 10

    def make(self) -> SyncParts:
        """Give the parts; in each process anew."""
        kinds: dict[str, Any] = {"": ParquetSink, "csv": CSVSink, "jsonl": JSONLinesSink}
        sink = kinds[self.target.partition(".")[2].partition(".")[0]](self.folder / self.target, mode=self.mode)
        return SyncParts(
            job_id="files",
            connector=FaultyConnector(CSVConnector(self.folder / "in" / "*.csv*"), ()),
            sink=FaultySink(sink, ()),
            store=FaultyStore(SQLJobStore(f"sqlite:///{self.folder}/store.db"), ()),
            options={"max_stalled_attempts": 1_000_000, "batch_size": 4},
        )

    def fill(self) -> None:
        """Make the source."""
        rows = self.expected()
        (self.folder / "in").mkdir()
        for place in range(2):
            part = rows[place * self.rows : (place + 1) * self.rows]
            text = "id,name\n" + "".join(f'{number},"{name}"\n' for number, name in part)
            lines = text.encode().splitlines(keepends=True)
            data = b"".join(map(gzip.compress, lines)) if place else b"".join(lines)
            (self.folder / "in" / f"{place}.csv{'.gz' if place else ''}").write_bytes(data)

    def expected(self) -> Sequence[tuple[str, str]]:
        """Give what the target must hold at the end."""
        return [(str(number), f"name\n{number}") for number in range(2 * self.rows)]

    def delivered(self) -> Sequence[tuple[str, str]]:
        """Give what the target holds; a batch that is half written belongs to nobody yet."""
        path = self.folder / self.target
        if not path.exists():
            return []
        if path.is_dir():
            files = sorted(path.glob("*.parquet"))
            return [tuple(row.values()) for file in files for row in parquet.read_table(file).to_pylist()]
        connector: Any = CSVConnector(path) if ".csv" in self.target else JSONLinesConnector(path)
        return [tuple(dict(record).values()) if isinstance(record, dict) else record for record in _whole(connector)]

    def reset(self) -> None:
        """Forget job and target."""
        with SQLJobStore(f"sqlite:///{self.folder}/store.db") as store:
            store.delete("files")
        if (self.folder / self.target).is_dir():
            shutil.rmtree(self.folder / self.target)
        (self.folder / self.target).unlink(missing_ok=True)
        shutil.rmtree(self.folder / f".{self.target}.sync", ignore_errors=True)


def _whole(connector: Any) -> list[Any]:
    found: list[Any] = []
    try:
        for page in connector.read(None, 1):
            found += page.records
    except (ValueError, csv.Error):
        pass
    return found


def _checked(report: CrashReport) -> CrashReport:
    report.check()
    assert report.repeated == 0
    return report


def _points(program: FileProgram, *, deaths: int = 1, first: int = 1, every: int = 1) -> CrashReport:
    program.fill()
    return _checked(
        crash_points(
            program.make,
            expected=program.expected,
            delivered=program.delivered,
            reset=program.reset,
            visible=program.mode == "append",
            deaths=deaths,
            first=first,
            every=every,
        )
    )


def _randomly(program: FileProgram, kills: int) -> CrashReport:
    program.fill()
    return _checked(
        kill_randomly(
            program.make,
            expected=program.expected,
            delivered=program.delivered,
            reset=program.reset,
            visible=program.mode == "append",
            kills=kills,
        )
    )


@pytest.mark.parametrize(("mode", "target", "first"), [("append", "out.csv", 1), ("replace", "out.jsonl.gz", 4)])
def test_some_steps(tmp_path: Path, mode: str, target: str, first: int) -> None:
    report = _points(FileProgram(folder=tmp_path, mode=mode, target=target), first=first, every=17)
    assert report.deaths >= 2


@pytest.mark.parametrize("target", ["out.csv", "out"])
def test_a_few_kills(tmp_path: Path, target: str) -> None:
    _randomly(FileProgram(folder=tmp_path, mode="append", target=target, rows=60), 5)


@pytest.mark.crash
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("deaths", [1, 4])
@pytest.mark.parametrize("mode", ["append", "replace"])
@pytest.mark.parametrize("target", ["out.csv", "out"])
def test_every_step(tmp_path: Path, mode: str, deaths: int, target: str) -> None:
    report = _points(FileProgram(folder=tmp_path, mode=mode, target=target), deaths=deaths)
    assert {"before page", "after page", "before write", "after write", "after complete"} <= set(report.killed_at)


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("mode", "target"),
    [("append", "out.csv"), ("replace", "out.jsonl"), ("replace", "out.csv.gz"), ("append", "out"), ("replace", "out")],
)
def test_many_kills(tmp_path: Path, mode: str, target: str) -> None:
    assert _randomly(FileProgram(folder=tmp_path, mode=mode, target=target, rows=150), KILLS).deaths == KILLS
