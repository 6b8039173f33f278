"""JSON APIs over HTTP (extra `http`).

HTTPConnector(
    "https://api.example.com/v1/orders",
    paging=OffsetPaging(page_size=500),
    records="data.items",
    headers={"Authorization": "Bearer ..."},
    concurrency=4,
)
"""

import copy
import hashlib
import ssl
from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import attrs
from typing_extensions import override

from resumable_sync._bases import TokenConnector
from resumable_sync._errors import ConfigurationError
from resumable_sync._hidden import hidden_values
from resumable_sync._model import Cursor, Page, RecordT
from resumable_sync._protocols import Connector
from resumable_sync.connectors._http_address import as_pairs, is_credential, parse_url, query_of
from resumable_sync.connectors._http_answer import Answers, Empty
from resumable_sync.connectors._http_body import look_up
from resumable_sync.connectors._http_chained import LinkPaging, TokenPaging
from resumable_sync.connectors._http_counted import OffsetPaging, PagePaging
from resumable_sync.connectors._http_data import checked_empty, checked_paging, checked_path, paging_from
from resumable_sync.connectors._http_errors import HTTPResponseError, PlaceGoneError, check_status
from resumable_sync.connectors._http_keyset import KeysetPaging
from resumable_sync.connectors._http_link import Limits, Link, as_auth, as_headers, default_ssl_context, new_request
from resumable_sync.connectors._http_own import Own, not_shown, secrets_of
from resumable_sync.connectors._http_paging import Answer, Paging
from resumable_sync.connectors._http_reading import Reading, gone_error

if TYPE_CHECKING:
    import httpx2

__all__ = [
    "HTTPConnector",
    "HTTPResponseError",
    "KeysetPaging",
    "LinkPaging",
    "OffsetPaging",
    "PagePaging",
    "RequestConnector",
    "TokenPaging",
    "from_data",
]

_COUNTED_AT_ONCE = 1_000
_GONE = (410,)
_REFUSED = (400, 404, 410, 422)
"""Statuses with which APIs refuse a token that they no longer know."""


