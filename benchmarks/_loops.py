"""Loops written by hand, the tables that they copy, and what a database can do at best.

They know nothing of the library, so that a process which runs one imports nothing of it.
"""

import contextlib
import queue
import sqlite3
import threading
from pathlib import Path

__all__ = [
    "CHECKPOINT",
    "COLUMNS",
    "MOVE_SQLITE",
    "SOURCE",
    "VALUES",
    "postgres_by_hand",
    "postgres_stream",
    "postgres_text_by_hand",
    "sqlite_attached",
    "sqlite_by_hand",
    "sqlite_windows_by_hand",
]

COLUMNS = (
    "(id BIGINT, customer VARCHAR(60) NOT NULL, status VARCHAR(10) NOT NULL, cents BIGINT NOT NULL,"
    " ordered_at TIMESTAMP NOT NULL, note VARCHAR(60), quantity INTEGER, weight DOUBLE PRECISION, region VARCHAR(20),"
    " reference CHAR(36))"
)
SOURCE = COLUMNS.replace("id BIGINT", "id BIGINT PRIMARY KEY").replace("BIGINT P", "INTEGER P")
VALUES = (
    "i * 3, 'customer' || i % 20000 || '@example.org', 'paid', i, CAST('2026-01-31 12:00:00' AS {time}),"
    " 'leave it at the door, please', i % 7, i / 8.0, 'north west', '12345678-1234-5678-1234-567812345678'"
)
CHECKPOINT = "CREATE TABLE checkpoint (id VARCHAR(60) PRIMARY KEY, token BIGINT, place BIGINT, records BIGINT)"

_MOVE = "UPDATE checkpoint SET place = %s, records = records + %s WHERE id = 'orders' AND token = 1"
MOVE_SQLITE = _MOVE.replace("%s", "?")

_AS_OURS = "PRAGMA wal_autocheckpoint=2000"
"""As the library has it: by default SQLite brings every second or third batch of 10,000 rows over from its log."""

_LAST = 2**63 - 1
"""The greatest key that there can be."""


def sqlite_by_hand(source: Path, target: Path, size: int) -> None:
    """Copy with sqlite3 alone."""
    with contextlib.closing(sqlite3.connect(source)) as read, contextlib.closing(sqlite3.connect(target)) as write:
        write.execute("PRAGMA synchronous=FULL")
        write.execute(_AS_OURS)
        place = -1
        while rows := read.execute("SELECT * FROM orders WHERE id > ? ORDER BY id LIMIT ?", (place, size)).fetchall():
            place = rows[-1][0]
            write.executemany(f"INSERT INTO orders VALUES (?{', ?' * 9})", rows)
            moved = write.execute(MOVE_SQLITE, (place, len(rows)))
            assert moved.rowcount == 1
            write.commit()


def sqlite_attached(source: Path, target: Path) -> None:
    """Copy in one transaction with one INSERT from the source's file, attached, and no checkpoint."""
    with contextlib.closing(sqlite3.connect(target, uri=True)) as write:
        write.execute("PRAGMA synchronous=FULL")
        write.execute(_AS_OURS)
        write.execute("ATTACH ? AS source", (f"{source.as_uri()}?mode=ro",))
        write.execute("INSERT INTO main.orders SELECT * FROM source.orders")
        write.commit()


def sqlite_windows_by_hand(source: Path, target: Path, size: int) -> None:
    """Copy from the source's file, attached, window by window of its key, each in a transaction with a checkpoint."""
    with contextlib.closing(sqlite3.connect(target, uri=True, isolation_level=None)) as write:
        write.execute("PRAGMA synchronous=FULL")
        write.execute(_AS_OURS)
        write.execute("ATTACH ? AS source", (f"{source.as_uri()}?mode=ro",))
        find = "SELECT id FROM source.orders WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?"
        window = "SELECT * FROM source.orders WHERE id > ? AND id <= ? ORDER BY id"
        place = -1
        while place < _LAST:
            found = write.execute(find, (place, size - 1)).fetchone()
            end = found[0] if found else _LAST
            write.execute("BEGIN IMMEDIATE")
            inserted = write.execute(f"INSERT INTO main.orders {window}", (place, end))
            moved = write.execute(MOVE_SQLITE, (end, inserted.rowcount))
            assert moved.rowcount == 1
            write.execute("COMMIT")
            place = end


def postgres_by_hand(source: str, target: str, size: int) -> None:
    """Copy with psycopg alone."""
    import psycopg

    with psycopg.connect(source, autocommit=True) as read, psycopg.connect(target) as write:
        place = -1
        query = "SELECT * FROM orders WHERE id > %s ORDER BY id LIMIT %s"
        while rows := read.execute(query, (place, size)).fetchall():
            place = rows[-1][0]
            with write.cursor() as cursor:
                with cursor.copy("COPY orders FROM STDIN") as copy:
                    for row in rows:
                        copy.write_row(row)
                cursor.execute(_MOVE, (place, len(rows)))
                assert cursor.rowcount == 1
            write.commit()


def postgres_text_by_hand(source: str, target: str, size: int) -> None:
    """Copy with psycopg alone as fast as it goes with a checkpoint: the text of COPY, page by page, read ahead."""
    import psycopg

    ready: queue.Queue[list[bytes]] = queue.Queue(1)

    def read() -> None:
        place, rows = -1, [b""]
        with psycopg.connect(source, autocommit=True) as connection:
            while rows:
                query = f"SELECT * FROM orders WHERE id > {place} ORDER BY id LIMIT {size}"
                with connection.cursor().copy(f"COPY ({query}) TO STDOUT") as copy:
                    rows = [bytes(row) for row in copy]
                ready.put(rows)
                place = int(rows[-1].partition(b"\t")[0]) if rows else place

    reader = threading.Thread(target=read)
    reader.start()
    with psycopg.connect(target) as write:
        while rows := ready.get():
            with write.cursor() as cursor:
                with cursor.copy("COPY orders FROM STDIN") as copy:
                    copy.write(b"".join(rows))
                cursor.execute(_MOVE, (int(rows[-1].partition(b"\t")[0]), len(rows)))
                assert cursor.rowcount == 1
            write.commit()
    reader.join()


def postgres_stream(source: str, target: str) -> None:
    """Copy in one transaction with one COPY on each side, and no checkpoint."""
    import psycopg

    with psycopg.connect(source) as read, psycopg.connect(target) as write:
        with read.cursor().copy("COPY orders TO STDOUT") as rows, write.cursor().copy("COPY orders FROM STDIN") as copy:
            for data in rows:
                copy.write(data)
        write.commit()
