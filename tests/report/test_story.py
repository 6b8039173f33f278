"""What a report tells: the sentence, the next start, the times, and nothing that it must not tell."""

import html
import itertools
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from doubles import Numbers, Picky, Target
from report.jobs import NOW, Past, Shop
from resumable_sync import (
    ConfigurationError,
    Guarantee,
    History,
    Sample,
    SingleWorkerJobStore,
    plan_full_sync,
    reset_job,
    run_full_sync,
    run_partitioned_sync,
)
from resumable_sync.report import job_report, store_report
from resumable_sync.report._axis import TimeAxis, nice_top, value_ticks
from resumable_sync.report._markup import Markup, element, join
from resumable_sync.report._sentences import in_a_sentence, next_start
from resumable_sync.report._story import Story, tell, tell_all
from resumable_sync.report._together import together
from resumable_sync.report._words import compact, counted, duration, one_line, percent, rate
from resumable_sync.stores.sql import SQLJobStore

TWELVE = [Past(seconds=20 + 7 * number, end="died") for number in range(12)] + [Past(seconds=40, end="completed")]


def told(shop: Shop, job_id: str = "j") -> Story:
    return tell(job_id, shop.store, shop.now)


class Page(HTMLParser):
    """Reads a page: its elements, whether they are closed, and its figures."""

    EMPTY = ("meta", "line", "path", "rect", "polyline")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.open: list[str] = []
        self.figures: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, str]] = []
        self._figure: str | None = None
        self.feed(page)
        self.close()
        assert self.open == []

    @override
    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.EMPTY:
            self.open.append(tag)
        self._figure = dict(attrs).get("data-figure")

    @override
    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag
        self._figure = None

    @override
    def handle_data(self, data: str) -> None:
        if self._figure:
            self.figures.setdefault(self._figure, []).append(data)


class TestWords:
    @pytest.mark.parametrize(
        ("seconds", "words"),
        [
            (0, "0 ms"), (0.0004, "< 1 ms"), (0.0123, "12 ms"), (1, "1.0 s"), (9.94, "9.9 s"), (59.4, "59 s"),
            (59.6, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (8040, "2 h 14 min"), (90_000, "1 d 1 h"), (-1, "0 ms"),
        ],
    )  # fmt: skip
    def test_durations(self, seconds: float, words: str) -> None:
        assert duration(seconds) == words

    def test_numbers(self) -> None:
        assert [compact(value) for value in (0, 950, 1_500, 2_000_000, 5e9, 0.25)] == [
            "0",
            "950",
            "1.5k",
            "2M",
            "5G",
            "0.25",
        ]
        assert [rate(10, 0), rate(30, 2), rate(1, 3), rate(0, 3), rate(5_000_000, 2)] == [
            "\N{EN DASH}", "15/s", "0.33/s", "0/s", "2,500,000/s",
        ]  # fmt: skip
        assert [percent(*one) for one in ((0, 5), (1, 500), (4_999, 5_000), (5, 5), (1, 0))] == [
            "0 %", "< 1 %", "99 %", "100 %", "\N{EN DASH}",
        ]  # fmt: skip
        assert (counted(1, "batch", "batches"), counted(2, "batch", "batches")) == ("1 batch", "2 batches")
        assert one_line("a\n b", 3) == "a b"
        assert one_line("abcdef", 4) == "abc…"


class TestAxes:
    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**5)), min_size=1, max_size=20))
    def test_later_is_never_further_left(self, spans: list[tuple[int, int]]) -> None:
        times = [(NOW + timedelta(seconds=start), NOW + timedelta(seconds=start + length)) for start, length in spans]
        axis = TimeAxis(times)
        places = [axis.at(time) for time in sorted(time for span in times for time in span)]
        assert places == sorted(places)
        assert 0 <= places[0] <= places[-1] <= 1
        ticks = axis.ticks()
        assert 1 <= len(ticks) <= 9
        assert all(0 <= tick.place <= 1 for tick in ticks)
        assert all(tick.span[1] < later.span[0] for tick, later in itertools.pairwise(ticks))

    def test_a_night_between_two_attempts_takes_little_room(self) -> None:
        def at(hours: float) -> datetime:
            return datetime(2026, 11, 28, tzinfo=UTC) + timedelta(hours=hours)

        axis = TimeAxis([(at(0), at(1)), (at(12), at(13))])
        assert axis.shortened
        assert axis.at(at(0)) == 0
        assert axis.at(at(1)) == pytest.approx(1 / 2.1)
        assert axis.at(at(12)) == pytest.approx(1.1 / 2.1)
        assert (axis.at(at(-5)), axis.at(at(20))) == (0, 1)
        assert [tick.label for tick in axis.ticks()] == ["00:00", "00:30", "01:00", "12:30", "13:00"]

    @settings(deadline=None, max_examples=50)
    @given(st.floats(1e-6, 1e12))
    def test_the_top_is_round_and_near(self, greatest: float) -> None:
        top = nice_top(greatest)
        assert greatest * 0.9999 <= top <= greatest * 1.6
        assert float(f"{top:.2g}") == pytest.approx(top)
        assert nice_top(0) == 1

    def test_values_have_their_unit(self) -> None:
        assert [tick.label for tick in value_ticks(3_000, " ms")] == ["0", "1.5k ms", "3k ms"]


