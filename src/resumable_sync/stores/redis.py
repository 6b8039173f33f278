"""Jobs in Redis or Valkey."""

import weakref
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from typing_extensions import override

from resumable_sync._errors import ConfigurationError, JobHeldError, LeaseLostError, StateCorruptError
from resumable_sync._model import AttemptRecord, Job, Lease
from resumable_sync._protocols import LineageStore
from resumable_sync._validate import check_job_id
from resumable_sync.stores import _redis_scripts as scripts
from resumable_sync.stores._leases import KEPT_ATTEMPTS, LATER_ATTEMPT, check_owner, check_ttl
from resumable_sync.stores._redis_link import Link, Translated, is_client, open_client
from resumable_sync.stores._redis_rows import attempt_from_json, fields_of_job, job_from_fields
from resumable_sync.stores._rows import check_room, time_of

if TYPE_CHECKING:
    import redis

__all__ = ["RedisJobStore", "from_data"]

DEFAULT_PREFIX = "resumable_sync:"
MAX_PREFIX_LENGTH = 200

LISTED_AT_ONCE = 100
"""How many jobs are read in one step; the server does nothing else meanwhile."""


class RedisJobStore(LineageStore):
    """Keep jobs in Redis (5 or newer) or Valkey, on one server, or a primary with its replicas.

    The keys are `<prefix>job:<job id>` (a hash with the fields of the job and its lease), `<prefix>attempts:<job id>`
    (a list of JSON objects), `<prefix>jobs` (a sorted set of all job ids) and `<prefix>newest_deleted_token`; no others
    are touched. Every call is one Lua script, and so atomic; leases run by the server's clock. A checkpoint is one
    EVALSHA, which sets the fields if the fencing token is the newest:

        EVALSHA <digest> 1 resumable_sync:job:orders <token> 2 error finished_at status running cursor [1,[42]] ...

    The store has no transactions that a sink could write in, so the guarantee is that of the sink alone; a `SQLSink`
    with its own `url` gives exactly once. A lease that was released is no longer good for `save` and `renew`.

    A checkpoint is as durable as the server makes it, and what it forgets is delivered again:

    - `appendonly yes`, `appendfsync always`: nothing that `save` returned from is lost, not in a power cut either. This
      is what the contract of `JobStore` asks for;
    - `appendonly yes`, `appendfsync everysec` (the default of `appendfsync`): up to two seconds may be lost;
    - `appendonly no` (the default): everything since the last snapshot is lost, and without snapshots all jobs;
    - a replica that takes over has lost what had not yet reached it;
    - `maxmemory-policy` should be `noeviction`: what is evicted starts over.

    Of the worse of these a warning is logged at the first `acquire`, where the server lets its CONFIG be read. Whatever
    is lost, tokens do not repeat unless the server's clock is set back, and a worker whose lease is gone is refused.

    Args:
        url_or_client: `redis://user:password@host:port/0`, `rediss://...` for TLS, `unix:///path?db=0`, with the
            options that redis-py takes as a query; waits are then bounded to 10 seconds. Or a `redis.Redis` of yours,
            with the timeouts and tries that you gave it. No cluster: its scripts cannot use keys of several nodes.
        key_prefix: What the names of the keys start with: 1 to 200 characters.

    Raises:
        ConfigurationError: If the URL, the client or the prefix cannot be used.

    Examples:
        >>> from resumable_sync.stores.redis import RedisJobStore
        >>> RedisJobStore("redis://etl:secret@cache:6379/0")
        RedisJobStore('redis://etl:***@cache:6379/0', key_prefix='resumable_sync:')
    """

    def __init__(self, url_or_client: "str | redis.Redis", *, key_prefix: str = DEFAULT_PREFIX) -> None:
        if (
            type(key_prefix) is not str
            or not 1 <= len(key_prefix) <= MAX_PREFIX_LENGTH
            or any("\ud800" <= character <= "\udfff" for character in key_prefix)
        ):
            msg = f"key_prefix={key_prefix!r} cannot start a key; use 1 to {MAX_PREFIX_LENGTH} characters"
            raise ConfigurationError(msg)
        self._open(url_or_client, key_prefix)

    def _open(self, url_or_client: "str | redis.Redis", prefix: str) -> None:
        self._url = url_or_client if isinstance(url_or_client, str) else None
        if isinstance(url_or_client, str):
            self._link = Link(open_client(url_or_client))
            self._finalizer = weakref.finalize(self, self._link.close)
        elif is_client(url_or_client):
            self._link = Link(url_or_client)
        else:
            msg = f"a {type(url_or_client).__name__} cannot be a job store; give a URL or a redis.Redis"
            raise ConfigurationError(msg)
        self._prefix = prefix
        self._warned = False

    @override
    def __getstate__(self) -> dict[str, Any]:
        if self._url is None:
            msg = "a store made from a client cannot be pickled; make it from a URL"
            raise ConfigurationError(msg)
        return {"url": self._url, "key_prefix": self._prefix}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._open(state["url"], state["key_prefix"])

    @override
    def __repr__(self) -> str:
        return f"RedisJobStore({self._link.shown()!r}, key_prefix={self._prefix!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that the store made; a later call would open new ones."""
        if self._url is not None:
            self._link.close()

    @override
    def load(self, job_id: str) -> Job | None:
        check_job_id(job_id)
        with Translated("loading", job_id):
            now, fields = self._link.run(scripts.LOAD, [self._job(job_id)])
            return job_from_fields(job_id, fields, int(now))

    @override
    def jobs(self) -> Iterable[Job]:
        with Translated("listing the jobs"):
            ids = [_id_of(member) for member in self._link.command("ZRANGE", self._key("jobs"), 0, -1)]
        found: list[Job] = []
        for first in range(0, len(ids), LISTED_AT_ONCE):
            some = ids[first : first + LISTED_AT_ONCE]
            with Translated("listing the jobs"):
                now, *rows = self._link.run(scripts.LOAD, [self._job(job_id) for job_id in some])
            loaded = (job_from_fields(job_id, row, int(now)) for job_id, row in zip(some, rows, strict=True))
            found += [job for job in loaded if job is not None]  # it may have been deleted meanwhile
        return found

    @override
    def acquire(self, job_id: str, *, owner: str, ttl: float, replacing: int | None = None) -> Lease:
        check_owner(owner)
        microseconds = _microseconds(check_ttl(ttl))
        job = self.load(job_id)
        if job is not None:
            check_room(job)  # a damaged job is left as it is
        token = "" if replacing is None else str(replacing)
        arguments = [job_id, owner, microseconds, token, str(scripts.FORMAT), str(KEPT_ATTEMPTS)]
        with Translated("acquiring", job_id):
            self._warn_once()
            answer, *facts = self._link.run(scripts.GRANT, self._keys(job_id), arguments)
        if answer == b"damaged":
            raise StateCorruptError(job_id, facts[0].decode(), "is no number that a clock could show")
        if answer == b"held":
            holder = facts[0].decode()
            raise JobHeldError(holder or LATER_ATTEMPT, time_of(int(facts[1])) if holder else None, job_id)
        return Lease(
            job_id=job_id,
            owner=owner,
            fencing_token=int(facts[0]),
            expires_at=time_of(int(facts[1])),
            stop_requested=facts[2] == b"1",
        )

    @override
    def renew(self, lease: Lease, ttl: float) -> Lease:
        with Translated("renewing the lease of", lease.job_id):
            arguments = [str(lease.fencing_token), _microseconds(check_ttl(ttl))]
            answer = self._link.run(scripts.RENEW, [self._job(lease.job_id)], arguments)
        return _extended(lease, answer)

    @override
    def save(self, job: Job, lease: Lease) -> Lease:
        if job.id != lease.job_id:
            msg = f"job {job.id!r} cannot be saved under a lease of {lease.job_id!r}; acquire a lease of its own"
            raise ConfigurationError(msg)
        with Translated("saving", job.id):
            given, missing = fields_of_job(job)
            arguments = [str(lease.fencing_token), str(len(missing)), *missing, *given]
            answer = self._link.run(scripts.SAVE, [self._job(job.id)], arguments)
        return _extended(lease, answer)

    @override
    def release(self, lease: Lease) -> None:
        keys = [self._job(lease.job_id), self._lineage(lease.job_id)]
        with Translated("releasing", lease.job_id):
            (answer,) = self._link.run(scripts.RELEASE, keys, [str(lease.fencing_token)])
        if answer == b"lost":
            raise LeaseLostError(lease.job_id, lease.fencing_token)

    @override
    def request_stop(self, job_id: str) -> None:
        check_job_id(job_id)
        with Translated("stopping", job_id):
            self._link.run(scripts.REQUEST_STOP, [self._job(job_id)])

    @override
    def delete(self, job_id: str) -> None:
        check_job_id(job_id)
        with Translated("deleting", job_id):
            self._link.run(scripts.DELETE, self._keys(job_id), [job_id])

    @override
    def attempts(self, job_id: str) -> Sequence[AttemptRecord]:
        check_job_id(job_id)
        with Translated("reading the lineage of", job_id):
            keys = [self._job(job_id), self._lineage(job_id)]
            answer, kept = self._link.run(scripts.ATTEMPTS, keys)
        if answer == b"damaged":
            raise StateCorruptError(job_id, kept.decode(), "is not a list")
        return [attempt_from_json(job_id, one) for one in kept]

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            self._link.warn_of_loss(self._link.shown())

    def _keys(self, job_id: str) -> list[bytes]:
        return [self._job(job_id), self._key("jobs"), self._key("newest_deleted_token"), self._lineage(job_id)]

    def _job(self, job_id: str) -> bytes:
        return self._key(f"job:{job_id}")

    def _lineage(self, job_id: str) -> bytes:
        return self._key(f"attempts:{job_id}")

    def _key(self, name: str) -> bytes:
        return f"{self._prefix}{name}".encode()


