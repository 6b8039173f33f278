"""The conformance suite against Redis; how the store is made, closed, lost, pickled and forked."""

import gc
import itertools
import logging
import multiprocessing
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis as driver
from typing_extensions import override

from proxies import TCPProxy
from resumable_sync import registry
from resumable_sync._errors import ConfigurationError, LeaseLostError, StoreError
from resumable_sync._model import Job
from resumable_sync._retry import is_transient
from resumable_sync.stores._redis_link import _weakness
from resumable_sync.stores.redis import RedisJobStore
from resumable_sync.testing import JobStoreSuite
from servers import ManagedServer, Server
from waiting import until

_numbers = itertools.count()
PASSWORD = "p@ss/w:o%rd?"
ENCODED = "p%40ss%2Fw%3Ao%25rd%3F"


@pytest.fixture(scope="module")
def database(redis: Server) -> Iterator[str]:
    """One database for the whole suite: claiming and emptying one costs more than most of the tests."""
    url = redis.create_database()
    yield url
    redis.give_back(url)


class TestRedisJobStore(JobStoreSuite):
    must_pickle = True

    @pytest.fixture
    @override
    def make_store(self, database: str) -> Iterator[Callable[[], RedisJobStore]]:
        prefix = f"test {next(_numbers)}:"
        with ExitStack() as stack:
            yield lambda: stack.enter_context(RedisJobStore(database, key_prefix=prefix))

    @pytest.fixture
    @override
    def store(self, make_store: Callable[[], RedisJobStore]) -> RedisJobStore:
        return make_store()

    @pytest.fixture
    @override
    def broken_store(self) -> Iterator[RedisJobStore]:
        with RedisJobStore("redis://127.0.0.1:1/0") as store:
            yield store


def in_use(store: RedisJobStore) -> RedisJobStore:
    """Have a store do all that it can."""
    lease = store.acquire("jöb", owner="öne", ttl=60.0)
    store.save(Job(id="jöb", error="ValueError: ü", cursor=["é"]), lease)
    store.request_stop("jöb")
    assert store.renew(lease, 60.0).stop_requested
    assert [(job.id, job.error) for job in store.jobs()] == [("jöb", "ValueError: ü")]
    assert [one.owner for one in store.attempts("jöb")] == ["öne"]
    store.release(lease)
    store.delete("jöb")
    assert store.load("jöb") is None
    return store


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"decode_responses": True},
        {"protocol": 3},
        {"protocol": 3, "decode_responses": True},
        {"encoding": "latin-1", "decode_responses": True},
        {"single_connection_client": True},
    ],
    ids=str,
)
def test_any_client_will_do(redis_url: str, options: Any) -> None:
    client: Any = driver.Redis.from_url(redis_url, **options)
    with client:
        store = in_use(RedisJobStore(client))
        with pytest.raises(ConfigurationError, match="from a URL"):
            pickle.dumps(store)
        store.close()
        # It is the caller's, and stays open.
        pool = client.connection_pool
        open_ones = [pool._available_connections, pool._in_use_connections]
        assert any(connection._sock is not None for some in open_ones for connection in some)


@pytest.mark.parametrize("given", [None, 5, b"redis://localhost", object(), driver.asyncio.Redis()])
def test_what_is_no_client_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"give a URL or a redis\.Redis"):
        RedisJobStore(given)


@pytest.mark.parametrize(
    "url",
    [
        f"http://u:{ENCODED}@h/0",
        f"redis://u:{PASSWORD}@h:port/0",
        f"redis://u:{ENCODED}@h/shop",
        f"redis://u:{ENCODED}@h/0?socket_timeout=soon",
        f"redis://u:{ENCODED}@h/0?no_such_option=1",
        "redis://[::1",
        "",
    ],
)
def test_bad_urls_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="the Redis URL cannot be used; write it as") as caught:
        RedisJobStore(url)
    for secret in (PASSWORD, ENCODED):
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://etl:{ENCODED}@cache:6380/3", "redis://etl:***@cache:6380/3"),
        (f"redis://:{ENCODED}@cache", "redis://cache:6379/0"),
        (f"rediss://cache?password={ENCODED}&db=2", "rediss://cache:6379/2"),
        (f"unix:///run/redis.sock?db=4&password={ENCODED}", "unix:///run/redis.sock?db=4"),
    ],
)
def test_the_password_is_not_shown(url: str, shown: str) -> None:
    store = RedisJobStore(url, key_prefix="etl:")
    assert repr(store) == f"RedisJobStore({shown!r}, key_prefix='etl:')"
    assert repr(pickle.loads(pickle.dumps(store))) == repr(store)


