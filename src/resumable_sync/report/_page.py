"""The page of one job."""

from collections.abc import Iterable
from functools import cache
from importlib import resources

from resumable_sync._model import AttemptRecord, Job
from resumable_sync.report import _charts
from resumable_sync.report._markup import Markup, element, join
from resumable_sync.report._sentences import in_a_sentence, next_start, what_holds
from resumable_sync.report._story import Story
from resumable_sync.report._words import UNKNOWN, counted, duration, moment, number, one_line, percent, rate

__all__ = ["page", "pill", "share_of", "story_body", "story_page"]

SHOWN_ERRORS = 12
SHORTEST = 0.001
OPEN_ATTEMPTS = 15
"""More attempts than these are folded away."""

SHARES = {
    "read": "reading",
    "write": "writing",
    "commit": "committing",
    "wait": "waiting",
    "away": "nobody at work",
}
GUARANTEES = {"exactly_once": "exactly once", "effectively_once": "effectively once", "at_least_once": "at least once"}


@cache
def _style() -> Markup:
    return Markup(resources.files("resumable_sync.report").joinpath("report.css").read_text(encoding="utf-8"))


def page(title: str, *body: Markup) -> str:
    """Give a whole page."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        # Nothing is fetched and nothing is run, whatever is on the page.
        element("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'"),
        element("title", title),
        element("style", _style()),
    )
    return "<!doctype html>\n" + element("html", head, element("body", element("main", *body)), lang="en") + "\n"


def story_page(story: Story) -> str:
    """Give the page of one job."""
    header = element(
        "header",
        element("p", "Report of a full sync", class_="eyebrow"),
        element("div", element("h1", story.job.id), pill(story), *holds(story), class_="title"),
    )
    return page(f"{one_line(story.job.id, 80)}: {story.standing}", header, story_body(story), footer(story))


def footer(story: Story) -> Markup:
    """Say when the page was made."""
    return element("footer", f"Made {moment(story.now)} UTC by resumable_sync. All times are UTC.")


def pill(story: Story) -> Markup:
    """Show the status."""
    return element("span", story.standing, class_=f"pill {story.standing}", data_figure="standing")


def holds(story: Story) -> list[Markup]:
    """Show the guarantee, if it is known."""
    if story.guarantee is None:
        return []
    return [element("span", GUARANTEES[story.guarantee], class_="pill plain", data_figure="guarantee")]


def share_bar(part: float, whole: float, kind: str = "") -> Markup:
    """Draw a part of a whole."""
    width = 100 * min(part / whole, 1.0) if whole > 0 else 0.0
    return element("span", element("span", style=f"width:{width:.1f}%"), class_=f"share {kind}".strip())


def share_of(job: Job, kind: str) -> Markup:
    """Draw how far a job is; nothing where nobody knows how far it is to go."""
    whole = job.processed_records if job.status.exhausted else job.total_records or 0
    return share_bar(job.processed_records, whole, kind)


def story_body(story: Story) -> Markup:
    """Tell the story of a job."""
    job = story.job
    error = element("p", one_line(job.error, 600), class_="why") if job.error and job.lease is None else Markup()
    return join([
        element("p", in_a_sentence(story), class_="lead"),
        error,
        _facts(story),
        _next(story),
        _happened(story),
        _parts(story),
        element("div", _speed(story), element("div", _shares(story), _letters(story)), class_="pair"),
        _earlier(story),
    ])


def _facts(story: Story) -> Markup:
    job = story.job
    begun = story.begun_at
    elapsed = None if begun is None else (story.ended_at - begun).total_seconds()
    records = sum(one.records for one in story.samples) or job.processed_records
    seconds = sum(one.seconds for one in story.samples) or story.working_seconds
    attempts = story.run_attempts
    of_total = f"of {number(job.total_records)}" if job.total_records is not None else "total not counted"
    size = round(job.processed_records / max(job.processed_batches, 1))
    each = f"{counted(size, 'record')} each" if size else ""
    stops = sum(one.outcome == "interrupted" for one in attempts)
    ends = [counted(story.deaths, "death"), counted(stops, "stop")]
    tiles = [
        ("Records", number(job.processed_records), of_total, "processed_records"),
        ("Speed", rate(records, seconds), "while at work", None),
        ("Time", UNKNOWN if elapsed is None else duration(elapsed), f"run {job.run}" if job.run else "", None),
        ("Attempts", number(len(attempts) or job.attempt), ", ".join(ends), "attempts"),
        (
            "Batches",
            number(job.processed_batches),
            each,
            "processed_batches",
        ),
        ("Dead letters", number(job.dead_letters), "records set aside", "dead_letters"),
    ]
    return element("dl", *(_tile(*tile) for tile in tiles), class_="facts")


def _tile(name: str, value: str, more: str, figure: str | None) -> Markup:
    return element("div", element("dt", name), element("dd", value, data_figure=figure), element("small", more))


def _next(story: Story) -> Markup:
    what, why = next_start(story)
    holds = what_holds(story)
    hint = "With the default options; whether the source has changed meanwhile, resumable-sync plan tells."
    return element(
        "section",
        element("h2", "The next start"),
        element("p", f"{what}.", class_="what", data_figure="next"),
        element("p", f"{why} {holds or ''}".strip(), class_="soft"),
        element("p", hint, class_="soft small"),
        class_="next",
    )


def _happened(story: Story) -> Markup:
    axis = _charts.axis_of(story)
    heading = element("h2", "What happened")
    if axis is None:
        return element("section", heading, element("p", "The store keeps no attempts of this run.", class_="soft"))
    note = Markup()
    if axis.shortened:
        note = element("p", "Times in which nobody was at work are drawn shorter than they were.", class_="soft small")
    charts = join([_charts.progress_chart(story, axis), _charts.strip(story, axis), note])
    return element("section", heading, charts, _attempts(story.run_attempts, story))


def _attempts(attempts: list[AttemptRecord], story: Story) -> Markup:
    if not attempts:
        return Markup()
    names = [("#", "n"), ("started", ""), ("lasted", "n"), ("records", "n"), ("ended", ""), ("worker", "")]
    head = element("tr", *(element("th", name, class_=kind or None) for name, kind in names))
    rows = [row for one in attempts for row in _attempt_rows(one, story)]
    table = element("div", element("table", element("thead", head), element("tbody", *rows)), class_="scroll")
    folded = len(attempts) > OPEN_ATTEMPTS
    told = f"All {number(len(attempts))} attempts that are kept" if folded else counted(len(attempts), "attempt")
    return element("details", element("summary", told), table, open=None if folded else "")


def _attempt_rows(one: AttemptRecord, story: Story) -> list[Markup]:
    end = story.last_seen(one)
    worker = one_line(one.owner, 60) if one.host is None else f"{one.host} {one.pid}"
    why = _why(one, story)
    ended = [element("i", class_=one.outcome), one.outcome, element("span", why, class_="soft") if why else ""]
    seconds = (end - one.started_at).total_seconds()
    # One that died before anybody heard of it lasted nobody knows how long.
    lasted = duration(seconds) if seconds or one.outcome != "died" else UNKNOWN
    row = element(
        "tr",
        element("td", str(one.attempt), class_="n"),
        _when(one),
        element("td", lasted, class_="n"),
        element("td", f"+{number(one.to_records - one.from_records)}", class_="n"),
        element("td", *ended, class_="t"),
        element("td", worker, class_="t"),
        class_="failing" if one.error else None,
    )
    if not one.error:
        return [row]
    error = element("td", one_line(one.error), colspan=5, class_="error")
    return [row, element("tr", element("td"), error)]


def _when(one: AttemptRecord) -> Markup:
    """Show when an attempt started; a narrow screen has no room for the day."""
    day, time = moment(one.started_at).split(" ")
    return element("td", element("span", f"{day} ", class_="day"), time, class_="t")


def _why(one: AttemptRecord, story: Story) -> str:
    if one.outcome == "died":
        if one.ended_at is None:
            return "nobody has taken over yet"
        away = (one.ended_at - story.last_seen(one)).total_seconds()
        return f"taken over after {duration(away)}"
    stops = {} if story.history is None else story.history.stops
    return one_line(stops.get(one.attempt, "")) if one.outcome == "interrupted" else ""


def _speed(story: Story) -> Markup:
    axis = _charts.axis_of(story)
    heading = element("h2", "How fast")
    if not story.samples or axis is None:
        nothing = "No batch was delivered yet." if not story.job.processed_batches else "Nobody noted how fast it went."
        return element("section", heading, element("p", nothing, class_="soft"))
    return element("section", heading, _charts.rate_chart(story, axis), _charts.batch_chart(story, axis))


def _shares(story: Story) -> Markup:
    shares = story.shares
    if not shares:
        return Markup()
    whole = sum(one.seconds for one in shares)
    drawn = [one for one in shares if one.seconds > 0]
    bar = (element("span", class_=one.name, style=f"flex:{max(one.seconds / whole, 0.0):.4f}") for one in drawn)
    rows = [
        element(
            "tr",
            element("td", element("i", class_=one.name), SHARES[one.name]),
            element("td", percent(one.seconds, whole), class_="n"),
            element("td", duration(one.seconds), class_="n", data_figure=f"{one.name}_seconds"),
        )
        for one in shares
        if one.seconds >= SHORTEST
    ]
    workers = "" if story.worker_seconds is None else " It is the time of the workers of all parts."
    tries = sum(one.failed_tries for one in story.samples)
    told = f"{counted(tries, 'call')} failed for the moment and {'was' if tries == 1 else 'were'} tried again."
    return element(
        "section",
        element("h2", "Where the time goes"),
        element("div", *bar, class_="bar"),
        element("table", element("tbody", *rows)),
        element("p", f"{told if tries else 'No call had to be tried again.'}{workers}", class_="soft small"),
    )


def _parts(story: Story) -> Markup:
    if not story.parts:
        return Markup()
    rows = [
        element(
            "tr",
            element("td", part.id),
            element("td", str(part.status)),
            element("td", share_of(part, str(part.status))),
            element("td", number(part.processed_records), class_="n"),
        )
        for part in story.parts
    ]
    done = sum(part.status == "completed" for part in story.parts)
    table = element("div", element("table", element("tbody", *rows)), class_="scroll")
    told = element("p", f"{done} of {counted(len(story.parts), 'part')} completed.", class_="soft")
    return element("section", element("h2", "Parts"), told, table)


def _letters(story: Story) -> Markup:
    count = story.job.dead_letters
    heading = element("h2", "Dead letters")
    if not count:
        told = "None: the sink refused no record for good."
        return element("section", heading, element("p", told, class_="soft"))
    told = f"{counted(count, 'record')} the sink refused for good. resumable-sync dead-letters shows and replays them."
    if story.errors is None:
        return element("section", heading, element("p", told, class_="soft"))
    shown = story.errors[:SHOWN_ERRORS]
    rest = sum(number_ for _, number_ in story.errors[SHOWN_ERRORS:])
    lines: Iterable[tuple[str, int]] = [*shown, *([("others", rest)] if rest else [])]
    rows = [
        element(
            "tr",
            element("td", one_line(kind, 80)),
            element("td", share_bar(number_, count, "bad")),
            element("td", number(number_), class_="n", data_figure="errors"),
        )
        for kind, number_ in lines
    ]
    return element("section", heading, element("p", told, class_="soft"), element("table", element("tbody", *rows)))


def _earlier(story: Story) -> Markup:
    runs = story.earlier_runs
    if not runs:
        return Markup()
    names = [("run", "n"), ("started", ""), ("took", "n"), ("records", "n"), ("attempts", "n"), ("ended", "")]
    head = element("tr", *(element("th", name, class_=kind or None) for name, kind in names))
    rows = []
    for attempts in runs:
        first, last = attempts[0], attempts[-1]
        end = story.last_seen(last)
        cells = [
            element("td", str(last.run), class_="n"),
            element("td", moment(first.started_at), class_="t"),
            element("td", duration((end - first.started_at).total_seconds()), class_="n"),
            element("td", number(last.to_records), class_="n"),
            element("td", str(len(attempts)), class_="n"),
            element("td", element("i", class_=last.outcome), last.outcome, class_="t"),
        ]
        rows.append(element("tr", *cells))
    table = element("div", element("table", element("thead", head), element("tbody", *rows)), class_="scroll")
    return element("section", element("h2", "Earlier runs"), table)
