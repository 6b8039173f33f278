"""The header `Link`: which page is the next one, as RFC 8288 says, whatever an API makes of it."""

from collections.abc import Iterator

import pytest

from connectors.http_api import API, Reply, api_of, orders
from resumable_sync.connectors._http_link_header import LinkHeaderError, next_link
from resumable_sync.connectors.http import HTTPConnector, HTTPResponseError, LinkPaging, OffsetPaging

pytestmark = pytest.mark.server

RECORDS = orders(12)
URL = "https://api.example.com/v1/orders?page=1"


@pytest.fixture
def api() -> Iterator[API]:
    with api_of(RECORDS) as api:
        yield api


@pytest.mark.parametrize(
    ("header", "link"),
    [
        ('<?page=2>; rel="next"', "?page=2"),
        ("<?page=2>; rel=next", "?page=2"),
        ("<?page=2>; rel='next'", "?page=2"),
        ('<?page=2>; rel="next last"', "?page=2"),
        ('<?page=2>; rel="last\tnext"', "?page=2"),
        ('<?page=2>; rel="NEXT"', "?page=2"),
        ('<?page=2>; REL="next"', "?page=2"),
        ('<?page=2>;rel = "next" ;', "?page=2"),
        ('<?page=2&f=a,b;c>; rel="next"', "?page=2&f=a,b;c"),
        ('<?page=2>; title="a, <b>; \\"x\\" y"; rel="next"', "?page=2"),
        ("<?page=2>; title*=UTF-8''n%c3%a4chste; rel=\"next\"", "?page=2"),
        ('<?page=2>; rel="next"; rel="last"', "?page=2"),
        ('<?page=2>; rel="last"; rel="next"', None),
        ('<?page=1>; rel="prev", <?page=2>; rel="next"', "?page=2"),
        (', ,<?page=1>; rel="prev",,<?page=2>; crossorigin; rel="next" ,', "?page=2"),
        ('<?page=2>; results="true"; rel="next"; cursor="0:100:0"', "?page=2"),
        ('<?page=2>; rel="https://example.com/rel next"', "?page=2"),
        ('<?page=2>; rel="https://example.com/next"', None),
        ('<>; rel="next"', ""),
        ('<?page=2>; rel="nextpage"', None),
        ("<?page=2>", None),
        ('<?page=2>; rel=""', None),
        ('<?page=2>; title="rel=next"', None),
        # Said of something else than the page.
        ('<?page=9>; rel="next"; anchor="#part", <?page=2>; rel="next"', "?page=2"),
        ('<?page=9>; rel="next"; anchor="/v1/customers"', None),
        ('<?page=2>; rel="next"; anchor="/v1/orders?page=1&per_page=30"', "?page=2"),
        ("", None),
        (" , ", None),
    ],
)
def test_the_next_page_is_found(header: str, link: str | None) -> None:
    assert next_link(header, URL) == link


@pytest.mark.parametrize(
    "header",
    [
        '?page=2; rel="next"',
        '<?page=2; rel="next"',
        '<?page=2>; rel="next',
        '<?page=2>; rel="next" and more',
        '<?page=2> rel="next"',
        '<?page=2>; rel="next"; title=a"b"',
        '<?page=1>; rel="prev", https://api.example.com/?page=2; rel="next"',
        '<?page=2>; title="' + "\\" * 20_000,
    ],
)
def test_what_cannot_be_read_is_no_end(header: str) -> None:
    with pytest.raises(LinkHeaderError):
        next_link(header, URL)


def read(api: API, paging: LinkPaging | OffsetPaging, route: str) -> list[object]:
    connector = HTTPConnector(f"{api.url}/{route}", paging=paging, records="data.items")
    return [record for page in connector.read(None, 5) for record in page.records]


@pytest.mark.parametrize("relation", ['REL="prev NEXT"', "rel=next; rel=last"])
def test_pages_are_followed_however_the_link_is_written(api: API, relation: str) -> None:
    def page(number: int) -> Reply:
        link = f'</link>; rel="first"; title="a, b", </link?page={number + 1}>; {relation}'
        return Reply({"data": {"items": [RECORDS[number - 1]]}}, headers={"Link": link})

    api.next(page(1), page(2))
    assert read(api, LinkPaging(), "link") == [*RECORDS[:2], *RECORDS[10:]]
    assert api.asked("page") == [None, "2", "3"]


def test_a_header_that_cannot_be_read_is_refused(api: API) -> None:
    broken = {"Link": "</link?page=2&api_key=hush; rel=next"}
    api.next(Reply({"data": {"items": RECORDS[:5]}}, headers=broken))
    with pytest.raises(HTTPResponseError, match=r"a header Link that cannot be read.*LinkPaging\(next=") as caught:
        read(api, LinkPaging(), "link")
    assert "hush" not in str(caught.value)
    api.next(Reply({"data": {"items": RECORDS[:5]}}, headers=broken))
    assert read(api, OffsetPaging(), "offset") == RECORDS
