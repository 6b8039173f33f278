"""The sync file: jobs with their source, sink, store and options, checked as a whole before anything runs."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

import attrs

from resumable_sync import ConfigurationError, JobStore, MissingExtraError, Retry, Throttle, registry
from resumable_sync._attempts.options import SyncOptions, make_options
from resumable_sync._attempts.ports import check_ports
from resumable_sync._default_store import default_store, is_redis
from resumable_sync._plain import Filled, Place, at, fill, misfit, suggestion
from resumable_sync._sinks import as_sink
from resumable_sync._validate import check_job_id
from resumable_sync.cli._secrets import literal_secrets
from resumable_sync.cli._toml import Document, read_document

__all__ = ["SyncFile", "SyncJob", "build_store", "read_sync_file"]

T = TypeVar("T")

OPTIONS = [name for name in SyncOptions.__annotations__ if name not in {"should_stop", "stop_on_signals", "observers"}]
RETRY: dict[str, Any] = {"max_tries": int, "wait_initial": float, "wait_max": float, "timeout": float}
VERIFY = {"key": str | list[Any], "columns": list[Any], "max_differences": int, "target": dict[str, Any]}
NO_LIMIT = "none"
"""How a file writes None, which TOML has not."""


@attrs.frozen
class SyncJob:
    """One job of a file, built and ready.

    Attributes:
        id: The job.
        connector: Its source.
        sink: Where it goes.
        options: Options of `run_full_sync`.
        verify: Options of `verify_full_sync`.
        target: What a verification compares with; None if the file does not say, and the sink does not either.
    """

    id: str
    connector: Any
    sink: Any
    options: SyncOptions
    verify: dict[str, Any]
    target: Any


@attrs.frozen
class SyncFile:
    """A sync file.

    Attributes:
        name: As it was named.
        store: Where its jobs live.
        jobs: The jobs by id, in the order of the file.
        warnings: What should be mended, though it works.
    """

    name: str
    store: JobStore
    jobs: dict[str, SyncJob]
    warnings: tuple[str, ...]


def read_sync_file(path: str | Path, environ: Mapping[str, str]) -> SyncFile:
    """Read a sync file and build everything in it; nothing is connected to.

    Raises:
        ConfigurationError: If anything in it cannot work; names every problem with file, line, key and remedy.
    """
    reader = _Reader(read_document(path), environ)
    store = reader.store()
    jobs = [reader.job(*found, store) for found in reader.jobs()]
    if reader.problems:
        raise ConfigurationError("\n".join(dict.fromkeys(reader.problems)))
    warnings = [
        reader.document.says(place, f"{at(place)} is a literal password; write ${{NAME}} and set it in the environment")
        for place in literal_secrets(reader.document.data)
    ]
    return SyncFile(reader.document.name, store, {job.id: job for job in jobs if job is not None}, tuple(warnings))


def build_store(path: str | Path, environ: Mapping[str, str]) -> JobStore:
    """Build the store of a sync file, whatever its jobs are.

    Raises:
        ConfigurationError: If that cannot be done.
    """
    reader = _Reader(read_document(path), environ)
    store: JobStore = reader.store()
    if reader.problems:
        raise ConfigurationError("\n".join(reader.problems))
    return store


class _Reader:
    """Builds what a document describes, and goes on after a problem to find the others."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self.document = document
        self.problems: list[str] = []
        self._replaced: dict[str, str] = {}
        """The job that replaces each target."""
        self._environ = environ
        self._data = document.data

    def store(self) -> Any:
        """Build the store; without one in the file it is that of `run_full_sync`."""
        if "store" in self._data:
            return self._port(registry.store, self._data, ("store",))
        return self._try((), default_store)

    def jobs(self) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
        """Find the jobs.

        Yields:
            Id, table, and place of the table.
        """
        several = "jobs" in self._data
        keys = ["jobs"] if several else ["job", "source", "sink", "verify"]
        self._known(self._data, (), ["store", "options", *keys])
        if not several:
            job_id = self._data.get("job")
            if not isinstance(job_id, str):
                shown = "there is no job" if job_id is None else "job must be text"
                self._problem(("job",), f"{shown}; name it with job = 'orders', or several as [jobs.orders]")
            else:
                yield job_id, self._data, ()
            return
        jobs = self._data["jobs"]
        if not isinstance(jobs, Mapping) or not jobs:
            self._problem(("jobs",), "jobs must be tables with the names of the jobs, such as [jobs.orders]")
            return
        for job_id, job in jobs.items():
            place = ("jobs", job_id)
            if self._is_table(job, place):
                self._known(job, place, ["source", "sink", "options", "verify"])
                yield job_id, job, place

    def job(self, job_id: str, data: Mapping[str, Any], place: tuple[str, ...], store: Any) -> SyncJob | None:
        """Build a job; None if that cannot be done."""
        before = len(self.problems)
        self._try(place or ("job",), partial(check_job_id, job_id))
        connector = self._port(registry.connector, data, (*place, "source"))
        sink = self._port(registry.sink, data, (*place, "sink"))
        options = self._options(job_id, self._data.get("options", {}), ("options",))
        if place:
            options = SyncOptions(**options | self._options(job_id, data.get("options", {}), (*place, "options")))
        verify, target = self._verify(data, (*place, "verify"))
        if len(self.problems) > before:
            return None
        made = SyncJob(job_id, connector, sink, options, verify, target)
        if store is not None:
            self._fit(made, store, place)
        return made

    def _fit(self, job: SyncJob, store: Any, place: tuple[str, ...]) -> None:
        """Check that connector, sink, store and options can do together what a run asks of them."""
        try:
            check_ports(job.id, job.connector, as_sink(job.sink), store, make_options(job.id, job.options))
        except ConfigurationError as error:
            text = str(error).removeprefix(f"job {job.id!r}: ")
            about = [(*place, "options", "on_refused"), ("options", "on_refused")] if "on_refused=" in text else []
            where: Place = next((one for one in about if one in self.document.lines), (*place, "sink"))
            self._problem(where, f"{at(where)}: {text}")
        # What a sink shows of itself says whether a run takes the place of its target, and of which.
        shown = repr(job.sink)
        if "mode='replace'" in shown and self._replaced.setdefault(shown, job.id) != job.id:
            here = (*place, "sink")
            self._problem(
                here,
                f"{at(here)}: job {self._replaced[shown]!r} replaces the same target, {shown}, of which only what the "
                "last of them wrote would be left; give each a target of its own, or the mode 'append'",
            )

    def _port(self, build: Any, data: Mapping[str, Any], place: tuple[str, ...]) -> Any:
        key = place[-1]
        if key not in data:
            self._problem(place, f"there is no [{at(place)}]; say with a type and its keys where records {_WHERE[key]}")
            return None
        return self._try(place, partial(build, data[key], place=place, environ=self._environ))

    def _options(self, job_id: str, data: Any, place: Place) -> SyncOptions:
        options: dict[str, Any] = {}
        if not self._is_table(data, place):
            return SyncOptions()
        self._known(data, place, OPTIONS)
        filled = self._try(place, partial(fill, data, place, self._environ))
        if filled is None:
            return SyncOptions()
        for name in (name for name in data if name in OPTIONS):
            here = (*place, name)
            checked = self._try(here, partial(self._option, job_id, name, filled, here))
            options |= checked or {}
        return cast("SyncOptions", options)

    def _option(self, job_id: str, name: str, filled: Filled, place: Place) -> dict[str, Any]:
        """Give an option as `run_full_sync` takes it.

        Raises:
            ConfigurationError: If its value is not possible.
        """
        value = filled.value(name, _HINTS[name])
        if name == "retry" and isinstance(value, Mapping):
            self._known(value, place, list(RETRY))
        try:
            option: Any = {name: self._made(name, value, filled)}
            make_options(job_id, option)
        except ConfigurationError as error:
            here = (*place, *error.place)
            msg = filled.hide(str(error).removeprefix(f"job {job_id!r}: "))
            raise ConfigurationError(f"{at(here)}: {msg}", here) from None
        return dict(option)

    def _made(self, name: str, value: Any, filled: Filled) -> Any:
        """Give what an option's value stands for."""
        if value == NO_LIMIT and misfit(None, _HINTS[name]) is None:
            return None
        if name == "throttle" and isinstance(value, int | float):
            return Throttle(value)
        if name == "retry" and isinstance(value, Mapping):
            given = {key: filled.converted(value[key], hint) for key, hint in RETRY.items() if key in value}
            settings: Any = {key: None if item == NO_LIMIT else item for key, item in given.items()}
            return Retry(**settings)
        return value

    def _verify(self, data: Mapping[str, Any], place: tuple[str, ...]) -> tuple[dict[str, Any], Any]:
        given = data.get("verify", {})
        if not self._is_table(given, place):
            return {}, None
        self._known(given, place, list(VERIFY))
        for key, hint in VERIFY.items():
            problem = misfit(given[key], hint) if key in given else None
            if problem is not None:
                self._problem((*place, key), f"{at((*place, key))} {problem}")
        described = given.get("target") or self._described_target(data.get("sink"))
        target = None
        if isinstance(described, Mapping):
            here = (*place, "target") if "target" in given else (*place[:-1], "sink")
            target = self._try(here, partial(registry.connector, described, place=here, environ=self._environ))
        return {key: value for key, value in given.items() if key != "target"}, target

    def _described_target(self, sink: Any) -> dict[str, Any] | None:
        """Describe the connector that reads what a SQL sink writes."""
        if not isinstance(sink, Mapping) or sink.get("type") != "sql" or not isinstance(sink.get("table"), str):
            return None
        store = self._data.get("store", {"type": "sql"})
        if "url" not in sink and (not isinstance(store, Mapping) or store.get("type") != "sql"):
            return None
        from resumable_sync.stores.sql import (  # noqa: PLC0415 - SQLAlchemy, for those who compare what is in SQL
            DEFAULT_URL,
            ENVIRONMENT_VARIABLE,
        )

        if "url" not in sink and "store" not in self._data and is_redis(self._environ.get(ENVIRONMENT_VARIABLE, "")):
            return None
        own = f"${{{ENVIRONMENT_VARIABLE}}}" if self._environ.get(ENVIRONMENT_VARIABLE) else DEFAULT_URL
        table = f"{sink['schema']}.{sink['table']}" if "schema" in sink else sink["table"]
        described = {"type": "sql", "url": sink.get("url") or store.get("url") or own, "table": table}
        return described | ({"key": sink["key"]} if "key" in sink else {})

    def _is_table(self, data: Any, place: Place) -> bool:
        if isinstance(data, Mapping):
            return True
        self._problem(place, f"{at(place)} must be a table, such as [{at(place)}] with keys below it")
        return False

    def _known(self, data: Mapping[str, Any], place: Place, known: list[str]) -> None:
        for key in data:
            if key not in known:
                here = (*place, key)
                meant = suggestion(key, known)
                self._problem(here, f"{at(here)} is no key{meant}; here can stand: {', '.join(known)}")

    def _try(self, place: Place, work: Callable[[], T]) -> T | None:
        """Do something, and keep the problem it meets."""
        try:
            return work()
        except (ConfigurationError, MissingExtraError) as error:
            named: Place = getattr(error, "place", ())
            self._problem(named or place, str(error) if named or not place else f"{at(place)}: {error}")
            return None

    def _problem(self, place: Place, text: str) -> None:
        self.problems.append(self.document.says(place, text))


_HINTS: dict[str, Any] = get_type_hints(SyncOptions) | {"throttle": float}
_WHERE = {"source": "come from", "sink": "go"}
