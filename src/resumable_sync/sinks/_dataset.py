"""A folder that grows by a file for every batch, with a checkpoint in it, and no lock.

    orders/00003-5f3a9c2e-00000012.parquet      batch 12 of run 3
    orders/_SUCCESS                             the last run is complete
    orders/.sync/attempts/1764368400123456/     of the attempt with that fencing token; the newest one counts
        state.json                              its checkpoint
        file                                    what it writes, before that gets its place
    orders/.sync/00003-5f3a9c2e/                with mode="replace": the files of the run, until it is complete

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
    """

    def __init__(self, place: Place, ending: str, *, replaces: bool) -> None:
        self.place = place
        self._ending = ending
        self._replaces = replaces
        self._ours = re.compile(rf"\d{{5,}}-[0-9a-f]{{8}}-\d{{8}}{re.escape(ending)}")

    def claim(self, job: Job, token: int) -> DatasetState:
        """Make a fencing token the newest, and have no attempt before it change anything any more.

        Returns:
            The checkpoint, of whatever run it is.

        Raises:
            LeaseLostError: If there is a newer token.
            ConfigurationError: If another job is at work on the target.
        """
        self.place.check()
        tokens = self._tokens()
        found = self._newest(tokens)
        if found is not None and found.job_id != job.id:
            self._dismiss(found, job)
            found, tokens = None, []
        if any(other > token for other in tokens):
            raise LeaseLostError(job.id, token)
        state = DatasetState(job_id=job.id, token=token) if found is None else attrs.evolve(found, token=token)
        if found is None or found.token != token:
            self.place.make(_folder(token))
            self.save(state)
        # One of another attempt may have been made since the first look; whoever looks second sees it.
        tokens = self._tokens()
        if any(other > token for other in tokens):
            raise LeaseLostError(job.id, token)
        for other in tokens:
            if other != token:
                self.place.remove(_folder(other))
        return state

    def _tokens(self) -> list[int]:
        return [int(name) for name in self.place.names(ATTEMPTS) if name.isdecimal()]

    def _newest(self, tokens: Sequence[int]) -> DatasetState | None:
        # The newest attempt may have died before it had a checkpoint of its own.
        states = (self._read(token) for token in sorted(tokens, reverse=True))
        return next((state for state in states if state is not None), None)

    def _read(self, token: int) -> DatasetState | None:
        name = f"{_folder(token)}/state.json"
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
        new = f"{_folder(state.token)}/new"
        with self._alone(state):
            self.place.write(new, json.dumps(attrs.asdict(state)).encode("ascii"))
            self.place.move(new, f"{_folder(state.token)}/state.json")

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
        if any(token > state.token for token in self._tokens()):
            raise LeaseLostError(state.job_id, state.token)

    def _put(self, state: DatasetState, data: bytes, to: str) -> None:
        """Write a file whole, then give it its place.

        Raises:
            LeaseLostError: If there is a newer attempt.
        """
        new = f"{_folder(state.token)}/file"
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
        gone = f"{_folder(state.token)}/gone"
        self._move(state, name, gone)
        self.place.remove(gone)

    def start(self, state: DatasetState, job: Job) -> DatasetState:
        """Begin a run, and remove what one left behind that was given up.

        Raises:
            ConfigurationError: If the folder holds other files of that kind, which a run cannot replace.
        """
        digest = hashlib.blake2b(f"{job.id}\n{job.run_id}".encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
        new = DatasetState(job_id=job.id, run_id=job.run_id, token=state.token, prefix=f"{job.run:05}-{digest}")
        names = self.place.names("")
        if self._replaces:
            self._check_ours(job, names)
        for name in names:
            if (
                not self._replaces
                and not state.finished
                and self._ours.fullmatch(name)
                and _prefix(name) == state.prefix
            ):
                self._retire(state, name)
        for name in self.place.names(".sync"):
            if f".sync/{name}" != ATTEMPTS:
                self.place.remove(f".sync/{name}")
        if not self._replaces and SUCCESS in names:
            self._retire(state, SUCCESS)
        # In this order: a folder of this run is there only once no attempt begins it again, and removes that.
        self.save(new)
        self.place.make(self._home(new))
        return new

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
        return f".sync/{state.prefix}" if self._replaces else ""

    def _within(self, folder: str, name: str) -> str:
        return f"{folder}/{name}" if folder else name

    def name(self, state: DatasetState, number: int) -> str:
        """Give the name of the file of a batch."""
        return f"{state.prefix}-{number:08}{self._ending}"

    def _files(self, state: DatasetState, folder: str) -> dict[int, str]:
        """Give the names of a run's files in a folder, by number."""
        names = self.place.names(folder)
        ours = (name for name in names if self._ours.fullmatch(name) and _prefix(name) == state.prefix)
        return {_number(name, self._ending): name for name in ours}

    def go_on(self, state: DatasetState) -> None:
        """Go on with a run: remove what was never accepted.

        Raises:
            StoreError: If a file that was is gone.
        """
        home = self._home(state)
        self.place.make(home)
        files = self._files(state, home)
        for number, name in files.items():
            if number >= state.batches and not state.finished:
                self._retire(state, self._within(home, name))
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
        self._put(state, data, self._within(self._home(state), self.name(state, state.batches)))
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

    def finish(self, state: DatasetState, empty: bytes | None) -> DatasetState:
        """Give the files of a run their place, mark the target as complete, and the run as finished.

        Args:
            state: Its checkpoint.
            empty: The file of a run without records; None if there is none to be made.
        """
        if state.finished:
            return state
        self.go_on(state)
        home = self._home(state)
        if state.batches == 0 and empty is not None:
            self._put(state, empty, self._within(home, self.name(state, 0)))
        if self._replaces:
            self._publish(state, home)
        summary = {"job": state.job_id, "run_id": state.run_id, "files": state.batches, "records": state.records}
        self._put(state, json.dumps(summary).encode("ascii"), SUCCESS)
        done = attrs.evolve(state, finished=True)
        self.save(done)
        if home:
            self.place.remove(home)
        return done

    def _publish(self, state: DatasetState, home: str) -> None:
        names = self.place.names("")
        if SUCCESS in names:
            self._retire(state, SUCCESS)
        for _, name in sorted(self._files(state, home).items()):
            self._move(state, self._within(home, name), name)
        for name in names:
            if self._ours.fullmatch(name) and _prefix(name) != state.prefix:
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


def _folder(token: int) -> str:
    return f"{ATTEMPTS}/{token}"


def _prefix(name: str) -> str:
    return name.rpartition("-")[0]


def _number(name: str, ending: str) -> int:
    return int(name.removesuffix(ending).rpartition("-")[2])
