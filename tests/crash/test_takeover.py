"""The next start after a death elsewhere, where nobody can see that the process is gone: once its lease has ended."""

import time

from doubles import Numbers, Target
from resumable_sync import Batch, Job, JobStatus, plan_full_sync, run_full_sync
from resumable_sync.stores.sql import SQLJobStore

TTL = 1.0
BUSY = 30.0
"""Seconds that a busy machine may need on top."""


def test_a_death_on_another_host_is_waited_for_until_its_lease_ends_and_no_longer(database_url: str) -> None:
    begun: list[float] = []

    def begin(batch: Batch[int]) -> None:
        begun.append(time.monotonic())

    with SQLJobStore(database_url) as store:
        lease = store.acquire("j", owner="other-host:4711:99:0123456789abcdef:0123456789abcdef", ttl=600.0)
        store.save(Job(id="j", status=JobStatus.RUNNING, run=1, cursor=[20], processed_records=20), lease)
        assert plan_full_sync("j", Numbers(50), Target(), store=store).action == "held"
        died_at = time.monotonic()
        store.renew(lease, TTL)
        target = Target(begin)
        result = run_full_sync("j", Numbers(50), target, store=store, if_held="wait", batch_size=10)
    assert (result.action, result.status, target.records) == ("resume", "completed", list(range(20, 50)))
    assert TTL * 0.9 <= begun[0] - died_at <= TTL + BUSY
