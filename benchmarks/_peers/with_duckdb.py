"""DuckDB with its extensions for PostgreSQL and SQLite, which come as packages: one statement does it all."""

from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb
from benchmarks._peers._common import main


def load(connection: Any, name: str) -> None:
    """Load an extension from its package, as nothing is to be fetched from a network."""
    package = import_module(f"duckdb_extension_{name}")
    (path,) = Path(package.__path__[0]).glob(f"extensions/v{duckdb.__version__}/{name}.duckdb_extension")
    connection.load_extension(str(path))


def copy(source: str, target: str, extension: str, kind: str) -> None:
    """Copy from one attached database into another."""
    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
        load(connection, extension)
        connection.execute(f"ATTACH '{source}' AS source (TYPE {kind}, READ_ONLY)")
        connection.execute(f"ATTACH '{target}' AS target (TYPE {kind})")
        connection.execute("CREATE TABLE target.orders AS SELECT * FROM source.orders")


def postgres(source: str, target: str) -> None:
    """Copy."""
    copy(source, target, "postgres_scanner", "postgres")


def sqlite(source: str, target: str) -> None:
    """Copy."""
    copy(source, target, "sqlite_scanner", "sqlite")


def parquet(source: str, target: str) -> None:
    """Write."""
    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
        load(connection, "postgres_scanner")
        connection.execute(f"ATTACH '{source}' AS source (TYPE postgres, READ_ONLY)")
        connection.execute(f"COPY source.orders TO '{target}/orders.parquet' (FORMAT parquet)")


if __name__ == "__main__":
    main(postgres=postgres, sqlite=sqlite, parquet=parquet)
