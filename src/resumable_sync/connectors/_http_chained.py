"""Paging by what the page before says: a token in its body, or a link to the next one."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs
from typing_extensions import override

from resumable_sync._errors import ConfigurationError
from resumable_sync._model import Cursor
from resumable_sync.connectors import _http_paging as paging
from resumable_sync.connectors._http_address import Pairs
from resumable_sync.connectors._http_body import MISSING, look_up
from resumable_sync.connectors._http_errors import HTTPResponseError
from resumable_sync.connectors._http_paging import Answer, Ask, Delivery, Paging, key_of, unknown_cursor

__all__ = ["LinkPaging", "TokenPaging"]


@attrs.frozen(kw_only=True)
class _Place:
    """A page of a chain.

    Attributes:
        token: Names it; None is the first page of the chain.
        skip: How many of its records were delivered before.
        last: The anchor of the last record delivered; None if there is none.
        since: The anchor behind which the chain began; None is the beginning of the source.
    """

    token: str | int | None = None
    skip: int = 0
    last: list[str | int] | None = None
    since: list[str | int] | None = None


class _ChainedPaging(Paging):
    """What both share. Of each kind is where the next token stands, and how it is asked for."""

    past_end = ()
    word: ClassVar[str]

    anchor: Pairs | None
    limit_param: str | None
    page_size: int | None

    def _check_limit(self) -> None:
        if (self.limit_param is None) != (self.page_size is None):
            name = type(self).__name__
            msg = f"{name} needs limit_param and page_size together, or neither; give both, or leave both out"
            raise ConfigurationError(msg)

    @abstractmethod
    def _next(self, answer: Answer) -> str | int | None:
        """Give the token of the next page; None at the end."""

    @override
    def parameters(self) -> Sequence[str]:
        return [*([self.limit_param] if self.limit_param else []), *(name for name, _ in self.anchor or ())]

    @override
    def start(self, cursor: Cursor | None) -> Any:
        if cursor is None:
            return _Place()
        form = f'["{self.word}", {self.word}, records of its page] or ["end"]'
        if self.anchor is not None:
            form = f'["{self.word}", {self.word}, records of its page, last anchor, anchor of its chain] or ["end"]'
        if cursor == ["end"]:
            return None
        if type(cursor) is not list or len(cursor) != (3 if self.anchor is None else 5) or cursor[0] != self.word:
            raise unknown_cursor(cursor, form)
        token, skip, last, since = [*cursor[1:], None, None][:4]
        if self.anchor is not None and skip and last is None:
            raise unknown_cursor(cursor, form)
        is_page = type(token) in (str, int) or (token is None and skip != 0)
        if not is_page or type(skip) is not int or skip < 0 or not (self._is_anchor(last) and self._is_anchor(since)):
            raise unknown_cursor(cursor, form)
        return _Place(token=token, skip=skip, last=last, since=since)

    def _is_anchor(self, value: Any) -> bool:
        if value is None:
            return True
        right = type(value) is list and all(type(item) in (str, int) for item in value)
        return right and len(value) == len(self.anchor or ())

    @override
    def deliver(self, place: _Place, answer: Answer, batch_size: int) -> Delivery:
        found, following = answer.records, self._next(answer)
        if place.token is None and place.since is not None and found and self._anchor_of(found[0]) == place.since:
            found = found[1:]  # an API may begin with the record that it is asked to go on from
        length = len(found)
        begin = self._delivered(place, found)
        if begin is None:
            return Delivery(records=[], cursor=lambda _: None, following=_Place(last=place.last, since=place.last))
        records = found[begin:]

        def cursor(count: int) -> Cursor:
            last = self._anchor_of(records[count - 1])
            if begin + count < length:
                return self._cursor(attrs.evolve(place, skip=begin + count, last=last))
            return (
                ["end"] if following is None else self._cursor(attrs.evolve(place, token=following, skip=0, last=last))
            )

        after = None
        if following is not None:
            last = self._anchor_of(records[-1]) if records else place.last
            after = attrs.evolve(place, token=following, skip=0, last=last)
        return Delivery(records=records, cursor=cursor, following=after)

    def _delivered(self, place: _Place, found: list[Any]) -> int | None:
        """Give how many records of a page were delivered; None if the last of them is no longer in it."""
        if not place.skip or self.anchor is None:
            return place.skip
        # Others may have come or gone before it.
        keys = [self._anchor_of(record) for record in found]
        return keys.index(place.last) + 1 if place.last in keys else None

    def _anchor_of(self, record: Any) -> list[str | int] | None:
        return None if self.anchor is None else key_of(record, self.anchor, f"{type(self).__name__}.anchor")

    def _cursor(self, place: _Place) -> Cursor:
        cursor = [self.word, place.token, place.skip]
        return cursor if self.anchor is None else [*cursor, place.last, place.since]

    @override
    def mark(self, place: _Place) -> Cursor:
        # What was delivered does not matter: a token that comes again leads round in a circle.
        return [place.token, place.since]

    @override
    def may_be_gone(self, place: _Place) -> bool:
        return place.token is not None

    @override
    def anew(self, place: _Place) -> Any:
        if self.anchor is None or place.token is None:
            return None
        return _Place(last=place.last, since=place.last)

    def _since(self, place: _Place) -> Pairs:
        values = place.since or []
        return tuple((name, str(value)) for (name, _), value in zip(self.anchor or (), values, strict=False))

    def _size(self) -> Pairs:
        return ((self.limit_param, str(self.page_size)),) if self.limit_param else ()


@attrs.frozen(kw_only=True)
class TokenPaging(_ChainedPaging):
    """Asks for the page of a token that the page before holds in its body: `?page_token=abc`.

    Ends where the token is missing, null or empty. The API hands out tokens and may forget them: a token that it
    refuses (410, or another status from 400 on that means so) is a `CursorError`, or, with an `anchor`, no trouble:
    a new chain begins behind the last record delivered.

    The cursor is the token to go on with and how many records of its page were delivered: `["token", "abc", 0]`, with
    an anchor also those of the last record and of the chain's beginning: `["token", "abc", 0, [4711], null]`; at the
    end it is `["end"]`.

    Attributes:
        token: The dotted path of the next token in the body: `"meta.next_token"`.
        token_param: The parameter that takes it.
        limit_param: The parameter for how many records a page has; None: the API decides.
        page_size: What to send there.
        anchor: Parameters that let the API begin behind a record, and the paths of the record's fields that they take:
            `{"since_id": "id"}`. The API must give its records ordered by them, and they must be unique. They are sent
            with the first request of a new chain and, since tokens often hold no filters, with all others of it. A new
            chain also begins at a resume in the middle of a page that no longer holds the last record delivered.
    """

    word: ClassVar[str] = "token"

    token: str = attrs.field(validator=paging.check_needed_path)
    token_param: str = attrs.field(validator=paging.check_name)
    limit_param: str | None = attrs.field(default=None, validator=paging.check_optional_name)
    page_size: int | None = attrs.field(default=None, validator=paging.check_page_size)
    anchor: Pairs | None = attrs.field(
        default=None, converter=paging.as_optional_key, validator=paging.check_optional_key
    )

    def __attrs_post_init__(self) -> None:
        self._check_limit()

    @override
    def identity(self) -> Mapping[str, str]:
        # A token may stand for a number of pages, which another size would move.
        return {"paging": f"token {self.token_param} {self.token} {self.anchor} {self.limit_param} {self.page_size}"}

    @override
    def parameters(self) -> Sequence[str]:
        return [self.token_param, *super().parameters()]

    @override
    def ask(self, place: _Place, batch_size: int) -> Ask:
        token = () if place.token is None else ((self.token_param, str(place.token)),)
        return Ask(query=(*token, *self._since(place), *self._size()))

    @override
    def _next(self, answer: Answer) -> str | int | None:
        found = _token(look_up(answer.document, self.token), self.token)
        return answer.token(found) if isinstance(found, str) else found


@attrs.frozen(kw_only=True)
class LinkPaging(_ChainedPaging):
    """Follows links to the next page: the header `Link: <https://...?page=2>; rel="next"`, or a URL in the body.

    Ends where there is no link. The header is read as RFC 8288 says, whatever the case of `rel` and however many
    relations it names; one that cannot be read is an `HTTPResponseError`, never the end. A link to another host is
    refused: credentials stay where the connector's URL leads, and so does the scheme. What an API repeats in its links
    of the connector's own `params`, `headers` and `auth`, under whatever name, is put in anew for every request and is
    no part of the cursor. A link that is refused is a `CursorError`, or, with an `anchor`, no trouble: a new chain
    begins behind the last record delivered.

    The cursor is path and query of the page to go on with and how many of its records were delivered:
    `["link", "/orders?page=2", 0]`, with an anchor as for `TokenPaging`; at the end it is `["end"]`.

    Attributes:
        next: The dotted path of the URL in the body, such as `"links.next"`; None: the header `Link`.
        limit_param: The parameter of the first request for how many records a page has; None: the API decides.
        page_size: What to send there.
        anchor: As for `TokenPaging`; sent with the first request of a new chain, since links hold it.
    """

    word: ClassVar[str] = "link"

    next: str | None = attrs.field(default=None, validator=paging.check_path)
    limit_param: str | None = attrs.field(default=None, validator=paging.check_optional_name)
    page_size: int | None = attrs.field(default=None, validator=paging.check_page_size)
    anchor: Pairs | None = attrs.field(
        default=None, converter=paging.as_optional_key, validator=paging.check_optional_key
    )

    def __attrs_post_init__(self) -> None:
        self._check_limit()

    @override
    def identity(self) -> Mapping[str, str]:
        return {"paging": f"link {self.next} {self.anchor}"}

    @override
    def ask(self, place: _Place, batch_size: int) -> Ask:
        if place.token is not None:
            return Ask(link=str(place.token))
        return Ask(query=(*self._since(place), *self._size()))

    @override
    def _next(self, answer: Answer) -> str | int | None:
        found = answer.next_link() if self.next is None else look_up(answer.document, self.next)
        if found is None or found is MISSING or found == "":
            return None
        if not isinstance(found, str):
            raise HTTPResponseError(
                f"the answer has a {type(found).__name__} at {self.next!r}, where LinkPaging.next looks; name the "
                "field that holds the URL of the next page"
            )
        return answer.link(found)


def _token(found: Any, path: str) -> str | int | None:
    if found is None or found is MISSING or found == "":
        return None
    if type(found) not in (str, int):
        raise HTTPResponseError(
            f"the answer has a {type(found).__name__} at {path!r}, where TokenPaging.token looks; name the field that "
            "holds the token of the next page"
        )
    token: str | int = found
    return token
