"""From the answer of an API to the records in it, and to where the next page is."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs

from resumable_sync.connectors._http_address import Address, parse_url
from resumable_sync.connectors._http_body import MISSING, look_up
from resumable_sync.connectors._http_errors import HTTPResponseError
from resumable_sync.connectors._http_link_header import LinkHeaderError, next_link
from resumable_sync.connectors._http_own import Own
from resumable_sync.connectors._http_paging import Answer

if TYPE_CHECKING:
    import httpx2

__all__ = ["Answers", "Empty"]

Empty: TypeAlias = Literal["list", "null", "missing"]


@attrs.frozen(kw_only=True)
class Answers:
    """How the answers of one API are read.

    Attributes:
        address: The API's.
        records: The dotted path of the list of records.
        empty: What stands there if there are none.
        own: What requests carry.
    """

    address: Address
    records: str
    empty: Empty
    own: Own

    def read(self, url: str, headers: Mapping[str, str], response: "httpx2.Response", *, first: bool) -> Answer:
        """Give what an answer says.

        Args:
            url: What was asked for, before an auth object put anything into it.
            headers: What was asked with; the same.
            response: The answer.
            first: Whether it is that of the first page.

        Raises:
            HTTPResponseError: If there is no list of records in it.
        """
        if response.status_code == HTTPStatus.NO_CONTENT:
            return Answer(records=[], document=None, link=str, next_link=lambda: None, token=str)
        document = response.json()
        header = response.headers.get("Link", "")

        def sent() -> Own:
            return self._sent(url, headers, response.request)

        return Answer(
            records=self._records_of(document, response.status_code, first=first),
            document=document,
            link=lambda link: self._linked(url, link, sent()),
            next_link=lambda: self._next_link(header, url),
            token=lambda token: self._token(token, sent()),
        )

    def _records_of(self, document: Any, status: int, *, first: bool) -> list[Any]:
        found = look_up(document, self.records)
        if isinstance(found, list):
            return found
        if found is None and self.empty != "list":
            return []
        if found is MISSING and self.empty == "missing" and not first and self._could_hold(document):
            return []
        what = "nothing" if found is MISSING else f"a {type(found).__name__}"
        where = f"at {self.records!r}" if self.records else "as its body"
        msg = (
            f"{self.address} answered {what} {where}, not a list; correct records, the dotted path of the list"
            f"{self._way_out(found, first=first)}"
        )
        raise HTTPResponseError(msg, status)

    def _way_out(self, found: Any, *, first: bool) -> str:
        # On the first page a path that leads nowhere is more likely wrong.
        if (first or found is not MISSING) and found is not None:
            return ""
        word = "null" if found is None else "missing"
        return f"; if this is how the API says that there are no records, give empty={word!r}"

    def _could_hold(self, document: Any) -> bool:
        # An object without the last name of the path, and not an error in the place of it all.
        above = look_up(document, self.records.rpartition(".")[0])
        return isinstance(above, dict)

    def _next_link(self, header: str, url: str) -> str | None:
        try:
            return next_link(header, url)
        except LinkHeaderError:
            msg = (
                f"{self.address} sends a header Link that cannot be read, so that nobody knows whether there is a "
                "next page; page by a link in the body with LinkPaging(next=...), or by another paging"
            )
            raise HTTPResponseError(msg) from None

    def _linked(self, url: str, link: str, own: Own) -> str:
        found = self.address.linked(url, link)
        if found is None:
            msg = (
                f"{self.address} names a next page on another host, where no credentials are sent; if the API really "
                "moves, give the URL that it means"
            )
            raise HTTPResponseError(msg)
        without = own.taken_out(found)
        if own.holds(without):
            raise self._held(what="link")
        return without

    def _token(self, token: str, own: Own) -> str:
        if own.holds(f"?={token}"):
            raise self._held(what="token")
        return token

    def _held(self, *, what: str) -> HTTPResponseError:
        return HTTPResponseError(
            f"{self.address} names the next page by a {what} that holds a credential of this connector inside of "
            f"something else, and a {what} becomes part of the stored cursor; page in another way, or give the "
            "credential in another way"
        )

    def _sent(self, url: str, headers: Mapping[str, str], request: "httpx2.Request") -> Own:
        """Know what an auth object put into a request."""
        new = {name: value for name, value in request.headers.items() if headers.get(name) != value}
        there, pairs, _ = parse_url(str(request.url))
        asked, names, _ = parse_url(url)
        # A redirect may name a page of its own.
        added = [pair for pair in pairs if pair[0] not in dict(names)] if there == asked else []
        return self.own.with_sent(tuple(added), new)