def _microseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1_000_000)))


def _id_of(member: bytes) -> str:
    try:
        return member.decode()
    except UnicodeDecodeError:
        raise StateCorruptError(None, "id", "is not UTF-8") from None


def _extended(lease: Lease, answer: Sequence[bytes]) -> Lease:
    """Give a lease as the server has it after a save or a renewal.

    Raises:
        LeaseLostError: If its token is not the newest.
        StateCorruptError: If what is stored of it is damaged.
    """
    if answer[0] == b"lost":
        raise LeaseLostError(lease.job_id, lease.fencing_token)
    if answer[0] == b"damaged":
        raise StateCorruptError(lease.job_id, answer[1].decode(), "is not a positive integer")
    return Lease(
        job_id=lease.job_id,
        owner=lease.owner,
        fencing_token=lease.fencing_token,
        expires_at=time_of(int(answer[1])),
        stop_requested=answer[2] == b"1",
    )


def from_data(*, url: str, key_prefix: str = DEFAULT_PREFIX) -> RedisJobStore:
    """Build a `RedisJobStore` from plain data; what the registry calls for `{"type": "redis", ...}`.

    Args:
        url: As for `RedisJobStore`.
        key_prefix: As for `RedisJobStore`.

    Raises:
        ConfigurationError: If the URL or the prefix cannot be used.
    """
    return RedisJobStore(url, key_prefix=key_prefix)