def test_a_sentinel_is_shown_by_its_service() -> None:
    sentinel: Any = driver.Sentinel
    client = sentinel([("localhost", 26379)]).master_for("etl", db=1)
    assert "redis://(etl)/1" in repr(RedisJobStore(client))


def test_it_is_there_by_name() -> None:
    made = registry.store(
        {"type": "redis", "url": "redis://:${SECRET}@cache", "key_prefix": "x:"}, environ={"SECRET": "s"}
    )
    assert isinstance(made, RedisJobStore)
    with pytest.raises(ConfigurationError, match=r"store\.key_prefx: 'redis' has no such key; did you mean"):
        registry.store({"type": "redis", "url": "redis://cache", "key_prefx": "x:"})


def test_a_missing_package_is_named_with_its_extra() -> None:
    code = "import sys; sys.modules['redis'] = None; import resumable_sync.stores.redis"
    ended = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (
        "MissingExtraError: redis is not installed; install it with: pip install 'resumable_sync[redis]'"
        in ended.stderr
    )


def test_it_does_not_load_sqlalchemy() -> None:
    code = "import sys, resumable_sync.stores.redis; sys.exit('sqlalchemy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_only_its_own_keys_are_touched(redis_url: str) -> None:
    with driver.Redis.from_url(redis_url, decode_responses=True) as raw:
        before = set(raw.keys())
        with RedisJobStore(redis_url, key_prefix="p:") as store, RedisJobStore(redis_url) as other:
            other.acquire("jöb", owner="one", ttl=60.0)
            lease = store.acquire("jöb", owner="one", ttl=60.0)
            assert {key for key in raw.scan_iter() if key.startswith("p:")} == {"p:job:jöb", "p:jobs", "p:attempts:jöb"}
            store.release(lease)
            store.delete("jöb")
            assert other.load("jöb") is not None
        assert {key for key in raw.scan_iter() if not key.startswith("resumable_sync:")} == {
            *before,
            "p:newest_deleted_token",
        }


def test_a_stored_job_can_be_read_by_people(redis_url: str) -> None:
    with driver.Redis.from_url(redis_url, decode_responses=True) as raw, RedisJobStore(redis_url) as store:
        lease = store.save(
            Job(id="orders", run=2, cursor=[42], processed_records=7), store.acquire("orders", owner="me", ttl=60.0)
        )
        row: Any = raw.hgetall("resumable_sync:job:orders")
        assert (row["status"], row["run"], row["cursor"], row["processed_records"]) == ("pending", "2", "[1,[42]]", "7")
        assert (row["lease_owner"], row["fencing_token"]) == ("me", str(lease.fencing_token))
        assert not {"error", "total_records", "run_id"} & set(row)


def test_a_released_lease_is_no_longer_good(redis_url: str) -> None:
    with RedisJobStore(redis_url) as store:
        lease = store.acquire("job", owner="one", ttl=60.0)
        store.release(lease)
        writes: list[Callable[[], object]] = [
            lambda: store.save(Job(id="job"), lease),
            lambda: store.renew(lease, 60.0),
        ]
        for write in writes:
            with pytest.raises(LeaseLostError):
                write()


def test_many_jobs_are_listed(redis_url: str) -> None:
    with RedisJobStore(redis_url) as store:
        ids = [f"job {number:03}" for number in range(201)]
        for job_id in reversed(ids):
            store.acquire(job_id, owner="one", ttl=60.0)
        assert [job.id for job in store.jobs()] == ids


def test_a_server_that_forgot_the_scripts_is_told_them(redis: Server, redis_url: str) -> None:
    with RedisJobStore(redis_url) as store:
        in_use(store)
        if redis.managed:
            redis.execute("SCRIPT FLUSH")
        in_use(store)


