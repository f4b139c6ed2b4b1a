"""Datasets of a project: uploads, their versions, and what became of their rows from one to the next."""

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO

from app.core.entities.dataset_versions import (
    NAME,
    ChangeKind,
    Dataset,
    DatasetDiff,
    DatasetPage,
    DatasetReference,
    DatasetSummary,
    DatasetVersion,
    RowChange,
)
from app.core.entities.datasets import Conversation, Split, row_key
from app.core.entities.identity import DEFAULT_PROJECT_ID, Principal
from app.core.entities.limits import ProjectLimits
from app.core.errors import Fault, Invalid, NotFound, no_dataset
from app.core.interfaces.components import ByteProgress, DatasetLibrary, KeptRows
from app.core.interfaces.services.data import DatasetEditor, DatasetReader
from app.core.interfaces.storage import DatasetRepository


class DatasetVersionService(DatasetReader, DatasetEditor):
    """``limits`` hold for projects that have none of their own; a request looks through ``most_bytes`` of rows."""

    def __init__(
        self, repository: DatasetRepository, library: DatasetLibrary, limits: ProjectLimits, most_bytes: int
    ) -> None:
        self._repository = repository
        self._limits = limits
        self._library = library
        self._most_bytes = most_bytes

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
        project = _project(principal)
        found = self._repository.list(project, limit=limit + 1, after=after, oldest_first=oldest_first)
        return DatasetPage(found[:limit], found[limit - 1].dataset.id if len(found) > limit else None)

    def get(self, principal: Principal | None, dataset_id: str) -> DatasetSummary:
        return self._existing(_project(principal), dataset_id)

    def versions(self, principal: Principal | None, dataset_id: str) -> Sequence[DatasetVersion]:
        self._existing(_project(principal), dataset_id)
        return self._repository.versions(_project(principal), dataset_id)

    def version(self, principal: Principal | None, reference: str) -> DatasetVersion:
        parsed = DatasetReference.parse(reference)
        found = self._repository.version(_project(principal), parsed.id, parsed.number, parsed.tag)
        if found is None:
            raise no_dataset(reference)
        return found

    def rows(self, principal: Principal | None, reference: str) -> Sequence[Conversation]:
        return self._library.rows(self.version(principal, reference).digest)

    def row(self, principal: Principal | None, reference: str, number: int) -> Conversation:
        return self._library.row(self.version(principal, reference).digest, number)

    def few_rows(self, principal: Principal | None, reference: str, instead: str) -> Sequence[Conversation]:
        version = self.version(principal, reference)
        rows = self._library.rows_within(version.digest, self._most_bytes)
        if rows is None:
            raise Invalid(
                f"{version.reference} has more than the {self._most_bytes:,} bytes that a request may look "
                f"through: use `{instead}`",
                code="dataset_too_large",
            )
        return rows

    def tag(self, principal: Principal | None, reference: str, tag: str) -> DatasetSummary:
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
        if not rows:
            raise Invalid("the pipeline leaves no row", code="no_rows")
        with self._library.keeping(rows) as kept:
            made = self.derived(principal, parent, kept, pipeline, changes)
            return self._repository.add_version(made, self._limits)

    def derived(
        self,
        principal: Principal | None,
        parent: DatasetVersion,
        kept: KeptRows,
        pipeline: Mapping[str, Any],
        changes: Sequence[Mapping[str, Any]],
    ) -> DatasetVersion:
        version = self._version(principal, parent.dataset_id, kept, f"made of version {parent.number}")
        return replace(version, format=parent.format, parent=parent.number, pipeline=pipeline, changes=changes)

    def with_validation(
        self, principal: Principal | None, training: DatasetVersion, validation: DatasetVersion
    ) -> DatasetVersion:
        splits: Sequence[tuple[DatasetVersion, Split]] = ((training, "train"), (validation, "validation"))
        parts = ((row, split) for part, split in splits for row in self._library.rows(part.digest))
        rows = (replace(row, row=place, split=split) for place, (row, split) in enumerate(parts, start=1))
        source = f"{training.reference}, validated on {validation.reference}"
        with self._library.keeping(rows) as kept:
            version = self._version(principal, f"ds-{secrets.token_hex(12)}", kept, source)
            made = replace(version, format=training.format)
            name = f"with-validation-{version.dataset_id[-8:]}"
            dataset = Dataset(made.dataset_id, made.project_id, name, made.created_by, made.created_at)
            return self._repository.add(dataset, made, self._limits)

    def diff(
        self, principal: Principal | None, before: str, after: str, limit: int = 20, *, trusted: bool = False
    ) -> DatasetDiff:
        old, new = self.version(principal, before), self.version(principal, after)
        read = self.rows if trusted else partial(self.few_rows, instead="flask data diff")
        unchanged, changes = compare(read(principal, old.reference), read(principal, new.reference))
        counts = Counter(change.kind for change in changes)
        kinds: Sequence[ChangeKind] = ("added", "removed", "changed")
        return DatasetDiff(
            old.reference, new.reference, unchanged, {kind: counts[kind] for kind in kinds}, changes[:limit]
        )

    def delete(self, principal: Principal | None, dataset_id: str) -> None:
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
