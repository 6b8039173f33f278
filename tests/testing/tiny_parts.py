"""Small connectors and sinks with a switch for each mistake that an implementor could make."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from sqlalchemy import Integer, String, text
from typing_extensions import override

from resumable_sync import Batch, Checkpoint, Column, Cursor, CursorError, Format, Job, LeaseLostError, Page

RECORDS = [{"id": number, "name": f"name {number}"} for number in range(1, 24)]


class TinyConnector:
    """Reads a list by position; correct without bugs."""

    if_moved = "warn"
    changed: ClassVar[set[int]] = set()

    def __init__(self, *bugs: str) -> None:
        self.bugs = bugs
        self.fingerprint: Any = {"list": "of 23", "columns": '["id", "name"]'}
        self.names: Sequence[str] = ("id", "name")
        self.open: list[int] = []

    def read(self, cursor: Cursor | None, batch_size: int) -> Iterator[Page[dict[str, Any]]]:
        if "takes any cursor" in self.bugs and not isinstance(cursor, list):
            cursor = None
        if cursor is not None and not (isinstance(cursor, list) and len(cursor) == 1 and type(cursor[0]) is int):
            msg = "no cursor of this connector"
            raise CursorError(msg)
        done = cursor[0] if cursor else 0
        if "cursor counts pages" in self.bugs:
            done *= batch_size
        if "loses a row when the batch size changes" in self.bugs and done % batch_size:
            done += 1
        if "leaves a file open" in self.bugs:
            self.open.append(os.open(os.devnull, os.O_RDONLY))
        return self._pages(done, batch_size)

    def _pages(self, done: int, batch_size: int) -> Iterator[Page[dict[str, Any]]]:
        while True:
            # The source gives at most five at a time, as servers do.
            limit = batch_size if "too large pages" not in self.bugs else batch_size + 1
            found = RECORDS[done : done + min(5, limit)]
            records = [{name: record[name] for name in self.names} for record in found]
            if not records and "an empty page at the end" not in self.bugs:
                return
            done += len(records)
            number = -(-done // batch_size) if "cursor counts pages" in self.bugs else done
            cursor: Any = (number,) if "cursor of another type" in self.bugs else [number]
            yield Page(records, None if "no cursor at the end" in self.bugs and done == len(RECORDS) else cursor)
            if not records or ("ends on a short page" in self.bugs and len(records) < batch_size):
                return

    def count(self) -> int:
        return len(RECORDS) - ("counts one too few" in self.bugs)

    def cursor_at(self, offset: int) -> Cursor | None:
        return [offset] if 0 < offset <= len(RECORDS) + ("cursor_at after the end" in self.bugs) else None

    def columns(self) -> Sequence[Column]:
        columns = [Column(name="id", type=Integer()), Column(name="name", type=String())]
        return columns[::-1] if "columns in another order" in self.bugs else columns

    def pin(self, columns: Sequence[str]) -> "TinyConnector":
        pinned = self if "pins itself" in self.bugs else TinyConnector(*self.bugs)
        pinned.names = () if "pins nothing" in self.bugs else columns
        return pinned

    def moved(self, cursor: Cursor) -> str | None:
        if "never moved" in self.bugs or not isinstance(cursor, list) or type(cursor[0]) is not int:
            return None
        return "was changed" if cursor[0] in self.changed or "always moved" in self.bugs else None

    def split(self, parts: int) -> Sequence["TinyPart"]:
        size = max(1, len(RECORDS) // parts) if "parts of any size" not in self.bugs else 1
        starts = list(range(0, len(RECORDS), size))[:parts]
        ends = [*starts[1:], len(RECORDS)]
        overlap = 1 if "parts overlap" in self.bugs else 0
        loses = self.changed if "parts lose what changes" in self.bugs else set()
        return [
            TinyPart(start, min(end + overlap, len(RECORDS)), loses) for start, end in zip(starts, ends, strict=True)
        ]

    def part(self, place: Cursor) -> "TinyPart":
        if not (isinstance(place, list) and len(place) == 2 and all(type(end) is int for end in place)):
            if "takes any place" in self.bugs:
                return TinyPart(0, 1)
            raise CursorError("no place")
        return TinyPart(place[0] + ("another part for a place" in self.bugs), place[1])


class TinyPart:
    """A part of the list."""

    def __init__(self, start: int, end: int, loses: Collection[int] = ()) -> None:
        self.start, self.end, self.loses = start, end, loses
        self.place = [start, end]
        self.fingerprint = None

    def read(self, cursor: Cursor | None, batch_size: int) -> Iterator[Page[dict[str, Any]]]:
        place = self.start if cursor is None else cursor
        while place < self.end:
            records = RECORDS[place : min(place + batch_size, self.end)]
            place += len(records)
            yield Page([record for record in records if record["id"] not in self.loses], place)

    def count(self) -> int:
        return self.end - self.start


class TinyTransactionalSink:
    """Inserts rows on the store's connection; correct without bugs."""

    transactional = True
    idempotent = False

    def __init__(self, *bugs: str) -> None:
        self.bugs = bugs

    def begin(self, job: Job, connection: Any) -> None:
        if "begin always empties the target" in self.bugs or not job.has_progress:
            connection.execute(text("DELETE FROM target"))

    def write(self, batch: Batch[Mapping[str, Any]], connection: Any) -> None:
        rows = batch.dicts()
        half = len(rows) // 2
        if "commits half" in self.bugs:
            self._insert(connection, rows[:half])
            # Past the guard, as a driver's own connection allows it.
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            rows = rows[half:]
        if "commits the connection" in self.bugs:
            self._insert(connection, rows)
            connection.commit()
            return
        if "loses the last record of a batch" in self.bugs:
            rows = rows[:-1]
        self._insert(connection, rows)

    def part(self, job: Job) -> "TinyTransactionalSink":
        return type(self)(*self.bugs) if "parts begin too" in self.bugs else TinyPartOfSink(*self.bugs)

    def takes(self, format_: Format, job: Job, /) -> bool:
        return "takes any format" in self.bugs

    def complete(self, job: Job, connection: Any) -> None:
        if "complete copies the rows" in self.bugs:
            connection.execute(text("INSERT INTO target SELECT id, name FROM target WHERE id = 1"))

    def _insert(self, connection: Any, rows: Sequence[Any]) -> None:
        if rows:
            connection.execute(text("INSERT INTO target (id, name) VALUES (:id, :name)"), rows)


