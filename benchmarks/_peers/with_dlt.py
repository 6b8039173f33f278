"""dlt: `sql_table` into a pipeline, with the defaults or with the settings that its documentation calls the fastest."""

import os
import sys
from typing import Any

# They are read at the import; nothing is to be sent anywhere.
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

import dlt
from benchmarks._peers._common import load, main
from dlt.sources.sql_database import sql_table


def run(source: str, destination: Any, *, folder: str, **options: Any) -> None:
    """Run a pipeline.

    Args:
        source: SQLAlchemy's URL.
        destination: Where to.
        folder: Where the pipeline keeps what it knows.
        options: `backend`, `chunk`, `file_format` and `workers`; without them the defaults.
    """
    for step in ("EXTRACT", "NORMALIZE", "LOAD"):
        if "workers" in options:
            os.environ[f"{step}__WORKERS"] = str(options["workers"])
    settings = {"backend": options["backend"], "chunk_size": options["chunk"]} if "backend" in options else {}
    if options.get("backend") == "connectorx":
        plain = source.replace("+psycopg2", "")
        settings["backend_kwargs"] = {"conn": plain, "return_type": "arrow_stream", "batch_size": options["chunk"]}
    pipeline = dlt.pipeline("bench", pipelines_dir=folder, destination=destination, dataset_name="shop")
    table = sql_table(credentials=source, table="orders", **settings)
    pipeline.run(table, write_disposition="replace", loader_file_format=options.get("file_format"))


def postgres(source: str, target: str, **options: Any) -> None:
    """Copy."""
    run(source.replace("://", "+psycopg2://", 1), dlt.destinations.postgres(target), **options)


def sqlite(source: str, target: str, **options: Any) -> None:
    """Copy."""
    run(f"sqlite:///{source}", dlt.destinations.sqlalchemy(f"sqlite:///{target}"), **options)


def parquet(source: str, target: str, **options: Any) -> None:
    """Write."""
    destination = dlt.destinations.filesystem(f"file://{target}")
    run(source.replace("://", "+psycopg2://", 1), destination, file_format="parquet", **options)


LATER = ["dlt._workspace.cli._plugins", "dlt.common.libs.sql_alchemy_compat", "dlt.sources.helpers.requests"]
"""What every copy imports while it runs."""


if __name__ == "__main__":
    target, options = sys.argv[1], sys.argv[4]
    load(
        *LATER,
        *(["psycopg2", "sqlalchemy.dialects.postgresql"] if target != "sqlite" else ["sqlalchemy.dialects.sqlite"]),
    )
    if target == "postgres":
        load("dlt.destinations.impl.postgres.postgres", "adbc_driver_postgresql")
    if target == "sqlite":
        load("sqlite3", "dlt.destinations.impl.sqlalchemy.sqlalchemy_job_client")
    if target == "parquet" or "backend" in options:
        load("dlt.common.libs.pyarrow", "pyarrow.parquet", "pandas")
    if "connectorx" in options:
        load("connectorx")
    if target == "postgres" and "parquet" in options:
        load("adbc_driver_manager.dbapi")
    main(postgres=postgres, sqlite=sqlite, parquet=parquet)
