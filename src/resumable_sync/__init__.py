"""Resumable batched extraction: a full sync that survives being killed.

`run_full_sync` copies what a connector reads into a sink, batch by batch, and goes on exactly where it stopped when it
is called again after any death. Connectors live in `resumable_sync.connectors`, sinks in `resumable_sync.sinks`, job
stores in `resumable_sync.stores`; conformance suites for your own in `resumable_sync.testing`.
"""

from resumable_sync._attempts.throttle import Throttle
from resumable_sync._bases import KeysetConnector, OffsetConnector, TokenConnector
from resumable_sync._cursor import decode_cursor, encode_cursor
from resumable_sync._engine import FullSync, plan_full_sync, run_full_sync
from resumable_sync._errors import (
    ConfigurationError,
    CrashLoopError,
    CursorError,
    DeadLetterLimitError,
    ExecutorBrokenError,
    JobHeldError,
    LeaseLostError,
    MissingExtraError,
    ResumableSyncError,
    SourceChangedError,
    StateCorruptError,
    StoreError,
    TransientError,
)
from resumable_sync._events import (
    BatchCommitted,
    Event,
    PartsProgressed,
    RecordRefused,
    SyncFinished,
    SyncStarted,
    TryFailed,
)
from resumable_sync._formats import (
    ArrowRows,
    CopyText,
    Format,
    FormattingConnector,
    FormattingSink,
    SQLiteWindow,
    StaleRecordsError,
)
from resumable_sync._history import History, HistoryStore, Sample
from resumable_sync._model import (
    AttemptRecord,
    Batch,
    Checkpoint,
    Cursor,
    DeadLetter,
    Guarantee,
    Job,
    JobStatus,
    Lease,
    Page,
    Plan,
    SyncResult,
)
from resumable_sync._partition import begin_partitioned_sync, complete_partitioned_sync, run_partitioned_sync
from resumable_sync._parts.part import Part, part_of
from resumable_sync._protocols import (
    AnchoredConnector,
    CheckpointingSink,
    Column,
    Connector,
    DeadLetterStore,
    DescribingConnector,
    JobStore,
    LineageStore,
    Observer,
    PinnableConnector,
    PreparingSink,
    SeekableConnector,
    Sink,
    StoreTransaction,
    TransactionalJobStore,
)
from resumable_sync._ranges import ColumnKind, KeyPage, KeyRanges, RangeConnector
from resumable_sync._replay import replay_dead_letters
from resumable_sync._reset import reset_job
from resumable_sync._retry import Retry
from resumable_sync._sinks import transactional
from resumable_sync._split import ConnectorPart, PartitionableSink, SplittableConnector
from resumable_sync._verification.tally import Difference
from resumable_sync._verify import VerifyResult, verify_full_sync
from resumable_sync.stores.memory import MemoryJobStore
from resumable_sync.stores.single_worker import SingleWorkerJobStore

__version__ = "0.2.0"

__all__ = [
    "AnchoredConnector",
    "ArrowRows",
    "AttemptRecord",
    "Batch",
    "BatchCommitted",
    "Checkpoint",
    "CheckpointingSink",
    "Column",
    "ColumnKind",
    "ConfigurationError",
    "Connector",
    "ConnectorPart",
    "CopyText",
    "CrashLoopError",
    "Cursor",
    "CursorError",
    "DeadLetter",
    "DeadLetterLimitError",
    "DeadLetterStore",
    "DescribingConnector",
    "Difference",
    "Event",
    "ExecutorBrokenError",
    "Format",
    "FormattingConnector",
    "FormattingSink",
    "FullSync",
    "Guarantee",
    "History",
    "HistoryStore",
    "Job",
    "JobHeldError",
    "JobStatus",
    "JobStore",
    "KeyPage",
    "KeyRanges",
    "KeysetConnector",
    "Lease",
    "LeaseLostError",
    "LineageStore",
    "MemoryJobStore",
    "MissingExtraError",
    "Observer",
    "OffsetConnector",
    "Page",
    "Part",
    "PartitionableSink",
    "PartsProgressed",
    "PinnableConnector",
    "Plan",
    "PreparingSink",
    "RangeConnector",
    "RecordRefused",
    "ResumableSyncError",
    "Retry",
    "SQLiteWindow",
    "Sample",
    "SeekableConnector",
    "SingleWorkerJobStore",
    "Sink",
    "SourceChangedError",
    "SplittableConnector",
    "StaleRecordsError",
    "StateCorruptError",
    "StoreError",
    "StoreTransaction",
    "SyncFinished",
    "SyncResult",
    "SyncStarted",
    "Throttle",
    "TokenConnector",
    "TransactionalJobStore",
    "TransientError",
    "TryFailed",
    "VerifyResult",
    "begin_partitioned_sync",
    "complete_partitioned_sync",
    "decode_cursor",
    "encode_cursor",
    "part_of",
    "plan_full_sync",
    "replay_dead_letters",
    "reset_job",
    "run_full_sync",
    "run_partitioned_sync",
    "transactional",
    "verify_full_sync",
]
