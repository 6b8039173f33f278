"""A sync in parts as a DAG of Airflow: one task plans, one mapped task runs for each part, and one ends the whole.

A task that fails or dies is retried by Airflow, and its part goes on at its checkpoint. Clear the DAG run to start
again: only what is unfinished is mapped.
"""

from datetime import timedelta

import orders_in_parts
from airflow.sdk import dag, task


@dag(dag_id="sync_orders", schedule="@daily", catchup=False, max_active_runs=1)
def sync_orders() -> None:
    """Copy the orders."""

    @task(retries=3)
    def plan() -> list[int]:
        return orders_in_parts.plan()

    @task(retries=10, retry_delay=timedelta(seconds=60), max_active_tis_per_dagrun=8)
    def part(index: int) -> int:
        return orders_in_parts.sync_part(index)

    # Also if nothing was left to map.
    @task(trigger_rule="none_failed")
    def complete() -> dict[str, object]:
        return orders_in_parts.complete()

    part.expand(index=plan()) >> complete()


sync_orders()