def links_to(redis: Server, url: str) -> list[str]:
    (listed,) = redis.execute("CLIENT LIST")
    return [line for line in str(listed).splitlines() if f" db={url.rpartition('/')[2]} " in line]


@pytest.mark.parametrize("how", ["closed", "left", "gone"])
def test_it_closes_its_connections(redis: Server, redis_url: str, how: str) -> None:
    store = in_use(RedisJobStore(redis_url))
    assert links_to(redis, redis_url)
    if how == "closed":
        store.close()
    elif how == "left":
        with store:
            pass
    if how != "gone":
        until(lambda: not links_to(redis, redis_url))
        assert store.load("nobody") is None
    del store
    gc.collect()
    until(lambda: not links_to(redis, redis_url))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python warns of every fork of a process with threads")
def test_a_forked_process_leaves_its_parents_connections_alone(redis_url: str) -> None:
    context = multiprocessing.get_context("fork")
    with RedisJobStore(redis_url) as store:
        lease = store.acquire("job", owner="one", ttl=60.0)
        child = context.Process(target=_save_other, args=(store,))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        store.save(Job(id="job", processed_records=2), lease)
        assert [(job.id, job.processed_records) for job in store.jobs()] == [("job", 2), ("other", 5)]


def _save_other(store: RedisJobStore) -> None:
    store.save(Job(id="other", processed_records=5), store.acquire("other", owner="child", ttl=60.0))
    store.close()


def test_an_unreachable_server_is_a_transient_store_error() -> None:
    with pytest.raises(StoreError, match=r"loading job 'job' failed: ConnectionError: .*; see to") as caught:
        RedisJobStore(f"redis://:{ENCODED}@127.0.0.1:1").load("job")
    assert is_transient(caught.value)
    assert isinstance(caught.value.__cause__, driver.ConnectionError)
    assert PASSWORD not in str(caught.value)


def test_a_wrong_password_is_not_tried_again(redis: Server) -> None:
    url = redis.url("0").replace("redis://", f"redis://nobody:{ENCODED}@")
    with RedisJobStore(url) as store, pytest.raises(StoreError) as caught:
        store.load("job")
    assert not is_transient(caught.value)
    error: BaseException | None = caught.value
    while error is not None:
        assert PASSWORD not in str(error)
        error = error.__cause__


