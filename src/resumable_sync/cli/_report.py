"""The command that tells the story of a job, or of all jobs of a store: `report`."""

import os
import tempfile
from pathlib import Path
from typing import Any

import click

from resumable_sync import Job
from resumable_sync._model import utc_now
from resumable_sync.cli._common import json_and_verbose, known_job, store_of, suggest_jobs, with_store
from resumable_sync.cli._output import Output, plain
from resumable_sync.cli._status import ExitStatus
from resumable_sync.report._overview import overview_page
from resumable_sync.report._page import story_page
from resumable_sync.report._sentences import in_a_sentence, next_start
from resumable_sync.report._story import Story, tell, tell_all

__all__ = ["report"]

STANDARD_OUTPUT = "-"


@click.command
@click.argument("job_id", metavar="[JOB]", required=False, shell_complete=suggest_jobs)
@click.option("--all", "every", is_flag=True, help="All jobs of the store on one page.")
@click.option("-o", "--output", "target", metavar="FILE", help="Where to write it (default: report.html); - prints it.")
@with_store
@json_and_verbose
def report(
    job_id: str | None, config: str | None, store_url: str | None, output: Output, *, every: bool, target: str | None
) -> ExitStatus:
    """Write a page that tells the story of JOB: how it got where it is, how fast, and what comes next.

    \b
      resumable-sync report orders -o orders.html
      resumable-sync report --all -o jobs.html

    The page is one HTML file that needs neither network nor script; it holds no records. With --json the facts are
    printed, and a page is written only with --output.
    """
    if every == (job_id is not None):
        msg = "give a JOB, or --all for all of them"
        raise click.UsageError(msg)
    if target == STANDARD_OUTPUT and output.as_json:
        msg = "--json prints facts, and --output - the page; give one of them"
        raise click.UsageError(msg)
    with store_of(config, store_url, output) as store:
        now = utc_now()
        stories = tell_all(store, now) if job_id is None else [tell(known_job(store, job_id).id, store, now)]
    written = None
    if target == STANDARD_OUTPUT:
        click.echo(_page(stories, every=every), nl=False)
    elif target is not None or not output.as_json:
        written = _write(Path(target or "report.html"), _page(stories, every=every))
    if output.as_json:
        for story in stories:
            output.result(_facts(story) | {"path": written})
    elif written is not None:
        output.result(None, f"the report is in {written}")
    return ExitStatus.COMPLETED


def _page(stories: list[Story], *, every: bool) -> str:
    return overview_page(stories) if every else story_page(stories[0])


def _write(path: Path, page: str) -> str:
    """Write a page whole: a browser that loads it anew meanwhile shall not see half of it."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(page)
            mask = os.umask(0)
            os.umask(mask)
            Path(name).chmod(0o666 & ~mask)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror}; give another --output"
        raise click.UsageError(msg) from None
    return str(path)


def _facts(story: Story) -> dict[str, Any]:
    job: Job = story.job
    what, why = next_start(story)
    return dict(plain(job)) | {
        "standing": story.standing,
        "guarantee": story.guarantee,
        "sentence": in_a_sentence(story),
        "next": {"action": story.decision.action, "what": what, "why": why},
        "attempts": story.attempts,
        "history": story.history,
        "seconds": {one.name: one.seconds for one in story.shares},
        "errors": None if story.errors is None else dict(story.errors),
    }
