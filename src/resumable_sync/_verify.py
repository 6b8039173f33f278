"""The proof of completeness: does the target hold exactly what the source holds?"""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
from typing_extensions import Unpack

from resumable_sync._attempts.observers import Observers
from resumable_sync._attempts.options import SyncOptions, make_options
from resumable_sync._attempts.stop import Stop
from resumable_sync._default_store import default_store
from resumable_sync._engine import run_full_sync
from resumable_sync._errors import ConfigurationError, CursorError
from resumable_sync._fingerprint import COMPARED, fingerprint_text, is_verification
from resumable_sync._model import Batch, SyncResult
from resumable_sync._protocols import Connector, DeadLetterStore, DescribingConnector, JobStore
from resumable_sync._ranges import KeyRanges, KeySpec, RangeConnector
from resumable_sync._retry import Retrier
from resumable_sync._sinks import transactional
from resumable_sync._validate import check_job_id
from resumable_sync._verification.compare import Comparison
from resumable_sync._verification.tally import Difference, Place, Tally
from resumable_sync._verification.walk import Walk, naming

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["VerifyResult", "verify_full_sync"]

_OURS = ("count", "if_changed", "max_dead_letters", "on_refused")


@attrs.frozen(kw_only=True)
class VerifyResult:
    """What a verification found.

    Attributes:
        equal: Rows that are the same on both sides.
        missing: Rows of the source that the target lacks.
        extra: Rows of the target that the source has not, or has fewer times.
        different: Rows of the same key that differ in other columns.
        differences: The first `max_differences` of the last three, in the order in which they were found. Those that an
            earlier attempt found are among them if the store keeps dead letters.
        sync: How the verification's own job went; its records are ranges of keys.
    """

    equal: int
    missing: int
    extra: int
    different: int
    differences: Sequence[Difference]
    sync: SyncResult

    @property
    def source_records(self) -> int:
        """Rows of the source that were compared."""
        return self.equal + self.missing + self.different

    @property
    def target_records(self) -> int:
        """Rows of the target that were compared."""
        return self.equal + self.extra + self.different

    @property
    def complete(self) -> bool:
        """Whether both sides were compared to their ends; False if the verification was stopped, or held."""
        return self.sync.status.exhausted

    @property
    def ok(self) -> bool:
        """Whether it is proved that the target holds exactly the rows of the source."""
        return self.complete and not (self.missing or self.extra or self.different)


class RangeDiffersError(Exception):
    """The sides differ in a range; what the sink of a verification raises, so that the range becomes a dead letter."""


def verify_full_sync(
    connector: Connector[Any],
    target_connector: RangeConnector,
    *,
    key: KeySpec | None = None,
    columns: Sequence[str] | None = None,
    job_id: str | None = None,
    store: JobStore | None = None,
    max_differences: int = 100,
    **options: Unpack[SyncOptions],
) -> VerifyResult:
    """Compare a target with its source row by row, and prove that it is complete, or name the rows in which it is not.

    Both sides are walked through in the order of a key, range by range, with as much memory as a few batches take.
    Where both are the same kind of database, it counts the rows of a range and computes a checksum that does not depend
    on their order, and no rows travel; a range whose checksums differ is made smaller until it is a batch, and its rows
    are read. Elsewhere the rows are read and compared in a common form, in which what `SQLSink` has written is equal to
    what it was given: a UUID is its text, a Decimal the number as far as the target's digits go, a time with a zone the
    same instant in UTC. Keys are put in order by the databases alone, and they may order them differently: before a row
    counts as missing, extra or different, it is looked up by its key on both sides.

    It is a sync of its own, so it can be killed or stopped and called again, and goes on where it was; the next call
    after one that came to its end starts anew. Its differences are kept as dead letters of its job, in the transaction
    that saves the checkpoint, if the store keeps such: the job then ends `incomplete`, and `completed` if there are
    none. With other stores, where it ends `completed` in any case, only the numbers survive a death, and `differences`
    are those that this call has found.

    Source and target may be written to meanwhile. Then the result holds for each row at the moment when it was
    compared: a row that the source got, lost or changed since it was synced is a difference, and one that was inserted
    behind the place of the verification may not be seen. A row that neither side touches is always judged rightly. For
    a proof of everything, let the writers of the source rest; to tell a late row from a lost one, verify again.

    Args:
        connector: The source. One without `ranges`, such as a file or an API, must yield its records in the order in
            which the target compares the key; else rows may seem to be extra. (They never seem to be there.)
        target_connector: The target, such as `SQLConnector(url, "orders", key="id")`.
        key: The columns by which rows are matched, unique in the source: `"id"`, `"-created_at"` (descending),
            `["region", ("at", "desc")]`. None: the key of the source, or of the target if the source tells none. The
            target's need not be unique: of two rows of a key one is extra.
        columns: The columns to compare, besides the key. None: all; both sides must have the same then.
        job_id: Names the verification: 1 to 255 characters. None: derived from what is compared.
        store: Where its job is kept. None: the same one as of `run_full_sync`.
        max_differences: How many differences are named, 0 or more (default 100); all are counted.
        options: Further options of `run_full_sync`: `batch_size` (rows in a range, default 1,000), `retry`, `if_held`,
            `max_runtime`, `should_stop`, `observers`, ... What they count as records (`max_records`, `throttle`) are
            ranges here.

    Returns:
        Counts, differences, and `ok`.

    Raises:
        ConfigurationError: If an argument cannot work, or the columns of the two sides differ.
        JobHeldError: If the same verification is at work elsewhere; further errors as for `run_full_sync`.
        Exception: What a connector raised, with a note saying how to resume.

    Examples:
        >>> import sqlite3
        >>> for name, rows in (("shop.db", "(1, 'tea'), (2, 'jam')"), ("warehouse.db", "(1, 'tea'), (2, 'ham')")):
        ...     with sqlite3.connect(name) as database:
        ...         _ = database.execute("CREATE TABLE goods (id INTEGER PRIMARY KEY, name TEXT)")
        ...         _ = database.execute(f"INSERT INTO goods VALUES {rows}")
        ...     database.close()
        >>> from resumable_sync.connectors.sql import SQLConnector
        >>> result = verify_full_sync(
        ...     SQLConnector("sqlite:///shop.db", "goods"), SQLConnector("sqlite:///warehouse.db", "goods")
        ... )
        >>> result.ok, result.equal, result.different
        (False, 1, 1)
        >>> list(result.differences)
        [Difference(kind='different', key=(2,), columns=('name',))]
    """
    _check_sides(connector, target_connector)
    _check_arguments(key, columns, job_id, max_differences)
    _check_options(options)
    verification = _Verification(connector, target_connector, options)
    walk = verification.open(key, columns, max_differences)
    job_id = verification.job_id(walk) if job_id is None else job_id
    if store is not None:
        return _run(job_id, walk, store, options)
    with default_store() as made:
        return _run(job_id, walk, made, options)


