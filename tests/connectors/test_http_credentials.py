"""Credentials: in no cursor, fingerprint, error, log, repr, event or stored row, and on no other host."""

import logging
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx2
import pytest
from typing_extensions import override

from connectors.http_api import API, Reply, Request, api_of, orders
from doubles import FAST
from resumable_sync import ConfigurationError, Connector, TransientError, registry, run_full_sync
from resumable_sync._cursor import encode_cursor
from resumable_sync.connectors.http import (
    HTTPConnector,
    HTTPResponseError,
    LinkPaging,
    OffsetPaging,
    RequestConnector,
    TokenPaging,
)
from resumable_sync.stores.sql import SQLJobStore

# Which Python sends the requests makes no difference.
pytestmark = pytest.mark.server

RECORDS = orders(12)
# None of these names or values may be found anywhere; the last one has a name that tells nothing.
PARAMS = {"api_key": "hush-param", "appid": "hush-nameless", "status": "open"}
HEADERS = {"X-Api-Key": "hush-header"}
USER = ("etl", "hush-password")


@pytest.fixture
def api() -> Iterator[API]:
    with api_of(RECORDS) as api:
        yield api


@pytest.fixture
def elsewhere() -> Iterator[API]:
    with api_of(RECORDS) as api:
        yield api


def connector(api: API, route: str, paging: Any, **options: Any) -> HTTPConnector:
    options = {"params": PARAMS, "headers": HEADERS, **options}
    url = f"{api.url}/{route}".replace("://", "://etl:hush-password@")
    return HTTPConnector(url, paging=paging, records="data.items", **options)


