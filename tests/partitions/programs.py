"""What the workers of the kill tests run: they import it by name, and are killed where its files say."""

import contextlib
import multiprocessing
import os
import random
import signal
import sys
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
from typing_extensions import override

from partitions.sources import expected, fill, make_target
from resumable_sync import Batch, Event, PartsProgressed, SyncResult, run_partitioned_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.parquet import ParquetSink
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore

JOB_ID = "orders"


class KillingSink(SQLSink):
    """Writes into the table `target`, and kills its process in the middle of some batches.

    Each file of the folder stands for one kill: whoever takes it away dies.
    """

    def __init__(self, folder: str, chance: float, mode: Any = "append") -> None:
        super().__init__("target", mode=mode)
        self.folder, self.chance = folder, chance

    @override
    def write(self, batch: Batch[Any], connection: Any) -> None:
        super().write(batch, connection)
        kill_by_chance(self.folder, self.chance, batch)


class KillingParquetSink(ParquetSink):
    """The same into Parquet files."""

    def __init__(self, target: str, folder: str, chance: float, mode: Any) -> None:
        super().__init__(target, mode)
        self.folder, self.chance = folder, chance

    @override
    def write(self, batch: Batch[Any], connection: Any) -> None:
        super().write(batch, connection)
        kill_by_chance(self.folder, self.chance, batch)


def kill_by_chance(folder: str, chance: float, batch: Batch[Any]) -> None:
    if batch.sequence and random.random() < chance:
        for file in sorted(Path(folder).iterdir()):
            with contextlib.suppress(FileNotFoundError):
                file.unlink()
                os.kill(os.getpid(), signal.SIGKILL)


@attrs.frozen(kw_only=True)
class Program:
    """A partitioned sync of the table `source`.

    Attributes:
        source: URL of the source.
        store: URL of store and target.
        folder: With one file for each kill that is left.
        rows: How many rows the source has.
        parts: Most parts.
        batch_size: Rows in a batch.
        chance: Of a batch to kill its worker, as long as kills are left.
        mode: Of the sink.
    """

    source: str
    store: str
    folder: str
    rows: int = 300
    parts: int = 8
    batch_size: int = 10
    chance: float = 1.0
    mode: Any = "append"

    def prepare(self, kills: int) -> None:
        """Make source and target, and the files."""
        fill(self.source, self.rows)
        make_target(self.store)
        self.load(kills)

    def load(self, kills: int) -> None:
        """Make the files of some more kills."""
        for _ in range(kills):
            Path(self.folder, uuid4().hex).touch()

    @property
    def kills_left(self) -> int:
        """How many files there are."""
        return len(list(Path(self.folder).iterdir()))

    @property
    def expected(self) -> Any:
        """What the target must hold."""
        return expected(self.rows)

    def run(self, executor: Executor, **options: Any) -> SyncResult:
        """Run it in this process and on that executor."""
        connector = SQLConnector(self.source, "source")
        sink = KillingSink(self.folder, self.chance, self.mode)
        given = {"parts": self.parts, "batch_size": self.batch_size, "max_stalled_attempts": 1_000, **options}
        with contextlib.closing(connector), SQLJobStore(self.store) as store:
            return run_partitioned_sync(JOB_ID, connector, sink, store=store, executor=executor, **given)


def process_pool(workers: int = 2) -> ProcessPoolExecutor:
    """Give a pool whose processes begin with nothing."""
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def main() -> None:
    """Run a program on a pool, and die when so many parts are completed: `programs.py PARTS NAME=VALUE ...`."""
    completed = int(sys.argv[1])
    settings: dict[str, Any] = dict(argument.split("=", 1) for argument in sys.argv[2:])

    def die(event: Event) -> None:
        if isinstance(event, PartsProgressed) and event.completed >= completed:
            os.kill(os.getpid(), signal.SIGKILL)

    program = Program(**settings)
    with process_pool() as pool:
        program.run(pool, observers=[die])


if __name__ == "__main__":
    main()
