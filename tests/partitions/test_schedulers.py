"""The examples for Celery and Airflow, as far as they run without their servers."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from partitions.sources import engine_of

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
ROWS = 100


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch, new_database: Callable[[str], str]) -> Any:
    """The module with the three functions, on databases of its own."""
    shop, warehouse = new_database("sqlite"), new_database("sqlite")
    with engine_of(shop) as engine, engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE orders (id integer PRIMARY KEY NOT NULL, cents integer NOT NULL)")
        connection.exec_driver_sql("INSERT INTO orders VALUES (?, ?)", [(number, number) for number in range(ROWS)])
    monkeypatch.setenv("SHOP_URL", shop)
    monkeypatch.setenv("WAREHOUSE_URL", warehouse)
    monkeypatch.syspath_prepend(EXAMPLES)
    module = fresh("orders_in_parts", monkeypatch)
    monkeypatch.setattr(module, "PARTS", 4)
    return module


def fresh(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def target(module: Any) -> list[int]:
    with engine_of(module.os.environ["WAREHOUSE_URL"]) as engine, engine.connect() as connection:
        return [row[0] for row in connection.exec_driver_sql("SELECT id FROM orders ORDER BY id")]


def test_parts_are_planned_run_and_completed_by_anybody(orders: Any) -> None:
    assert orders.plan() == [0, 1, 2, 3]
    assert [orders.sync_part(index) for index in (2, 0, 2, 3)] == [25, 25, 0, 25]
    with pytest.raises(RuntimeError, match="orders/0001"):
        orders.complete()
    assert orders.plan() == [1]
    assert orders.sync_part(1) == 25
    assert orders.complete() == {"status": "completed", "records": ROWS}
    assert target(orders) == list(range(ROWS))


def test_kubernetes(orders: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    orders.main("plan")
    completions = int(capsys.readouterr().out)
    for index in range(completions):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
        orders.main("part")
    orders.main("complete")
    assert target(orders) == list(range(ROWS))
    with pytest.raises(SystemExit, match="plan, part, complete"):
        orders.main("")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_celery(orders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = fresh("celery_tasks", monkeypatch)
    tasks.app.conf.task_always_eager = True
    tasks.app.conf.task_eager_propagates = True
    for _ in range(2):
        assert tasks.sync.delay().get() == 4
        assert target(orders) == list(range(ROWS))


class Task:
    """What `@task` makes of a function, as far as a DAG without Airflow needs it: it runs when it is called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, **arguments: Any) -> Any:
        return self.function(**arguments)

    def expand(self, **lists: Any) -> "Ran":
        ((name, values),) = lists.items()
        return Ran([self.function(**{name: value}) for value in values])


class Ran(list[Any]):
    def __rshift__(self, other: Any) -> Any:
        return other


def test_airflow(orders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def task(function: Any = None, **options: Any) -> Any:
        return Task(function) if function else task

    def dag(**options: Any) -> Any:
        ran.append(options["dag_id"])
        return lambda function: function

    sdk: Any = ModuleType("airflow.sdk")
    sdk.dag, sdk.task = dag, task
    monkeypatch.setitem(sys.modules, "airflow", ModuleType("airflow"))
    monkeypatch.setitem(sys.modules, "airflow.sdk", sdk)
    fresh("airflow_dag", monkeypatch)
    assert ran == ["sync_orders"]
    assert target(orders) == list(range(ROWS))