PAGINGS = {
    "offset": OffsetPaging(),
    "link": LinkPaging(),
}
ENDS: dict[str, list[Any]] = {
    "well": [],
    "refused": [lambda _: None, Reply(None, 401)],
    "busy": [lambda _: None, *[Reply(None, 503)] * 9],
    "cut": [lambda _: None, *[Reply({"a": 1}, cut=3)] * 9],
    "no list": [lambda _: None, Reply({"data": 1})],
    "no HTTP": [lambda _: None, *[Reply(None, headers={"bad header": "\x00"})] * 9],
    "redirected": [lambda _: None, lambda request: Reply(None, 302, {"Location": f"{request.path}?{request.text}"})],
    "led away": [
        lambda _: None,
        lambda request: Reply(None, 302, {"Location": f"http://localhost:1{request.path}?{request.text}"}),
    ],
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("route", ["offset", "link"])
def test_they_are_sent_and_found_nowhere(
    api: API, tmp_path: Path, caplog: pytest.LogCaptureFixture, route: str, end: str
) -> None:
    caplog.set_level(logging.DEBUG)
    source = connector(api, route, PAGINGS[route])
    api.next(*ENDS[end])
    said: list[object] = []
    path = tmp_path / "store.db"
    with SQLJobStore(f"sqlite:///{path}") as store:
        try:
            run_full_sync("j", source, print, store=store, retry=FAST, batch_size=2, observers=[said.append])
        except Exception as error:
            said += [error, repr(error), error.args, *getattr(error, "__notes__", []), vars(error)]
        said += [store.load("j"), *store.attempts("j")]
    said += [repr(source), source.fingerprint, caplog.text, *(record.getMessage() for record in caplog.records)]
    assert all(one.query["api_key"] == "hush-param" and one.query["appid"] == "hush-nameless" for one in api.requests)
    assert all(one.headers["x-api-key"] == "hush-header" for one in api.requests)
    assert all(one.headers["authorization"].startswith("Basic ") for one in api.requests)
    secrets = ["hush", *{one.headers["authorization"] for one in api.requests}]
    assert [text for text in map(str, said) for secret in secrets if secret in text] == []
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert all(secret.encode() not in stored for secret in secrets)


@pytest.mark.parametrize("batch_size", [2, 100])
def test_a_link_goes_on_with_another_credential(api: API, batch_size: int) -> None:
    first = next(connector(api, "link", LinkPaging()).read(None, 5))
    assert "hush" not in encode_cursor(first.cursor)
    rotated = connector(api, "link", LinkPaging(), params={**PARAMS, "api_key": "hush-2", "appid": "hush-3"})
    read = [record for page in rotated.read(first.cursor, batch_size) for record in page.records]
    assert read == RECORDS[5:]
    assert {(one.query["api_key"], one.query["appid"]) for one in api.requests[1:]} == {("hush-2", "hush-3")}


def test_a_fingerprint_is_that_of_the_source_not_of_the_credential(api: API) -> None:
    source = connector(api, "link", LinkPaging())
    rotated = connector(api, "link", LinkPaging(), params={**PARAMS, "api_key": "hush-2"}, headers={"X-Api-Key": "2"})
    assert rotated.fingerprint == source.fingerprint
    for change in ({"params": {**PARAMS, "status": "all"}}, {"paging": OffsetPaging()}, {"records": "data"}):
        options: dict[str, Any] = {"paging": LinkPaging(), "records": "data.items", "params": PARAMS, **change}
        other = HTTPConnector(f"{api.url}/link", **options)
        assert [part for part, text in source.fingerprint.items() if other.fingerprint[part] != text] == list(change)


def test_a_link_without_the_credential_gets_it(api: API) -> None:
    def bare(request: Request) -> Reply:
        return Reply(api.page(request).document, headers={"Link": '</link?page=2>; rel="next"'})

    api.next(bare)
    source = connector(api, "link", LinkPaging())
    assert [record for page in source.read(None, 5) for record in page.records] == RECORDS
    assert {one.query["api_key"] for one in api.requests} == {"hush-param"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_on_the_same_host(api: API, status: int) -> None:
    api.next(lambda request: Reply(None, status, {"Location": f"{request.path}?{request.text}&moved=1"}))
    source = connector(api, "offset", OffsetPaging())
    assert [record for page in source.read(None, 5) for record in page.records] == RECORDS
    assert api.requests[1].query["moved"] == "1"
    assert api.requests[1].headers["x-api-key"] == "hush-header"


@pytest.mark.parametrize(
    "location", ["{other}", "//{other_host}", "http://localhost:{port}", "https://127.0.0.1:{port}"]
)
def test_no_redirect_leads_to_another_host(api: API, elsewhere: API, location: str) -> None:
    port = api.server.server_port
    target = location.format(other=elsewhere.url, other_host=elsewhere.url.partition("//")[2], port=port)
    api.next(lambda request: Reply(None, 302, {"Location": f"{target}/offset?{request.text}"}))
    with pytest.raises(HTTPResponseError, match="redirects to another host") as caught:
        list(connector(api, "offset", OffsetPaging()).read(None, 5))
    assert elsewhere.requests == []
    assert len(api.requests) == 1
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("where", ["header", "body"])
def test_no_link_leads_to_another_host(api: API, elsewhere: API, where: str) -> None:
    link = f"{elsewhere.url}/link?page=2&api_key=hush-param"
    document = {"data": {"items": RECORDS}, "links": {"next": link if where == "body" else None}}
    api.next(Reply(document, headers={"Link": f'<{link}>; rel="next"'} if where == "header" else {}))
    paging = LinkPaging(next=None if where == "header" else "links.next")
    with pytest.raises(HTTPResponseError, match="next page on another host") as caught:
        list(connector(api, "link", paging).read(None, 5))
    assert elsewhere.requests == []
    assert "hush" not in str(caught.value)


def test_redirects_that_do_not_end_are_an_error(api: API) -> None:
    api.next(*[lambda request: Reply(None, 302, {"Location": f"{request.path}?{request.text}"})] * 20)
    with pytest.raises(HTTPResponseError, match="more than 5 times"):
        list(connector(api, "offset", OffsetPaging()).read(None, 5))


def test_a_post_is_not_made_a_get_by_a_redirect(api: API) -> None:
    class Posts(RequestConnector[Any]):
        @override
        def request(self, cursor: Any, limit: int) -> httpx2.Request:
            return httpx2.Request("POST", f"{api.url}/offset", json={"a": 1})

        @override
        def parse(self, response: httpx2.Response) -> Any:
            return response.json()["data"]["items"], None

    api.next(Reply(None, 302, {"Location": "/offset"}))
    with pytest.raises(HTTPResponseError, match="redirects a POST"):
        list(Posts().read(None, 5))
    api.next(Reply(None, 307, {"Location": "/offset?offset=5"}))
    assert next(Posts().read(None, 5)).records == RECORDS[5:10]


def test_a_header_that_cannot_be_sent_is_not_quoted() -> None:
    for value in ("hush\r\nX-Other: 1", "hush€", 7):
        with pytest.raises(ConfigurationError, match=r"headers\['X-Key'\]") as caught:
            HTTPConnector("http://host/", paging=OffsetPaging(), headers={"X-Key": value})  # type: ignore[dict-item]
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://etl:hush@host/", "etl:hush@host", "http://etl:hush@host:port/", "http://", 7])
def test_a_url_that_is_none_is_not_quoted(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="the url is none") as caught:
        HTTPConnector(url, paging=OffsetPaging())
    assert "hush" not in str(caught.value)


def test_a_digest_is_answered(api: API) -> None:
    challenge = {"WWW-Authenticate": 'Digest realm="orders", nonce="abc", qop="auth", algorithm=SHA-256'}
    api.next(Reply(None, 401, challenge))
    source = HTTPConnector(
        f"{api.url}/offset", paging=OffsetPaging(), records="data.items", auth=httpx2.DigestAuth("etl", "hush")
    )
    travelled: Connector[Any] = pickle.loads(pickle.dumps(source))
    assert [record for page in travelled.read(None, 5) for record in page.records] == RECORDS
    assert all(one.headers["authorization"].startswith("Digest ") for one in api.requests[1:])


class Bearer(httpx2.Auth):
    """Knows alone what it sends."""

    @override
    def auth_flow(self, request: httpx2.Request) -> Any:
        request.headers["Authorization"] = "Bearer hush-bearer"
        yield request


GIVEN: dict[str, tuple[str, dict[str, Any]]] = {
    "header": ("hush-bearer", {"headers": {"Authorization": "Bearer hush-bearer"}}),
    "parameter": ("hush+/=token", {"params": {"token": "hush+/=token"}}),
    "list": ("hush-listed", {"params": {"api_key": ["hush-listed", "x"]}}),
    "nameless": ("hush-nameless", {"params": {"appid": "hush-nameless"}}),
    "password": ("hush-password", {"auth": USER}),
    "auth object": ("hush-bearer", {"auth": Bearer()}),
    "cookie": ("hush-cookie", {"headers": {"Cookie": "a=b; session=hush-cookie"}}),
}


@pytest.mark.parametrize("form", ["?access_token={0}&page=2", "?page=2&sig=a%3A{0}", "/{0}?page=2"])
@pytest.mark.parametrize("given", GIVEN)
def test_a_link_may_call_a_credential_what_it_likes(api: API, given: str, form: str) -> None:
    secret, options = GIVEN[given]
    written = quote(secret, safe="")
    link = f"{api.url}/link{form.format(written)}"
    page = {"data": {"items": RECORDS[:5]}, "next": link}
    api.next(Reply(page), Reply({"data": {"items": RECORDS[5:]}}))
    source = HTTPConnector(f"{api.url}/link", paging=LinkPaging(next="next"), records="data.items", **options)
    whole = form.startswith("?access")
    if (given == "auth object" and not whole) or (given == "nameless" and not whole):
        # Nobody can put the first one back; the second one is none that could be told from a word.
        if given == "auth object":
            with pytest.raises(HTTPResponseError, match="holds a credential of this connector") as caught:
                next(source.read(None, 5))
            assert "hush" not in str(caught.value)
        return
    pages = source.read(None, 5)
    first = next(pages)
    assert "hush" not in unquote(encode_cursor(first.cursor))
    assert [one.records for one in pages] == [RECORDS[5:10], RECORDS[10:]]
    asked = f"{api.requests[1].path}?{api.requests[1].text}"
    kept = link.removeprefix(api.url)
    own = "&api_key=hush-listed&api_key=x"
    assert unquote(asked.removesuffix(own)) == unquote(kept if given != "auth object" else "/link?page=2")
    api.next(Reply({"data": {"items": RECORDS[5:]}}))
    assert [record for one in source.read(first.cursor, 9) for record in one.records] == RECORDS[5:]


def test_a_credential_given_twice_is_in_no_cursor(api: API) -> None:
    source = HTTPConnector(
        f"{api.url}/link?api_key=hush-twice",
        paging=LinkPaging(),
        records="data.items",
        params={"api_key": "hush-twice", "pw": "x"},
    )
    pages = list(source.read(None, 5))
    assert [record for page in pages for record in page.records] == RECORDS
    assert "hush" not in "".join(encode_cursor(page.cursor) for page in pages)
    assert {one.text.count("api_key=hush-twice") for one in api.requests} == {2}


@pytest.mark.parametrize("token", ["a:hush-bearer:2", "x%3Ahush%2Dbearer"])
def test_a_token_that_holds_a_credential_is_refused(api: API, token: str) -> None:
    paging = TokenPaging(token="next", token_param="t")
    source = HTTPConnector(
        f"{api.url}/token", paging=paging, records="items", headers={"Authorization": "Bearer hush-bearer"}
    )
    api.next(Reply({"items": RECORDS, "next": token}))
    with pytest.raises(HTTPResponseError, match="a token that holds a credential") as caught:
        next(source.read(None, 20))
    assert "hush" not in str(caught.value)


def test_words_of_the_source_are_no_credentials(api: API) -> None:
    params = {"status": "open", "expand": "customers", "key": "created_at"}
    source = HTTPConnector(f"{api.url}/link", paging=LinkPaging(), records="data.items", params=params)
    link = "/link?page=2&status=closed&sort=created_at&customers_of=1&path=/customers"
    api.next(Reply({"data": {"items": RECORDS[:5]}}, headers={"Link": f"<{link}>; rel=next"}))
    list(source.read(None, 5))
    assert (
        api.requests[1].text == link.partition("?")[2] + "&key=created_at"
        or api.requests[1].text == (link.partition("?")[2])
    )


def test_a_credential_in_the_path_is_shown_nowhere(api: API, tmp_path: Path) -> None:
    data = {"type": "http", "url": f"{api.url}/bot${{BOT}}/get", "paging": "link", "records": "data.items"}
    source = registry.connector(data, environ={"BOT": "12:hush-bot"})
    said: list[Any] = [repr(source), source.fingerprint]
    with SQLJobStore(f"sqlite:///{tmp_path}/store.db") as store:
        page = Reply({"data": {"items": RECORDS[:5]}}, headers={"Link": "</bot12:hush-bot/get?page=2>; rel=next"})
        for end in ENDS.values():
            api.replies.clear()
            api.next(page, *end[1:], *[Reply(None, 404)] * 9)
            with pytest.raises(Exception) as caught:  # noqa: PT011 - each in its own way
                run_full_sync("j", source, print, store=store, retry=FAST, batch_size=5, observers=[said.append])
            said += [caught.value, caught.value.args, vars(caught.value), store.load("j")]
            assert api.requests[-1].path == "/bot12:hush-bot/get"
    assert [text for text in map(str, said) if "hush" in text] == []
    assert all(b"hush" not in file.read_bytes() for file in tmp_path.iterdir())
    assert "/bot${BOT}/get" in repr(source)
    other = registry.connector(data, environ={"BOT": "12:other-bot"})
    assert other.fingerprint != source.fingerprint


def test_a_path_that_holds_what_is_given_as_a_credential_does_not_show_it(api: API) -> None:
    source = HTTPConnector(
        f"{api.url}/k/hush%2Dkey9/get",
        paging=OffsetPaging(),
        headers={"X-Api-Key": "hush-key9"},
        auth=("a", "hush%2Dkey9"),
    )
    with pytest.raises(HTTPResponseError, match=r"/k/\*\*\*/get answered 404") as caught:
        list(source.read(None, 5))
    assert "hush" not in f"{caught.value}{source!r}{source.fingerprint}"


def test_a_request_of_ones_own_does_not_show_it_either(api: API) -> None:
    class Own(RequestConnector[Any]):
        headers: Mapping[str, str] = {"X-Api-Key": "hush-key9"}

        @override
        def request(self, cursor: Any, limit: int) -> httpx2.Request:
            return httpx2.Request("GET", f"{api.url}/k/hush-key9/get")

        @override
        def parse(self, response: httpx2.Response) -> Any:
            return response.json(), None

    for reply in (Reply(None, 404), Reply(b"no json"), Reply(None, 302, {"Location": "http://localhost:1/"})):
        api.next(reply)
        with pytest.raises((HTTPResponseError, TransientError), match=r"/k/\*\*\*/get") as caught:
            list(Own().read(None, 5))
        assert "hush" not in str(caught.value)


def test_a_digest_that_cannot_be_read_is_told(api: API) -> None:
    for challenge in ("Digest nonsense", 'Digest realm="a"', 'Digest realm="a", nonce="b", algorithm=NONE'):
        api.next(Reply(None, 401, {"WWW-Authenticate": challenge}))
        source = HTTPConnector(
            f"{api.url}/offset?api_key=hush", paging=OffsetPaging(), auth=httpx2.DigestAuth("u", "hush")
        )
        with pytest.raises(HTTPResponseError, match="asks for a digest in a way that cannot be read") as caught:
            list(source.read(None, 5))
        assert "hush" not in str(caught.value)
        assert caught.value.status == 401