def test_a_command_that_the_server_quotes_is_cut_off() -> None:
    quoting = driver.ResponseError(f"unknown command 'AUTH', with args beginning with: '{PASSWORD}'")
    client: Any = driver.Redis()
    store = RedisJobStore(client)
    client.execute_command = lambda *_, **__: (_ for _ in ()).throw(quoting)
    with pytest.raises(StoreError, match="unknown command 'AUTH'; see to") as caught:
        store.delete("job")
    assert PASSWORD not in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (driver.ConnectionError("reset"), True),
        (driver.TimeoutError("late"), True),
        (driver.BusyLoadingError("loading"), True),
        (driver.ReadOnlyError("a replica"), True),
        (driver.ResponseError("BUSY Redis is busy running a script"), True),
        (driver.AuthenticationError("wrong"), False),
        (driver.exceptions.NoPermissionError("no"), False),
        (driver.OutOfMemoryError("full"), False),
        (driver.ResponseError("MISCONF cannot persist"), False),
        (driver.DataError("x"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_may_be_tried_again(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient


def test_waits_are_bounded(redis_url: str, tcp_proxy: Callable[[str], TCPProxy]) -> None:
    proxy = tcp_proxy(redis_url)
    with RedisJobStore(proxy.url) as store:
        kept: Any = store._link.client.connection_pool
        assert kept.connection_kwargs["socket_timeout"] == kept.connection_kwargs["socket_connect_timeout"] == 10
    with RedisJobStore(f"{proxy.url}?socket_timeout=0.2") as store:
        lease = store.acquire("job", owner="one", ttl=60.0)
        proxy.blackhole()
        with pytest.raises(StoreError) as caught:
            store.save(Job(id="job"), lease)
        assert is_transient(caught.value)
        proxy.restore()
        store.save(Job(id="job"), lease)


def test_it_goes_on_after_its_connection_was_cut(redis_url: str, tcp_proxy: Callable[[str], TCPProxy]) -> None:
    proxy = tcp_proxy(redis_url)
    with RedisJobStore(proxy.url) as store:
        lease = store.acquire("job", owner="one", ttl=60.0)
        lease = store.save(Job(id="job"), lease)  # so that the server knows the script, and does it at once
        proxy.to_client = lambda link, _: link.cut()
        with pytest.raises(StoreError) as caught:
            store.save(Job(id="job", processed_records=1), lease)
        assert is_transient(caught.value)
        proxy.to_client = None
        # The answer was lost, not the checkpoint.
        assert (store.load("job") or Job(id="")).processed_records == 1
        store.save(Job(id="job", processed_records=2), lease)


@pytest.mark.parametrize("single", [False, True])
def test_an_interrupted_call_does_not_answer_the_next(
    redis_url: str, tcp_proxy: Callable[[str], TCPProxy], single: bool
) -> None:
    proxy, asked_again = tcp_proxy(redis_url), threading.Event()
    client: Any = driver.Redis.from_url(proxy.url, single_connection_client=single)
    with client:
        store = RedisJobStore(client)
        lease = store.acquire("job", owner="one", ttl=60.0)
        assert store.load("nobody") is None
        answering = client.parse_response

        def interrupt(*_: Any, **__: Any) -> None:
            client.parse_response = answering
            raise KeyboardInterrupt

        # The answer to the question that is interrupted is on its way until the next one is asked.
        proxy.to_client = lambda *_: asked_again.wait(10)
        client.parse_response = interrupt
        with pytest.raises(KeyboardInterrupt):
            store.load("nobody")
        proxy.to_server = lambda *_: asked_again.set()
        assert store.load("job") is not None
        store.save(Job(id="job", processed_records=2), lease)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_server_that_may_forget_is_told_of_once(
    redis: Server, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    if not isinstance(redis, ManagedServer):
        pytest.skip("the environment names a server whose settings are its own")
    url = redis_url.replace("redis://", "redis://default:unchecked@")
    redis.execute("CONFIG SET appendonly no")
    try:
        with RedisJobStore(redis_url) as store:
            store.load("job")
            assert warnings_of(caplog) == []
            for number in range(3):
                store.acquire(f"job {number}", owner="one", ttl=60.0)
    finally:
        redis.execute("CONFIG SET appendonly yes")
    (warning,) = warnings_of(caplog)
    assert "the server keeps nothing, and forgets all jobs when it ends; set appendonly yes" in warning
    assert redis_url in warning
    assert url not in warning


def test_a_server_that_does_not_tell_is_believed(
    redis: Server, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    if not isinstance(redis, ManagedServer):
        pytest.skip("the environment names a server whose users are its own")
    redis.execute(f"ACL SETUSER limited on >{ENCODED} ~* +@all -config")
    try:
        with RedisJobStore(redis_url.replace("redis://", f"redis://limited:{ENCODED.replace('%', '%25')}@")) as store:
            in_use(store)
    finally:
        redis.execute("ACL DELUSER limited")
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, None),
        ({"appendonly": "yes", "appendfsync": "always", "save": ""}, None),
        ({"appendonly": "yes", "appendfsync": "everysec", "save": "3600 1"}, None),
        ({"appendonly": "yes", "appendfsync": "no"}, "when checkpoints reach the disk; set appendfsync always"),
        ({"appendonly": "no", "save": "3600 1"}, "snapshots only (save), and forgets all checkpoints since the last"),
        ({"appendonly": "no", "save": ""}, "keeps nothing, and forgets all jobs"),
        (
            {"appendonly": "yes", "maxmemory": "5", "maxmemory-policy": "allkeys-lru"},
            "evicts keys when memory is short",
        ),
        ({"appendonly": "yes", "maxmemory": "5", "maxmemory-policy": "volatile-lru"}, None),
        ({"appendonly": "yes", "maxmemory": "0", "maxmemory-policy": "allkeys-lru"}, None),
    ],
)
def test_what_is_warned_of(settings: dict[str, str], told: str | None) -> None:
    weakness = _weakness(settings)
    assert weakness is None if told is None else told in (weakness or "")