class TestMarkup:
    @settings(deadline=None, max_examples=50)
    @given(st.text(), st.text())
    def test_whatever_is_no_markup_is_text(self, text: str, value: str) -> None:
        page = element("p", text, title=value)
        assert Page(page).elements == ["p"]
        inside = page[page.index(">") + 1 : -len("</p>")]
        assert "".join(one if one.isprintable() else "\ufffd" for one in text) == html.unescape(inside)

    def test_markup_stays_what_it_is(self) -> None:
        assert join([element("b", "<"), " & "]) == "<b>&lt;</b> &amp; "
        assert element("line", x1=0, class_="grid", aria_label=None) == '<line x1="0" class="grid"/>'
        assert isinstance(element("b"), Markup)


HOLDS = "; each record reaches the target exactly once."
SO_FAR = "20,000 of 100,000 records (20 %)"
SENTENCES: dict[str, tuple[list[Past], str, str]] = {
    "completed": (
        [Past(seconds=60, end="completed")],
        "Run 1 is completed: 60,000 records delivered in 1 min",
        "Begins run 2 at the beginning",
    ),
    "incomplete": (
        [Past(seconds=60, end="incomplete")],
        "Run 1 has read its source to the end: 60,000 records delivered in 1 min, 7 dead letters left",
        "Begins run 2 at the beginning",
    ),
    "interrupted": (
        [Past(seconds=10, end="died"), Past(seconds=20, end="interrupted")],
        "Run 1 was stopped: 30,000 of 100,000 records (30 %) delivered in 1 min and 2 attempts, 1 of which died",
        "Goes on with run 1 after record 30,000; 70,000 records to go",
    ),
    "failed": (
        [Past(seconds=10, end="failed")],
        "Run 1 failed: 10,000 of 100,000 records (10 %) delivered in 10 s",
        "Goes on with run 1 after record 10,000; 90,000 records to go",
    ),
    "running": (
        [Past(seconds=10, end="running")],
        "Run 1 is at work: 10,000 of 100,000 records (10 %) delivered in 10 s",
        "Is refused while process 4001 on host1 works on it",
    ),
    "died": (
        [Past(seconds=10, end="died", away=200), Past(seconds=10, end="died", away=200)],
        f"The process that worked on run 1 died: {SO_FAR} delivered in 3 min 40 s and 2 attempts, all of which died",
        "Goes on with run 1 after record 20,000; 80,000 records to go",
    ),
}


