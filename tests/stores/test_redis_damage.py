"""What the library cannot have written is an error that names job and field, and stays as it is."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
import redis as driver

from resumable_sync._errors import ConfigurationError, StateCorruptError, StoreError
from resumable_sync._model import Job, JobStatus
from resumable_sync.stores.redis import RedisJobStore

RUN_ID = "0a1b2c3d-0000-4000-8000-0123456789ab"
JOB = Job(id="job", status=JobStatus.RUNNING, run=1, run_id=RUN_ID, cursor=[1], processed_records=1, fingerprint="f")
KEY, LINEAGE, INDEX = "resumable_sync:job:job", "resumable_sync:attempts:job", "resumable_sync:jobs"
DELETED = "resumable_sync:newest_deleted_token"

COUNTS = ("run", "attempt", "processed_records", "processed_batches", "dead_letters", "stalled_attempts")
TIMES = ("created_at", "started_at", "updated_at", "finished_at", "lease_expires_at")
TEXTS = ("status", "run_id", "cursor", "fingerprint", "error", "lease_owner")
NO_NUMBERS = ("-1", "1.5", "x", "", " 1", "01", "+1", "1e3", "-0", "99999999999999999999", b"\xff")

DAMAGES: list[tuple[str, Any]] = [
    *((field, value) for field in ("run", "total_records", "created_at", "fencing_token") for value in NO_NUMBERS[1:]),
    *((field, value) for field in (*COUNTS, "total_records", "batch_size") for value in ("-1", "x")),
    *((field, "9000000000000000000") for field in TIMES),
    *((field, b"\xff") for field in TEXTS),
    *((field, None) for field in (*COUNTS, "status", "format", "fencing_token", "stop_requested")),
    *((field, None) for field in ("lease_owner", "lease_expires_at", "lease_ttl")),
    *(("status", value) for value in ("", "Running", "running ", "done")),
    *(("run_id", value) for value in ("", RUN_ID.upper(), RUN_ID[:-1])),
    *(("cursor", value) for value in ("", "[1,", "[1,null]", "[2,[1]]", "[1, [1]]", "42", "NaN", "é")),
    *(("format", value) for value in ("", "2", "1.0")),
    ("fingerprint", "[1,5]"),
    ("error", "[1,"),
    ("batch_size", "0"),
    ("fencing_token", "-1"),
    ("fencing_token", "9223372036854775807"),
    ("saved_token", "9223372036854775807"),
    ("stop_requested", "2"),
    ("lease_owner", ""),
    ("lease_ttl", "0"),
    ("lease_ttl", "long"),
]


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisJobStore]:
    with RedisJobStore(redis_url) as store:
        store.release(store.save(Job(id="other"), store.acquire("other", owner="one", ttl=60.0)))
        yield store


@pytest.fixture
def raw(redis_url: str) -> Iterator[Any]:
    """A client to do damage with."""
    with driver.Redis.from_url(redis_url) as client:
        yield client


def set_field(raw: Any, field: str, value: Any) -> None:
    if value is None:
        assert raw.hdel(KEY, field) == 1
    else:
        raw.hset(KEY, field, value)


def everything(raw: Any) -> dict[bytes, bytes]:
    return {key: raw.dump(key) for key in raw.keys("*")}


def refused(*calls: Callable[[], object]) -> set[tuple[str | None, str]]:
    """Give job and field of each error."""
    found = set()
    for call in calls:
        with pytest.raises(StateCorruptError, match="repair the field") as caught:
            call()
        found.add((caught.value.job_id, caught.value.field))
    return found


def test_any_damaged_field_is_named_and_left(store: RedisJobStore, raw: Any) -> None:
    for field, value in DAMAGES:
        store.save(JOB, store.acquire("job", owner="one", ttl=60.0))
        set_field(raw, field, value)
        before = everything(raw)
        found = refused(
            lambda: store.load("job"),
            lambda: list(store.jobs()),
            lambda: store.acquire("job", owner="two", ttl=60.0),
            lambda: store.acquire("job", owner="two", ttl=60.0, replacing=1),
        )
        assert found == {("job", field)}, (field, value)
        assert everything(raw) == before
        store.delete("job")
    assert [job.id for job in store.jobs()] == ["other"]


def test_a_count_without_room_is_not_counted_on_from(store: RedisJobStore, raw: Any) -> None:
    for field in COUNTS:
        store.release(store.save(JOB, store.acquire("job", owner="one", ttl=60.0)))
        set_field(raw, field, "9000000000000000000")
        assert store.load("job") is not None
        assert refused(lambda: store.acquire("job", owner="two", ttl=60.0)) == {("job", field)}
        store.delete("job")


def test_a_key_of_another_type_is_named_and_left(store: RedisJobStore, raw: Any) -> None:
    lease = store.acquire("job", owner="one", ttl=60.0)
    raw.delete(KEY)
    raw.set(KEY, "text")
    before = everything(raw)
    found = refused(
        lambda: store.load("job"),
        lambda: store.acquire("job", owner="two", ttl=60.0),
        lambda: store.save(JOB, lease),
        lambda: store.renew(lease, 60.0),
        lambda: store.release(lease),
        lambda: store.request_stop("job"),
    )
    assert found == {("job", "key")}
    assert everything(raw) == before
    # A damaged job can be started over with, and its tokens still grow.
    store.delete("job")
    assert store.acquire("job", owner="two", ttl=60.0).fencing_token > lease.fencing_token


def test_an_index_of_another_type_stops_before_anything_is_written(store: RedisJobStore, raw: Any) -> None:
    raw.delete(INDEX)
    raw.set(INDEX, "text")
    before = everything(raw)
    assert refused(lambda: store.acquire("job", owner="one", ttl=60.0)) == {("job", "key")}
    assert refused(lambda: list(store.jobs())) == {(None, "key")}
    assert everything(raw) == before
    store.delete("other")
    assert store.load("other") is None


def test_an_id_that_is_no_text_is_told(store: RedisJobStore, raw: Any) -> None:
    raw.zadd(INDEX, {b"\xff": 0})
    assert refused(lambda: list(store.jobs())) == {(None, "id")}


def test_a_job_removed_by_hand_is_not_listed(store: RedisJobStore, raw: Any) -> None:
    raw.delete("resumable_sync:job:other")
    assert list(store.jobs()) == []


@pytest.mark.parametrize("value", ["x", "-1", "9007199254740992", ["a", "list"]])
def test_a_damaged_token_of_a_deleted_job_grants_none_that_may_repeat(
    store: RedisJobStore, raw: Any, value: Any
) -> None:
    token = store.acquire("job", owner="one", ttl=60.0).fencing_token
    store.delete("job")
    raw.delete(DELETED)
    if isinstance(value, str):
        raw.set(DELETED, value)
        assert refused(lambda: store.acquire("job", owner="one", ttl=60.0)) == {("job", "newest_deleted_token")}
    else:
        raw.rpush(DELETED, *value)
        assert refused(lambda: store.acquire("job", owner="one", ttl=60.0)) == {("job", "key")}
    assert store.load("job") is None
    store.delete("job")
    assert store.acquire("job", owner="one", ttl=60.0).fencing_token > token


def test_a_token_that_no_clock_could_have_given_is_not_counted_on_from(store: RedisJobStore, raw: Any) -> None:
    store.release(store.save(JOB, store.acquire("job", owner="one", ttl=60.0)))
    # What Lua cannot tell from its neighbours.
    for token in ("9007199254740991", "9007199254740992"):
        raw.hset(KEY, "fencing_token", token)
        assert refused(lambda: store.acquire("job", owner="one", ttl=60.0)) == {("job", "fencing_token")}
        assert raw.hget(KEY, "fencing_token") == token.encode()


def test_a_ttl_that_is_none_is_told_by_save(store: RedisJobStore, raw: Any) -> None:
    lease = store.save(JOB, store.acquire("job", owner="one", ttl=60.0))
    raw.hset(KEY, "lease_ttl", "long")
    before = everything(raw)
    assert refused(lambda: store.save(attrs.evolve(JOB, processed_records=9), lease)) == {("job", "lease_ttl")}
    assert everything(raw) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"processed_records": 2**63},
        {"processed_records": 1.5},
        {"processed_records": True},
        {"total_records": "7"},
        {"fingerprint": b"f"},
        {"run_id": 5},
        {"run_id": "\udc80"},
    ],
)
def test_what_could_not_be_read_back_is_not_saved(store: RedisJobStore, changes: dict[str, Any]) -> None:
    lease = store.save(JOB, store.acquire("job", owner="one", ttl=60.0))
    with pytest.raises(StoreError):
        store.save(attrs.evolve(JOB, **changes), lease)
    assert attrs.evolve(store.load("job") or JOB, lease=None, created_at=None) == JOB


DAMAGED_ATTEMPTS: list[tuple[str, Any]] = [
    ("owner", None),
    ("run", "x"),
    ("run", None),
    ("attempt", "-1"),
    ("from_records", 5),
    ("to_records", "1.0"),
    ("fencing_token", "-1"),
    ("from_cursor", "["),
    ("to_cursor", "[1,null]"),
    ("error", "[1,2]"),
    ("error", {"a": []}),
    ("started_at", None),
    ("started_at", "9000000000000000000"),
    ("ended_at", "9000000000000000000"),
    ("outcome", "done"),
]
NO_ATTEMPTS = [b"", b"x", b"\xff", b"null", b"5", b'"text"', b"[]", b'[{"owner":"one"}]', b"[" * 5_000, b'{"a":NaN}']


def finished_attempt(store: RedisJobStore) -> None:
    store.release(store.save(JOB, store.acquire("job", owner="one", ttl=60.0)))


def check_it_goes_on(store: RedisJobStore, field: str | None) -> None:
    found = refused(lambda: store.attempts("job"))
    assert found == {("job", field)} if field else {job for job, _ in found} == {"job"}
    assert store.load("job") is not None
    for owner in ("two", "two", "three"):
        lease = store.acquire("job", owner=owner, ttl=60.0, replacing=store_token(store))
        store.release(store.save(JOB, store.renew(lease, 60.0)))
    refused(lambda: store.attempts("job"))
    store.delete("job")
    assert store.attempts("job") == []


def store_token(store: RedisJobStore) -> int:
    return int(store._link.client.hget(KEY, "fencing_token"))  # type: ignore[arg-type]


def test_damaged_lineage_is_named_and_stops_nothing(store: RedisJobStore, raw: Any) -> None:
    for field, value in DAMAGED_ATTEMPTS:
        finished_attempt(store)
        attempt = json.loads(raw.lindex(LINEAGE, -1)) | {field: value}
        if value is None:
            del attempt[field]
        raw.lset(LINEAGE, -1, json.dumps(attempt))
        check_it_goes_on(store, field)


def test_lineage_that_is_none_stops_nothing(store: RedisJobStore, raw: Any) -> None:
    for value in NO_ATTEMPTS:
        finished_attempt(store)
        raw.lset(LINEAGE, -1, value)
        check_it_goes_on(store, None)
    finished_attempt(store)
    raw.delete(LINEAGE)
    raw.set(LINEAGE, "text")
    check_it_goes_on(store, "attempts")


def test_memory_that_is_short_leaves_all_as_it_was(redis: Any, store: RedisJobStore, raw: Any) -> None:
    if not redis.managed:
        pytest.skip("the environment names a server that is not ours to set")
    lease = store.save(JOB, store.acquire("job", owner="one", ttl=60.0))
    before = everything(raw)
    raw.config_set("maxmemory", "1")
    try:
        calls: list[Callable[[], object]] = [
            lambda: store.save(attrs.evolve(JOB, processed_records=9, cursor=None), lease),
            lambda: store.renew(lease, 60.0),
            lambda: store.acquire("new", owner="one", ttl=60.0),
            lambda: store.acquire("other", owner="one", ttl=60.0),
        ]
        for call in calls:
            with pytest.raises(StoreError):
                call()
        assert everything(raw) == before
        # What frees memory, or lets others work, is not refused.
        store.release(lease)
        assert [one.outcome for one in store.attempts("job")] == ["interrupted"]
        store.delete("job")
    finally:
        raw.config_set("maxmemory", "0")
    assert store.acquire("job", owner="one", ttl=60.0).fencing_token > lease.fencing_token


@pytest.mark.parametrize("prefix", ["", "x" * 201, "\ud800", None, b"x"])
def test_bad_prefixes(prefix: Any) -> None:
    with pytest.raises(ConfigurationError, match="key_prefix"):
        RedisJobStore("redis://localhost", key_prefix=prefix)
