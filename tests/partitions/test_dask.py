"""A real Dask cluster of a scheduler and two worker processes, which are killed."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from partitions.dask_cluster import Cluster, dask_cluster
from partitions.programs import JOB_ID, Program
from partitions.sources import delivered
from resumable_sync import ExecutorBrokenError, JobStatus, PartsProgressed, SyncResult
from resumable_sync.stores.sql import SQLJobStore

KILLS = int(os.environ.get("RESUMABLE_SYNC_TEST_KILLS", "20"))
ROWS = int(os.environ.get("RESUMABLE_SYNC_TEST_ROWS", "1000000"))

pytestmark = [
    # Dask's own, of what is left when a scheduler dies.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


def run_on(cluster: Cluster, program: Program, **options: Any) -> SyncResult:
    from distributed import Client

    made: Any = Client
    with made(scheduler_file=cluster.address_file, timeout=60) as client:
        client.wait_for_workers(2, timeout=120)
        with client.get_executor(pure=False, retries=0) as executor:
            return program.run(executor, **options)


@pytest.mark.kills
def test_workers_of_a_cluster_are_killed(postgres_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "kills"
    folder.mkdir()
    program = Program(source=postgres_url, store=postgres_url, folder=str(folder))
    program.prepare(kills=2)
    with dask_cluster(tmp_path) as cluster:
        result = run_on(cluster, program)
    assert (result.status, result.records) == ("completed", program.rows)
    assert program.kills_left == 0
    assert delivered(postgres_url) == program.expected


def completed_parts(program: Program) -> dict[str, Any]:
    with SQLJobStore(program.store) as store:
        # A worker may have died between its last save and the release of its lease, which then ends by itself.
        return {job.id: attrs.evolve(job, lease=None) for job in store.jobs() if job.status is JobStatus.COMPLETED}


@pytest.mark.crash
@pytest.mark.timeout(3_600)
def test_workers_and_the_scheduler_are_killed(new_database: Callable[[str], str], tmp_path: Path) -> None:
    source, target = new_database("postgresql"), new_database("postgresql")
    folder = tmp_path / "kills"
    folder.mkdir()
    # So that all kills come, and not all at once: four times as many would, if there were so many.
    chance = min(1.0, KILLS * 4_000 / ROWS)
    program = Program(source=source, store=target, folder=str(folder), rows=ROWS, batch_size=1_000, chance=chance)
    program.prepare(kills=KILLS // 2)
    some_done = threading.Event()

    def watch(event: Any) -> None:
        if isinstance(event, PartsProgressed) and event.completed:
            some_done.set()

    with dask_cluster(tmp_path) as cluster:

        def kill() -> None:
            some_done.wait(1_800)
            cluster.kill_scheduler()

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(ExecutorBrokenError):
            run_on(cluster, program, observers=[watch])
        killer.join()
        cluster.stop()
        before = completed_parts(program)
        assert before
        assert JOB_ID not in before
        program.load(KILLS - KILLS // 2)
        cluster.start(2)
        begun = time.monotonic()
        result = run_on(cluster, program)
        seconds, killed = time.monotonic() - begun, KILLS - program.kills_left
        print(f"{killed} workers killed; {len(before)} parts were done when the scheduler was")
        print(f"then {result.records} of {ROWS} records in {seconds:.0f} s")
    assert result.status == "completed"
    assert {name: job for name, job in completed_parts(program).items() if name in before} == before
    assert delivered(target) == program.expected
    assert program.kills_left == 0
