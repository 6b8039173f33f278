"""The charts of a run: how far it got, how fast, and what a batch took, all over the same time."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby

import attrs

from resumable_sync._history import Sample
from resumable_sync._model import AttemptRecord
from resumable_sync.report._axis import TimeAxis, nice_top, value_ticks
from resumable_sync.report._markup import Markup, element, join
from resumable_sync.report._story import Story
from resumable_sync.report._words import counted, duration, moment, number, rate

__all__ = ["axis_of", "batch_chart", "progress_chart", "rate_chart", "strip"]

WIDTH, HEIGHT = 1000, 100
LAYERS = ("read", "write", "commit")
NARROW = 0.035
"""A stretch of this part of the width has no room for its number."""

OUTCOMES = {
    "running": "is at work",
    "completed": "completed the run",
    "incomplete": "ended with dead letters",
    "interrupted": "was stopped",
    "failed": "failed",
    "died": "died",
}


@attrs.frozen
class _Frame:
    """What is drawn, between the axes: 0 to 1,000 from left to right, 0 to 100 from the bottom to the top."""

    story: Story
    axis: TimeAxis
    top: float

    def x(self, time: datetime) -> str:
        return f"{self.axis.at(time) * WIDTH:.1f}"

    def y(self, value: float) -> str:
        return f"{HEIGHT - HEIGHT * min(value / self.top, 1.0):.1f}"


def axis_of(story: Story) -> TimeAxis | None:
    """Give the time axis of a run; None if nothing is known of its times."""
    spans = [(one.started_at, story.last_seen(one)) for one in story.run_attempts]
    spans += [(one.started_at, one.ended_at) for one in story.samples]
    return TimeAxis(spans) if spans else None


def progress_chart(story: Story, axis: TimeAxis) -> Markup:
    """Draw how many records had been delivered at each time."""
    job = story.job
    top = nice_top(max(job.total_records or 0, job.processed_records, 1))
    frame = _Frame(story, axis, top)
    points: list[tuple[datetime, int]] = []
    for one in story.run_attempts:
        points += [(one.started_at, one.from_records)]
        points += [(at.ended_at, at.processed_records) for at in story.samples if at.attempt == one.attempt]
        points += [(story.last_seen(one), one.to_records)]
    places = [f"{frame.x(time)},{frame.y(records)}" for time, records in points]
    drawn = []
    if places:
        first, last = places[0].partition(",")[0], places[-1].partition(",")[0]
        drawn = [
            element("path", d=f"M{first},{HEIGHT} L{' '.join(places)} L{last},{HEIGHT} Z", class_="area"),
            element("polyline", points=" ".join(places), class_="line"),
        ]
    if job.total_records:
        drawn.append(_level(frame, job.total_records, "total"))
    told = f"{number(job.processed_records)} records delivered"
    return _chart(frame, "Records delivered", told, drawn, times=False)


def rate_chart(story: Story, axis: TimeAxis) -> Markup:
    """Draw how many records were delivered in a second."""
    samples = [one for one in story.samples if one.seconds > 0]
    top = nice_top(max((one.records / one.seconds for one in samples), default=0))
    frame = _Frame(story, axis, top)
    drawn = []
    for run in _unbroken(samples):
        outline = _steps(frame, [(one, one.records / one.seconds) for one in run])
        start, end = frame.x(run[0].started_at), frame.x(run[-1].ended_at)
        drawn += [
            element("path", d=f"M{start},{HEIGHT} L{outline} L{end},{HEIGHT} Z", class_="area"),
            element("polyline", points=outline, class_="line"),
        ]
    seconds, records = sum(one.seconds for one in samples), sum(one.records for one in samples)
    drawn.append(_level(frame, records / seconds if seconds else 0, "mean"))
    told = f"{rate(records, seconds)} on average while at work"
    return _chart(frame, "Records a second", told, drawn)


def batch_chart(story: Story, axis: TimeAxis) -> Markup:
    """Draw what reading, writing and committing a batch took."""
    samples = [one for one in story.samples if one.batches]
    most = max((sum(_layers(one)) for one in samples), default=0) * 1000
    in_seconds = nice_top(most) >= 1000  # noqa: PLR2004 - milliseconds
    top = nice_top(most / 1000 if in_seconds else most)
    frame = _Frame(story, axis, top)
    factor = 1 if in_seconds else 1000
    drawn = []
    for run in _unbroken(samples):
        for layer in reversed(range(len(LAYERS))):
            heights = [(one, sum(_layers(one)[: layer + 1]) * factor) for one in run]
            start, end = frame.x(run[0].started_at), frame.x(run[-1].ended_at)
            outline = f"M{start},{HEIGHT} L{_steps(frame, heights)} L{end},{HEIGHT} Z"
            drawn.append(element("path", d=outline, class_=f"fill-{LAYERS[layer]}"))
    batches = sum(one.batches for one in samples)
    seconds = sum(sum(_layers(one)) * one.batches for one in samples)
    told = f"{duration(seconds / batches)} on average" if batches else ""
    legend = element("p", *(_key(name, name) for name in LAYERS), class_="legend")
    return join([_chart(frame, "Time per batch", told, drawn, unit=" s" if in_seconds else " ms"), legend])


def strip(story: Story, axis: TimeAxis) -> Markup:
    """Draw the attempts one after the other, and what lay between them."""
    parts = []
    for one in story.run_attempts:
        end = story.last_seen(one)
        left, right = axis.at(one.started_at), axis.at(end)
        label = str(one.attempt) if right - left >= NARROW else ""
        parts.append(_stretch(left, right, f"attempt {one.outcome}", _title(one, end), label))
        if one.outcome == "died":
            gone = one.ended_at or story.now
            what = f"nobody at work for {duration((gone - end).total_seconds())}"
            if axis.at(gone) > right:
                parts.append(_stretch(right, axis.at(gone), "away", what, ""))
    marks = [_mark(axis.at(story.last_seen(one)), one) for one in story.run_attempts if one.outcome != "running"]
    kinds = dict.fromkeys(one.outcome for one in story.run_attempts)
    keys = [_key(kind, OUTCOMES[kind]) for kind in kinds]
    if "died" in kinds:
        keys.append(_key("away", "nobody at work"))
    lanes = element("div", *parts, class_="strip"), element("div", *marks, class_="marks")
    return join([element("div", *lanes, class_="track"), _times(axis), element("p", *keys, class_="legend")])


def _title(one: AttemptRecord, end: datetime) -> str:
    return (
        f"attempt {one.attempt} {OUTCOMES[one.outcome]}: {moment(one.started_at)}, "
        f"{duration((end - one.started_at).total_seconds())}, {counted(one.to_records - one.from_records, 'record')}"
    )


def _stretch(left: float, right: float, kind: str, title: str, label: str) -> Markup:
    place = f"left:{left * 100:.2f}%;width:{max(right - left, 0) * 100:.2f}%"
    return element("span", label, class_=kind, style=place, title=title)


def _mark(place: float, one: AttemptRecord) -> Markup:
    sign = {"died": "✕", "failed": "!", "interrupted": "■"}.get(one.outcome, "✓")
    title = f"attempt {one.attempt} {OUTCOMES[one.outcome]}"
    return element("span", sign, class_=f"mark {one.outcome}", style=f"left:{place * 100:.2f}%", title=title)


def _layers(one: Sample) -> list[float]:
    """Give the seconds of a batch, layer by layer."""
    return [getattr(one, f"{layer}_seconds") / one.batches for layer in LAYERS]


def _unbroken(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Give samples attempt by attempt: between two attempts nothing is drawn."""
    return [list(run) for _, run in groupby(samples, key=lambda one: one.attempt)]


