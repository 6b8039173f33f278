"""`SQLQueryTemplate`: the query that pages itself, by `:limit` and `:offset`."""

from collections.abc import Iterable
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from resumable_sync._errors import ConfigurationError
from resumable_sync._model import Page
from resumable_sync._protocols import Connector
from resumable_sync.connectors.sql import SQLQueryTemplate

TEMPLATE = "SELECT id, name FROM items WHERE price = :price ORDER BY id LIMIT :limit OFFSET :offset"


@pytest.fixture
def source(database_url: str) -> str:
    """URL of a database of each kind, with a table `items` of 20 rows."""
    with create_engine(database_url, poolclass=NullPool).begin() as connection:
        connection.execute(text("CREATE TABLE items (id int NOT NULL PRIMARY KEY, name varchar(20), price int)"))
        rows = [{"id": number, "name": f"name {number}", "price": number % 3} for number in range(1, 21)]
        connection.execute(text("INSERT INTO items VALUES (:id, :name, :price)"), rows)
    return database_url


def ids(pages: Iterable[Page[Any]]) -> list[int]:
    return [row[0] for page in pages for row in page.records]


def test_query_template(source: str) -> None:
    counting = "SELECT count(*) FROM items WHERE price = :price"
    with closing(SQLQueryTemplate(source, TEMPLATE, counting, params={"price": 1})) as template:
        assert isinstance(template, Connector)
        pages = list(template.read(None, 3))
        assert ids(pages) == [1, 4, 7, 10, 13, 16, 19]
        assert [page.cursor for page in pages] == [[3], [6], [7]]
        assert pages[0].columns == ("id", "name")
        assert template.count() == 7
        assert ids(template.read(template.cursor_at(5), 3)) == [16, 19]
        assert template.cursor_at(8) is None
    with closing(SQLQueryTemplate(source, TEMPLATE, params={"price": 1})) as uncounted:
        assert uncounted.count() is None


@pytest.mark.parametrize(
    ("query", "params", "message"),
    [
        ("SELECT 1", {}, "needs the parameters :limit and :offset"),
        ("SELECT 1 LIMIT :limit", {}, "needs the parameters :limit and :offset"),
        (TEMPLATE, {}, "no value for :price"),
        (TEMPLATE, {"price": 1, "other": 2}, "values for unknown other"),
        (TEMPLATE, {"price": 1, "limit": 2}, "values for unknown limit"),
    ],
)
def test_query_template_that_cannot_work(query: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SQLQueryTemplate("sqlite:///x.db", query, params=params)
