"""A job store in Redis, as one writes one's own: about a hundred lines that pass `JobStoreSuite`.

A job is a hash: its facts as JSON, and beside them the lease. Whatever looks at the lease and changes something is one
Lua script, which nothing can come between, and whose clock is the server's. (The library has a store for Redis that
does more: `resumable_sync.stores.redis`.)
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import attrs
import redis

from resumable_sync import (
    ConfigurationError,
    Job,
    JobHeldError,
    JobStatus,
    JobStore,
    Lease,
    LeaseLostError,
    StateCorruptError,
    StoreError,
    decode_cursor,
    encode_cursor,
)

CLOCK = "local t = redis.call('TIME') local now = t[1] * 1000000 + t[2] "

# The newest token of all jobs is a key of its own, so that no token of a job repeats after the job was deleted.
ACQUIRE = (
    CLOCK
    + """
local token, owner, ends = unpack(redis.call('HMGET', KEYS[1], 'token', 'owner', 'ends'))
local alive = token and tonumber(ends) > now
if (ARGV[3] == '' and alive and owner ~= ARGV[1]) or (ARGV[3] ~= '' and ARGV[3] ~= token) then
    return {0, owner or '', alive and ends or ''}
end
token = string.format('%.0f', math.max(now, (redis.call('GET', KEYS[2]) or 0) + 1))
redis.call('SET', KEYS[2], token)
redis.call('SADD', KEYS[3], ARGV[4])
if owner ~= ARGV[1] then redis.call('HDEL', KEYS[1], 'stop') end
ends = string.format('%.0f', now + ARGV[2])
redis.call('HSET', KEYS[1], 'token', token, 'owner', ARGV[1], 'ttl', ARGV[2], 'ends', ends)
return {1, token, ends, redis.call('HEXISTS', KEYS[1], 'stop')}
"""
)
WRITE = (
    CLOCK
    + """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return false end
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'job', ARGV[3]) end
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'ttl', ARGV[2]) end
local ends = string.format('%.0f', now + redis.call('HGET', KEYS[1], 'ttl'))
redis.call('HSET', KEYS[1], 'ends', ends)
return {ends, redis.call('HEXISTS', KEYS[1], 'stop')}
"""
)
LOAD = CLOCK + "return {tostring(now), unpack(redis.call('HMGET', KEYS[1], 'job', 'token', 'owner', 'ends', 'stop'))}"
STOP = (
    CLOCK
    + "if now < tonumber(redis.call('HGET', KEYS[1], 'ends') or 0) then redis.call('HSET', KEYS[1], 'stop', 1) end"
)
TIMES = ("created_at", "started_at", "updated_at", "finished_at")


class RedisJobs(JobStore):
    def __init__(self, url: str, prefix: str = "jobs:") -> None:
        self.url, self.prefix = url, prefix
        self.redis: Any = redis.Redis.from_url(url, socket_timeout=10.0)

    def __reduce__(self) -> Any:  # so that it travels to worker processes
        return RedisJobs, (self.url, self.prefix)

    def load(self, job_id: str) -> Job | None:
        with talking():
            now, facts, token, owner, ends, stop = self.redis.eval(LOAD, 1, self.key(job_id))
        if token is None:
            return None
        job = Job(id=job_id) if facts is None else job_of(job_id, facts)
        lease = lease_of(job_id, owner.decode(), token, ends, stop is not None)
        return attrs.evolve(job, lease=lease if int(ends) > float(now) else None)

    def jobs(self) -> list[Job]:
        with talking():
            ids = sorted(member.decode() for member in self.redis.smembers(self.prefix + "ids"))
        return [job for job_id in ids if (job := self.load(job_id)) is not None]

    def acquire(self, job_id: str, *, owner: str, ttl: float, replacing: int | None = None) -> Lease:
        keys = [self.key(job_id), self.prefix + "newest token", self.prefix + "ids"]
        with talking():
            granted, *found = self.redis.eval(
                ACQUIRE, 3, *keys, owner, int(ttl * 1e6), "" if replacing is None else replacing, job_id
            )
        if not granted:
            raise JobHeldError(found[0].decode(), time_of(found[1]) if found[1] else None)
        return lease_of(job_id, owner, *found)

    def renew(self, lease: Lease, ttl: float) -> Lease:
        return self.write(lease, int(ttl * 1e6), "")

    def save(self, job: Job, lease: Lease) -> Lease:
        if job.id != lease.job_id:
            raise ConfigurationError(
                f"job {job.id!r} cannot be saved under the lease of job {lease.job_id!r}; use its own"
            )
        return self.write(lease, "", text_of(job))

    def release(self, lease: Lease) -> None:
        self.write(lease, 0, "")

    def request_stop(self, job_id: str) -> None:
        with talking():
            self.redis.eval(STOP, 1, self.key(job_id))

    def delete(self, job_id: str) -> None:
        with talking(), self.redis.pipeline(transaction=True) as both:
            both.delete(self.key(job_id)).srem(self.prefix + "ids", job_id).execute()

    def write(self, lease: Lease, ttl: int | str, facts: str) -> Lease:
        with talking():
            found = self.redis.eval(WRITE, 1, self.key(lease.job_id), lease.fencing_token, ttl, facts)
        if found is None:
            raise LeaseLostError(lease.job_id, lease.fencing_token)
        return lease_of(lease.job_id, lease.owner, lease.fencing_token, *found)

    def key(self, job_id: str) -> bytes:
        if not 1 <= len(job_id) <= 255 or any("\ud800" <= one <= "\udfff" for one in job_id):
            raise ConfigurationError(f"{job_id!r} cannot be the id of a job; use 1 to 255 characters")
        return f"{self.prefix}job:{job_id}".encode()


@contextmanager
def talking() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise StoreError(f"Redis did not do it: {type(error).__name__}; see whether it runs") from error


def time_of(microseconds: bytes) -> datetime:
    return datetime.fromtimestamp(int(microseconds) / 1e6, UTC)


def lease_of(job_id: str, owner: str, token: Any, ends: bytes, stop: int) -> Lease:
    return Lease(
        job_id=job_id, owner=owner, fencing_token=int(token), expires_at=time_of(ends), stop_requested=bool(stop)
    )


def text_of(job: Job) -> str:
    facts = attrs.asdict(attrs.evolve(job, lease=None, cursor=encode_cursor(job.cursor)))
    return json.dumps(facts | {name: facts[name] and facts[name].isoformat() for name in TIMES})


def job_of(job_id: str, text: bytes) -> Job:
    try:
        facts = json.loads(text)
        times = {name: facts[name] and datetime.fromisoformat(facts[name]) for name in TIMES}
        return Job(**facts | times | {"status": JobStatus(facts["status"]), "cursor": decode_cursor(facts["cursor"])})
    except (ValueError, TypeError, KeyError) as error:
        raise StateCorruptError(job_id, "job", type(error).__name__) from error