class HTTPConnector(Connector[Any]):
    """Reads a JSON API page by page.

        GET /v1/orders?status=open&offset=500&limit=500

    Each request carries `params`, `headers` and `auth`, and what `paging` says. A record is whatever stands in the list
    at `records`, most often a dict.

    What goes wrong: 429, 408 and every 5xx, broken connections, answers that do not come in time, and bodies that
    are cut off or no JSON are tried again at the same place, as `Retry` says. `Retry-After` (seconds or a date) is
    waited out, with the lease renewed meanwhile and a stop ending the wait: whole, up to a day, unless
    `Retry(timeout=...)` is given and shorter. A token that the API no longer knows is a `CursorError`. Any other status
    is an `HTTPResponseError`. A stop while an answer is awaited takes effect when the answer is there or given up.

    Credentials may be in `auth`, `headers`, `params` and as user and password in the URL. They appear in no cursor,
    fingerprint, error, log or `repr`, and go to no other host: neither after a redirect nor by a link. One in the path
    of the URL is shown, unless it came from `${NAME}` in a configuration or is given in one of those places too.

    With `concurrency`, for `OffsetPaging` and `PagePaging`, so many requests are on their way at once; pages come in
    order, and at most so many are held.

    Cursors: see the paging.

    Args:
        url: The URL of the list, http or https; a query in it counts as `params`.
        paging: One of `OffsetPaging, PagePaging, TokenPaging, LinkPaging, KeysetPaging`.
        records: The dotted path of the list of records in the body: `"data.items"`; empty: the body is the list.
        empty: What stands there if there are no records: `"list"`, an empty list; `"null"`, null too; `"missing"`, also
            nothing at all, behind the first page. Anything else is never taken for the end.
        auth: An auth object of httpx2, or a tuple (user, password). It must pickle if the connector shall, and bear
            several threads if `concurrency` is more than 1.
        headers: Sent with every request.
        params: Query parameters of every request: text, numbers, bools, or lists of them.
        concurrency: Most requests on their way at once, from 1.
        total: The dotted path of the number of all records in the body, for progress; empty: unknown.
        timeout: Most seconds to connect, and of silence; a whole answer may take ten times as long.
        max_response_bytes: Most bytes of a body, decompressed; one that is nested more than 64 deep is refused too.

    Raises:
        ConfigurationError: If an argument, or a combination of them, cannot work.

    Examples:
        >>> paging = KeysetPaging(key={"since_id": "id"})
        >>> HTTPConnector("https://api.example.com/v1/orders", paging=paging, records="data.items")
        HTTPConnector('https://api.example.com/v1/orders', paging=KeysetPaging(key=(('since_id', 'id'),), ...), ...)
    """

    def __init__(
        self,
        url: str,
        *,
        paging: Paging,
        records: str = "",
        empty: Empty = "list",
        auth: "httpx2.Auth | tuple[str, str] | None" = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        concurrency: int = 1,
        total: str = "",
        timeout: float = 30.0,
        max_response_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        address, query, user = parse_url(url)
        if user is not None and auth is not None:
            msg = "the url holds a user, and auth is given too; give the credentials once"
            raise ConfigurationError(msg)
        self._auth = as_auth(user if auth is None else auth)
        self._headers = as_headers(headers)
        self._params = (*query, *as_pairs(params))
        self._limits = Limits(timeout=timeout, max_response_bytes=max_response_bytes)
        self._paging = checked_paging(paging, concurrency)
        self._records = checked_path("records", records)
        self._total = checked_path("total", total)
        self._concurrency = concurrency
        twice = sorted({name for name, _ in self._params} & set(paging.parameters()))
        if twice:
            msg = f"the paging sets {', '.join(map(repr, twice))} itself; leave it out of url and params"
            raise ConfigurationError(msg)
        hidden = hidden_values()
        secrets = secrets_of(self._params, headers or {}, auth if isinstance(auth, tuple) else user, hidden)
        self._address = attrs.evolve(address, hidden=not_shown(secrets, hidden))
        self._own = Own(self._params, secrets)
        self._answers = Answers(address=self._address, records=self._records, empty=checked_empty(empty), own=self._own)

    @property
    @override
    def fingerprint(self) -> Mapping[str, str]:
        """Its parts: the URL without user and query, a digest of the parameters, records and paging.

        Parameters that are credentials by their name (`api_key`, `token`) are left out, so that they can be replaced.
        """
        params = query_of(sorted(pair for pair in self._params if not is_credential(pair[0])))
        hidden = self._address.shown_path != self._address.path
        return {
            "url": self._address.origin + self._address.shown_path,
            **({"path": hashlib.sha256(self._address.path.encode()).hexdigest()} if hidden else {}),
            # One of them may be a credential by a name that does not tell.
            "params": hashlib.sha256(params.encode()).hexdigest(),
            "records": self._records,
            **self._paging.identity(),
        }

    def ssl_context(self) -> ssl.SSLContext:
        """Give whom to trust over https, and a client certificate if one is needed: override it for your own."""
        return default_ssl_context()

    @override
    def read(self, cursor: Cursor | None, batch_size: int) -> Generator[Page[Any]]:
        place = self._paging.start(cursor)
        if place is None:
            return
        with self._connected() as link:
            reading = Reading(self._paging, lambda place: self._fetch(link, place, batch_size), batch_size, link.abort)
            yield from reading.pages(place, self._concurrency)

    @override
    def count(self) -> int | None:
        """Give the number that stands at `total` in the body of the first page.

        Raises:
            HTTPResponseError: If there is none.
        """
        if not self._total:
            return None
        with self._connected() as link:
            answer = self._fetch(link, self._paging.start(None), 1)
        found = None if answer is None else look_up(answer.document, self._total)
        if type(found) is not int:
            msg = (
                f"the answer of {self._address} has no whole number at {self._total!r}; correct total, or leave it out"
            )
            raise HTTPResponseError(msg)
        return found

    def cursor_at(self, offset: int) -> Cursor | None:
        """Give the cursor after the first `offset` records; None for offset 0, or if there are fewer records.

        With `OffsetPaging` one request tells; with any other paging they are read and counted.
        """
        if offset <= 0:
            return None
        cursor: Cursor | None = [offset - 1] if isinstance(self._paging, OffsetPaging) and offset > 1 else None
        left = offset if cursor is None else 1
        while left:
            with closing(self.read(cursor, min(left, _COUNTED_AT_ONCE))) as pages:
                for page in pages:
                    if len(page) > left:
                        break  # and read on from here in smaller pages
                    cursor, left = page.cursor, left - len(page)
                    if not left:
                        break
                else:
                    return None
        return cursor

    def _connected(self) -> Link:
        return Link(self._limits, self._concurrency, self.ssl_context, self._address.hidden)

    def _fetch(self, link: Link, place: Any, batch_size: int) -> Answer | None:
        ask = self._paging.ask(place, batch_size)
        if ask.link is None:
            url = self._address.url(query_of((*self._params, *ask.query)))
        else:
            path, query = self._own.filled_in(ask.link)
            url = self._address.url(query, path)
        response = link.send(new_request(url, self._headers), self._auth)
        first = place == self._paging.start(None)
        if response.status_code in self._paging.past_end and not first:
            return None
        gone = _REFUSED if self._paging.may_be_gone(place) else _GONE
        check_status(response.status_code, response.headers, str(self._address), gone)
        return self._answers.read(url, self._headers, response, first=first)

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._address)!r}, paging={self._paging!r}, records={self._records!r})"


