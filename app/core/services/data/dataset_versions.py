"""Datasets of a project: uploads, their versions, and what became of their rows from one to the next."""

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, BinaryIO, Literal

from app.core.entities.dataset_versions import (
    NAME,
    Dataset,
    DatasetReference,
    DatasetSummary,
    DatasetVersion,
    no_dataset,
)
from app.core.entities.datasets import Conversation, Split, row_key
from app.core.entities.identity import DEFAULT_PROJECT_ID, Principal
from app.core.entities.limits import ProjectLimits
from app.core.errors import Fault, Invalid, NotFound
from app.core.interfaces.components import ByteProgress, DatasetLibrary, KeptRows
from app.core.interfaces.storage import DatasetRepository

ChangeKind = Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True)
class DatasetPage:
    """``next`` is the ``after`` of the page that follows, None on the last."""

    datasets: Sequence[DatasetSummary]
    next: str | None


@dataclass(frozen=True, slots=True)
class RowChange:
    kind: ChangeKind
    before: Conversation | None
    after: Conversation | None


@dataclass(frozen=True, slots=True)
class DatasetDiff:
    """Rows by what became of them; ``changes`` holds the first ones."""

    before: str  # references
    after: str
    unchanged: int
    counts: Mapping[ChangeKind, int]
    changes: Sequence[RowChange]


class DatasetVersionService:
    """``limits`` hold for projects that have none of their own.

    What makes a version raises ``Forbidden`` (quota_exceeded) where the project has no room for it.
    """

    def __init__(self, repository: DatasetRepository, library: DatasetLibrary, limits: ProjectLimits) -> None:
        self._repository = repository
        self._limits = limits
        self._library = library

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
        """A new dataset under ``name``, or the next version of ``dataset_id``; whole or not at all.

        ``source`` is the file's name, whose ending says what it holds; ``columns`` renames its columns, theirs →
        ours. ``Invalid`` (invalid_data) with every fault, file_type_not_supported.
        """
        project = _project(principal)
        if dataset_id is None:
            _check_name(name)
        else:
            self._existing(project, dataset_id)
        with self._library.receive(stream, source, columns or {}, progress) as kept:
            version = self._version(principal, dataset_id or f"ds-{secrets.token_hex(12)}", kept, source)
            if dataset_id is not None:
                return self._repository.add_version(version, self._limits)
            made = Dataset(version.dataset_id, project, name or "", version.created_by, version.created_at)
            return self._repository.add(made, version, self._limits)

    def list(
        self,
        principal: Principal | None,
        *,
        limit: int = 20,
        after: str | None = None,
        oldest_first: bool = False,
    ) -> DatasetPage:
        """Newest first, or oldest, from the dataset after ``after`` on."""
        project = _project(principal)
        found = self._repository.list(project, limit=limit + 1, after=after, oldest_first=oldest_first)
        return DatasetPage(found[:limit], found[limit - 1].dataset.id if len(found) > limit else None)

    def get(self, principal: Principal | None, dataset_id: str) -> DatasetSummary:
        """``NotFound`` for another project's too."""
        return self._existing(_project(principal), dataset_id)

    def versions(self, principal: Principal | None, dataset_id: str) -> Sequence[DatasetVersion]:
        """Newest first."""
        self._existing(_project(principal), dataset_id)
        return self._repository.versions(_project(principal), dataset_id)

    def version(self, principal: Principal | None, reference: str) -> DatasetVersion:
        """Of ``ds-…``, ``ds-…:3`` or ``ds-…@tag``. ``Invalid`` (bad_reference), ``NotFound``."""
        parsed = DatasetReference.parse(reference)
        found = self._repository.version(_project(principal), parsed.id, parsed.number, parsed.tag)
        if found is None:
            raise no_dataset(reference)
        return found

    def rows(self, principal: Principal | None, reference: str) -> Sequence[Conversation]:
        return self._library.rows(self.version(principal, reference).digest)

    def tag(self, principal: Principal | None, reference: str, tag: str) -> DatasetSummary:
        """Have ``tag`` name the version; it moves if it named another."""
        if not NAME.fullmatch(tag):
            raise _bad_name("tag", tag)
        version = self.version(principal, reference)
        self._repository.tag(version.project_id, version.dataset_id, tag, version.number)
        return self._existing(version.project_id, version.dataset_id)

    def untag(self, principal: Principal | None, dataset_id: str, tag: str) -> DatasetSummary:
        if not self._repository.tag(_project(principal), dataset_id, tag, None):
            raise NotFound(f"no tag {tag[:80]!r} in that dataset", code="tag_not_found")
        return self._existing(_project(principal), dataset_id)

    def restore(self, principal: Principal | None, reference: str) -> DatasetVersion:
        """The rows of an earlier version as the newest one."""
        old = self.version(principal, reference)
        restored = replace(
            old,
            number=0,
            source=f"restored from version {old.number}",
            parent=old.number,
            pipeline={},
            changes=[],
            created_by=principal.user_id if principal else None,
            created_at=datetime.now(UTC),
        )
        return self._repository.add_version(restored, self._limits)

    def derive(
        self,
        principal: Principal | None,
        parent: DatasetVersion,
        rows: Sequence[Conversation],
        pipeline: Mapping[str, Any],
        changes: Sequence[Mapping[str, Any]],
    ) -> DatasetVersion:
        """The next version, of rows that ``pipeline`` made of ``parent``."""
        if not rows:
            raise Invalid("the pipeline leaves no row", code="no_rows")
        with self._library.keeping(rows) as kept:
            version = self._version(principal, parent.dataset_id, kept, f"made of version {parent.number}")
            made = replace(version, format=parent.format, parent=parent.number, pipeline=pipeline, changes=changes)
            return self._repository.add_version(made, self._limits)

    def with_validation(
        self, principal: Principal | None, training: DatasetVersion, validation: DatasetVersion
    ) -> DatasetVersion:
        """A new dataset: the rows of the one train, those of the other validate, whatever split they had."""
        splits: Sequence[tuple[DatasetVersion, Split]] = ((training, "train"), (validation, "validation"))
        parts = ((row, split) for part, split in splits for row in self._library.rows(part.digest))
        rows = (replace(row, row=place, split=split) for place, (row, split) in enumerate(parts, start=1))
        source = f"{training.reference}, validated on {validation.reference}"
        with self._library.keeping(rows) as kept:
            version = self._version(principal, f"ds-{secrets.token_hex(12)}", kept, source)
            made = replace(version, format=training.format)
            name = f"with-validation-{version.dataset_id[-8:]}"
            dataset = Dataset(made.dataset_id, made.project_id, name, made.created_by, made.created_at)
            return self._repository.add(dataset, made)

    def diff(self, principal: Principal | None, before: str, after: str, limit: int = 20) -> DatasetDiff:
        """What became of the rows of one version in another, which may be of another dataset.

        A row whose beginning is in both, with other words after it, is changed.
        """
        old, new = self.version(principal, before), self.version(principal, after)
        unchanged, changes = compare(self._library.rows(old.digest), self._library.rows(new.digest))
        counts = Counter(change.kind for change in changes)
        kinds: Sequence[ChangeKind] = ("added", "removed", "changed")
        return DatasetDiff(
            old.reference, new.reference, unchanged, {kind: counts[kind] for kind in kinds}, changes[:limit]
        )

    def delete(self, principal: Principal | None, dataset_id: str) -> None:
        """With all of its versions. ``Conflict`` (dataset_in_use) while a job or a model version refers to it."""
        digests = self._repository.delete(_project(principal), dataset_id)
        if digests is None:
            raise no_dataset(dataset_id)
        for digest in digests:
            self._library.forget(digest, unless=self._repository.is_kept)

    def _existing(self, project: str, dataset_id: str) -> DatasetSummary:
        found = self._repository.get(project, dataset_id)
        if found is None:
            raise no_dataset(dataset_id)
        return found

    @staticmethod
    def _version(principal: Principal | None, dataset_id: str, kept: KeptRows, source: str) -> DatasetVersion:
        return DatasetVersion(
            dataset_id=dataset_id,
            project_id=_project(principal),
            number=0,
            digest=kept.digest,
            format=kept.format or "",
            rows=kept.rows,
            size=kept.size,
            source=source[:255],
            parent=None,
            pipeline={},
            changes=(),
            created_by=principal.user_id if principal else None,
            created_at=datetime.now(UTC),
        )