class TinyPartOfSink(TinyTransactionalSink):
    """Fills what the whole has begun."""

    @override
    def begin(self, job: Job, connection: Any) -> None:
        pass


class TinyCheckpointingSink:
    """Keeps rows and checkpoint in a dict that stands for a transactional target; correct without bugs."""

    transactional = False
    idempotent = False

    def __init__(self, target: dict[str, Any], *bugs: str) -> None:
        self.target = target
        self.bugs = bugs

    @override
    def __reduce__(self) -> Any:
        msg = "its target is in this process"
        raise TypeError(msg)

    def checkpoint(self, job: Job) -> Checkpoint | None:
        assert job.lease is not None
        self._fence(job.id, job.lease.fencing_token)
        self.run_id = job.run_id
        saved: Checkpoint | None = self.target.get("checkpoint")
        known = saved is not None and (saved.run_id == job.run_id or "checkpoint of any run" in self.bugs)
        return saved if known else None

    def begin(self, job: Job, connection: Any) -> None:
        if not job.has_progress:
            self.target["rows"] = []

    def write(self, batch: Batch[Any], connection: Any) -> None:
        if "does not fence" not in self.bugs:
            self._fence(batch.job_id, batch.fencing_token)
        before: Checkpoint | None = self.target.get("checkpoint")
        self.target["rows"] = [*self.target["rows"], *batch.records]
        if "forgets its checkpoint" not in self.bugs:
            records = len(batch) + (before.processed_records if before else 0)
            batches = batch.sequence + 1
            self.target["checkpoint"] = Checkpoint(
                run_id=self.run_id, cursor=batch.cursor, processed_records=records, processed_batches=batches
            )

    def complete(self, job: Job, connection: Any) -> None:
        pass

    def _fence(self, job_id: str, token: int) -> None:
        if token < self.target.get("token", 0):
            raise LeaseLostError(job_id, token)
        self.target["token"] = token


class TinyListSink:
    """Appends to a list: at least once."""

    transactional = False
    idempotent = False

    def __init__(self, target: list[Any], *bugs: str) -> None:
        self.target = target
        self.bugs = bugs
        self.idempotent = "claims to be idempotent" in bugs

    @override
    def __reduce__(self) -> Any:
        msg = "its target is in this process"
        raise TypeError(msg)

    def begin(self, job: Job, connection: Any) -> None:
        pass

    def write(self, batch: Batch[Any], connection: Any) -> None:
        if "takes half of a bad batch" in self.bugs:
            self.target += [record for record in batch.records if record != "bad"]
            return
        if "bad" in batch.records:
            msg = "bad record"
            raise ValueError(msg)
        self.target += reversed(batch.records) if "writes backwards" in self.bugs else batch.records

    def complete(self, job: Job, connection: Any) -> None:
        pass
