"""The page of all jobs of a store."""

from collections import Counter
from collections.abc import Sequence

from resumable_sync.report._markup import Markup, element
from resumable_sync.report._page import footer, page, pill, share_of, story_body
from resumable_sync.report._sentences import in_a_sentence
from resumable_sync.report._story import ATTENTION, Story
from resumable_sync.report._words import counted, moment

__all__ = ["overview_page"]

TOLD = 40
"""Stories told in full; of the other jobs there is the line."""


def overview_page(stories: Sequence[Story]) -> str:
    """Give the page of all jobs, what needs a hand first."""
    header = element(
        "header",
        element("p", "Report of a job store", class_="eyebrow"),
        element("div", element("h1", counted(len(stories), "job")), *_counts(stories), class_="title"),
    )
    if not stories:
        empty = element("p", "This store has no jobs yet: the first run_full_sync makes one.", class_="lead")
        return page("jobs", header, empty)
    told = (_folded(story) for story in stories[:TOLD])
    lines = (element("div", *_line(story), class_="job") for story in stories[TOLD:])
    more = Markup()
    if len(stories) > TOLD:
        text = f"The other {counted(len(stories) - TOLD, 'job')}; resumable-sync report JOB tells the story of each."
        more = element("p", text, class_="soft rest")
    return page("jobs", header, *told, more, *lines, footer(stories[0]))


def _counts(stories: Sequence[Story]) -> list[Markup]:
    counts = Counter(story.standing for story in stories)
    return [
        element("span", f"{counts[standing]} {standing}", class_=f"pill {standing}")
        for standing in ATTENTION
        if counts[standing]
    ]


def _folded(story: Story) -> Markup:
    body = element("div", story_body(story), class_="told")
    return element("details", element("summary", *_line(story)), body, class_="story")


def _line(story: Story) -> list[Markup]:
    job = story.job
    moved = "" if job.updated_at is None else f" Last moved {moment(job.updated_at)}."
    return [
        element("b", job.id),
        pill(story),
        share_of(job, story.standing),
        element("span", in_a_sentence(story) + moved, class_="soft"),
    ]
