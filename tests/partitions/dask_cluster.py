"""A real Dask cluster on loopback: a scheduler and workers in processes of their own, any of which may be killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

HERE = Path(__file__).parent.parent


@attrs.define
class Cluster:
    """Its processes.

    Attributes:
        folder: For its files.
        scheduler: The scheduler.
        workers: One process each, with a nanny that starts it again.
    """

    folder: Path
    scheduler: "subprocess.Popen[bytes] | None" = None
    workers: "list[subprocess.Popen[bytes]]" = attrs.field(factory=list)
    starts: int = 0

    @property
    def address_file(self) -> str:
        """The file in which the scheduler says where it is."""
        return str(self.folder / f"scheduler-{self.starts}.json")

    def start(self, workers: int) -> None:
        """Start a scheduler and workers."""
        self.starts += 1
        here = ["--host", "127.0.0.1", "--scheduler-file", self.address_file, "--no-dashboard"]
        self.scheduler = self._run("distributed.cli.dask_scheduler", *here, "--port", "0")
        one = ["--nthreads", "1", "--nworkers", "1", "--local-directory", str(self.folder)]
        self.workers = [self._run("distributed.cli.dask_worker", *here, *one) for _ in range(workers)]

    def kill_scheduler(self) -> None:
        """Kill the scheduler; its workers end by themselves or with the next call of `stop`."""
        assert self.scheduler is not None
        self.scheduler.kill()
        self.scheduler.wait()

    def stop(self) -> None:
        """Kill everything, with what the nannies have started."""
        for process in [*self.workers, *([self.scheduler] if self.scheduler else [])]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _run(self, module: str, *arguments: str) -> "subprocess.Popen[bytes]":
        path = os.pathsep.join([str(HERE), *filter(None, sys.path)])
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "PYTHONWARNINGS": "ignore",
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1000",
        }
        output = (self.folder / f"{module}-{time.monotonic_ns()}.log").open("wb")
        with output:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                start_new_session=True,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )


@contextlib.contextmanager
def dask_cluster(folder: Path, workers: int = 2) -> Iterator[Cluster]:
    """A cluster that ends with the block."""
    cluster = Cluster(folder)
    try:
        cluster.start(workers)
        yield cluster
    finally:
        cluster.stop()
