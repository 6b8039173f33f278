"""Load the shop's orders into the warehouse, with their totals in euros. Run by cron, at night."""

import os
from decimal import Decimal
from typing import Any

import psycopg


def transform(order: tuple[Any, ...]) -> tuple[Any, ...]:
    number, customer, cents = order
    return number, customer.strip().title(), Decimal(cents) / 100


def load(warehouse: Any, orders: list[tuple[Any, ...]]) -> None:
    with warehouse.cursor() as cursor:
        cursor.executemany("INSERT INTO orders (id, customer, euros) VALUES (%s, %s, %s)", orders)


def main() -> None:
    with psycopg.connect(os.environ["SHOP"]) as shop, psycopg.connect(os.environ["WAREHOUSE"]) as warehouse:
        warehouse.execute("TRUNCATE orders")
        with shop.cursor("orders") as cursor:
            cursor.execute("SELECT id, customer, cents FROM orders")
            while orders := cursor.fetchmany(1_000):
                load(warehouse, [transform(order) for order in orders])
                warehouse.commit()


if __name__ == "__main__":
    main()