def compare(before: Sequence[Conversation], after: Sequence[Conversation]) -> tuple[int, Sequence[RowChange]]:
    """How many rows are in both, and every change, in the order of the rows: changed, added, removed.

    Equal rows are found by content alone: their places do not matter.
    """
    left, right = Counter(map(row_key, before)), Counter(map(row_key, after))
    common = left & right
    gone = list(_beyond(before, common))
    come = list(_beyond(after, common))
    by_beginning: dict[str, list[Conversation]] = {}
    for row in gone:
        by_beginning.setdefault(_beginning(row), []).append(row)
    changed, added = [], []
    for row in come:
        earlier = by_beginning.get(_beginning(row))
        if earlier:
            changed.append(RowChange("changed", earlier.pop(0), row))
        else:
            added.append(RowChange("added", None, row))
    taken = {id(change.before) for change in changed}
    removed = [RowChange("removed", row, None) for row in gone if id(row) not in taken]
    return common.total(), [*changed, *added, *removed]


def _beyond(rows: Iterable[Conversation], common: Counter[str]) -> Iterator[Conversation]:
    """Those that ``common`` does not account for; the first of equal ones are."""
    left = Counter(common)
    for row in rows:
        key = row_key(row)
        if left[key]:
            left[key] -= 1
        else:
            yield row


def _beginning(row: Conversation) -> str:
    """The first question, or the first words of a text."""
    if row.text is not None:
        return " ".join(row.text.split()[:8])
    return next((message["content"] for message in row.messages if message["role"] == "user"), "")


def _project(principal: Principal | None) -> str:
    return principal.project_id if principal else DEFAULT_PROJECT_ID


def _check_name(name: str | None) -> None:
    if name is None or not NAME.fullmatch(name):
        raise _bad_name("name", name or "")


def _bad_name(where: str, name: str) -> Invalid:
    rule = "must be 1 to 64 letters, digits, dots, dashes and underscores, the first a letter or digit"
    return Invalid(f"{where} {rule}, not {name[:80]!r}", faults=[Fault(where, "bad_name", rule)])
