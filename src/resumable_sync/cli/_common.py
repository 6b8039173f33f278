"""What several commands take: a sync file and jobs, a store, and how to print."""

import functools
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from resumable_sync import ConfigurationError, Job, JobStore, registry
from resumable_sync._close import close_if_closable
from resumable_sync._default_store import default_store, is_redis
from resumable_sync._plain import fill, suggestion
from resumable_sync.cli._config import build_store
from resumable_sync.cli._output import Output
from resumable_sync.cli._secrets import literal_secrets
from resumable_sync.cli._toml import read_document

__all__ = [
    "DEFAULT_FILE",
    "file_and_jobs",
    "job_of_store",
    "json_and_verbose",
    "known_job",
    "quoted",
    "store_of",
    "suggest_jobs",
    "with_store",
]

DEFAULT_FILE = "sync.toml"

Function = Callable[..., Any]


def quoted(text: str) -> str:
    """Give a text as a shell takes it."""
    return shlex.quote(text)


def json_and_verbose(function: Function) -> Function:
    """Give a command `--json` and `--verbose`, and an `Output` made of them."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON, one object on each line.")
    @click.option("-v", "--verbose", is_flag=True, help="Show the library's log, and where errors come from.")
    @functools.wraps(function)
    def wrapped(*arguments: Any, as_json: bool, verbose: bool, **options: Any) -> Any:
        output = Output(as_json=as_json, verbose=verbose)
        click.get_current_context().obj = output
        return function(*arguments, output=output, **options)

    return wrapped


def file_and_jobs(function: Function) -> Function:
    """Give a command the arguments FILE and JOB."""
    for argument in (
        click.argument("jobs", metavar="[JOB]...", nargs=-1, shell_complete=_jobs_of_file),
        click.argument("file", default=DEFAULT_FILE, type=click.Path()),
    ):
        function = argument(function)
    return function


def with_store(function: Function) -> Function:
    """Give a command the options that say where jobs are kept."""
    for option in (
        click.option(
            "--store",
            "store_url",
            metavar="URL",
            help="The store's database, or redis://...; ${NAME} is taken from the environment.",
        ),
        click.option(
            "-c", "--config", type=click.Path(), help=f"The sync file whose store it is (default: {DEFAULT_FILE})."
        ),
    ):
        function = option(function)
    return function


def job_of_store(function: Function) -> Function:
    """Give a command the argument JOB."""
    return click.argument("job_id", metavar="JOB", shell_complete=suggest_jobs)(function)


@contextmanager
def store_of(config: str | None, store_url: str | None, output: Output | None = None) -> Iterator[JobStore]:
    """Open the store that was asked for: `--store`, else that of the sync file, else that of `run_full_sync`.

    Yields:
        The store, which is closed afterwards.

    Raises:
        ConfigurationError: If it cannot be made.
    """
    if config is not None and store_url is not None:
        msg = "--store and --config both say where the store is; give one of them"
        raise ConfigurationError(msg)
    if store_url is not None:
        url = str(fill({"url": store_url}, ("--store",), os.environ).values["url"])
        data = {"type": "redis" if is_redis(url) else "sql", "url": store_url}
        if output is not None and next(literal_secrets(data), None) is not None:
            output.warn(["--store holds a literal password, which other users of this host can see; write ${NAME}"])
        store = registry.store(data, place=("--store",))
    elif config is not None or Path(DEFAULT_FILE).exists():
        store = build_store(config or DEFAULT_FILE, os.environ)
    else:
        store = default_store()
    try:
        yield store
    finally:
        close_if_closable(store)


def known_job(store: JobStore, job_id: str) -> Job:
    """Give a job of a store.

    Raises:
        ConfigurationError: If there is none of this name.
    """
    job = store.load(job_id)
    if job is not None:
        return job
    names = sorted(job.id for job in store.jobs())
    listed = ", ".join(map(repr, names)) or "none; give the store with --store or --config"
    msg = f"there is no job {job_id!r}{suggestion(job_id, names)}; the jobs of this store: {listed}"
    raise ConfigurationError(msg)


def suggest_jobs(context: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Complete the name of a job of the store."""
    # In the middle of a command line nobody wants to read what is wrong with a file or a store.
    with suppress(Exception), store_of(context.params.get("config"), context.params.get("store_url")) as store:
        return [CompletionItem(job.id) for job in store.jobs() if job.id.startswith(typed)]
    return []


def _jobs_of_file(context: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    with suppress(Exception):
        data = read_document(context.params.get("file") or DEFAULT_FILE).data
        known = [data["job"]] if "job" in data else list(data.get("jobs", ()))
        return [CompletionItem(job_id) for job_id in known if job_id.startswith(typed)]
    return []
