"""What may be said about an error: no password, no key, no token, and all that helps."""

import time
from typing import Any

import pytest
from sqlalchemy import make_url
from typing_extensions import override

from resumable_sync._database import make_engine, shown_url
from resumable_sync._driver_errors import RAISED, mask_values
from resumable_sync._errors import ConfigurationError, CrashLoopError, describe_error, mask_credentials
from resumable_sync._fingerprint import fingerprint_text
from resumable_sync.connectors.sql import SQLConnector, SQLQueryTemplate
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore

SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://shop:hunter2@db/shop",
        "postgresql://shop:hun/hunter2@db/shop",
        "postgresql://shop:hun@hunter2@db/shop",
        "postgresql://shop:1234/hunter2@db/shop",
        'postgresql://shop:hun"hunter2@db/shop',
        "sqlite:///jobs.db,postgresql://shop:hunter2@db/shop",
        "https://hunter2@example.com/v1",
        "https://hunter2:x-oauth-basic@example.com/v1",
        "git+https://:hunter2@example.com",
        "sqlite:///jobs.db,https://hunter2@example.com",
        "password=hunter2",
        "password = hunter2",
        "password=a,hunter2",
        "password=a;hunter2",
        "password=a'hunter2",
        "password='a hunter2'",
        'password="a\\"hunter2"',
        'password="a hunter2',
        "db_password: hunter2",
        "dbPassword=hunter2",
        "PGPASSWORD=hunter2",
        "user=shop pass=hunter2 host=db",
        "passphrase=hunter2",
        "password=no-hunter2",
        "auth=('shop', 'hunter2')",
        "api-key: hunter2",
        "X-Api-Key: hunter2",
        "aws_secret_access_key=hunter2",
        "AccountName=shop;AccountKey=hunter2;",
        "private_key=hunter2",
        "private_key='hunter2'",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----",
        "https://example.com/v1?sig=hunter2&page=2",
        "https://example.com/v1?auth=hunter2",
        "https://example.com/v1?key=hunter2",
        "https://example.com/v1?a=1&access_token=hunter2",
        "client_secret%3Dhunter2%26scope%3Dall",
        '{"password": "hunter2"}',
        r"{\"password\": \"hunter2\"}",
        r"{\"password\": \"a\\\"hunter2\"}",
        r"{\\\"password\\\": \\\"hunter2\\\"}",
        "{'password': b'hunter2'}",
        "{'Authorization': 'hunter2'}",
        "{'Authorization': 'Bearer hunter2'}",
        "('password', 'hunter2')",
        "[(b'x-api-key', b'hunter2')]",
        "Authorization: hunter2",
        "Authorization: Bearer hunter2",
        'Authorization: Digest username="shop", nonce="1", response="hunter2"',
        "authorization=hunter2",
        "Proxy-Authorization: Basic hunter2",
        "Bearer hunter2hunter2",
        "Cookie: session=hunter2",
        "Cookie: a=1; session=hunter2",
        "Set-Cookie: session=hunter2; Path=/",
        "{'Cookie': 'session=hunter2'}",
        "sessionid=hunter2",
    ],
)
def test_credentials_are_masked_wherever_they_stand(text: str) -> None:
    masked = mask_credentials(f"failed: {text}")
    assert SECRET not in masked
    assert "***" in masked
    assert SECRET not in mask_credentials(masked)
    assert SECRET not in describe_error(ValueError(text))


@pytest.mark.parametrize(
    "text",
    [
        "token 5 expired",
        "the key 'id' is not unique",
        "the lease of job 'orders' (fencing token 12) was lost",
        "fencing_token=12 is older than 13",
        "no such column: key",
        "postgresql+psycopg://shop@db/shop is down",
        "https://example.com:8080/v1?page=2 gave 500",
        "https://example.com/@shop",
        "the columns are 'token', 'id'",
        "Access denied for user 'shop'@'db' (using password: YES)",
        "{'user': 'shop', 'password': None}",
        'column "token" of relation "users" does not exist',
        'password authentication failed for user "shop"',
        "bypass=1, design=2, author=3",
        "auth: failed",
        "primary key: id",
        "at 12:30:00 the server said: no",
    ],
)
def test_harmless_text_stays(text: str) -> None:
    assert mask_credentials(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://shop:hunter2@db:5432/shop", "postgresql://shop:***@db:5432/shop"),
        ("password=hunter2 host=db", "password=*** host=db"),
        ("password=hunter2, host=db", "password=***, host=db"),
        ("PWD=hunter2;Server=db", "PWD=***;Server=db"),
        ("/v1?token=hunter2&page=2", "/v1?token=***&page=2"),
        ('{"password": "hunter2", "host": "db"}', '{"password": ***, "host": "db"}'),
        ("f(password='hunter2') failed", "f(password=***) failed"),
        ("f(password=hunter2) failed", "f(password=***) failed"),
    ],
)
def test_what_stands_beside_a_credential_stays(text: str, masked: str) -> None:
    assert mask_credentials(text) == masked
    assert mask_credentials(masked) == masked


