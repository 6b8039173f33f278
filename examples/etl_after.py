"""Load the shop's orders into the warehouse, with their totals in euros. Run by cron, at night."""

import os
from decimal import Decimal
from typing import Any

import psycopg
from sqlalchemy import create_engine

from resumable_sync import FullSync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.stores.sql import SQLJobStore


def transform(order: tuple[Any, ...]) -> tuple[Any, ...]:
    number, customer, cents = order
    return number, customer.strip().title(), Decimal(cents) / 100


def load(warehouse: Any, orders: list[tuple[Any, ...]]) -> None:
    with warehouse.cursor() as cursor:
        cursor.executemany("INSERT INTO orders (id, customer, euros) VALUES (%s, %s, %s)", orders)


def main() -> None:
    shop = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(os.environ["SHOP"]))
    warehouse = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(os.environ["WAREHOUSE"]))
    source = SQLConnector(shop, "SELECT id, customer, cents FROM orders", key="id")
    with FullSync("orders", source, store=SQLJobStore(warehouse)) as sync:
        for batch in sync:
            with warehouse.begin() as connection:
                if batch.sequence == 0:
                    connection.exec_driver_sql("TRUNCATE orders")
                load(connection.connection.driver_connection, [transform(order) for order in batch.records])
                sync.commit(batch, connection)


if __name__ == "__main__":
    main()
