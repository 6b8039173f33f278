"""How many workers one store carries: 1,000 of them on 10,000 parts, simulated from one process on one PostgreSQL.

Simulated is what a worker does to the store: it begins a part, saves a checkpoint every so many seconds, and renews its
lease as often as the heartbeat of a real one does. What it copies is left out. Three things are looked at: how long it
takes until all have begun, if all begin in the same moment; how late checkpoints come while all are at work, with
heartbeats in step and with spread ones; and how many statements the store takes as fast as they come.

This process has a single core, and shares the machine with the server, so the figures are lower bounds.
`RESUMABLE_SYNC_BENCH_WORKERS` and `RESUMABLE_SYNC_BENCH_PARTS` change the numbers.
"""

import heapq
import os
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from typing import Any, Self

import attrs
import psycopg
import sqlalchemy as sa
from benchmarks._common import postgres_server
from benchmarks._report import Report
from typing_extensions import override

from resumable_sync import Job, JobStatus, Lease
from resumable_sync._lease import beats
from resumable_sync.stores.sql import SQLJobStore

WORKERS = int(os.environ.get("RESUMABLE_SYNC_BENCH_WORKERS", "1000"))
PARTS = int(os.environ.get("RESUMABLE_SYNC_BENCH_PARTS", "10000"))
CONNECTIONS = 16
"""As a pooler in front of the server would have for them all."""

TTL, CHECKPOINT = 60.0, 5.0
"""Seconds a lease lasts, and between two checkpoints of a worker that is at work."""

AT_WORK, FLAT_OUT = 45.0, 5.0
"""Seconds for which each is looked at."""

RUN_ID = "6e0a5c3e-0b5c-4c1e-9a55-2f0d3c6f7a10"

executed = count()


class CountedCursor(psycopg.Cursor[Any]):
    """Counts the statements."""

    @override
    def execute(self, *arguments: Any, **options: Any) -> Self:
        next(executed)
        return super().execute(*arguments, **options)


def executed_so_far() -> int:
    """Give how many statements there were; asking counts as one."""
    return next(executed)


@attrs.define
class Worker:
    """What a worker knows of its part."""

    job: Job
    lease: Lease


class Simulation:
    """Workers on a store, each with a part of its own."""

    def __init__(self, store: SQLJobStore, parent: Job) -> None:
        self._store, self._parent = store, parent
        self._workers: dict[str, Worker] = {}

    def begin(self, job_id: str) -> None:
        """What `Part.run` does until the first batch."""
        store = self._store
        store.load(self._parent.id)
        store.load(job_id)
        lease = store.acquire(job_id, owner=owner_of(job_id), ttl=TTL * 10)
        store.load(job_id)
        job = Job(id=job_id, status=JobStatus.RUNNING, run=1, run_id=RUN_ID, attempt=1)
        self._workers[job_id] = Worker(job, store.save(job, lease))
        store.load(self._parent.id)

    def save(self, job_id: str) -> None:
        """A checkpoint, in the transaction of a sink."""
        worker = self._workers[job_id]
        moved = attrs.evolve(
            worker.job,
            cursor=[worker.job.processed_records],
            processed_records=worker.job.processed_records + 1_000,
            processed_batches=worker.job.processed_batches + 1,
        )
        with self._store.transaction() as transaction:
            worker.lease = transaction.save(moved, worker.lease)
        worker.job = moved

    def renew(self, job_id: str) -> None:
        """A heartbeat."""
        worker = self._workers[job_id]
        worker.lease = self._store.renew(worker.lease, TTL * 10)


def owner_of(job_id: str) -> str:
    """Give the owner of a lease as a worker would name it."""
    return f"host-of-{job_id}:4711:0"


