"""A table on PostgreSQL is replaced by one that is the same in everything but its rows, or it is refused."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from typing_extensions import override

from resumable_sync import ConfigurationError, KeysetConnector, replay_dead_letters, run_full_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore
from servers import Server
from sinks.postgresql import ORDERS, ROLES, SWAPPER, TABLE, decorated, execute, names, portrait, rows, run, stage, swap
from sinks.replacing import Attempt

LONG = "ä" * 31
INTERIM = re.compile("resumable_sync_[0-9a-f]{16}")


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    made = create_engine(postgres_url)
    yield made
    made.dispose()


@pytest.fixture
def role(engine: Engine) -> Iterator[dict[str, str]]:
    """Real names of the roles, which belong to the whole server."""
    names = {name: f"{name}_{engine.url.database}" for name in ROLES}
    run(engine, *(f"CREATE ROLE {name} LOGIN" for name in names.values()))
    yield names
    run(engine, *(f"DROP OWNED BY {name} CASCADE" for name in names.values()))
    run(engine, *(f"DROP ROLE {name}" for name in names.values()))


@pytest.fixture
def orders(engine: Engine) -> Engine:
    run(engine, *ORDERS)
    return engine


@pytest.fixture(scope="module")
def shared(postgres: Server) -> Iterator[Engine]:
    """For many short tests, each of which rolls back."""
    url = postgres.create_database()
    made = create_engine(url)
    run(made, *ORDERS)
    yield made
    made.dispose()
    postgres.give_back(url)


@pytest.fixture
def connection(shared: Engine) -> Iterator[Connection]:
    with shared.connect() as made:
        yield made
        made.rollback()


class Codes(KeysetConnector[dict[str, object]]):
    """Four records."""

    records: ClassVar = [{"co'de": code, "counted": 1, "customer": 1, "parent": 20} for code in "abcd"]

    @override
    def fetch(self, after: Any, limit: int) -> list[dict[str, object]]:
        return [record for record in self.records if after is None or str(record["co'de"]) > after][:limit]

    @override
    def key_of(self, record: dict[str, object]) -> Any:
        return record["co'de"]


@pytest.mark.parametrize("own", [False, True], ids=["store's", "own"])
def test_everything_about_a_table_is_kept(engine: Engine, sqlite_url: str, role: dict[str, str], own: bool) -> None:
    run(engine, *decorated(role))
    run(engine, """SELECT setval('sales."Or%ders_id_seq"', 500), setval('sales."Or%ders_counted_seq"', 70)""")
    run(engine, """SELECT setval('sales."Or%ders_down_seq"', -7, false)""")
    before, there = portrait(engine), names(engine, "sales") | names(engine, "public")
    with SQLJobStore(sqlite_url if own else engine) as store:
        sink = SQLSink("Or%ders", mode="replace", schema="sales", url=engine if own else None)
        result = run_full_sync("codes", Codes(), sink, store=store, batch_size=3)
    assert (result.status, result.guarantee) == ("completed", "exactly_once")
    assert portrait(engine) == before
    made = names(engine, "sales") | names(engine, "public")
    assert {name for name in made - there if "resumable_sync" not in name} == set()
    assert there - made == set()
    assert [name for name in made if INTERIM.search(name)] == []
    assert rows(engine, f"SELECT id, down, net, gross FROM {TABLE} ORDER BY id") == [
        (5 * number, -number, 2, Decimal("2.40")) for number in (1, 2, 3, 4)
    ]
    run(engine, f"ALTER TABLE {TABLE} DISABLE TRIGGER USER")
    run(engine, f"""INSERT INTO {TABLE} ("co'de") VALUES ('new')""")
    assert rows(engine, f"""SELECT id, counted, down FROM {TABLE} WHERE "co'de" = 'new'""") == [(505, 71, -7)]


def test_an_unlogged_table_stays_so(engine: Engine) -> None:
    run(engine, "CREATE UNLOGGED TABLE orders (id int GENERATED ALWAYS AS IDENTITY)")
    before = portrait(engine, "orders")
    stage(engine, "INSERT INTO staging DEFAULT VALUES")
    swap(engine)
    assert {fact for fact in portrait(engine, "orders") - before if fact[0] != "sequence"} == set()


def test_names_may_be_as_long_as_names_can_be(engine: Engine) -> None:
    run(engine, f'CREATE TABLE "{LONG}" ("{LONG}" int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)')
    run(engine, f'CREATE INDEX "{LONG[:-1]}b" ON "{LONG}" ("{LONG}")')
    before = portrait(engine, f'"{LONG}"')
    stage(engine, "INSERT INTO staging OVERRIDING SYSTEM VALUE VALUES (1)", name=LONG)
    swap(engine, LONG)
    assert portrait(engine, f'"{LONG}"') == before


def test_a_table_that_was_not_there_gets_the_names_it_would_have_had(engine: Engine) -> None:
    run(engine, "CREATE TABLE orders (id int PRIMARY KEY, name text NOT NULL)")
    expected = portrait(engine, "orders")
    run(engine, "DROP TABLE orders", "CREATE TABLE staging (id int PRIMARY KEY, name text NOT NULL)")
    with engine.begin() as connection:
        SWAPPER.check(connection, "orders", "public")
    swap(engine)
    assert portrait(engine, "orders") == expected


def test_the_schema_is_the_one_in_which_the_name_is_found(connection: Connection) -> None:
    execute(connection, "CREATE SCHEMA first", "SET LOCAL search_path = first, public")
    assert SWAPPER.locate(connection, "orders", None) == "public"
    assert SWAPPER.locate(connection, "new", None) == "first"
    assert SWAPPER.locate(connection, "new", "other") == "other"
    execute(connection, "SET LOCAL search_path = ''")
    assert SWAPPER.locate(connection, "orders", None) is None


def test_only_the_owner_reads_the_staging_table(orders: Engine, role: dict[str, str]) -> None:
    run(orders, f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO {role['reader']}")
    stage(orders)
    assert rows(orders, f"SELECT has_table_privilege('{role['reader']}', 'staging', 'SELECT')") == [(False,)]


FUNCTION = "CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
OBSTACLES = [
    ("CREATE VIEW latest AS SELECT id FROM orders", "view latest"),
    ("CREATE MATERIALIZED VIEW latest AS SELECT * FROM orders", "materialized view latest"),
    ("CREATE VIEW grouped AS SELECT name, id FROM orders GROUP BY id", "view grouped"),
    ("CREATE TABLE items (order_id int REFERENCES orders)", "items_order_id_fkey on table items"),
    ("CREATE FUNCTION newest() RETURNS SETOF orders LANGUAGE sql AS 'SELECT * FROM orders'", "function newest()"),
    ("CREATE FUNCTION f(orders[]) RETURNS int LANGUAGE sql AS 'SELECT 1'", "function f("),
    ("CREATE FUNCTION f() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM orders; END", "function f()"),
    ("CREATE TABLE archive (old orders)", "column old of table archive"),
    ("CREATE TABLE child () INHERITS (orders)", "child child"),
    ("CREATE RULE quiet AS ON DELETE TO orders DO INSTEAD NOTHING", "rule quiet on table orders"),
    ("CREATE POLICY mine ON orders USING (true)", "policy mine on table orders"),
    ("ALTER TABLE orders ENABLE ROW LEVEL SECURITY", "row level security"),
    ("CREATE PUBLICATION p FOR TABLE orders", "publication p"),
    ("CREATE PUBLICATION p FOR TABLES IN SCHEMA public", "publication p"),
    ("CREATE PUBLICATION p FOR ALL TABLES", "publication p"),
    (
        f"""{FUNCTION};
        CREATE CONSTRAINT TRIGGER t AFTER INSERT ON customers FROM orders FOR EACH ROW EXECUTE FUNCTION fired()""",
        "trigger t on table customers",
    ),
    (
        """ALTER TABLE orders ALTER id ADD GENERATED ALWAYS AS IDENTITY;
        CREATE TABLE other (n int DEFAULT nextval('orders_id_seq'))""",
        "default value for column n of table other",
    ),
    ("ALTER EXTENSION plpgsql ADD TABLE orders", "extension plpgsql"),
]


@pytest.mark.parametrize(("obstacle", "named"), OBSTACLES)
def test_what_would_break_is_refused_before_any_work(connection: Connection, obstacle: str, named: str) -> None:
    execute(connection, obstacle)
    with pytest.raises(ConfigurationError, match="mode='upsert'") as caught:
        SWAPPER.check(connection, "orders", "public")
    assert named in str(caught.value)
    assert "public.orders" in str(caught.value)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE VIEW target AS SELECT 1 AS id", "a view as the target"),
        ("CREATE MATERIALIZED VIEW target AS SELECT 1 AS id", "a materialized view as the target"),
        ("CREATE TABLE target (id int) PARTITION BY RANGE (id)", "a partitioned table as the target"),
        ("CREATE SEQUENCE target", "a relation that is no table as the target"),
        ("CREATE TABLE parent (id int) PARTITION BY LIST (id)", "its parent parent"),
        ("CREATE TYPE shape AS (id int)", "its type shape"),
        ("CREATE TEMPORARY TABLE target (id int)", "its being temporary"),
    ],
)
def test_a_target_of_another_kind_is_refused(connection: Connection, statement: str, named: str) -> None:
    execute(connection, statement)
    if "parent" in named:
        execute(connection, "CREATE TABLE target PARTITION OF parent FOR VALUES IN (1)")
    if "shape" in named:
        execute(connection, "CREATE TABLE target OF shape")
    with pytest.raises(ConfigurationError) as caught:
        SWAPPER.check(connection, "target", SWAPPER.locate(connection, "target", None))
    assert named in str(caught.value)


def test_a_role_that_may_not_use_what_another_has_made_is_told(orders: Engine, role: dict[str, str]) -> None:
    """The register and the table of checkpoints, then a staging table."""
    clerk = role["clerk"]
    run(orders, "DROP TABLE orders CASCADE", f"GRANT CREATE ON SCHEMA public TO {clerk}")
    theirs = create_engine(orders.url.set(username=clerk))
    loading = Attempt(orders, own=True, table="orders").begin().write()
    run(orders, "REVOKE ALL ON resumable_sync_checkpoints, resumable_sync_staging FROM PUBLIC")
    refused = {
        "resumable_sync_checkpoints": "this role may not use .*'resumable_sync_checkpoints'.*permission denied.*GRANT ",
        "resumable_sync_staging": r"this role may not use .*'public.resumable_sync_staging'.*permission denied.*GRANT ",
        "the staging table": r"the staging table 'resumable_sync_.*' belongs to the role postgres, under which",
    }
    try:
        for table, match in refused.items():
            again = loading.next(engine=theirs)
            with pytest.raises(ConfigurationError, match=f"(?s){match}"):
                again.begin()
            if table.startswith("resumable_sync_"):
                run(orders, f"GRANT ALL ON {table} TO {clerk}")
        run(orders, f"GRANT postgres TO {clerk}")
        again = loading.next(engine=theirs).begin().write().complete()
        assert [row[:2] for row in rows(orders, "SELECT id, name FROM orders ORDER BY id")] == [(1, "a1"), (2, "a2")]
        again.sink.close()
    finally:
        theirs.dispose()


def test_a_role_that_cannot_make_the_same_table_is_told_before_any_work(orders: Engine, role: dict[str, str]) -> None:
    clerk, owner = role["clerk"], role["keeper"]
    run(orders, f"GRANT ALL ON orders TO {clerk}", f"GRANT CREATE ON SCHEMA public TO {clerk}")
    url = orders.url.set(username=clerk)
    theirs = create_engine(url)

    def check() -> None:
        with theirs.begin() as connection:
            SWAPPER.check(connection, "orders", "public")

    try:
        with pytest.raises(ConfigurationError, match="its owner postgres") as caught:
            check()
        assert "drop" not in str(caught.value)
        run(orders, f"ALTER TABLE orders OWNER TO {owner}", f"GRANT {owner} TO {clerk}")
        with pytest.raises(ConfigurationError, match=f"its owner {owner}"):
            check()
        run(orders, f"GRANT CREATE ON SCHEMA public TO {owner}")
        check()
        run(
            orders,
            "ALTER TABLE orders ADD CONSTRAINT bought FOREIGN KEY (customer) REFERENCES customers",
            FUNCTION,
            "REVOKE EXECUTE ON FUNCTION fired FROM PUBLIC",
            "CREATE TRIGGER t AFTER INSERT ON orders EXECUTE FUNCTION fired()",
        )
        with pytest.raises(ConfigurationError, match="trigger t, whose function"):
            check()
        run(orders, f"GRANT EXECUTE ON FUNCTION fired TO {clerk}")
        with theirs.begin() as connection, pytest.raises(ConfigurationError, match="permission denied for table cust"):
            SWAPPER.create_like(connection, "orders", "public", "staging")
        run(orders, f"GRANT REFERENCES ON customers TO {clerk}")
        before = portrait(orders, "orders")
        stage(theirs)
        swap(theirs)
        assert portrait(orders, "orders") == before
    finally:
        theirs.dispose()


CHANGES = {
    "index": ["CREATE INDEX named ON orders (name)"],
    "unique": ["ALTER TABLE orders ADD CONSTRAINT named UNIQUE (name)"],
    "index made anew": ["DROP INDEX old", "CREATE UNIQUE INDEX old ON orders (lower(name))"],
    "no more index": ["DROP INDEX old"],
    "primary key": ["ALTER TABLE orders DROP CONSTRAINT orders_pkey, ADD PRIMARY KEY (name)"],
    "check": ["ALTER TABLE orders ADD CONSTRAINT positive CHECK (id > 0)"],
    "foreign key": ["ALTER TABLE orders ADD CONSTRAINT bought FOREIGN KEY (customer) REFERENCES customers"],
    "own foreign key": ["ALTER TABLE orders ADD CONSTRAINT tree FOREIGN KEY (customer) REFERENCES orders"],
    "default": ["ALTER TABLE orders ALTER name DROP DEFAULT, ALTER customer SET DEFAULT 7"],
    "not null": ["ALTER TABLE orders ALTER name SET NOT NULL"],
    "setting": ["ALTER TABLE orders SET (fillfactor = 50)", "ALTER TABLE orders RESET (autovacuum_enabled)"],
    "statistics": ["ALTER TABLE orders ALTER name SET STATISTICS 9", "CREATE STATISTICS s ON id, name FROM orders"],
    "rights": ["GRANT SELECT ON orders TO PUBLIC"],
    "comment": ["COMMENT ON TABLE orders IS 'new'"],
    "unlogged": ["ALTER TABLE orders SET UNLOGGED"],
}


@pytest.mark.parametrize("which", CHANGES)
def test_what_is_changed_while_a_run_loads_is_carried_over(connection: Connection, which: str) -> None:
    execute(connection, "CREATE INDEX old ON orders (name)", "ALTER TABLE orders SET (autovacuum_enabled = false)")
    SWAPPER.create_like(connection, "orders", "public", "staging")
    execute(connection, "INSERT INTO staging VALUES (2, 'new')", *CHANGES[which])
    before = portrait(connection, "orders")
    SWAPPER.swap(connection, "orders", "public", "staging")
    assert portrait(connection, "orders") == before
    assert connection.exec_driver_sql("SELECT id FROM orders").scalars().all() == [2]


@pytest.mark.parametrize(
    ("change", "undo", "named"),
    [
        ("CREATE VIEW latest AS SELECT id FROM orders", "DROP VIEW latest", "view latest"),
        ("ALTER TABLE orders ADD extra int", "ALTER TABLE orders DROP extra", "(extra)"),
        ("ALTER TABLE orders ALTER id TYPE bigint", "ALTER TABLE orders ALTER id TYPE int", "(id)"),
    ],
)
def test_what_cannot_be_carried_over_stops_the_swap_and_loses_nothing(
    orders: Engine, change: str, undo: str, named: str
) -> None:
    stage(orders)
    run(orders, change)
    with pytest.raises(ConfigurationError) as caught:
        swap(orders)
    assert named in str(caught.value)
    assert rows(orders, "SELECT id FROM orders") == [(1,)]
    assert rows(orders, "SELECT id FROM staging") == [(2,)]
    run(orders, undo)
    swap(orders)
    assert rows(orders, "SELECT id FROM orders") == [(2,)]


def test_a_check_that_was_dropped_lets_its_dead_letters_through(orders: Engine, sqlite_url: str) -> None:
    run(orders, "ALTER TABLE orders ADD CONSTRAINT short CHECK (length(name) < 4)")
    source = create_engine(sqlite_url)
    run(source, "CREATE TABLE source (id INTEGER PRIMARY KEY, name TEXT)")
    run(source, *(f"INSERT INTO source VALUES ({one}, '{'long' if one == 3 else 'ok'}')" for one in range(1, 6)))
    sink = SQLSink("orders", mode="replace")
    with SQLJobStore(orders) as store:
        result = run_full_sync("job", SQLConnector(source, "source"), sink, store=store, on_refused="dead_letter")
        assert (result.status, rows(orders, "SELECT name FROM orders")) == ("incomplete", [("old",)])
        run(orders, "ALTER TABLE orders DROP CONSTRAINT short")
        assert replay_dead_letters("job", sink, store=store).status == "completed"
    assert len(rows(orders, "SELECT id FROM orders")) == 5
    source.dispose()


def test_a_staging_table_that_somebody_dropped_is_told(orders: Engine) -> None:
    stage(orders)
    run(orders, "DROP TABLE staging")
    with pytest.raises(ConfigurationError, match=r"'public\.staging' is gone"):
        swap(orders)
    assert rows(orders, "SELECT id FROM orders") == [(1,)]


def test_rows_that_break_the_tables_own_foreign_key_stop_the_swap(orders: Engine) -> None:
    run(orders, "ALTER TABLE orders ADD CONSTRAINT tree FOREIGN KEY (customer) REFERENCES orders")
    # Each row alone may come before the one it refers to.
    stage(orders, "INSERT INTO staging VALUES (2, 'child', 3)")
    with pytest.raises(DBAPIError, match="tree"):
        swap(orders)
    assert rows(orders, "SELECT id FROM orders") == [(1,)]
    run(orders, "INSERT INTO staging VALUES (3, 'parent')")
    before = portrait(orders, "orders")
    swap(orders)
    assert portrait(orders, "orders") == before


def test_rows_of_the_same_transaction_may_have_deferred_checks(orders: Engine) -> None:
    run(
        orders,
        "ALTER TABLE orders ADD FOREIGN KEY (customer) REFERENCES customers DEFERRABLE INITIALLY DEFERRED",
        "INSERT INTO customers VALUES (7)",
    )
    stage(orders)
    with pytest.raises(DBAPIError, match="violates foreign key"), orders.begin() as connection:
        execute(connection, "INSERT INTO staging VALUES (3, 'replayed', 8)")
        SWAPPER.swap(connection, "orders", "public", "staging")
    with orders.begin() as connection:
        execute(connection, "INSERT INTO staging VALUES (3, 'replayed', 7)")
        SWAPPER.swap(connection, "orders", "public", "staging")
    assert rows(orders, "SELECT id FROM orders ORDER BY id") == [(2,), (3,)]


def test_the_timeout_of_the_transaction_is_as_it_was(connection: Connection) -> None:
    execute(connection, "SET LOCAL lock_timeout = '1234ms'")
    SWAPPER.create_like(connection, "orders", "public", "staging")
    SWAPPER.swap(connection, "orders", "public", "staging")
    assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "1234ms"
    # Until the end of the transaction, which holds the lock.
    assert connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar_one() == "10s"


def test_a_swap_that_is_rolled_back_can_be_done_again(orders: Engine) -> None:
    run(orders, "ALTER TABLE orders ADD number int GENERATED ALWAYS AS IDENTITY")
    before = portrait(orders, "orders")
    stage(orders, "INSERT INTO staging (id, number) OVERRIDING SYSTEM VALUE VALUES (2, 1)")
    with pytest.raises(RuntimeError), orders.begin() as connection:
        SWAPPER.swap(connection, "orders", "public", "staging")
        raise RuntimeError
    assert portrait(orders, "orders") == before
    assert rows(orders, "SELECT id FROM staging") == [(2,)]
    swap(orders)
    assert portrait(orders, "orders") == before
