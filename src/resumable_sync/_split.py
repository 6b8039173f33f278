"""The abilities of connector and sink to work in parts, side by side, which `run_partitioned_sync` needs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from typing_extensions import TypeVar

from resumable_sync._model import Cursor, Job
from resumable_sync._protocols import Connector, Sink

__all__ = ["ConnectorPart", "PartitionableSink", "SplittableConnector"]

ReadT_co = TypeVar("ReadT_co", covariant=True, default=Any)
WrittenT_contra = TypeVar("WrittenT_contra", contravariant=True, default=Any)


@runtime_checkable
class ConnectorPart(Connector[ReadT_co], Protocol[ReadT_co]):
    """A part of a source that can be split: a connector of its own.

    Attributes:
        place: Where it begins and ends, of the types of the cursor codec and without credentials: the job keeps it.
    """

    if TYPE_CHECKING:
        # For the type checker it is read-only, so that a property will do.
        @property
        def place(self) -> Cursor:
            return None

    else:
        place: Cursor


@runtime_checkable
class SplittableConnector(Protocol[ReadT_co]):
    """A connector that can be read in parts, side by side.

    Implementations must:

    - give parts that are contiguous and disjoint, and together the whole, whatever comes and goes in the source;
    - give parts of about equal numbers of records;
    - give parts that pickle, if the connector does, and whose cursors mean the same in every process;
    - give the same part again for its place, in another process too, and raise `CursorError` for what is none.
    """

    def split(self, parts: int) -> Sequence[ConnectorPart[ReadT_co]]:
        """Give at most `parts` parts, in the order of the source; none if it is empty.

        Args:
            parts: At least 1.

        Raises:
            ConfigurationError: If the source cannot be split as it is set up, such as where nobody can count it.
        """
        ...

    def part(self, place: Cursor) -> ConnectorPart[ReadT_co]:
        """Give the part of a place. Nothing is read yet.

        Args:
            place: That of a part which `split` gave.
        """
        ...


@runtime_checkable
class PartitionableSink(Protocol[WrittenT_contra]):
    """A sink whose target is filled by the parts of a job, side by side, each a job of its own.

    `begin` and `complete` of the sink itself are called for the whole: before the first part is worked on, at every
    later start of the whole, and when all parts are complete. `write` is called for parts only.

    Implementations must:

    - give a sink that writes into what `begin` prepared for the run of the whole, and that neither prepares nor
      publishes anything by itself;
    - give one that any number of others can work beside, in this process and in others.
    """

    def part(self, job: Job) -> Sink[WrittenT_contra]:
        """Give the sink of one part.

        Args:
            job: The whole, of which `run_id` names the run.
        """
        ...
