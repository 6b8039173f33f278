"""Arguments that cannot work are refused before anything happens."""

import inspect
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from doubles import Numbers, Target
from resumable_sync import (
    ConfigurationError,
    MemoryJobStore,
    Page,
    Throttle,
    plan_full_sync,
    run_full_sync,
    transactional,
)
from resumable_sync._attempts.options import Options, SyncOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": -1}, "batch_size=-1"),
        ({"batch_size": True}, "batch_size=True"),
        ({"batch_size": "10"}, "batch_size='10'"),
        ({"batch_size": "automatic"}, "or 'auto'"),
        ({"max_dead_letters": -1}, "max_dead_letters=-1"),
        ({"max_dead_letters": True}, "max_dead_letters=True"),
        ({"throttle": 500}, "throttle=500"),
        ({"throttle": Throttle}, "a Throttle, such as Throttle(500)"),
        ({"lease_ttl": 0}, "lease_ttl=0"),
        ({"prefetch": -1}, "prefetch=-1"),
        ({"if_held": "steal"}, "if_held='steal'"),
        ({"if_completed": None}, "if_completed=None"),
        ({"max_records": 0}, "max_records=0"),
        ({"retry": 3}, "retry=3"),
        ({"observers": print}, "observers="),
        ({"resume_within": float("nan")}, "resume_within=nan"),
        ({"on_refused": "dead_letter"}, "transactional sink"),
    ],
)
def test_bad_options_are_refused_before_anything_happens(
    store: MemoryJobStore, options: dict[str, Any], message: str
) -> None:
    numbers = Numbers(10)
    with pytest.raises(ConfigurationError) as caught:
        run_full_sync("my job", numbers, Target(), store=store, **options)
    assert message in str(caught.value)
    assert "my job" in str(caught.value)
    assert numbers.asked == []
    assert list(store.jobs()) == []


def test_defaults_are_written_alike_in_both_places() -> None:
    parameters = inspect.signature(run_full_sync).parameters
    assert {name: parameters[name].default for name in SyncOptions.__annotations__} == attrs.asdict(
        Options(), recurse=False
    )


def test_an_unknown_option_is_a_type_error(store: MemoryJobStore) -> None:
    with pytest.raises(TypeError, match="batchsize"):
        plan_full_sync("j", Numbers(10), Target(), store=store, batchsize=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("job_id", ["", "x" * 256, "a\0b", "\ud800", 7, None])
def test_bad_job_ids_are_refused(store: MemoryJobStore, job_id: Any) -> None:
    with pytest.raises(ConfigurationError, match="job id"):
        run_full_sync(job_id, Numbers(10), Target(), store=store)


@pytest.mark.parametrize("connector", [Numbers, object(), None])
def test_what_is_no_connector_is_refused(store: MemoryJobStore, connector: Any) -> None:
    with pytest.raises(ConfigurationError, match="connector"):
        run_full_sync("j", connector, Target(), store=store)


@pytest.mark.parametrize("bad_store", [MemoryJobStore, object(), "sqlite://"])
def test_what_is_no_store_is_refused(bad_store: Any) -> None:
    with pytest.raises(ConfigurationError, match="store"):
        run_full_sync("j", Numbers(10), Target(), store=bad_store)


def test_a_transactional_sink_needs_a_transactional_store(store: MemoryJobStore) -> None:
    numbers = Numbers(10)
    with pytest.raises(ConfigurationError, match=r"'j'.*no transactions"):
        plan_full_sync("j", numbers, transactional(lambda _batch, _connection: None), store=store)
    with pytest.raises(ConfigurationError, match=r"'j'.*no transactions"):
        run_full_sync("j", numbers, transactional(lambda _batch, _connection: None), store=store)
    assert numbers.asked == []
    assert list(store.jobs()) == []


def test_an_error_before_the_lease_names_the_job(store: MemoryJobStore) -> None:
    class Gone:
        @property
        def fingerprint(self) -> str:
            raise OSError("no such source")

        def read(self, cursor: Any, batch_size: int) -> Iterator[Page[int]]:
            yield Page([cursor], [batch_size])

        def count(self) -> int | None:
            return None

    for call in (run_full_sync, plan_full_sync):
        with pytest.raises(OSError, match="no such source") as caught:
            call("my job", Gone(), Target(), store=store)
        assert "'my job'" in caught.value.__notes__[0]
