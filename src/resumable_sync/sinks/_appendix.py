"""A file that grows by whole batches, with a checkpoint beside it: what the sinks on files have in common.

Beside the target `orders.jsonl` stands the folder `.orders.jsonl.sync`:

    1764368400123456.json       the checkpoint of the attempt with that fencing token; the newest one counts
    part                        with mode="replace": what is loaded until the run is complete
    lock                        held while one of the other files is written

A batch is written and synced to disk first, the checkpoint with the new length second; what stands behind the length of
the newest checkpoint belongs to a batch that was never accepted, and is cut off. Since each attempt writes a checkpoint
of its own, one that was overtaken can overwrite none; and since everything else is written under the lock, after a look
at which checkpoint is the newest, it can add nothing either.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import attrs

from resumable_sync._cursor import decode_cursor, encode_cursor
from resumable_sync._errors import ConfigurationError, LeaseLostError, StateCorruptError, StoreError, TransientError
from resumable_sync._model import Batch, Checkpoint, Job
from resumable_sync.sinks._lock import Lock, sync_to_disk

__all__ = ["Appendix", "State"]

Encode: TypeAlias = Callable[["State"], tuple[bytes, list[str] | None]]

_SUFFIX = ".json"


@attrs.frozen(kw_only=True)
class State:
    """A checkpoint as it stands in its file.

    Attributes:
        job_id: The job.
        run_id: Its run; None before the first.
        token: Fencing token of the attempt.
        cursor: The cursor after the last record written, encoded.
        records: Records written in this run.
        batches: Batches written in this run.
        length: Bytes of the file that count.
        base: Bytes that it had when the run began.
        columns: Names of the columns, where the file has any; None until they are known.
        inode: Of the file that is put in the place of the target, once that has begun.
        finished: Whether the run is complete, and with `mode="replace"` in its place.
    """

    job_id: str
    run_id: str | None = None
    token: int
    cursor: str = encode_cursor(None)
    records: int = 0
    batches: int = 0
    length: int = 0
    base: int = 0
    columns: list[str] | None = None
    inode: int | None = None
    finished: bool = False


_TYPES: dict[str, Any] = {
    "job_id": str,
    "run_id": (str, type(None)),
    "token": int,
    "cursor": str,
    "records": int,
    "batches": int,
    "length": int,
    "base": int,
    "columns": (list, type(None)),
    "inode": (int, type(None)),
    "finished": bool,
}


class Appendix:
    """The target file, its folder, and what may happen to them.

    Args:
        path: The target.
        replaces: Whether a run is loaded beside the target, and takes its place when it is complete.
    """

    def __init__(self, path: Path, *, replaces: bool) -> None:
        self.path = path
        self.replaces = replaces
        self.folder = path.with_name(f".{path.name}.sync")
        self._lock: Lock | None = None

    def file_of(self, state: State) -> Path:
        """Give the file that holds the records of a run."""
        return self.folder / "part" if self.replaces and not state.finished else self.path

    @contextlib.contextmanager
    def locked(self) -> Iterator[State | None]:
        """Keep every other process out for the time of the block.

        Yields:
            The checkpoint that stood there when a frozen process had to be left behind, which is the newest one of the
            file as it is now; else None.

        Raises:
            FileNotFoundError: If the target's folder does not exist.
            IsADirectoryError: If the target is a folder.
        """
        if not self.path.parent.is_dir():
            msg = f"the folder {str(self.path.parent)!r} of the target does not exist; make it"
            raise FileNotFoundError(msg)
        if self.path.is_dir():
            # Seen when the run is complete otherwise.
            msg = f"the target {str(self.path)!r} is a folder; give the path of a file in it"
            raise IsADirectoryError(msg)
        self.folder.mkdir(exist_ok=True)
        known: list[State | None] = []
        lock = Lock(self.folder / "lock")
        lock.acquire(lambda: known.append(self._leave_behind()))
        self._lock = lock
        try:
            yield known[0] if known else None
        finally:
            self._lock = None
            lock.release()

    def _leave_behind(self) -> State | None:
        """Take the file away from a process that was frozen while it held the lock.

        If it had opened it already, it writes on into a file that nobody reads any more when it wakes; else it sees
        that the lock is another one.

        Returns:
            The checkpoint before.
        """
        state = self.newest()
        file = None if state is None else self.file_of(state)
        if file is not None and file.exists():
            copy = file.with_name(f".{file.name}.copy")
            shutil.copy2(file, copy)
            sync_to_disk(copy)
            copy.replace(file)
            sync_to_disk(file.parent)
        return state

    def _check_lock(self, state: State) -> None:
        """See to it that the lock was not taken away; to be called when a file is open, before it is changed.

        Raises:
            LeaseLostError: If it was, by the next attempt.
            TransientError: If it was, by somebody else.
        """
        if self._lock is not None and self._lock.held:
            return
        newest = self.newest()
        if newest is None or newest.job_id != state.job_id or newest.token > state.token:
            raise LeaseLostError(state.job_id, state.token)
        msg = f"the process was frozen for so long that the lock of {str(self.path)!r} was taken away from it"
        raise TransientError(msg)

    def newest(self) -> State | None:
        """Give the newest checkpoint; None if there is none.

        Raises:
            StateCorruptError: If it is damaged.
        """
        token = max(self._tokens(), default=None)
        return None if token is None else self._read(self._checkpoint(token))

    def _tokens(self) -> list[int]:
        try:
            names = os.listdir(self.folder)  # noqa: PTH208 - pathlib makes a Path of each
        except FileNotFoundError:
            return []
        stems = [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]
        return [int(stem) for stem in stems if stem.isdecimal()]

    def _checkpoint(self, token: int) -> Path:
        return self.folder / f"{token}{_SUFFIX}"

    def _read(self, path: Path) -> State:
        try:
            found = json.loads(path.read_bytes())
            if isinstance(found, dict) and all(
                isinstance(found[name], kind) and (kind is not int or found[name] >= 0) for name, kind in _TYPES.items()
            ):
                return State(**{name: found[name] for name in _TYPES})
        except (ValueError, KeyError, RecursionError):
            pass
        raise StateCorruptError(None, "checkpoint", f"in the file {str(path)!r} is damaged")

    def save(self, state: State) -> None:
        """Store a checkpoint, whole and durably, and remove those that it overtakes."""
        path = self._checkpoint(state.token)
        new = path.with_suffix(".new")
        with new.open("w", encoding="ascii") as file:
            json.dump(attrs.asdict(state), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync_to_disk(self.folder)
        for token in self._tokens():
            if token < state.token:
                self._checkpoint(token).unlink(missing_ok=True)

    def claim(self, job: Job, token: int, known: State | None) -> State:
        """Make a fencing token the newest, under the lock.

        Args:
            job: The job.
            token: Of its attempt.
            known: What `locked` gave.

        Returns:
            The checkpoint, of whatever run it is.

        Raises:
            LeaseLostError: If there is a newer token.
            ConfigurationError: If another job is at work on the target.
        """
        found = known or self.newest()
        if found is not None and found.job_id != job.id:
            self._dismiss(found, job)
            found = None
        if found is not None and found.token > token:
            raise LeaseLostError(job.id, token)
        state = State(job_id=job.id, token=token) if found is None else attrs.evolve(found, token=token)
        if state != found:
            self.save(state)
        return state

    def _dismiss(self, found: State, job: Job) -> None:
        """Forget another job, whose tokens tell nothing of those of this one.

        Raises:
            ConfigurationError: If its run is not finished.
        """
        if not found.finished:
            msg = (
                f"job {job.id!r}: the job {found.job_id!r} is not done with {str(self.path)!r}; let it complete, give "
                f"this job another path, or remove the folder {str(self.folder)!r} to give that run up"
            )
            raise ConfigurationError(msg)
        for token in sorted(self._tokens()):
            self._checkpoint(token).unlink()

    def start(self, state: State, job: Job) -> State:
        """Begin a run: with an empty file, or behind what the target holds; under the lock.

        What an earlier run added that was given up is cut off.
        """
        new = State(job_id=job.id, run_id=job.run_id, token=state.token)
        given_up = state.run_id is not None and not state.finished
        made = not self.file_of(new).exists()
        with _open(self.file_of(new)) as file:
            self._check_lock(state)
            if self.replaces:
                file.truncate(0)
            elif given_up and os.fstat(file.fileno()).st_size > state.base:
                file.truncate(state.base)
            length = os.fstat(file.fileno()).st_size
            os.fsync(file.fileno())
        if made:
            sync_to_disk(self.file_of(new).parent)
            sync_to_disk(self.path.parent)
        new = attrs.evolve(new, length=length, base=length)
        self.save(new)
        return new

    def go_on(self, state: State) -> State:
        """Go on with a run: cut off what was never accepted; under the lock."""
        if self._published(state):
            state = attrs.evolve(state, finished=True)
            self.save(state)
        if not state.finished:
            with _open(self.file_of(state)) as file:
                self._check_lock(state)
                self._cut(file, state)
        return state

    def _published(self, state: State) -> bool:
        """Whether a process died between putting the file in its place and saying so."""
        if state.finished or state.inode is None or self.file_of(state).exists() or not self.path.exists():
            return False
        there = self.path.stat()
        return (there.st_ino, there.st_size) == (state.inode, state.length)

    def write(self, batch: Batch[Any], run_id: str | None, encode: Encode) -> None:
        """Add a batch, unless it is there already; under the lock.

        Args:
            batch: The batch.
            run_id: Of its run; None if no run was begun by this sink.
            encode: Gives the bytes to add, and the columns, from the checkpoint before.

        Raises:
            LeaseLostError: If there is a newer token.
            ConfigurationError: If no run was begun.
            StoreError: If the batch does not follow on the checkpoint, or the file is shorter than that says.
        """
        if run_id is None:
            msg = f"job {batch.job_id!r}: the sink was given a batch before begin(job); call that first"
            raise ConfigurationError(msg)
        state = self.newest()
        if state is None or state.job_id != batch.job_id or state.token > batch.fencing_token:
            raise LeaseLostError(batch.job_id, batch.fencing_token)
        cursor = encode_cursor(batch.cursor)
        if state.run_id == run_id and state.cursor == cursor:
            return
        if state.run_id != run_id or state.cursor != encode_cursor(batch.previous_cursor):
            msg = (
                f"job {batch.job_id!r}: batch {batch.sequence} does not follow on the checkpoint of {str(self.path)!r} "
                f"({state.batches} batches, {state.records} records), and was not written: somebody changed one of "
                "them. Start over with reset_job(job_id)"
            )
            raise StoreError(msg)
        data, columns = encode(state)
        length = self._append(state, data)
        written = attrs.evolve(
            state,
            token=batch.fencing_token,
            cursor=cursor,
            records=state.records + len(batch),
            batches=state.batches + 1,
            length=length,
            columns=columns,
        )
        self.save(written)

    def add(self, state: State, data: bytes) -> State:
        """Add bytes that belong to no batch; under the lock."""
        state = attrs.evolve(state, length=self._append(state, data))
        self.save(state)
        return state

    def _append(self, state: State, data: bytes) -> int:
        with _open(self.file_of(state)) as file:
            self._check_lock(state)
            self._cut(file, state)
            try:
                file.seek(state.length)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    file.truncate(state.length)
                raise
        return state.length + len(data)

    def _cut(self, file: Any, state: State) -> None:
        """Cut off what was never accepted.

        Raises:
            StoreError: If the file is shorter than what was.
        """
        size = os.fstat(file.fileno()).st_size
        if size < state.length:
            msg = (
                f"job {state.job_id!r}: {str(self.file_of(state))!r} has {size} bytes, but {state.length} were "
                "written: somebody cut or replaced it. Put it back, or start over with reset_job(job_id)"
            )
            raise StoreError(msg)
        if size > state.length:
            file.truncate(state.length)

    def finish(self, state: State) -> None:
        """Put what was loaded in the place of the target, and mark the run as finished; under the lock."""
        state = self.go_on(state)
        if state.finished:
            return
        if self.replaces:
            part = self.file_of(state)
            if self.path.exists():
                shutil.copymode(self.path, part)
            state = attrs.evolve(state, inode=part.stat().st_ino)
            self.save(state)
            self._check_lock(state)
            part.replace(self.path)
            sync_to_disk(self.path.parent)
        self.save(attrs.evolve(state, finished=True))

    def checkpoint_of(self, state: State, job: Job) -> Checkpoint | None:
        """Give the checkpoint of a job's run; None if there is none."""
        if state.run_id is None or state.run_id != job.run_id:
            return None
        return Checkpoint(
            run_id=job.run_id,
            cursor=decode_cursor(state.cursor, job_id=job.id),
            processed_records=state.records,
            processed_batches=state.batches,
        )


def _open(path: Path) -> Any:
    """Open a file for reading and writing at any place, and make it if it is missing."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")
