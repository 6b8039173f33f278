"""From PostgreSQL into Parquet files by the fast paths: killed at random moments, every row is in the files once."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from pyarrow import parquet
from typing_extensions import override

from crash.programs import Program
from resumable_sync import Format, Job, run_full_sync
from resumable_sync._formats import COPY_TEXT, POSTGRESQL_ARROW
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.parquet import ParquetSink
from resumable_sync.stores.memory import MemoryJobStore
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import FaultyConnector, FaultySink, FaultyStore, SyncParts, kill_randomly

KILLS = int(os.environ.get("RESUMABLE_SYNC_TEST_FILE_KILLS", "200"))


class Only(ParquetSink):
    """Takes one form of records alone."""

    def __init__(self, path: Path, mode: Any, form: str) -> None:
        super().__init__(path, mode)
        self._form = form

    @override
    def takes(self, format_: Format, job: Job, /) -> bool:
        return format_.name == self._form and super().takes(format_, job)


@attrs.frozen(kw_only=True)
class ParquetProgram(Program):
    """A sync from PostgreSQL into a folder.

    Attributes:
        folder: The folder.
        form: The form of records.
    """

    folder: Path
    form: str

    @override
    def make(self) -> SyncParts:
        return SyncParts(
            job_id="orders",
            connector=FaultyConnector(SQLConnector(self.source, "source"), ()),
            sink=FaultySink(Only(self.folder, self.mode, self.form), ()),
            store=FaultyStore(self.job_store(), ()),
            options={"max_stalled_attempts": 1_000_000, **self.options},
        )

    @override
    def delivered(self) -> Sequence[tuple[int, str]]:
        files = sorted(self.folder.glob("*.parquet"))
        return [tuple(row.values()) for file in files for row in parquet.read_table(file).to_pylist()]

    @override
    def reset(self) -> None:
        with SQLJobStore(self.store) as store:
            store.delete("orders")
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("form", "mode"), [(POSTGRESQL_ARROW, "append"), (COPY_TEXT, "replace")])
def test_many_kills(tmp_path: Path, postgres_url: str, form: str, mode: Any) -> None:
    program = ParquetProgram(
        source=postgres_url,
        store=f"sqlite:///{tmp_path}/store.db",
        target=postgres_url,
        mode=mode,
        rows=2_000,
        options={"batch_size": 50},
        folder=tmp_path / "lake",
        form=form,
    )
    program.fill()
    parts = program.make()
    once = run_full_sync("once", parts.connector, parts.sink, store=MemoryJobStore())
    assert (once.format, once.records) == (form, 2_000)
    parts.connector.close()
    program.reset()
    report = kill_randomly(
        program.make,
        expected=program.expected,
        delivered=program.delivered,
        reset=program.reset,
        visible=mode == "append",
        kills=KILLS,
    )
    report.check()
    assert (report.deaths, report.repeated) == (KILLS, 0)