class _Verification:
    """What a call looks up before it starts, tried again after transient errors."""

    def __init__(self, connector: Connector[Any], target: RangeConnector, options: SyncOptions) -> None:
        self._connector, self._target = connector, target
        retry = make_options("verification", options).retry
        self._retrier = Retrier(retry, Stop(None, None).wait, partial(Observers(()).try_failed, "verification"))

    def open(self, key: KeySpec | None, columns: Sequence[str] | None, max_differences: int) -> Walk:
        source: KeyRanges | None = None
        if isinstance(self._connector, RangeConnector):
            with naming("source"):
                source = self._retrier.call("ranges", self._connector.ranges, key)
            key = source.key
        with naming("target"):
            target = self._retrier.call("ranges", self._target.ranges, key)
        names = [name for name, _ in target.key]
        known = self._source_columns(source)
        chosen = _chosen(known, tuple(target.kinds), names, columns)
        if source is not None:
            source = source.only(chosen)
        target = target.only(chosen)
        comparison = Comparison(source, target, chosen, names, {} if source is None else source.kinds)
        return Walk(
            self._connector,
            source,
            target,
            comparison,
            columns=chosen,
            whole=columns is None,
            key=names,
            fingerprint={
                "source": self._fingerprint(self._connector),
                "target": self._fingerprint(self._target),
                COMPARED: json.dumps([list(target.key), chosen]),
            },
            max_differences=max_differences,
        )

    def job_id(self, walk: Walk) -> str:
        """Derive a job id from what is compared.

        Raises:
            ConfigurationError: If a connector does not tell what it reads.
        """
        parts = walk.fingerprint
        if not parts["source"] or not parts["target"]:
            msg = "the source's or the target's connector has no fingerprint to tell it by; name this one with job_id="
            raise ConfigurationError(msg)
        text = json.dumps(parts, sort_keys=True)
        return f"verify {hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"

    def _source_columns(self, source: KeyRanges | None) -> Sequence[str] | None:
        if source is not None:
            return tuple(source.kinds)
        if isinstance(self._connector, DescribingConnector):
            return [column.name for column in self._retrier.call("columns", self._connector.columns)]
        return None

    def _fingerprint(self, connector: Any) -> str:
        found = self._retrier.call("fingerprint", getattr, connector, "fingerprint", None)
        return fingerprint_text(found) or ""