class RequestConnector(TokenConnector[RecordT]):
    """Reads an API in a way of its own: override `request` and `parse`.

    Requests are sent, tried again and limited as those of `HTTPConnector` are. What `parse` names as the next cursor
    becomes part of the stored one: no credential belongs there.

    The cursor is that of `TokenConnector`, with the cursor of the API as its token: `["token", "abc"]`.

    Attributes:
        auth: An auth object of httpx2, or a tuple (user, password).
        headers: Sent with every request, unless it has its own of that name.
        timeout: Most seconds to connect, and of silence; a whole answer may take ten times as long.
        max_response_bytes: Most bytes of a body, decompressed.
        gone: Statuses with which the API refuses a cursor that it no longer knows.

    Examples:
        >>> import httpx2
        >>> class Orders(RequestConnector[dict[str, Any]]):
        ...     auth = ("etl", "secret")
        ...
        ...     def request(self, cursor, limit):
        ...         query = {"query": "...", "variables": {"first": limit, "after": cursor}}
        ...         return httpx2.Request("POST", "https://api.example.com/graphql", json=query)
        ...
        ...     def parse(self, response):
        ...         orders = response.json()["data"]["orders"]
        ...         page = orders["pageInfo"]
        ...         return orders["nodes"], page["endCursor"] if page["hasNextPage"] else None
        >>> body = {"data": {"orders": {"nodes": [{"id": 1}], "pageInfo": {"endCursor": "c1", "hasNextPage": True}}}}
        >>> Orders().parse(httpx2.Response(200, json=body))
        ([{'id': 1}], 'c1')
    """

    auth: "httpx2.Auth | tuple[str, str] | None" = None
    headers: Mapping[str, str] = {}
    timeout: float = 30.0
    max_response_bytes: int = 64 * 1024 * 1024
    gone: Sequence[int] = _GONE

    _link: Link | None = None

    @abstractmethod
    def request(self, cursor: Any, limit: int) -> "httpx2.Request":
        """Give the request for a page.

        Args:
            cursor: What `parse` gave for this page, or None for the first one.
            limit: How many records to ask for, at least 1; an API that chooses its page size itself may ignore it.
        """

    @abstractmethod
    def parse(self, response: "httpx2.Response") -> tuple[Sequence[RecordT], Any]:
        """Give the records of an answer, possibly none, and the cursor of the next page; None is the end.

        `response.json()` asks for another try if the body is no JSON, and refuses one that is nested too deep.
        """

    def ssl_context(self) -> ssl.SSLContext:
        """Give whom to trust over https, and a client certificate if one is needed: override it for your own."""
        return default_ssl_context()

    @override
    def read(self, cursor: Cursor | None, batch_size: int) -> Iterator[Page[RecordT]]:
        with self._connected() as link:
            connected = copy.copy(self)
            connected._link = link  # noqa: SLF001 - our own
            yield from super(RequestConnector, connected).read(cursor, batch_size)

    @override
    def fetch(self, token: Any, limit: int) -> tuple[Sequence[RecordT], Any]:
        if self._link is None:
            with self._connected() as link:
                return self._asked(link, token, limit)
        return self._asked(self._link, token, limit)

    def _connected(self) -> Link:
        limits = Limits(timeout=self.timeout, max_response_bytes=self.max_response_bytes)
        return Link(limits, 1, self.ssl_context, self._not_shown())

    def _not_shown(self) -> tuple[tuple[str, str], ...]:
        user = self.auth if isinstance(self.auth, tuple) else None
        return not_shown(secrets_of((), self.headers, user, {}), {})

    def _asked(self, link: Link, token: Any, limit: int) -> tuple[Sequence[RecordT], Any]:
        request = self.request(token, limit)
        for name, value in as_headers(self.headers).items():
            request.headers.setdefault(name, value)
        address, _, user = parse_url(str(request.url))
        shown = attrs.evolve(address, hidden=self._not_shown())
        response = link.send(request, as_auth(self.auth or user))
        try:
            check_status(response.status_code, response.headers, str(shown), self.gone)
        except PlaceGoneError as gone:
            raise gone_error(gone.status) from None
        return self.parse(response)


