"""What a report says in words: where a job stands, what holds for its target, and what comes next."""

from resumable_sync._model import Guarantee, JobStatus
from resumable_sync.report._story import Story
from resumable_sync.report._words import counted, duration, moment, number, one_line, percent

__all__ = ["in_a_sentence", "next_start", "what_holds"]

_HOLDS = {
    Guarantee.EXACTLY_ONCE: "each record reaches the target exactly once",
    Guarantee.EFFECTIVELY_ONCE: "each record counts once in the target, since writing it again has no effect",
    Guarantee.AT_LEAST_ONCE: "each record reaches the target at least once, at most one batch again for each death",
}
_STANDS = {
    "completed": "Run {run} is completed",
    "incomplete": "Run {run} has read its source to the end",
    "running": "Run {run} is at work",
    "died": "The process that worked on run {run} died",
    "failed": "Run {run} failed",
    "interrupted": "Run {run} was stopped",
}
_MORE = {
    Guarantee.EXACTLY_ONCE: "Rows and checkpoint commit together, whatever dies at whatever moment.",
    Guarantee.EFFECTIVELY_ONCE: "A batch that was open at a death is written again, which changes nothing.",
    Guarantee.AT_LEAST_ONCE: "After a death the batch that was open is delivered again.",
}


def in_a_sentence(story: Story) -> str:
    """Say where a job stands and what is guaranteed, in one sentence."""
    holds = "" if story.guarantee is None else f"; {_HOLDS[story.guarantee]}"
    letters = ""
    if story.standing == "incomplete":
        letters = f", {counted(story.job.dead_letters, 'dead letter')} left"
    return f"{_where(story)}{_how(story)}{letters}{holds}."


def what_holds(story: Story) -> str | None:
    """Say what the guarantee means for the next death; None if nobody noted it."""
    return None if story.guarantee is None else _MORE[story.guarantee]


def _where(story: Story) -> str:
    job = story.job
    records = counted(job.processed_records, "record")
    so_far = records
    if job.total_records:
        share = percent(job.processed_records, max(job.total_records, job.processed_records))
        so_far = f"{number(job.processed_records)} of {counted(job.total_records, 'record')} ({share})"
    if story.standing == "pending":
        return "Nothing was delivered yet" + (f", run {job.run + 1} comes next" if job.run else "")
    what = _STANDS[story.standing].format(run=job.run)
    return f"{what}: {records if job.status.exhausted else so_far} delivered"


def _how(story: Story) -> str:
    attempts = story.run_attempts
    if not attempts:
        return ""
    begun = story.begun_at or attempts[0].started_at
    told = f" in {duration((story.ended_at - begun).total_seconds())}"
    if len(attempts) > 1:
        told += f" and {len(attempts)} attempts"
        if story.deaths:
            told += f", {'all' if story.deaths == len(attempts) else story.deaths} of which died"
    return told


def next_start(story: Story) -> tuple[str, str]:
    """Say what the next start will do, and why."""
    job, decision = story.job, story.decision
    place = f"after record {number(decision.processed_records)}"
    match decision.action:
        case "held":
            assert job.lease is not None  # noqa: S101 - that is what holds it
            until = f"The lease ends at {moment(job.lease.expires_at)} UTC unless it is renewed"
            stop = "; it was asked to stop" if job.lease.stop_requested else ""
            return f"Is refused while {_worker(job.lease.owner)} works on it", f"{until}{stop}."
        case "refuse":
            return "Is refused", f"{one_line(decision.reason)}."
        case "resume":
            left = max((job.total_records or 0) - decision.processed_records, 0)
            more = f"; {counted(left, 'record')} to go" if left else ""
            return f"Goes on with run {job.run} {place}{more}", _sentence(decision.reason)
        case _ if decision.fresh_run or job.status is JobStatus.PENDING:
            what = f"Begins run {job.run + 1} at the beginning"
            told = " It is skipped instead where that was asked for." if job.status.exhausted else ""
            return what, _sentence(decision.reason) + told
        case _:
            return f"Begins run {max(job.run, 1)} at the beginning", _sentence(decision.reason)


def _worker(owner: str) -> str:
    host, _, rest = owner.partition(":")
    pid = rest.partition(":")[0]
    return f"process {pid} on {host}" if pid.isdigit() else one_line(owner, 80)


def _sentence(text: str) -> str:
    line = one_line(text)
    return line[:1].upper() + line[1:] + ("" if line.endswith(".") else ".")
