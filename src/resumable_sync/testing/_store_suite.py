"""The conformance suite for job stores."""

from resumable_sync.testing._store_history import StoredHistory
from resumable_sync.testing._store_jobs import StoredJobs
from resumable_sync.testing._store_leases import StoredLeases
from resumable_sync.testing._store_lineage import StoredLineage
from resumable_sync.testing._store_transactions import StoredTogether

__all__ = ["JobStoreSuite", "SingleWorkerSuite"]


class JobStoreSuite(StoredJobs, StoredLeases, StoredTogether, StoredLineage, StoredHistory):
    """Every "must" of `JobStore` and of its optional abilities, as tests.

    Subclass it in a test module under a name that starts with `Test`, and override the fixture `store`. What a store
    does not offer (transactions, dead letters, lineage, history) is skipped, with the reason.

        from resumable_sync.testing import JobStoreSuite

        class TestMyStore(JobStoreSuite):
            @pytest.fixture
            def store(self, tmp_path):
                return MyStore(tmp_path / "jobs")       # fresh and empty

            @pytest.fixture
            def make_store(self, tmp_path):             # as another process would make it
                return lambda: MyStore(tmp_path / "jobs")

    The fixture `expire` may be overridden where the test moves the store's clock, and `broken_store` gives one that
    cannot reach its data. Class attributes say what the store is: `kept_fields`, `shares_leases`, `own_clock`,
    `must_pickle`.
    """


class SingleWorkerSuite(JobStoreSuite):
    """`JobStoreSuite` for a `SingleWorkerJobStore` on a table with only id, status and number of processed records.

    Override `kept_fields` if the table keeps more.
    """

    kept_fields = frozenset({"id", "status", "processed_records"})
    shares_leases = False
    own_clock = False
