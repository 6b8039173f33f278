"""Syncs through ADBC are killed at their steps, started again, and end exact."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from pyarrow import parquet
from typing_extensions import override

from crash.programs import JOB_ID, Program
from resumable_sync.connectors.arrow import ArrowConnector
from resumable_sync.sinks.arrow import ArrowSink
from resumable_sync.sinks.parquet import ParquetSink
from resumable_sync.testing import FaultyConnector, FaultySink, FaultyStore, SyncParts, crash_points


@attrs.frozen(kw_only=True)
class ArrowProgram(Program):
    """A sync through ADBC.

    Attributes:
        folder: Where Parquet files go; None: into the target's database, through ADBC too.
    """

    folder: Path | None = None

    @override
    def make(self) -> SyncParts:
        sink: Any = ParquetSink(self.folder, self.mode) if self.folder else ArrowSink("target", self.mode, self.target)
        return SyncParts(
            job_id=JOB_ID,
            connector=FaultyConnector(ArrowConnector(self.source, "source"), ()),
            sink=FaultySink(sink, ()),
            store=FaultyStore(self.job_store(), ()),
            options={"max_stalled_attempts": 1_000_000, **self.options},
        )

    @override
    def delivered(self) -> Sequence[tuple[int, str]]:
        if self.folder is None:
            return super().delivered()
        tables = [parquet.read_table(path) for path in sorted(self.folder.glob("*.parquet"))]
        return [(row["id"], row["name"]) for table in tables for row in table.to_pylist()]

    @override
    def reset(self) -> None:
        super().reset()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("way", "mode", "every"),
    [
        pytest.param("postgresql files", "append", 15, marks=pytest.mark.crash),
        ("sqlite postgresql", "replace", 15),
        *(
            pytest.param(way, mode, 1, marks=pytest.mark.crash)
            for way in ("postgresql files", "sqlite postgresql", "postgresql sqlite")
            for mode in ("append", "replace")
        ),
    ],
)
def test_it_ends_exact(new_database: Callable[[str], str], tmp_path: Path, way: str, mode: str, every: int) -> None:
    source, into = way.split()
    pytest.importorskip("adbc_driver_sqlite", reason="ADBC's driver for SQLite is not installed")
    program = ArrowProgram(
        source=new_database(source),
        store=new_database("sqlite"),
        target=new_database("sqlite" if into == "files" else into),
        sink="own",
        mode=mode,
        folder=tmp_path / "files" if into == "files" else None,
    )
    program.fill()
    report = crash_points(
        program.make,
        expected=program.expected,
        delivered=program.delivered,
        reset=program.reset,
        visible=mode == "append",
        first=1 if every == 1 else 9,
        every=every,
    )
    report.check()
    assert report.repeated == 0
    assert report.deaths >= 1
