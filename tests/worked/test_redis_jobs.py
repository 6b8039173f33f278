"""The store in Redis that the example writes is a store: the suite says so."""

import itertools
import pickle
from collections.abc import Callable, Iterator

import pytest
from redis_jobs import RedisJobs
from typing_extensions import override

from resumable_sync import Job, JobStore, StateCorruptError
from resumable_sync.testing import JobStoreSuite
from servers import Server

_numbers = itertools.count()


@pytest.fixture(scope="module")
def database(redis: Server) -> Iterator[str]:
    url = redis.create_database()
    yield url
    redis.give_back(url)


class TestRedisJobs(JobStoreSuite):
    must_pickle = True

    @pytest.fixture
    @override
    def make_store(self, database: str) -> Iterator[Callable[[], JobStore]]:
        prefix = f"example {next(_numbers)}:"
        made: list[RedisJobs] = []

        def make() -> RedisJobs:
            made.append(RedisJobs(database, prefix))
            return made[-1]

        yield make
        for store in made:
            store.redis.close()

    @pytest.fixture
    @override
    def store(self, make_store: Callable[[], JobStore]) -> JobStore:
        return make_store()

    @pytest.fixture
    @override
    def broken_store(self) -> JobStore:
        return RedisJobs("redis://127.0.0.1:1/0")


def test_a_damaged_job_is_an_error(database: str) -> None:
    store = RedisJobs(database, "damaged:")
    lease = store.acquire("job", owner="one", ttl=60.0)
    store.save(Job(id="job"), lease)
    store.redis.hset("damaged:job:job", "job", '{"status": "no status"')
    with pytest.raises(StateCorruptError):
        pickle.loads(pickle.dumps(store)).load("job")
    store.redis.close()
