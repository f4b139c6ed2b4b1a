"""What the service offers around datasets: files of the host, and versions in a project."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from app.core.entities.data_pipeline import Inspection, PipelineConfig, PipelineResult
from app.core.entities.dataset_versions import DatasetDiff, DatasetPage, DatasetSummary, DatasetVersion
from app.core.entities.datasets import Conversation, DatasetCheck, PreparedDataset, SplitSummary
from app.core.entities.identity import Principal
from app.core.entities.previews import RowPreview
from app.core.interfaces.components import ByteProgress, KeptRows, RowProgress, unwatched


class DatasetReader(ABC):
    """Reads a project's datasets. ``NotFound`` (dataset_not_found) for what another project has, too."""

    @abstractmethod
    def list(
        self,
        principal: Principal | None,
        *,
        limit: int = 20,
        after: str | None = None,
        oldest_first: bool = False,
    ) -> DatasetPage:
        """List datasets, newest or oldest first, from the one after ``after`` on."""

    @abstractmethod
    def get(self, principal: Principal | None, dataset_id: str) -> DatasetSummary:
        """Return a dataset with its newest version and tags."""

    @abstractmethod
    def versions(self, principal: Principal | None, dataset_id: str) -> Sequence[DatasetVersion]:
        """List the versions of a dataset, newest first."""

    @abstractmethod
    def version(self, principal: Principal | None, reference: str) -> DatasetVersion:
        """Find the version that ``ds-…``, ``ds-…:3`` or ``ds-…@tag`` names. ``Invalid`` (bad_reference)."""

    @abstractmethod
    def rows(self, principal: Principal | None, reference: str) -> Sequence[Conversation]:
        """Open all rows of a version, however many: for a worker, or the operator on the host."""

    @abstractmethod
    def row(self, principal: Principal | None, reference: str, number: int) -> Conversation:
        """Read one row of a version. ``NotFound`` (row_not_found)."""

    @abstractmethod
    def few_rows(self, principal: Principal | None, reference: str, instead: str) -> Sequence[Conversation]:
        """Read all rows of a version that one request may look through.

        ``Invalid`` (dataset_too_large) for any other, which names ``instead``: what looks through that.
        """

    @abstractmethod
    def diff(
        self, principal: Principal | None, before: str, after: str, limit: int = 20, *, trusted: bool = False
    ) -> DatasetDiff:
        """Compare the rows of two versions, which may be of two datasets; tell what became of them.

        A row whose beginning is in both, with other words after it, is changed. ``Invalid`` (dataset_too_large)
        unless ``trusted``.
        """


class DatasetEditor(ABC):
    """Changes a project's datasets. ``NotFound`` (dataset_not_found) for what another project has, too.

    What makes a version raises ``Forbidden`` (quota_exceeded) where the project has no room for it.
    """

    @abstractmethod
    def upload(
        self,
        principal: Principal | None,
        stream: BinaryIO,
        source: str,
        *,
        name: str | None = None,
        dataset_id: str | None = None,
        columns: Mapping[str, str] | None = None,
        progress: ByteProgress | None = None,
    ) -> DatasetVersion:
        """Add a new dataset under ``name``, or the next version of ``dataset_id``; whole or not at all.

        ``source`` is the file's name, whose ending says what it holds; ``columns`` renames its columns, theirs →
        ours. ``Invalid`` (invalid_data) with every fault, file_type_not_supported.
        """

    @abstractmethod
    def tag(self, principal: Principal | None, reference: str, tag: str) -> DatasetSummary:
        """Have ``tag`` name the version; it moves if it named another."""

    @abstractmethod
    def untag(self, principal: Principal | None, dataset_id: str, tag: str) -> DatasetSummary:
        """Remove a tag; its version stays. ``NotFound`` (tag_not_found)."""

    @abstractmethod
    def restore(self, principal: Principal | None, reference: str) -> DatasetVersion:
        """Add the rows of an earlier version as the newest one."""

    @abstractmethod
    def derive(
        self,
        principal: Principal | None,
        parent: DatasetVersion,
        rows: Sequence[Conversation],
        pipeline: Mapping[str, Any],
        changes: Sequence[Mapping[str, Any]],
    ) -> DatasetVersion:
        """Add the next version, of rows that ``pipeline`` made of ``parent``."""

    @abstractmethod
    def derived(
        self,
        principal: Principal | None,
        parent: DatasetVersion,
        kept: KeptRows,
        pipeline: Mapping[str, Any],
        changes: Sequence[Mapping[str, Any]],
    ) -> DatasetVersion:
        """Return the next version as it is to be added, of rows that are kept."""

    @abstractmethod
    def with_validation(
        self, principal: Principal | None, training: DatasetVersion, validation: DatasetVersion
    ) -> DatasetVersion:
        """Add a dataset in which the rows of ``training`` train and those of ``validation`` validate.

        The splits that they had before do not count.
        """

    @abstractmethod
    def delete(self, principal: Principal | None, dataset_id: str) -> None:
        """Remove a dataset with all of its versions.

        ``Conflict`` (dataset_in_use) while a job or a model version refers to it.
        """


