"""pandas: `read_sql` in chunks from a server-side cursor, `to_sql`; and as many row groups into a Parquet file."""

import sys
from contextlib import ExitStack
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from benchmarks._peers._common import load, main
from sqlalchemy import create_engine

QUERY = "SELECT * FROM orders"


def chunks(stack: ExitStack, source: str, chunk: int) -> Any:
    """Read in chunks."""
    connection = stack.enter_context(create_engine(source).connect().execution_options(stream_results=True))
    return pd.read_sql_query(QUERY, connection, chunksize=chunk)


def sql(source: str, target: str, chunk: int) -> None:
    """Append chunk by chunk, in one transaction each."""
    engine = create_engine(target)
    with ExitStack() as stack:
        for frame in chunks(stack, source, chunk):
            frame.to_sql("orders", engine, if_exists="append", index=False)


def postgres(source: str, target: str, chunk: int) -> None:
    """Copy."""
    sql(source.replace("://", "+psycopg://", 1), target.replace("://", "+psycopg://", 1), chunk)


def sqlite(source: str, target: str, chunk: int) -> None:
    """Copy."""
    sql(f"sqlite:///{source}", f"sqlite:///{target}", chunk)


def parquet(source: str, target: str, chunk: int) -> None:
    """Write."""
    writer: Any = None
    with ExitStack() as stack:
        for frame in chunks(stack, source.replace("://", "+psycopg://", 1), chunk):
            table = pa.Table.from_pandas(frame, preserve_index=False)
            if writer is None:
                writer = stack.enter_context(pyarrow.parquet.ParquetWriter(target + "/orders.parquet", table.schema))
            writer.write_table(table)


if __name__ == "__main__":
    if sys.argv[1] != "sqlite":
        load("psycopg")
    main(postgres=postgres, sqlite=sqlite, parquet=parquet)
