"""What connector, sink and store can do together."""

from typing import Any

from resumable_sync._attempts.options import Options
from resumable_sync._errors import ConfigurationError
from resumable_sync._model import Guarantee
from resumable_sync._protocols import CheckpointingSink, DeadLetterStore, JobStore, Sink, TransactionalJobStore

__all__ = ["check_ports", "guarantee_of", "keeps_checkpoint", "writes_in_transaction"]


def check_ports(job_id: str, connector: Any, sink: Sink | None, store: Any, options: Options) -> None:
    """Check that the pieces fit together.

    Raises:
        ConfigurationError: If one is no connector or store, or they cannot do together what the options ask for.
    """
    if isinstance(connector, type) or not callable(getattr(connector, "read", None)):
        msg = f"job {job_id!r}: {_shown(connector)} is no connector; give an object with read(cursor, batch_size)"
        raise ConfigurationError(msg)
    if isinstance(store, type) or not isinstance(store, JobStore):
        msg = f"job {job_id!r}: {_shown(store)} is no job store; give an object such as SQLJobStore(url)"
        raise ConfigurationError(msg)
    if options.on_refused == "dead_letter":
        if sink is None or not sink.transactional:
            msg = f"job {job_id!r}: on_refused='dead_letter' needs a transactional sink, such as SQLSink without url"
            raise ConfigurationError(msg)
        if not isinstance(store, DeadLetterStore):
            msg = f"job {job_id!r}: on_refused='dead_letter' needs a store that keeps dead letters, such as SQLJobStore"
            raise ConfigurationError(msg)
    if sink is not None and sink.transactional and not isinstance(store, TransactionalJobStore):
        msg = (
            f"job {job_id!r}: the sink is transactional, but a {type(store).__name__} has no transactions to write in; "
            "use a store that has, such as SQLJobStore, or give an SQLSink its own url="
        )
        raise ConfigurationError(msg)


def _shown(thing: Any) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else f"a {type(thing).__name__}"


def writes_in_transaction(sink: Sink | None, store: JobStore) -> bool:
    """Whether sink and checkpoint commit together."""
    return sink is not None and sink.transactional and isinstance(store, TransactionalJobStore)


def guarantee_of(sink: Sink | None, store: JobStore) -> Guarantee:
    """Give what holds for the target, never more than is true."""
    if sink is None:
        return Guarantee.AT_LEAST_ONCE
    if writes_in_transaction(sink, store) or keeps_checkpoint(sink):
        return Guarantee.EXACTLY_ONCE
    return Guarantee.EFFECTIVELY_ONCE if sink.idempotent else Guarantee.AT_LEAST_ONCE


def keeps_checkpoint(sink: Sink) -> bool:
    """Whether the sink keeps its own checkpoint, beside its rows."""
    return not sink.transactional and isinstance(sink, CheckpointingSink)