def _chosen(
    source: Sequence[str] | None, target: Sequence[str], key: Sequence[str], columns: Sequence[str] | None
) -> list[str]:
    """Give the columns to compare, in one order however they are named: the key, then the others as the target's go.

    Raises:
        ConfigurationError: If one side has columns that the other has not.
    """
    wanted = list(dict.fromkeys([*key, *(source or target if columns is None else columns)]))
    for side, names in (("source", source), ("target", target)):
        lacking = [name for name in wanted if names is not None and name not in names]
        if lacking:
            raise ConfigurationError(
                f"the {side} has no column {', '.join(map(repr, lacking))} to compare; it has "
                f"{', '.join(map(repr, names or ()))}: name the columns that both have in columns="
            )
    surplus = [name for name in target if columns is None and name not in wanted]
    if surplus:
        raise ConfigurationError(
            f"the source has no column {', '.join(map(repr, surplus))}, and the target has; name the columns to "
            "compare in columns="
        )
    return [*key, *(name for name in target if name in wanted and name not in key)]


def _run(job_id: str, walk: Walk, store: JobStore, options: SyncOptions) -> VerifyResult:
    _check_job(job_id, store)
    found: list[Difference] = []
    kept = isinstance(store, DeadLetterStore)
    settings = SyncOptions(**options)
    settings["count"] = False
    settings["if_changed"] = "rerun"
    settings["max_dead_letters"] = None
    settings["on_refused"] = "dead_letter" if kept else "fail"
    sync = run_full_sync(
        job_id,
        walk,
        transactional(_refuse) if kept else partial(_collect, found),
        store=store,
        **settings,
    )
    if isinstance(store, DeadLetterStore):
        found = [
            Difference.decoded(difference)
            for letter in store.dead_letters(job_id)
            if letter.run == sync.job.run
            for difference in letter.record["differences"]
        ]
    tally = _tally(sync)
    return VerifyResult(
        equal=tally.equal,
        missing=tally.missing,
        extra=tally.extra,
        different=tally.different,
        differences=tuple(found),
        sync=sync,
    )


def _check_job(job_id: str, store: Any) -> None:
    """See to it that the job is no sync's, whose checkpoint and dead letters a verification would replace.

    Raises:
        ConfigurationError: If it is.
    """
    job = store.load(job_id) if isinstance(store, JobStore) else None
    if job is None or not (job.fingerprint or job.has_progress):
        return
    try:
        Place.of(job.cursor)
        known = job.fingerprint is None or is_verification(job.fingerprint)
    except CursorError:
        known = False
    if not known:
        msg = f"job {job_id!r} is a sync, whose checkpoint would be lost; give the verification a job_id of its own"
        raise ConfigurationError(msg)


def _tally(sync: SyncResult) -> Tally:
    try:
        return Place.of(sync.job.cursor).tally
    except CursorError:
        return Tally()  # passed over: a job that something else holds


def _refuse(batch: Batch[Any], _connection: "Connection") -> None:
    for report in batch.records:
        if report["differs"]:
            counts = [f"{report[kind]} {kind}" for kind in ("missing", "extra", "different") if report[kind]]
            raise RangeDiffersError(", ".join(counts))


def _collect(found: list[Difference], batch: Batch[Any]) -> None:
    for report in batch.records:
        found.extend(map(Difference.decoded, report["differences"]))


def _check_sides(connector: Any, target: Any) -> None:
    """Check the two connectors before anything is read.

    Raises:
        ConfigurationError: If one cannot do what it must.
    """
    if isinstance(connector, type) or not callable(getattr(connector, "read", None)):
        msg = f"a {type(connector).__name__} is no connector; give an object with read(cursor, batch_size)"
        raise ConfigurationError(msg)
    if isinstance(target, type) or not isinstance(target, RangeConnector):
        msg = f"a {type(target).__name__} cannot read ranges of a key, which the target must; give a SQLConnector"
        raise ConfigurationError(msg)


def _check_arguments(key: Any, columns: Any, job_id: Any, max_differences: Any) -> None:
    """Check the other arguments before anything is read.

    Raises:
        ConfigurationError: If one cannot work.
    """
    if key is not None and not (isinstance(key, str | list | tuple) and key):
        msg = f"key={key!r} is no key; write key='id', key='-created_at' or key=['a', ('b', 'desc')]"
        raise ConfigurationError(msg)
    named = isinstance(columns, list | tuple) and columns and all(isinstance(name, str) for name in columns)
    if columns is not None and not named:
        msg = f"columns={columns!r} are no columns; give a list of their names, or None for all"
        raise ConfigurationError(msg)
    if type(max_differences) is not int or max_differences < 0:
        msg = f"max_differences={max_differences!r} is not possible; give a whole number of at least 0"
        raise ConfigurationError(msg)
    if job_id is not None:
        check_job_id(job_id)


def _check_options(options: SyncOptions) -> None:
    """Check the options of the sync that a verification is.

    Raises:
        ConfigurationError: If one cannot work.
    """
    ours = [name for name in _OURS if name in options]
    if ours:
        msg = f"{ours[0]}= is set by verify_full_sync itself; leave it out"
        raise ConfigurationError(msg)
    make_options("verification", options)