def from_data(
    *,
    url: str,
    paging: str | dict[str, Any],
    records: str = "",
    empty: Empty = "list",
    auth: list[str] | None = None,
    headers: dict[str, str] | None = None,
    params: dict[str, Any] | None = None,
    concurrency: int = 1,
    total: str = "",
    timeout: float = 30.0,
    max_response_bytes: int = 64 * 1024 * 1024,
) -> HTTPConnector:
    """Build a connector from plain data; what the registry calls for `{"type": "http", ...}`.

    Args:
        url: As for `HTTPConnector`.
        paging: `"offset"`, `"page"`, `"token"`, `"link"` or `"keyset"`; or a dict with one of them as its `type` and
            the fields of that paging: `{"type": "keyset", "key": {"since_id": "id"}}`.
        records: As for `HTTPConnector`.
        empty: As for `HTTPConnector`.
        auth: User and password.
        headers: As for `HTTPConnector`.
        params: As for `HTTPConnector`.
        concurrency: As for `HTTPConnector`.
        total: As for `HTTPConnector`.
        timeout: As for `HTTPConnector`.
        max_response_bytes: As for `HTTPConnector`.

    Raises:
        ConfigurationError: If there is no such paging, or the arguments do not fit together.
    """
    if auth is not None and len(auth) != 2:  # noqa: PLR2004 - the pair
        msg = f"auth has {len(auth)} values; give two, user and password"
        raise ConfigurationError(msg)
    return HTTPConnector(
        url,
        paging=paging_from(paging),
        records=records,
        empty=empty,
        auth=None if auth is None else (auth[0], auth[1]),
        headers=headers,
        params=params,
        concurrency=concurrency,
        total=total,
        timeout=timeout,
        max_response_bytes=max_response_bytes,
    )