class TestStories:
    @pytest.mark.parametrize("standing", SENTENCES)
    def test_where_it_stands_and_what_comes_next(self, standing: str) -> None:
        shop = Shop()
        pasts, sentence, coming = SENTENCES[standing]
        letters = 7 if standing == "incomplete" else 0
        total = None if standing in {"completed", "incomplete"} else 100_000
        shop.live("j", pasts, total=total, dead_letters=letters)
        story = told(shop)
        assert story.standing == standing
        assert in_a_sentence(story) == sentence + HOLDS
        assert next_start(story)[0] == coming

    def test_what_it_says_of_the_next_start_is_what_a_plan_says(self) -> None:
        shop = Shop()
        for end in ("completed", "incomplete", "interrupted", "failed"):
            shop.live(end, [Past(seconds=5, end=end)], dead_letters=int(end == "incomplete"))
            plan = plan_full_sync(end, Numbers(10_000), Target(), store=shop.store)
            decision = told(shop, end).decision
            assert (decision.action, decision.reason) == (plan.action, plan.reason)
            assert decision.processed_records == plan.processed_records

    def test_a_job_that_keeps_dying_at_one_place_is_refused(self) -> None:
        shop = Shop()
        job = shop.live("j", [Past(seconds=5, end="failed")])
        lease = shop.store.acquire("j", owner="o", ttl=1.0)
        shop.store.save(attrs.evolve(job, stalled_attempts=5), lease)
        shop.store.release(lease)
        what, why = next_start(told(shop))
        assert what == "Is refused"
        assert "5" in why

    def test_a_job_that_was_reset_has_all_before_it(self) -> None:
        shop = Shop()
        shop.live("j", [Past(seconds=5, end="completed")], run=3)
        reset_job("j", store=shop.store)
        story = told(shop)
        assert in_a_sentence(story) == "Nothing was delivered yet, run 4 comes next."
        assert next_start(story)[0] == "Begins run 4 at the beginning"
        assert story.run_attempts == []
        assert len(story.earlier_runs) == 1

    def test_times_add_up(self) -> None:
        shop = Shop()
        shop.live("j", TWELVE, total=1_000_000)
        story = told(shop)
        assert story.deaths == 12
        working = sum(past.seconds for past in TWELVE)
        assert story.working_seconds == pytest.approx(working)
        shares = {one.name: one.seconds for one in story.shares}
        assert shares == pytest.approx({
            "read": working / 4,
            "write": working / 2,
            "commit": working / 8,
            "wait": working / 8,
            "away": 12 * 30.0,
        })

    def test_an_earlier_run_is_a_line(self) -> None:
        shop = Shop()
        shop.live("j", [Past(seconds=5, end="died"), Past(seconds=5, end="completed")], run=1)
        shop.live("j", [Past(seconds=7, end="completed")], run=2)
        story = told(shop)
        assert [[one.attempt for one in run] for run in story.earlier_runs] == [[1, 2]]
        assert len(story.run_attempts) == 1
        assert "Earlier runs" in job_report("j", store=shop.store)

    def test_nobody_knows_how_long_one_lasted_that_was_never_heard_of(self) -> None:
        shop = Shop()
        shop.live("j", [Past(seconds=0, end="died"), Past(seconds=5, end="completed")])
        page = job_report("j", store=shop.store)
        assert ">\N{EN DASH}<" in page
        assert ">0 ms<" not in page

    def test_what_needs_a_hand_comes_first(self) -> None:
        shop = Shop()
        for end in ("completed", "failed", "interrupted", "running"):
            shop.live(end, [Past(seconds=1, end=end)])
        assert [story.job.id for story in tell_all(shop.store, shop.now)] == [
            "failed", "interrupted", "running", "completed",
        ]  # fmt: skip


class TestParts:
    @settings(deadline=None, max_examples=50)
    @given(
        st.lists(st.tuples(st.integers(0, 500), st.floats(0.001, 400), st.integers(0, 1_000)), min_size=1, max_size=20)
    )
    def test_together_they_did_what_each_of_them_did(self, stretches: list[tuple[int, float, int]]) -> None:
        histories = [
            History(
                run_id="x",
                guarantee=Guarantee.EXACTLY_ONCE,
                samples=(
                    Sample(
                        attempt=1, started_at=NOW + timedelta(seconds=start), seconds=seconds, records=records,
                        batches=1, read_seconds=seconds / 2, write_seconds=seconds / 4,
                        commit_seconds=0.0, processed_records=records,
                    ),
                ),
            )
            for start, seconds, records in stretches
        ]  # fmt: skip
        whole = together("y", [], histories)
        assert whole is not None
        assert whole.run_id == "y"
        assert sum(one.records for one in whole.samples) == sum(records for *_, records in stretches)
        assert sum(one.batches for one in whole.samples) == len(stretches)
        seconds = sum(seconds for _, seconds, _ in stretches)
        assert sum(one.read_seconds for one in whole.samples) == pytest.approx(seconds / 2)
        records = [one.processed_records for one in whole.samples]
        assert records == sorted(records)

    def test_without_samples_there_is_no_history(self) -> None:
        assert together(None, [], []) is None


