"""An API that pages in a way of its own: by POST, month by month, in pages that are numbered within each month.

    POST /v1/orders/search   {"month": "2026-01", "page": 1, "per_page": 200}
    200                      {"month": "2026-01", "page": 1, "orders": [...], "more": true}

A month may be empty, and when the API is busy it says 200 all the same, and `{"error": "busy", "wait": 3}`. What has to
be said is what to ask for, and what comes next; sending, trying again, `Retry-After` and limits are the library's.
"""

from typing import Any

import httpx2

from resumable_sync import TransientError
from resumable_sync.connectors.http import RequestConnector

Place = tuple[str, int]


class Orders(RequestConnector[dict[str, Any]]):
    """All orders from one month to another, for example the last that is over, whose pages stay as they are."""

    def __init__(self, url: str, key: str, *, first: str, last: str, per_page: int = 200) -> None:
        self.url, self.first, self.last, self.per_page = url, first, last, per_page
        self.headers = {"Authorization": f"Bearer {key}"}
        # Page 7 is another one if pages are longer: a run does not go on then.
        self.fingerprint = {"url": url, "months": f"{first} to {last}", "paging": f"months, {per_page} per page"}

    def request(self, cursor: Place | None, limit: int) -> httpx2.Request:
        month, page = cursor or (self.first, 1)
        asked = {"month": month, "page": page, "per_page": self.per_page}
        return httpx2.Request("POST", f"{self.url}/v1/orders/search", json=asked)

    def parse(self, response: httpx2.Response) -> tuple[list[dict[str, Any]], Place | None]:
        answer = response.json()
        if "error" in answer:
            raise TransientError(f"the API is {answer['error']}", retry_after=answer.get("wait"))
        month, page = answer["month"], answer["page"]
        return answer["orders"], (month, page + 1) if answer["more"] else self.after(month)

    def after(self, month: str) -> Place | None:
        if month == self.last:
            return None
        year, number = map(int, month.split("-"))
        return (f"{year}-{number + 1:02}", 1) if number < 12 else (f"{year + 1}-01", 1)
