"""Progress bars: what they draw for real syncs, and that they draw nothing where nobody looks."""

import io
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import create_engine, text

from doubles import FAST, Numbers, Picky, Target, fail_at
from resumable_sync import (
    MemoryJobStore,
    MissingExtraError,
    Observer,
    TransientError,
    run_full_sync,
    run_partitioned_sync,
)
from resumable_sync.observers.rich import RichProgress
from resumable_sync.observers.tqdm import TqdmProgress
from resumable_sync.stores.sql import SQLJobStore


def rich_bar(*, terminal: bool = True) -> tuple[RichProgress, io.StringIO]:
    file = io.StringIO()
    return RichProgress(Console(file=file, force_terminal=terminal, width=150, color_system=None)), file


def tqdm_bar(*, terminal: bool = True) -> tuple[TqdmProgress, io.StringIO]:
    file = io.StringIO()
    return TqdmProgress(file=file, ncols=150, mininterval=0, disable=not terminal), file


BARS = pytest.mark.parametrize("make", [rich_bar, tqdm_bar])
Make = Callable[..., tuple[Any, io.StringIO]]


def drawn(file: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())


@pytest.fixture(autouse=True)
def threads_end() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(10.0)  # the one that redraws notices within a tenth of a second
        assert not thread.is_alive()


def sync(observer: Observer, store: Any, **options: Any) -> None:
    sink = options.pop("sink", None) or Target()
    run_full_sync("numbers", Numbers(1_000), sink, store=store, batch_size=100, observers=[observer], **options)


@BARS
def test_a_sync_is_drawn_from_where_it_goes_on(make: Make) -> None:
    store = MemoryJobStore()
    observer, file = make()
    sync(observer, store, max_records=400)
    first = drawn(file).splitlines()[-1]
    assert "numbers" in first
    assert "interrupted" in first
    file.truncate(0)
    sync(observer, store)
    last = drawn(file).splitlines()[-1]
    assert re.search(r"1,000 of 1,000|1.00k/1.00k", last)
    assert "completed" in last
    assert "restart 1" in drawn(file)
    assert re.search(r"read \d+% write \d+%", drawn(file))


@BARS
def test_nothing_is_drawn_where_there_is_no_terminal(make: Make) -> None:
    observer, file = make(terminal=False)
    sync(observer, MemoryJobStore())
    assert file.getvalue().strip() == ""


@BARS
def test_trouble_is_told(make: Make) -> None:
    observer, file = make()
    told = []

    def look(event: object) -> None:
        observer(event)
        if type(event).__name__ == "TryFailed" and isinstance(observer, RichProgress):
            assert observer._progress is not None
            told.append(observer._progress.tasks[0].fields["trouble"])

    sync(look, MemoryJobStore(), sink=Target(fail_at(3, TransientError("try again"))), retry=FAST)
    if isinstance(observer, RichProgress):
        assert told == ["write failed, again in 0.0 s"]
    else:
        assert "write failed, again in 0.0 s" in drawn(file)


@BARS
def test_dead_letters_are_told(make: Make, sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (n INTEGER)"))
    observer, file = make()
    with SQLJobStore(sqlite_url) as store:
        sync(observer, store, sink=Picky(3, 5), on_refused="dead_letter")
    engine.dispose()
    assert "incomplete" in drawn(file)
    assert isinstance(observer, RichProgress) or "2 dead letters" in drawn(file)


@BARS
def test_two_jobs_share_a_bar(make: Make) -> None:
    observer, file = make()
    inner: list[str] = []

    def nested(event: object) -> None:
        observer(event)
        if type(event).__name__ == "BatchCommitted" and not inner:
            inner.append("started")
            run_full_sync("inner", Numbers(10), Target(), store=MemoryJobStore(), observers=[observer])

    sync(nested, MemoryJobStore())
    assert "inner" in drawn(file)
    assert "1,000 of 1,000" in drawn(file) or "1.00k/1.00k" in drawn(file)


@BARS
def test_parts_are_shown(make: Make) -> None:
    observer, file = make()
    with ThreadPoolExecutor(2) as executor:
        run_partitioned_sync(
            "numbers",
            Numbers(1_000),
            lambda _: None,
            store=MemoryJobStore(),
            executor=executor,
            parts=4,
            observers=[observer],
        )
    assert "4 of 4 parts" in drawn(file)
    assert re.search(r"1,000 of 1,000|1.00k/1.00k", drawn(file).splitlines()[-1])


@BARS
def test_what_a_dead_attempt_left_is_closed(make: Make) -> None:
    observer, _ = make()

    def lose_the_end(event: object) -> None:
        if type(event).__name__ != "SyncFinished":
            observer(event)

    with observer:
        sync(lose_the_end, MemoryJobStore())
    observer(object())  # and nothing else moves it


def test_an_unknown_total_is_not_made_up() -> None:
    observer, file = rich_bar()
    sync(observer, MemoryJobStore(), count=False)
    assert "1,000 of 1,000" in drawn(file).splitlines()[-1]
    observer, file = rich_bar()
    sync(observer, MemoryJobStore(), count=False, max_records=500)
    assert "500 " in drawn(file).splitlines()[-1]
    assert " of " not in drawn(file).splitlines()[-1]


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [("rich", "rich.console", "rich"), ("tqdm", "tqdm.auto", "tqdm"), ("opentelemetry", "opentelemetry", "otel")],
)
def test_a_missing_package_names_its_extra(
    module: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, f"resumable_sync.observers.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'resumable_sync\[{extra}\]'"):
        __import__(f"resumable_sync.observers.{module}")
