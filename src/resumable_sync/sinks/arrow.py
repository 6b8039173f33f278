"""`ArrowSink`: batches into a table through ADBC, every record exactly once."""

import uuid
from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from typing_extensions import override

from resumable_sync._arrow.adbc import AdbcDatabase, Driver
from resumable_sync._arrow.columns import pyarrow
from resumable_sync._database import scrub
from resumable_sync._errors import ConfigurationError, describe_error
from resumable_sync._model import Checkpoint, Job
from resumable_sync.sinks._ingest import Ingest
from resumable_sync.sinks._link import Link
from resumable_sync.sinks._table_sink import BatchWriter, TableSink
from resumable_sync.sinks._target import Target

__all__ = ["ArrowSink"]


class ArrowSink(TableSink):
    """Write batches into a table through ADBC's ingestion, every record exactly once.

        ArrowSink("orders", "replace", "postgresql://etl@warehouse/dw")
        ArrowSink("orders", "append", "user:secret@account/dw", driver="adbc_driver_snowflake")

    Arrow data, such as that of `ArrowConnector` and `ParquetConnector`, never becomes Python values; dicts and tuples
    are made columns of Arrow. On PostgreSQL they go through COPY's binary form.

    The sink keeps a checkpoint of its own beside the rows, in the table `resumable_sync_checkpoints`, as `SQLSink` with
    `url` does: rows, checkpoint and the check of the fencing token commit in one transaction of one connection, so that
    a record is there once, whatever dies when and wherever the job's store is. A predecessor that is frozen inside a
    COPY has its session ended by the next attempt. Tables are made, compared with the source's columns, replaced and
    evolved as by `SQLSink`.

    With another driver it first tries out, in a table that it drops again, whether what is ingested in a transaction is
    gone when that is rolled back, and refuses a database where it is not, or which has no transactions. There it only
    appends, and the target must exist.

    Values are made exactly what the columns of the target hold, or refused with `ValueError`, which names the column
    and not the value: a decimal of more digits than its numeric, a float for a numeric that it is not by its shortest
    text, Arrow's times without a zone for those with one, and the other way round. SQLite gets what `SQLSink` writes
    there: times as text, decimals as numbers if a double keeps them. Into columns of PostgreSQL for which its driver
    has no form (inet, ranges, ...) use `SQLSink`.

    An object is for one job at a time. A file of SQLite must not be open in this process through Python's `sqlite3`
    too, as it is where the store is in the same file: give the store a file of its own (see `ArrowConnector`).

    Args:
        table: `"name"` or `"schema.name"`.
        mode: `"append"` adds every record, `"replace"` puts a new table in the place of the old one when the run is
            complete (PostgreSQL and SQLite).
        uri: The target's database: `postgresql://...`, `sqlite:///...`, or with `driver` whatever that takes.
        driver: As for `ArrowConnector`.
        options: Further arguments of the driver, its `db_kwargs`, such as keys; they are shown nowhere.
        schema: The schema, for a table whose name holds a dot.
        on_schema_change: As for `SQLSink`.
        publish_incomplete: As for `SQLSink`.

    Raises:
        ConfigurationError: If the arguments do not fit together.
        MissingExtraError: If pyarrow is not installed (extra `arrow`).

    Examples:
        >>> ArrowSink("orders", "append", "postgresql://etl:secret@warehouse/dw")
        ArrowSink('orders', mode='append', uri='postgresql://etl:***@warehouse/dw')
    """

    preferred_batch_size = 10_000
    """How many records make a batch unless the caller says."""

    def __init__(
        self,
        table: str,
        mode: Literal["append", "replace"],
        uri: str,
        *,
        driver: Driver | None = None,
        options: Mapping[str, str] | None = None,
        schema: str | None = None,
        on_schema_change: Literal["fail", "evolve"] = "fail",
        publish_incomplete: bool = False,
    ) -> None:
        pyarrow()
        if mode not in ("append", "replace"):
            msg = (
                f"mode={mode!r} is no mode of ArrowSink; use 'append' or 'replace', or SQLSink(mode='upsert', url=...)"
            )
            raise ConfigurationError(msg)
        self._database = AdbcDatabase(uri, driver, options)
        super().__init__(
            table,
            mode,
            None,
            schema=schema,
            on_schema_change=on_schema_change,
            publish_incomplete=publish_incomplete,
        )

    @override
    def _open(self) -> None:
        # Of its own, also in a part or a copy: whoever closes its connections closes nobody else's.
        self._database = self._database.anew()
        self._probed = False
        super()._open()

    @override
    def _made_link(self) -> Link:
        return Link(self._database)

    @override
    def checkpoint(self, job: Job) -> Checkpoint | None:
        with self._lock:
            if not self._probed and self._database.engine.dialect.name == "adbc":
                self._probe()
            self._probed = True
            return super().checkpoint(job)

    @override
    def _writer(self, target: Target, connection: Connection) -> BatchWriter:
        return Ingest(connection, target, self._columns, self._zombies)

    def _probe(self) -> None:
        """See to it that rows which are ingested in a transaction are gone when it is rolled back.

        Raises:
            ConfigurationError: If they are not, or there are no transactions.
        """
        if self._mode != "append":
            msg = "mode='replace' is for PostgreSQL and SQLite: how tables are swapped elsewhere is not known; use"
            raise ConfigurationError(f"{msg} mode='append'")
        name = f"resumable_sync_probe_{uuid.uuid4().hex[:8]}"
        kept, failed = True, ""
        with self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            adbc: Any = connection.connection.driver_connection
            connection.exec_driver_sql(f"CREATE TABLE {name} (n INTEGER)")
            try:
                adbc.autocommit = False
                with adbc.cursor() as cursor:
                    cursor.ingest(name, pyarrow().table({"n": pyarrow().array([1], pyarrow().int32())}), None)
                adbc.rollback()
                adbc.autocommit = True
                kept = bool(connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar())  # noqa: S608 - ours
            except connection.dialect.loaded_dbapi.Error as error:
                failed = describe_error(error)
            except DBAPIError as error:
                failed = describe_error(scrub(error))
            finally:
                adbc.autocommit = True
                connection.exec_driver_sql(f"DROP TABLE {name}")
        if kept or failed:
            msg = "with this driver rows and checkpoint cannot be kept together: what is ingested in a transaction "
            what = f"fails ({failed})" if failed else "stays when that is rolled back"
            raise ConfigurationError(f"{msg}{what}. Use ParquetSink, or another driver")

    @override
    def __repr__(self) -> str:
        parts = [repr(self._shown()), f"mode={self._mode!r}"]
        parts += ["on_schema_change='evolve'"] if self._evolves else []
        parts += ["publish_incomplete=True"] if self.publishes_incomplete else []
        return f"ArrowSink({', '.join([*parts, f'uri={self._database.place!r}'])})"