def _steps(frame: _Frame, heights: Iterable[tuple[Sample, float]]) -> str:
    """Give the points of a line that is level for each sample."""
    return " ".join(
        f"{frame.x(one.started_at)},{frame.y(height)} {frame.x(one.ended_at)},{frame.y(height)}"
        for one, height in heights
    )


def _level(frame: _Frame, value: float, kind: str) -> Markup:
    height = frame.y(value)
    return element("line", x1=0, x2=WIDTH, y1=height, y2=height, class_=kind)


def _chart(
    frame: _Frame, name: str, told: str, drawn: Iterable[Markup], *, unit: str = "", times: bool = True
) -> Markup:
    grid = [element("line", x1=0, x2=WIDTH, y1=y, y2=y, class_="grid") for y in (0, HEIGHT // 2, HEIGHT)]
    deaths = [
        element("line", x1=x, x2=x, y1=0, y2=HEIGHT, class_="death")
        for x in (frame.x(frame.story.last_seen(one)) for one in frame.story.run_attempts if one.outcome == "died")
    ]
    picture = element(
        "svg",
        *grid,
        *drawn,
        *deaths,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{name}: {told}",
    )
    ticks = value_ticks(frame.top, unit)
    labels = (element("span", tick.label, style=f"bottom:{tick.place * 100:.0f}%") for tick in ticks)
    return element(
        "figure",
        element("figcaption", element("b", name), element("span", told)),
        element("div", element("div", *labels, class_="values"), picture, class_="plot"),
        _times(frame.axis) if times else Markup(),
    )


def _times(axis: TimeAxis) -> Markup:
    labels = (
        element("span", tick.label, class_=tick.side, style=f"left:{tick.place * 100:.2f}%") for tick in axis.ticks()
    )
    return element("div", *labels, class_="times")


def _key(kind: str, label: str) -> Markup:
    return element("span", element("i", class_=kind), label)
