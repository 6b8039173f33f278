"""An API that takes 20 ms for every answer: one page after the other, several in flight, and a loop written by hand.

The API is a process of its own. The library's side is a whole sync whose sink does nothing.
"""

import asyncio
import contextlib
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx2
from benchmarks._common import alternate, nothing, slowdown
from benchmarks._report import Report

from resumable_sync import run_full_sync
from resumable_sync.connectors.http import HTTPConnector, OffsetPaging
from resumable_sync.stores.memory import MemoryJobStore

RECORDS = 50_000
PAGE = 500
LATENCY = 0.020
ROUNDS = 5
IN_FLIGHT = (4, 8)
_TARGET = re.compile(rb"GET /orders\?\S*offset=(\d+)")


def page(offset: int) -> bytes:
    """Give a whole answer."""
    numbers = range(offset, min(offset + PAGE, RECORDS))
    items = [
        {"id": one, "customer": f"customer{one}@example.org", "status": "paid", "cents": one * 7, "note": None}
        for one in numbers
    ]
    body = json.dumps({"data": {"items": items}}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def serve() -> None:
    """Serve the API until the process is ended; says its port first."""
    answers = {offset: page(offset) for offset in range(0, RECORDS + PAGE, PAGE)}
    empty = page(RECORDS)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                found = _TARGET.match(await reader.readuntil(b"\r\n\r\n"))
                await asyncio.sleep(LATENCY)
                writer.write(answers.get(int(found[1]), empty) if found else empty)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def api() -> Iterator[str]:
    """Give the URL of the API."""
    command = [sys.executable, "-m", "benchmarks.http", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/orders"
        finally:
            process.terminate()


def by_hand(url: str) -> float:
    """Read with the client library alone; give the seconds."""
    begun = time.perf_counter()
    records = offset = 0
    with httpx2.Client() as client:
        while (
            items := client
            .get(url, params={"offset": offset, "limit": PAGE})
            .raise_for_status()
            .json()["data"]["items"]
        ):
            records += len(items)
            offset += len(items)
    assert records == RECORDS
    return time.perf_counter() - begun


def library(url: str, concurrency: int) -> float:
    """Sync with the library; give the seconds."""
    begun = time.perf_counter()
    connector = HTTPConnector(url, paging=OffsetPaging(page_size=PAGE), records="data.items", concurrency=concurrency)
    result = run_full_sync("bench", connector, nothing, store=MemoryJobStore(), batch_size=PAGE)
    assert result.records == RECORDS
    return time.perf_counter() - begun


def main() -> int:
    """Measure and print."""
    with api() as url:
        sides: list[Any] = [partial(by_hand, url), *(partial(library, url, number) for number in (1, *IN_FLIGHT))]
        hand, serial, *others = alternate(ROUNDS, sides)
    report = Report(
        "http", f"{RECORDS:,} records in pages of {PAGE:,}, {LATENCY * 1000:.0f} ms each", "seconds", "against", "speed"
    )

    def add(name: str, ours: list[float], other: str, theirs: list[float]) -> None:
        ratio = slowdown(ours, theirs)
        cells = f"{statistics.median(ours):.2f}", f"{statistics.median(theirs):.2f} {other}", f"{1 / ratio:.2f} x"
        report.add(name, *cells, figure=ratio, form="{:.2f} x")

    add("one after the other", serial, "by hand", hand)
    for number, times in zip(IN_FLIGHT, others, strict=True):
        add(f"{number} in flight", times, "one by one", serial)
    return report.finish()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    sys.exit(main())
