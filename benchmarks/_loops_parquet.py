"""What people write to get PostgreSQL into Parquet files: a server-side cursor, and arrays of its rows.

As `_loops`, it knows nothing of the library.
"""

import contextlib
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

__all__ = ["SCHEMA", "TABLE", "VALUES", "parquet_by_hand"]

TABLE = """CREATE TABLE orders (id BIGINT PRIMARY KEY, customer VARCHAR(60) NOT NULL, status VARCHAR(10) NOT NULL,
    total NUMERIC(12, 2) NOT NULL, ordered_at TIMESTAMP WITH TIME ZONE NOT NULL, note VARCHAR(60), quantity INTEGER,
    weight DOUBLE PRECISION, region VARCHAR(20), reference CHAR(36))"""
VALUES = """i * 3, 'customer' || i % 20000 || '@example.org', 'paid', i / 100.0,
    TIMESTAMP WITH TIME ZONE '2026-01-31 12:00:00Z' + i * INTERVAL '1 second', 'leave it at the door, please', i % 7,
    i / 8.0, 'north west', '12345678-1234-5678-1234-567812345678'"""
SCHEMA = pa.schema([
    ("id", pa.int64()),
    ("customer", pa.string()),
    ("status", pa.string()),
    ("total", pa.decimal128(12, 2)),
    ("ordered_at", pa.timestamp("us", tz="UTC")),
    ("note", pa.string()),
    ("quantity", pa.int64()),
    ("weight", pa.float64()),
    ("region", pa.string()),
    ("reference", pa.string()),
])


def parquet_by_hand(source: str, target: Path, size: int, *, a_file_each: bool) -> None:
    """Copy with psycopg and pyarrow alone."""
    import psycopg

    target.mkdir()
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(psycopg.connect(source))
        cursor = stack.enter_context(connection.cursor("orders"))
        cursor.itersize = size
        cursor.execute("SELECT * FROM orders ORDER BY id")
        whole = None if a_file_each else stack.enter_context(parquet.ParquetWriter(target / "0.parquet", SCHEMA))
        number = 0
        while rows := cursor.fetchmany(size):
            columns = zip(*rows, strict=True)
            arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
            table = pa.table(arrays, schema=SCHEMA)
            if whole is None:
                parquet.write_table(table, target / f"{number}.parquet")
                number += 1
            else:
                whole.write_table(table)
