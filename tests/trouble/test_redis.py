"""A Redis that is killed and restarted during a sync whose checkpoints it keeps."""

import threading
from collections.abc import Iterator

import pytest

from resumable_sync import Batch, JobStatus, run_full_sync
from resumable_sync.stores.redis import RedisJobStore
from servers import ManagedServer, Server, ServerUnavailableError, redis_server
from trouble.parts import JOB_ID, PATIENT, Numbers

TOTAL, BATCH_SIZE = 400, 20


@pytest.fixture(scope="module")
def server(redis: Server) -> Iterator[ManagedServer]:
    """A server for this module alone: the others' must not die."""
    try:
        with redis_server(own=True) as server:
            assert isinstance(server, ManagedServer)
            yield server
    except ServerUnavailableError as error:
        pytest.skip(str(error))


def test_a_sync_goes_on_while_its_store_is_restarted(server: ManagedServer) -> None:
    numbers: list[int] = []
    restarts: list[threading.Thread] = []

    def deliver(batch: Batch[int]) -> None:
        numbers.extend(batch.records)
        if batch.sequence in {0, 7, 12, TOTAL // BATCH_SIZE - 1}:
            for restart in restarts:
                restart.join()  # it answers before it is known to be up
            server.kill()
            restarts.append(threading.Thread(target=server.restart))
            restarts[-1].start()

    with RedisJobStore(server.create_database()) as store:
        result = run_full_sync(
            JOB_ID, Numbers(TOTAL), deliver, store=store, batch_size=BATCH_SIZE, retry=PATIENT, lease_ttl=60.0
        )
        for restart in restarts:
            restart.join()
        assert (result.status, result.records) == (JobStatus.COMPLETED, TOTAL)
        # Only the checkpoint was tried again, not the batch.
        assert numbers == list(range(TOTAL))
        assert len(restarts) == 4
        assert store.load(JOB_ID) == result.job
        (attempt,) = store.attempts(JOB_ID)
        assert (attempt.outcome, attempt.to_records) == ("completed", TOTAL)


def test_what_was_saved_outlives_the_server(server: ManagedServer) -> None:
    with RedisJobStore(server.create_database()) as store:
        lease = store.acquire(JOB_ID, owner="one", ttl=600.0)
        job = store.load(JOB_ID)
        server.restart()
        assert store.load(JOB_ID) == job
        assert store.renew(lease, 600.0).fencing_token == lease.fencing_token