@pytest.mark.parametrize(
    ("text", "sqlstate", "masked"),
    [
        ('value "hunter2" is out of range for type integer', "22003", 'value "***" is out of range for type integer'),
        ('"hunter2" is out of range for type real', "22003", '"***" is out of range for type real'),
        (
            'invalid input syntax for type uuid: "a" column "hunter2"',
            "22P02",
            'invalid input syntax for type uuid: "***"',
        ),
        ("Wert »hunter2« ist außerhalb von integer", "22003", "Wert »***« ist außerhalb von integer"),
        ("la valeur « hunter2 » est en dehors", "22003", "la valeur «***» est en dehors"),
        ("wartość „hunter2” jest poza", "22003", "wartość „***” jest poza"),
        ("el valor «hunter2» está fuera", None, "el valor «***» está fuera"),
        ("date field value out of range: 2041-13-11", "22008", "date field value out of range: ***"),
        (
            'invalid byte sequence for encoding "UTF8": 0xe9 0x72',
            "22021",
            'invalid byte sequence for encoding "UTF8": ***',
        ),
        ('syntax error in tsquery: "hunter2 x"', "42601", 'syntax error in tsquery: "***"'),
        ("bad address hunter2", "P0001", RAISED),
        ("bad address hunter2", "38000", RAISED),
        ("Duplicate entry 'it's hunter2' for key 'u'", "23000", "Duplicate entry '***' for key 'u'"),
        (
            "Incorrect integer value: 'a' for column 'hunter2' for column `s`.`t`.`c` at row 1",
            "22007",
            "Incorrect integer value: '***' for column `s`.`t`.`c` at row 1",
        ),
        ("Doppelter Eintrag 'hunter2' für Schlüssel 'u'", "23000", "Doppelter Eintrag '***'"),
        (
            "Illegal double '1e400' value found during parsing",
            "22007",
            "Illegal double '***' value found during parsing",
        ),
        (
            "You have an error, the right syntax to use near 'VALUEZ ('hunter2', 5)' at line 1",
            "42000",
            "You have an error, the right syntax to use near 'VALUEZ***' at line 1",
        ),
        (
            "Could not decode to UTF-8 column 'name' with text 'hunter2'",
            None,
            "Could not decode to UTF-8 column 'name' with text '***'",
        ),
        ("timestamp too large (after year 10K): '10000-01-01'", None, "timestamp too large (after year 10K): '***'"),
        ("invalid literal for int() with base 10: b'hunter2", None, "invalid literal for int() with base 10: b'***"),
    ],
)
def test_values_are_masked_in_every_language(text: str, sqlstate: str | None, masked: str) -> None:
    assert mask_values(text, sqlstate) == masked
    assert mask_values(masked, sqlstate) == masked


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ('relation "orders" does not exist', "42P01"),
        ('column "x" of relation "y" does not exist', "42703"),
        ('null value in column "x" of relation "y" violates not-null constraint', "23502"),
        ('duplicate key value violates unique constraint "z"', "23505"),
        ('insert or update on table "x" violates foreign key constraint "y"', "23503"),
        ('syntax error at or near "FORM"', "42601"),
        ('permission denied for schema "s"', "42501"),
        ('connection to server at "127.0.0.1", port 1 failed: FATAL:  database "x" does not exist', "3D000"),
        ("value too long for type character varying(3)", "22001"),
        ('invalid byte sequence for encoding "UTF8": 0x00', "22021"),
        ("Data too long for column 'c' at row 1", "22001"),
        ("Table 'shop.orders' doesn't exist", "42S02"),
        ("Access denied for user 'a'@'db' (using password: YES)", "28000"),
        ('Got error 28 "No space left on device" from storage engine', "HY000"),
        ('near "FORM": syntax error', None),
        ("UNIQUE constraint failed: orders.id", None),
        ('no such column: "Order" - should this be a string literal in single-quotes?', None),
        ("View 'a.v' references invalid table(s)", "HY000"),
    ],
)
def test_names_stay_where_they_are_known(text: str, sqlstate: str | None, known: bool) -> None:
    assert mask_values(text, sqlstate if known else None) == text


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ("doppelter Schlüsselwert verletzt Unique-Constraint »z«", "23505"),
        ('prepared statement "_pg3_0" does not exist', "26000"),
        ('new row violates check option for view "v"', "44000"),
    ],
)
def test_names_stay_in_every_language_where_the_sqlstate_tells(text: str, sqlstate: str) -> None:
    assert mask_values(text, sqlstate) == text


