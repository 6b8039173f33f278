"""A sync in parts on Celery workers: one task plans, one task runs for each part, and one ends the whole.

    celery -A celery_tasks worker                      on every host, with SHOP_URL and WAREHOUSE_URL
    celery -A celery_tasks call celery_tasks.sync      now and then

Celery may run a task twice; a part is held by one worker at a time, and one that is done is passed over.
"""

import os

import orders_in_parts
from celery import Celery, chord

app = Celery("celery_tasks", broker=os.environ.get("BROKER_URL"), backend=os.environ.get("RESULT_URL"))


@app.task(name="celery_tasks.sync")
def sync() -> int:
    """Plan, and send a task for each part that is left."""
    left = orders_in_parts.plan()
    if left:
        chord([sync_part.si(index) for index in left])(complete.si())
    else:
        complete.delay()
    return len(left)


# Acknowledged when it is done: the broker gives the part of a worker that died to another one.
@app.task(
    name="celery_tasks.sync_part",
    acks_late=True,
    reject_on_worker_lost=True,
    autoretry_for=(Exception,),
    retry_backoff=True,
    max_retries=10,
)
def sync_part(index: int) -> int:
    """Copy one part."""
    return orders_in_parts.sync_part(index)


@app.task(name="celery_tasks.complete")
def complete() -> dict[str, object]:
    """End the whole, when all parts are done."""
    return orders_in_parts.complete()