class TestPages:
    @pytest.fixture(params=["<script>alert(1)</script>", "a\"b'c&d", "\u202eevil\x07", "ü 漢字"])
    def job_id(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name

    def test_everything_is_escaped(self, job_id: str) -> None:
        shop = Shop()
        shop.live(job_id, [Past(seconds=3, end="failed")], error=f"ValueError: {job_id} & <img src=x onerror=y>")
        for page in (job_report(job_id, store=shop.store), store_report(store=shop.store)):
            read = Page(page)
            assert not {"script", "img", "link", "iframe", "object"} & set(read.elements)
            assert not [name for name, _ in read.attributes if name.startswith("on") or name in {"src", "href"}]
            assert not re.search(r"https?:|url\(|@import", page)

    def test_figures_are_those_of_the_store(self) -> None:
        shop = Shop()
        job = shop.live("j", TWELVE, total=1_000_000)
        figures = Page(job_report("j", store=shop.store)).figures
        assert figures["processed_records"] == [f"{job.processed_records:,}"]
        assert figures["processed_batches"] == [f"{job.processed_batches:,}"]
        assert figures["attempts"] == ["13"]
        assert figures["standing"] == ["completed"]
        assert figures["guarantee"] == ["exactly once"]

    def test_no_record_is_on_the_page(self, sqlite_url: str) -> None:
        with SQLJobStore(sqlite_url) as store:
            run_full_sync("j", Numbers(500), Secretive(13), store=store, on_refused="dead_letter", batch_size=50)
            page = job_report("j", store=store)
            assert store.load("j") is not None
        figures = Page(page).figures
        assert (figures["dead_letters"], figures["errors"]) == (["1"], ["1"])
        assert "ValueError" in page
        assert "hunter2" not in page
        assert "[500]" not in page

    @pytest.mark.parametrize("attempts", [0, 1, 100])
    def test_a_page_is_small_whatever_happened(self, attempts: int) -> None:
        shop = Shop()
        pasts = [Past(seconds=12, end="died", rate=100_000)] * attempts
        shop.live("j", [*pasts, Past(seconds=700, end="completed", rate=5_000)], total=130_000_000)
        page = job_report("j", store=shop.store)
        Page(page)
        assert len(page.encode()) < 200_000

    def test_a_store_that_keeps_nothing_but_jobs_has_its_report_too(self) -> None:
        class Table(SingleWorkerJobStore):
            def __init__(self) -> None:
                self.kept: dict[str, Any] = {}

            @override
            def load(self, job_id: str) -> Any:
                return self.kept.get(job_id)

            @override
            def save(self, job: Any, lease: Any) -> Any:
                self.kept[job.id] = attrs.evolve(job, lease=None)
                return lease

            @override
            def jobs(self) -> Iterator[Any]:
                return iter(self.kept.values())

        store = Table()
        run_full_sync("j", Numbers(50), Target(), store=store)
        page = job_report("j", store=store)
        assert "The store keeps no attempts of this run." in page
        assert "Nobody noted how fast it went." in page
        assert Page(page).figures["processed_records"] == ["50"]
        assert "Run 1 is completed: 50 records delivered." in page

    def test_parts_are_shown_with_their_whole(self) -> None:
        from concurrent.futures import ThreadPoolExecutor

        shop = Shop()
        with ThreadPoolExecutor(2) as pool:
            run_partitioned_sync("j", Numbers(100), lambda _: None, store=shop.store, parts=4, executor=pool)
        story = told(shop)
        assert story.history is not None
        assert sum(one.records for one in story.samples) == story.samples[-1].processed_records == 100
        assert sum(one.batches for one in story.samples) == 4
        assert story.worker_seconds == pytest.approx(sum(one.seconds for one in story.shares))
        page = job_report("j", store=shop.store)
        assert "Records a second" in page
        assert "4 of 4 parts completed." in page
        assert "j/0003" in page
        assert [story.job.id for story in tell_all(shop.store, NOW)] == ["j"]

    def test_an_empty_store_has_an_empty_page(self) -> None:
        assert "This store has no jobs yet" in store_report(store=Shop().store)

    def test_of_many_jobs_the_first_are_told(self) -> None:
        shop = Shop()
        for number in range(45):
            shop.live(f"job {number:02}", [Past(seconds=1, end="completed")], guarantee=Guarantee.AT_LEAST_ONCE)
        page = store_report(store=shop.store)
        assert page.count("<details class=") == 40
        assert "The other 5 jobs; resumable-sync report JOB" in page
        assert "job 44" in page

    def test_without_a_job_there_is_no_report(self) -> None:
        with pytest.raises(ConfigurationError, match="there is no job 'j' in the store"):
            job_report("j", store=Shop().store)

    def test_without_a_store_it_is_that_of_a_sync(self, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RESUMABLE_SYNC_STORE", sqlite_url)
        run_full_sync("j", Numbers(5), Target())
        assert "5 records delivered" in job_report("j")
        assert "5 records delivered" in store_report()


class Secretive(Picky):
    """Refuses records with an error that tells of them."""

    @override
    def write(self, batch: Any, connection: Any) -> None:
        if self.refused & set(batch.records):
            msg = "the record with password hunter2 is no good"
            raise ValueError(msg)