PIECES = [
    "a",
    "a-",
    "://",
    "x://u:p@",
    "@:",
    "password",
    "password=",
    "password='",
    "password=a,",
    "password=,a",
]
PIECES += [
    "('a",
    "token ",
    "key = ",
    "%3D",
    "\\",
    '\\"',
    "Bearer ",
    "Cookie:",
    "-----BEGIN ",
    "-----BEGIN PRIVATE KEY-----",
]
PIECES += ["column '", "column 'a' ", "a' for column 'b' ", "n't", "near '", ": ", "1-"]
PIECES += ["password={", "('password'", "('password', 'a", "password ", "authorization=", "sess_id", "fencing_token"]


@pytest.mark.once
@pytest.mark.parametrize("piece", PIECES)
def test_masking_takes_time_in_proportion_to_the_text(piece: str) -> None:
    text = piece * (400_000 // len(piece))
    started = time.process_time()  # a busy machine takes any time on the clock
    mask_credentials(text)
    mask_values(text, "22003")
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://shop:hunter2@db/shop",
        "postgresql+psycopg://db/shop?user=shop&password=hunter2",
        "postgresql+psycopg://db/shop?sslpassword=hunter2&application_name=etl",
        "mysql+pymysql://db/shop?passwd=hunter2",
        "postgresql+psycopg://db/shop?p%61ssword=hunter2%26x",
    ],
)
def test_no_repr_shows_a_password(url: str) -> None:
    engine = make_engine(url)
    objects = [
        SQLJobStore(url),
        SQLJobStore(engine),
        SQLSink("orders", "append", url=url),
        SQLSink("orders", "append", url=make_url(url)),
        SQLSink("orders", "append", url=engine),
        SQLConnector(url, "orders"),
        SQLConnector(engine, "orders"),
        SQLQueryTemplate(url, "SELECT 1 LIMIT :limit OFFSET :offset"),
    ]
    for each in objects:
        assert SECRET not in repr(each)
        assert "***" in repr(each)
        assert "db/shop" in repr(each)
    assert SECRET not in shown_url(make_url(url))


def test_a_url_without_a_password_is_shown_as_it_is() -> None:
    for url in ("postgresql+psycopg://shop@db/shop?sslmode=require", "sqlite:////srv/data/jobs.db"):
        assert shown_url(make_url(url)) == url


class SpeechlessError(Exception):
    @override
    def __str__(self) -> str:
        raise RuntimeError(SECRET)


class DatabaseError(Exception):
    """As PEP 249 has every driver call it."""


class DataError(DatabaseError):
    pass


class OddError(Exception):
    @property
    def orig(self) -> Any:
        raise RuntimeError(SECRET)

    @property
    def diag(self) -> Any:
        raise RuntimeError(SECRET)


@pytest.mark.parametrize("error", [SpeechlessError("x"), OddError("x"), ExceptionGroup("g", [SpeechlessError("x")])])
def test_every_error_can_be_described(error: Exception) -> None:
    text = describe_error(error)
    assert text.startswith(f"{type(error).__name__}: ")
    assert SECRET not in text


def test_a_driver_error_that_cannot_be_shown_is_described() -> None:
    error = RuntimeError("outside")
    error.orig = SpeechlessError(SpeechlessError())  # type: ignore[attr-defined]
    assert describe_error(error).startswith("RuntimeError: ")


def test_a_driver_error_outside_of_sqlalchemy_is_described_without_values() -> None:
    assert describe_error(DataError(1292, "Wert: 'hunter2'")) == "DataError: 1292: Wert: '***'"
    parts = {"S": "ERROR", "C": "22003", "M": 'value "hunter2" is out of range', "D": "Key (id)=(hunter2)"}  # pg8000
    assert describe_error(DataError(parts)) == 'DataError: value "***" is out of range'


def test_a_crash_loop_promises_nothing_that_does_not_help() -> None:
    text = str(CrashLoopError("orders", 5, 5))
    assert "batch_size" not in text
    assert "max_stalled_attempts" in text
    assert "reset_job(job_id)" in text


@pytest.mark.parametrize(
    ("fingerprint", "named"),
    [
        (5, "5"),
        (b"table", "b'table'"),
        (["table"], "['table']"),
        ({"table": 5}, "'table'"),
        ({5: "table"}, "5"),
        ({"table": None}, "'table'"),
    ],
)
def test_a_fingerprint_is_text_or_a_mapping_of_texts(fingerprint: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match="give a str") as caught:
        fingerprint_text(fingerprint)
    assert named in str(caught.value)
