"""An admin page that starts, watches and stops syncs: a blueprint for a Flask application that you have.

    app.register_blueprint(admin(store, {"orders": sync_orders}), url_prefix="/admin")

    curl -X POST localhost:5000/admin/syncs/orders          starts it
    curl localhost:5000/admin/syncs/orders                  shows how far it is, and who worked on it
    curl -X POST localhost:5000/admin/syncs/orders/stop     stops it after the batch in hand

Nothing is kept in the web process: any of them may be asked, and if the one that syncs is killed, the next start goes
on. See to it that only administrators reach the blueprint.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, abort

from resumable_sync import Job, SyncResult
from resumable_sync.stores.sql import SQLJobStore

Sync = Callable[[SQLJobStore], SyncResult]
"""Runs one sync, with `if_held="skip"`: two clicks start it once."""


def admin(store: SQLJobStore, syncs: Mapping[str, Sync]) -> Blueprint:
    blueprint = Blueprint("syncs", __name__)

    def known(job_id: str) -> Sync:
        return syncs.get(job_id) or abort(404)

    @blueprint.post("/syncs/<job_id>")
    def start(job_id: str) -> Any:
        sync, job = known(job_id), store.load(job_id)
        if job is not None and job.lease is not None:
            return shown(job), 409
        # The thread is not a daemon: a server that shuts down waits for the batch in hand.
        threading.Thread(target=run, args=(job_id, sync), name=f"sync {job_id}").start()
        return {"id": job_id, "status": "started"}, 202

    @blueprint.get("/syncs/<job_id>")
    def watch(job_id: str) -> Any:
        known(job_id)
        job = store.load(job_id)
        if job is None:
            return {"id": job_id, "status": "never run", "attempts": []}
        attempts = [
            {"host": one.host, "outcome": one.outcome, "from": one.from_records, "to": one.to_records}
            for one in store.attempts(job_id)
        ]
        return {**shown(job), "attempts": attempts}

    @blueprint.post("/syncs/<job_id>/stop")
    def stop(job_id: str) -> Any:
        known(job_id)
        store.request_stop(job_id)
        return {"id": job_id, "status": "stopping"}, 202

    def run(job_id: str, sync: Sync) -> None:
        try:
            sync(store)
        except Exception:
            # The job says so too: it is `failed`, with the error.
            logging.getLogger(__name__).exception("sync %s failed", job_id)

    return blueprint


def shown(job: Job) -> dict[str, Any]:
    # A job that says it runs and has no lease was killed.
    dead = job.status == "running" and job.lease is None
    return {
        "id": job.id,
        "status": "dead" if dead else job.status,
        "processed": job.processed_records,
        "total": job.total_records,
        "dead_letters": job.dead_letters,
        "error": job.error,
    }
