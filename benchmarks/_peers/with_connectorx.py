"""connectorx reads into Arrow; ADBC ingests that into PostgreSQL, or pyarrow writes it, batch by batch."""

import sys
from contextlib import closing
from typing import Any

import connectorx
import pyarrow.parquet
from benchmarks._peers._common import load, main

QUERY = "SELECT * FROM orders"


def read(source: str, batch: int) -> Any:
    """Read as a stream of record batches."""
    return connectorx.read_sql(source, QUERY, return_type="arrow_stream", batch_size=batch)


def postgres(source: str, target: str, batch: int) -> None:
    """Copy."""
    from adbc_driver_postgresql import dbapi

    with closing(dbapi.connect(target)) as write, write.cursor() as cursor:
        cursor.adbc_ingest("orders", read(source, batch), mode="create")
        write.commit()


def parquet(source: str, target: str, batch: int) -> None:
    """Write."""
    batches = read(source, batch)
    with pyarrow.parquet.ParquetWriter(target + "/orders.parquet", batches.schema) as writer:
        for one in batches:
            writer.write_batch(one)


if __name__ == "__main__":
    if sys.argv[1] == "postgres":
        load("adbc_driver_postgresql.dbapi")
    main(postgres=postgres, parquet=parquet)