def in_threads(work: Callable[[int], None]) -> float:
    """Do work with each number of a connection, side by side; give the seconds."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as executor:
        list(executor.map(work, range(CONNECTIONS)))
    return time.perf_counter() - begun


def once(work: Callable[[str], None], ids: Sequence[str]) -> float:
    """Do something to all parts as fast as it goes; give the seconds."""

    def run(number: int) -> None:
        for job_id in ids[number::CONNECTIONS]:
            work(job_id)

    return in_threads(run)


def rate(work: Callable[[str], None], ids: Sequence[str]) -> float:
    """Do something to all parts in turn as fast as it goes for some seconds; give how often per second."""
    done = [0] * CONNECTIONS
    until = time.perf_counter() + FLAT_OUT

    def run(number: int) -> None:
        mine = ids[number::CONNECTIONS]
        while time.perf_counter() < until:
            work(mine[done[number] % len(mine)])
            done[number] += 1

    seconds = in_threads(run)
    return sum(done) / seconds


Event = tuple[float, str, Callable[[str], None]]


def events(simulation: Simulation, ids: Sequence[str], *, spread: bool) -> list[Event]:
    """Give what all workers do in some seconds, at which they have been for a while: when, to which part, and what."""
    chance = random.Random(20261129)
    due: list[Event] = []
    for job_id in ids:
        at = chance.uniform(0, CHECKPOINT)
        while at < AT_WORK:
            due.append((at, job_id, simulation.save))
            at += CHECKPOINT
        at = 0.0
        for wait in _waits(job_id, spread=spread):
            at += wait
            if at >= AT_WORK:
                break
            due.append((at, job_id, simulation.renew))
    return sorted(due, key=lambda event: event[:2])


def _waits(job_id: str, *, spread: bool) -> Iterator[float]:
    if spread:
        yield from islice(beats(TTL, owner_of(job_id)), 100)
    else:
        yield from [TTL / 3] * 100


def at_work(planned: Sequence[Event]) -> list[float]:
    """Do all that at its time, or as soon as a connection is free; give how late each was done, in seconds."""
    heap = [(at, number) for number, (at, _, _) in enumerate(planned)]
    heapq.heapify(heap)
    lock, late = threading.Lock(), [0.0] * len(planned)
    begun = time.perf_counter()

    def run(_number: int) -> None:
        while True:
            with lock:
                if not heap:
                    return
                at, number = heapq.heappop(heap)
            wait = begun + at - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            _, job_id, work = planned[number]
            work(job_id)
            late[number] = time.perf_counter() - begun - at

    in_threads(run)
    return late


def working(simulation: Simulation, ids: Sequence[str], watch: "Watch", report: Report, *, spread: bool) -> None:
    """Look at all workers while they are at work."""
    planned = events(simulation, ids, spread=spread)
    watch.reset()
    before = executed_so_far()
    late = at_work(planned)
    statements = (executed_so_far() - before) / AT_WORK
    heartbeats = Counter(int(at) for at, _, work in planned if work == simulation.renew)
    together = max(heartbeats.values()) / (sum(heartbeats.values()) / AT_WORK)
    saved = [seconds for seconds, (_, _, work) in zip(late, planned, strict=True) if work == simulation.save]
    name = "heartbeats spread" if spread else "heartbeats in step"
    told = f"at most {max(heartbeats.values())} in a second"
    report.add(f"{name}, against the mean", told, figure=together, form="{:.1f} x")
    told = f"{statements:.0f} statements a second, {watch.most} waited for locks"
    worst = statistics.quantiles(saved, n=1_000)[-1]
    report.add(f"{name}, 999 of 1,000 checkpoints done within", told, figure=worst * 1_000, form="{:.0f} ms")


class Watch:
    """Looks ten times a second how many sessions wait for a lock of another one."""

    def __init__(self, url: str) -> None:
        self.most = 0
        self._engine = sa.create_engine(url)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._engine.dispose()

    def reset(self) -> int:
        """Begin anew, and give the most there were so far."""
        most, self.most = self.most, 0
        return most

    def _watch(self) -> None:
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not self._done.wait(0.1):
                self.most = max(self.most, int(connection.exec_driver_sql(query).scalar_one()))


def flat_out(simulation: Simulation, ids: Sequence[str], watch: Watch, report: Report) -> None:
    """Begin all parts, and save and renew them all, as fast as it goes; say how many workers that would be."""
    watch.reset()
    before = executed_so_far()
    seconds = once(simulation.begin, ids)
    told = f"{(executed_so_far() - before) / seconds:.0f} statements a second, {watch.reset()} waited for locks"
    report.add("parts begun per second", told, figure=len(ids) / seconds, form="{:.0f}")
    figures = []
    for name, work in (("checkpoints", simulation.save), ("heartbeats", simulation.renew)):
        before = executed_so_far()
        figures.append(rate(work, ids))
        told = f"{(executed_so_far() - before) / FLAT_OUT:.0f} statements a second, {watch.reset()} waited for locks"
        report.add(f"{name} per second", told, figure=figures[-1], form="{:.0f}")
    saves, renewals = figures
    beat = statistics.mean(islice(beats(TTL, "any"), 1_000))
    for pause in (1.0, CHECKPOINT, 30.0):
        carried = 1 / (1 / pause / saves + 1 / beat / renewals)
        report.add(f"workers carried, with a checkpoint every {pause:.0f} s", "", figure=carried, form="{:.0f}")


def main() -> int:
    """Run all; give the exit status."""
    report = Report("workers", f"one store on PostgreSQL, {WORKERS:,} workers, {PARTS:,} parts", "measured")
    with postgres_server(durable=True) as server:
        url = server.create_database()
        engine = sa.create_engine(url, pool_size=CONNECTIONS, connect_args={"cursor_factory": CountedCursor})
        with SQLJobStore(engine) as store, Watch(url) as watch:
            parent = Job(id="orders", status=JobStatus.RUNNING, run=1, run_id=RUN_ID)
            store.save(parent, store.acquire("orders", owner="the whole:1:0", ttl=TTL * 10))
            simulation = Simulation(store, parent)
            ids = [f"orders/{number:04d}" for number in range(PARTS)]
            together = once(simulation.begin, ids[:WORKERS])
            told = f"{watch.most} waited for locks"
            report.add("all workers begin together: the last has begun after", told, figure=together, form="{:.1f} s")
            for spread in (False, True):
                working(simulation, ids[:WORKERS], watch, report, spread=spread)
            flat_out(Simulation(store, parent), [f"more/{number:04d}" for number in range(PARTS)], watch, report)
        engine.dispose()
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
