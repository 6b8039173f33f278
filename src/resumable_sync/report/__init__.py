"""Reports: the story of a job, or of all jobs of a store, as one HTML page.

The page needs nothing but itself: no network, no script, no fonts. It holds counts, times, the names of errors and
workers, and why the last attempt failed; no record, no cursor, no credential.

    from resumable_sync.report import job_report

    Path("orders.html").write_text(job_report("orders", store=store), encoding="utf-8")
"""

from resumable_sync._default_store import default_store
from resumable_sync._model import utc_now
from resumable_sync._protocols import JobStore
from resumable_sync._validate import check_job_id
from resumable_sync.report._overview import overview_page
from resumable_sync.report._page import story_page
from resumable_sync.report._story import tell, tell_all

__all__ = ["job_report", "store_report"]


def job_report(job_id: str, *, store: JobStore | None = None) -> str:
    """Give the report of a job: where it stands, how it got there, how fast, and what its next start will do.

    What it shows depends on what the store keeps: attempts (`LineageStore`), the history of the run (`HistoryStore`),
    dead letters (`DeadLetterStore`); `SQLJobStore` keeps all of it. It is below 500 KB, whatever the job went through.

    Args:
        job_id: The job.
        store: The job's store. None: the same one as of `run_full_sync`.

    Returns:
        An HTML page, to be written in UTF-8.

    Raises:
        ConfigurationError: If there is no such job.
        StoreError: If the store cannot be read, or what it keeps is damaged.
    """
    check_job_id(job_id)
    if store is None:
        with default_store() as made:
            return story_page(tell(job_id, made, utc_now()))
    return story_page(tell(job_id, store, utc_now()))


def store_report(*, store: JobStore | None = None) -> str:
    """Give the report of all jobs of a store: what needs a hand first, and the stories of the first 40.

    Args:
        store: The store. None: the same one as of `run_full_sync`.

    Returns:
        An HTML page, to be written in UTF-8.

    Raises:
        StoreError: If the store cannot be read, or what it keeps is damaged.
    """
    if store is None:
        with default_store() as made:
            return overview_page(tell_all(made, utc_now()))
    return overview_page(tell_all(store, utc_now()))