class DatasetFiles(ABC):
    """Checks and splits files of the host."""

    @abstractmethod
    def check(self, dataset_path: str, *, trusted: bool = False) -> DatasetCheck:
        """Find every structural fault of a file at once."""

    @abstractmethod
    def prepare(
        self, dataset_path: str, seed: int, *, trusted: bool = False, progress: ByteProgress | None = None
    ) -> PreparedDataset:
        """Check a file and split its rows. ``Invalid`` (invalid_data) with every fault of the file."""

    @abstractmethod
    def rows(
        self, dataset_path: str, seed: int, *, trusted: bool = False, progress: ByteProgress | None = None
    ) -> Sequence[Conversation]:
        """Read all rows of a file, in its order, whatever split they train in. ``Invalid`` as ``prepare``."""

    @abstractmethod
    def summary(
        self, prepared: PreparedDataset, base_model: str | None, max_length: int
    ) -> Sequence[SplitSummary]:
        """Count the rows of each split, and their tokens by the base model's tokenizer.

        That must be on this machine.
        """


class DataPreparation(ABC):
    """Looks at rows before anything trains on them, and makes new versions of old ones."""

    @abstractmethod
    def rows(
        self,
        principal: Principal | None,
        source: str,
        *,
        trusted: bool = False,
        progress: ByteProgress | None = None,
    ) -> Sequence[Conversation]:
        """Read the rows of a dataset that a request may look through; where ``trusted`` of any, and of a file.

        ``Invalid`` (invalid_data) with every fault of the file, dataset_too_large.
        """

    @abstractmethod
    def inspect(
        self,
        rows: Sequence[Conversation],
        config: PipelineConfig | None = None,
        *,
        base_model: str | None = None,
        max_length: int = 1024,
        slow_checks: bool = True,
        on_progress: RowProgress = unwatched,
    ) -> Inspection:
        """Look through rows; return warnings and a report.

        Lengths are in the base model's tokens where one is named. Without ``slow_checks`` near-duplicates,
        languages, secrets and personal data are not looked for.
        """

    @abstractmethod
    def preview(
        self, principal: Principal | None, source: str, row: int, *, trusted: bool = False, **changes: Any
    ) -> RowPreview:
        """Show the row with that number as a base model reads it.

        ``changes`` are keys of the training config; without an objective it is the one for rows of that shape.
        ``NotFound`` (row_not_found), and ``Invalid`` with what would keep it from training.
        """

    @abstractmethod
    def process(
        self,
        principal: Principal | None,
        reference: str,
        config: PipelineConfig | None = None,
        *,
        on_progress: RowProgress = unwatched,
    ) -> tuple[DatasetVersion, PipelineResult]:
        """Add the next version of a dataset: what the pipeline makes of the version ``reference``."""
