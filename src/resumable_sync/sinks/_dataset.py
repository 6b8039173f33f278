"""A folder that grows by a file for every batch, with a checkpoint in it, and no lock.

    orders/00003-5f3a9c2e-00000012.parquet      batch 12 of run 3
    orders/_SUCCESS                             the last run is complete
    orders/.sync/attempts/1764368400123456/     of the attempt with that fencing token; the newest one counts
        state.json                              its checkpoint
        file                                    what it writes, before that gets its place
    orders/.sync/00003-5f3a9c2e/                with mode="replace": the files of the run, until it is complete
    orders/.sync/00003-5f3a9c2e.parts/0007.1764368400123456/    of a part's attempt, where a run is done in parts

The files of parts are named alike, with the number of the part before that of the batch.

A file is written whole into the folder of its attempt and moved to its place, then the checkpoint is, which says that
it counts. What stands at or beyond the place where the checkpoint is belongs to a batch that was never accepted.

An attempt begins with a copy of the newest checkpoint, and with removing the folders of all before it. Since one that
was overtaken can only move what is in its folder, and removes a file by moving it there, it changes nothing any more:
its next move fails. Where the filesystem has no such moves (object stores) it looks for a newer attempt before each of
them.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from resumable_sync._cursor import decode_cursor, encode_cursor
from resumable_sync._errors import ConfigurationError, LeaseLostError, StateCorruptError, StoreError
from resumable_sync._model import Batch, Checkpoint, Job
from resumable_sync.sinks._places import Place

__all__ = ["Dataset", "DatasetState"]

SUCCESS = "_SUCCESS"
ATTEMPTS = ".sync/attempts"


@attrs.frozen(kw_only=True)
class DatasetState:
    """A checkpoint as it stands in its file.

    Attributes:
        job_id: The job.
        run_id: Its run; None before the first.
        token: Fencing token of the attempt.
        cursor: The cursor after the last record written, encoded.
        records: Records written in this run.
        batches: Batches written in this run, a file for each.
        prefix: What the names of the run's files begin with.
        schema: How its records are typed, as the sink has written it down; None until that is known.
        finished: Whether the run is complete, and its files in their place.
    """

    job_id: str
    run_id: str | None = None
    token: int
    cursor: str = encode_cursor(None)
    records: int = 0
    batches: int = 0
    prefix: str = ""
    schema: str | None = None
    finished: bool = False


_OPTIONAL = (str, type(None))
_TYPES: dict[str, Any] = {
    "job_id": str,
    "run_id": _OPTIONAL,
    "token": int,
    "cursor": str,
    "records": int,
    "batches": int,
    "prefix": str,
    "schema": _OPTIONAL,
    "finished": bool,
}


class Dataset:
    """The target, and what may happen to it.

    Args:
        place: Its folder.
        ending: Of the files, with the dot.
        replaces: Whether a run is loaded aside, and takes the place of what is there when it is complete.
        whole: The job of which this is filled by one part; None: it is filled by whoever begins it.
    """

    def __init__(self, place: Place, ending: str, *, replaces: bool, whole: Job | None = None) -> None:
        self.place = place
        self.whole = whole
        self._ending = ending
        self._replaces = replaces
        self._ours = re.compile(rf"\d{{5,}}-[0-9a-f]{{8}}(-\w+)?-\d{{8}}{re.escape(ending)}")

    def part(self, whole: Job) -> "Dataset":
        """Give the same for a part of a job."""
        return Dataset(self.place, self._ending, replaces=self._replaces, whole=whole)

    def _folder(self, job_id: str, token: int) -> str:
        """Give the folder of an attempt."""
        if self.whole is None:
            return f"{ATTEMPTS}/{token}"
        return f"{_parts_of(_prefix_of(self.whole))}/{_number_of_part(job_id)}.{token}"

    def claim(self, job: Job, token: int) -> DatasetState:
        """Make a fencing token the newest, and have no attempt before it change anything any more.

        Returns:
            The checkpoint, of whatever run it is.

        Raises:
            LeaseLostError: If there is a newer token.
            ConfigurationError: If another job is at work on the target.
        """
        self.place.check()
        tokens = self._tokens(job.id)
        found = self._newest(job.id, tokens)
        if found is not None and found.job_id != job.id:
            self._dismiss(found, job)
            found, tokens = None, []
        if any(other > token for other in tokens):
            raise LeaseLostError(job.id, token)
        state = DatasetState(job_id=job.id, token=token) if found is None else attrs.evolve(found, token=token)
        if found is None or found.token != token:
            self._make(job.id, token)
            self.save(state)
        # One of another attempt may have been made since the first look; whoever looks second sees it.
        tokens = self._tokens(job.id)
        if any(other > token for other in tokens):
            raise LeaseLostError(job.id, token)
        for other in tokens:
            if other != token:
                self.place.remove(self._folder(job.id, other))
        return state

    def _make(self, job_id: str, token: int) -> None:
        if self.whole is None:
            self.place.make(self._folder(job_id, token))
            return
        try:
            self.place.make_within(self._folder(job_id, token))
        except FileNotFoundError:
            # A new run of the whole has begun, or this one is complete.
            raise LeaseLostError(job_id, token) from None

    def _tokens(self, job_id: str) -> list[int]:
        folder, _, stem = self._folder(job_id, 0).rpartition("/")
        stem = stem.removesuffix("0")
        tokens = (name.removeprefix(stem) for name in self.place.names(folder) if name.startswith(stem))
        return [int(token) for token in tokens if token.isdecimal()]

    def _newest(self, job_id: str, tokens: Sequence[int]) -> DatasetState | None:
        # The newest attempt may have died before it had a checkpoint of its own.
        states = (self._read(job_id, token) for token in sorted(tokens, reverse=True))
        return next((state for state in states if state is not None), None)

    def _read(self, job_id: str, token: int) -> DatasetState | None:
        name = f"{self._folder(job_id, token)}/state.json"
        data = self.place.read(name)
        if data is None:
            return None
        try:
            found = json.loads(data)
            if isinstance(found, dict) and all(
                isinstance(found[field], kind) and (kind is not int or found[field] >= 0)
                for field, kind in _TYPES.items()
            ):
                return DatasetState(**{field: found[field] for field in _TYPES})
        except (ValueError, KeyError, RecursionError):
            pass
        raise StateCorruptError(None, "checkpoint", f"in the file {name!r} of {self.place.shown!r} is damaged")

    def _dismiss(self, found: DatasetState, job: Job) -> None:
        """Forget another job, whose tokens tell nothing of those of this one.

        Raises:
            ConfigurationError: If its run is not finished.
        """
        if not found.finished:
            msg = (
                f"job {job.id!r}: the job {found.job_id!r} is not done with {self.place.shown!r}; let it complete, "
                "give this job another path, or remove the folder .sync in it to give that run up"
            )
            raise ConfigurationError(msg)
        self.place.remove(ATTEMPTS)

    def save(self, state: DatasetState) -> None:
        """Store a checkpoint, whole and durably.

        Raises:
            LeaseLostError: If there is a newer attempt.
        """
        folder = self._folder(state.job_id, state.token)
        with self._alone(state):
            self.place.write(f"{folder}/new", json.dumps(attrs.asdict(state)).encode("ascii"))
            self.place.move(f"{folder}/new", f"{folder}/state.json")

    @contextlib.contextmanager
    def _alone(self, state: DatasetState) -> Iterator[None]:
        """Find out, of work that failed, whether it did because there is a newer attempt.

        Raises:
            LeaseLostError: If there is.
            OSError: If there is none.
        """
        try:
            yield
        except OSError:
            self._check_newest(state)
            raise

    def _check_newest(self, state: DatasetState) -> None:
        tokens = self._tokens(state.job_id)
        if any(token > state.token for token in tokens) or (self.whole is not None and state.token not in tokens):
            raise LeaseLostError(state.job_id, state.token)

    def _put(self, state: DatasetState, data: bytes, to: str) -> None:
        """Write a file whole, then give it its place.

        Raises:
            LeaseLostError: If there is a newer attempt.
        """
        new = f"{self._folder(state.job_id, state.token)}/file"
        with self._alone(state):
            self.place.write(new, data)
            self._check_newest(state)
            self.place.move(new, to)

    def _move(self, state: DatasetState, name: str, to: str) -> None:
        with self._alone(state):
            self._check_newest(state)
            self.place.move(name, to)

    def _retire(self, state: DatasetState, name: str) -> None:
        """Remove a file, in a way that an attempt that was overtaken cannot."""
        gone = f"{self._folder(state.job_id, state.token)}/gone"
        self._move(state, name, gone)
        self.place.remove(gone)

    def start(self, state: DatasetState, job: Job) -> DatasetState:
        """Begin a run, and remove what one left behind that was given up.

        Raises:
            ConfigurationError: If the folder holds other files of that kind, which a run cannot replace.
        """
        new = DatasetState(job_id=job.id, run_id=job.run_id, token=state.token, prefix=self._prefix(job))
        if self.whole is not None:
            home = self._home(new)
            for name in self._files(new, home).values():
                self._retire(state, _within(home, name))
            self.save(new)
            return new
        if self._replaces:
            self._check_ours(job, self.place.names(""))
        # First the folders, so that no part of a run that was given up adds anything any more.
        for name in self.place.names(".sync"):
            if f".sync/{name}" != ATTEMPTS:
                self.place.remove(f".sync/{name}")
        names = self.place.names("")
        if not self._replaces:
            for name in names:
                if name == SUCCESS or (not state.finished and self._run_of(name) == state.prefix):
                    self._retire(state, name)
        # In this order: a folder of this run is there only once no attempt begins it again, and removes that.
        self.save(new)
        self._make_homes(new)
        return new

    def _make_homes(self, state: DatasetState) -> None:
        self.place.make(self._home(state))
        parts = _parts_of(state.prefix)
        self.place.make(parts)
        self.place.write(f"{parts}/made", b"")  # an object store has folders only of files

    def _prefix(self, job: Job) -> str:
        """Give what the names of the files of a run, or of a part of it, begin with."""
        return _prefix_of(job) if self.whole is None else f"{_prefix_of(self.whole)}-{_number_of_part(job.id)}"

    def _run_of(self, name: str) -> str | None:
        """Give the prefix of the run that a file is of; None if it is not of any."""
        return "-".join(name.split("-")[:2]) if self._ours.fullmatch(name) else None

    def _check_ours(self, job: Job, names: Sequence[str]) -> None:
        other = min(
            (name for name in names if name.endswith(self._ending) and not self._ours.fullmatch(name)), default=""
        )
        if other:
            msg = (
                f"job {job.id!r}: {self.place.shown!r} holds {other!r}, which no run has written, and readers would "
                'take for a part of it; move it away, write into another folder, or add to it with mode="append"'
            )
            raise ConfigurationError(msg)

    def _home(self, state: DatasetState) -> str:
        """Give the folder that takes the files of a run."""
        return f".sync/{'-'.join(state.prefix.split('-')[:2])}" if self._replaces else ""

    def name(self, state: DatasetState, number: int) -> str:
        """Give the name of the file of a batch."""
        return f"{state.prefix}-{number:08}{self._ending}"

    def _files(self, state: DatasetState, folder: str) -> dict[int, str]:
        """Give the names of the files of a run, or a part, in a folder, by number."""
        names = self.place.names(folder)
        ours = (name for name in names if self._ours.fullmatch(name) and name.rpartition("-")[0] == state.prefix)
        return {int(name.removesuffix(self._ending).rpartition("-")[2]): name for name in ours}

    def go_on(self, state: DatasetState) -> None:
        """Go on with a run: remove what was never accepted.

        Raises:
            StoreError: If a file that was is gone.
        """
        home = self._home(state)
        if self.whole is None:
            self._make_homes(state)
        files = self._files(state, home)
        for number, name in files.items():
            if number >= state.batches and not state.finished:
                self._retire(state, _within(home, name))
        # Some may have been published already.
        there = files.keys() | (self._files(state, "").keys() if self._replaces else set())
        missing = next((number for number in range(state.batches) if number not in there), None)
        if missing is not None:
            msg = (
                f"job {state.job_id!r}: the file {self.name(state, missing)!r} is gone from {self.place.shown!r}: "
                "somebody removed it. Put it back, or start over with reset_job(job_id)"
            )
            raise StoreError(msg)

    def follows(self, state: DatasetState, batch: Batch[Any]) -> bool:
        """Whether a batch is the next one; False if it is there already.

        Raises:
            LeaseLostError: If there is a newer token.
            StoreError: If it is neither.
        """
        if state.token != batch.fencing_token or state.job_id != batch.job_id:
            raise LeaseLostError(batch.job_id, batch.fencing_token)
        self._check_newest(state)
        if state.cursor == encode_cursor(batch.cursor):
            return False
        if state.cursor != encode_cursor(batch.previous_cursor):
            msg = (
                f"job {batch.job_id!r}: batch {batch.sequence} does not follow on the checkpoint in "
                f"{self.place.shown!r} ({state.batches} batches, {state.records} records), and was not written: "
                "somebody changed one of them. Start over with reset_job(job_id)"
            )
            raise StoreError(msg)
        return True

    def add(self, state: DatasetState, batch: Batch[Any], data: bytes, schema: str) -> DatasetState:
        """Add the file of a batch, and move the checkpoint behind it."""
        self._put(state, data, _within(self._home(state), self.name(state, state.batches)))
        moved = attrs.evolve(
            state,
            cursor=encode_cursor(batch.cursor),
            records=state.records + len(batch),
            batches=state.batches + 1,
            schema=schema,
            finished=False,
        )
        self.save(moved)
        return moved

    def finish(self, state: DatasetState, job: Job, empty: bytes | None) -> DatasetState:
        """Give the files of a run their place, mark the target as complete, and the run as finished.

        Args:
            state: Its checkpoint.
            job: The job.
            empty: The file of a run without records; None if there is none to be made.
        """
        if state.finished:
            return state
        self.go_on(state)
        if self.whole is None:
            self._complete(state, job, empty)
        done = attrs.evolve(state, finished=True)
        self.save(done)
        if self.whole is None:
            for folder in (self._home(state), _parts_of(state.prefix)):
                if folder:
                    self.place.remove(folder)
        return done

    def _complete(self, state: DatasetState, job: Job, empty: bytes | None) -> None:
        home = self._home(state)
        if empty is not None and not any(self._all_of(state, folder) for folder in {home, ""}):
            self._put(state, empty, _within(home, self.name(state, 0)))
        if self._replaces:
            self._publish(state, home)
        # Those of parts only their whole has counted.
        files, records = len(self._all_of(state, "")), state.records or job.processed_records
        summary = {"job": job.id, "run_id": job.run_id, "files": files, "records": records}
        self._put(state, json.dumps(summary).encode("ascii"), SUCCESS)

    def _all_of(self, state: DatasetState, folder: str) -> list[str]:
        """Give the names of all files of a run in a folder, those of parts too, in order."""
        return sorted(name for name in self.place.names(folder) if self._run_of(name) == state.prefix)

    def _publish(self, state: DatasetState, home: str) -> None:
        names = self.place.names("")
        if SUCCESS in names:
            self._retire(state, SUCCESS)
        for name in self._all_of(state, home):
            self._move(state, _within(home, name), name)
        for name in names:
            if self._run_of(name) not in (None, state.prefix):
                self._retire(state, name)

    def checkpoint_of(self, state: DatasetState, job: Job) -> Checkpoint | None:
        """Give the checkpoint of a job's run; None if there is none."""
        if state.run_id is None or state.run_id != job.run_id:
            return None
        return Checkpoint(
            run_id=job.run_id,
            cursor=decode_cursor(state.cursor, job_id=job.id),
            processed_records=state.records,
            processed_batches=state.batches,
        )


def _prefix_of(job: Job) -> str:
    """Give what the names of all files of a job's run begin with."""
    digest = hashlib.blake2b(f"{job.id}\n{job.run_id}".encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{job.run:05}-{digest}"


def _parts_of(prefix: str) -> str:
    """Give the folder that is there as long as parts of a run may be worked on."""
    return f".sync/{prefix}.parts"


def _number_of_part(job_id: str) -> str:
    number = job_id.rpartition("/")[2]
    if number.isdecimal():
        return number.zfill(4)
    return hashlib.blake2b(job_id.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def _within(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
