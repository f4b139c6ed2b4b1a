"""In-memory twins of the repositories, for tests and demonstrations. Safe among threads; lost at the end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import wraps
from statistics import fmean
from threading import RLock
from typing import Any, Literal, TypeVar, cast

from app.core.entities.audit import AuditEntry, AuditFilter
from app.core.entities.dataset_versions import Dataset, DatasetSummary, DatasetVersion, no_dataset
from app.core.entities.limits import ProjectLimits, ProjectUse
from app.core.entities.models import ModelAlias, ModelSummary, ModelVersion
from app.core.entities.usage import Usage, UsageSum
from app.core.interfaces.storage import (
    NO_LIMITS,
    AuditRepository,
    DatasetRepository,
    ModelVersionRepository,
    UsageRepository,
)
from app.repositories import dataset_rules, version_rules

Method = TypeVar("Method", bound=Callable[..., Any])
_lock = RLock()  # one for all: a job that succeeds writes a version


def locked(method: Method) -> Method:
    """One method of one twin at a time."""

    @wraps(method)
    def alone(*args: Any, **kwargs: Any) -> Any:
        with _lock:
            return method(*args, **kwargs)

    return cast(Method, alone)


class MemoryModelVersionRepository(ModelVersionRepository):
    def __init__(self) -> None:
        self.kept: list[ModelVersion] = []
        self._last: dict[tuple[str, str], int] = {}  # by project and name: the highest number that was deleted
        self._aliases: dict[tuple[str, str, str], ModelAlias] = {}  # by project, model and name

    @locked
    def publish(self, version: ModelVersion) -> ModelVersion:
        there = [one.number for one in self.versions(version.project_id, version.name)]
        number = max(*there, self._last.get((version.project_id, version.name), 0), 0) + 1
        self.kept.append(replace(version, number=number))
        return self.kept[-1]

    def get(self, project_id: str, version_id: str) -> ModelVersion | None:
        return next((v for v in self.kept if (v.project_id, v.id) == (project_id, version_id)), None)

    def find(self, project_id: str, name: str, number: int | None = None) -> ModelVersion | None:
        found = self.versions(project_id, name)
        return next((v for v in found if number in (None, v.number)), None)

    @locked
    def pin(self, project_id: str, version_id: str, pinned: bool) -> None:
        self.kept = [
            replace(v, pinned=pinned) if (v.project_id, v.id) == (project_id, version_id) else v for v in self.kept
        ]

    @locked
    def delete(self, project_id: str, version_id: str) -> bool:
        version = self.get(project_id, version_id)
        if version is None:
            return False
        aliases = [one.alias for one in self.aliases(project_id, version.name) if version.number in one.weights]
        if aliases:
            raise version_rules.has_alias(version.reference, aliases)
        self.kept.remove(version)
        of_model = (project_id, version.name)
        self._last[of_model] = max(version.number, self._last.get(of_model, 0))
        return True

    def alias(self, project_id: str, model: str, alias: str) -> ModelAlias | None:
        return self._aliases.get((project_id, model, alias))

    @locked
    def aliases(self, project_id: str, model: str) -> Sequence[ModelAlias]:
        return [alias for key, alias in sorted(self._aliases.items()) if key[:2] == (project_id, model)]

    @locked
    def set_alias(self, alias: ModelAlias) -> None:
        known = {version.number for version in self.versions(alias.project_id, alias.model)}
        if missing := set(alias.weights) - known:
            raise version_rules.no_versions(alias.model, missing)
        self._aliases[alias.project_id, alias.model, alias.alias] = alias

    @locked
    def remove_alias(self, project_id: str, model: str, alias: str) -> bool:
        return self._aliases.pop((project_id, model, alias), None) is not None

    def models(self, project_id: str) -> Sequence[ModelSummary]:
        names = sorted({v.name for v in self.kept if v.project_id == project_id})
        of_each = [self.versions(project_id, name) for name in names]
        return [
            ModelSummary(v[0].name, v[0].base_model, len(v), v[0].number, v[0].created_at, v[0].metrics)
            for v in of_each
        ]

    def versions(self, project_id: str, name: str) -> Sequence[ModelVersion]:
        return [v for v in reversed(self.kept) if (v.project_id, v.name) == (project_id, name)]


@dataclass
class _KeptDataset:
    dataset: Dataset
    versions: list[DatasetVersion]  # oldest first
    tags: dict[str, int] = field(default_factory=dict)

    @property
    def summary(self) -> DatasetSummary:
        return DatasetSummary(self.dataset, self.versions[-1], dict(sorted(self.tags.items())))


class MemoryDatasetRepository(DatasetRepository):
    def __init__(self) -> None:
        self._kept: dict[str, _KeptDataset] = {}
        self._in_use: set[str] = set()  # by jobs
        # Set by the twin of jobs, which knows limits.
        self.check_quota: Callable[[str, ProjectLimits, ProjectUse], None] = lambda *_: None

    @locked
    def add(self, dataset: Dataset, version: DatasetVersion, limits: ProjectLimits = NO_LIMITS) -> DatasetVersion:
        self._check_quota(version, limits)
        taken = {(kept.dataset.project_id, kept.dataset.name) for kept in self._kept.values()}
        if (dataset.project_id, dataset.name) in taken:
            raise dataset_rules.name_taken(dataset.name)
        self._kept[dataset.id] = _KeptDataset(dataset, [replace(version, number=1)])
        return self._kept[dataset.id].versions[0]

    @locked
    def add_version(self, version: DatasetVersion, limits: ProjectLimits = NO_LIMITS) -> DatasetVersion:
        self._check_quota(version, limits)
        kept = self._of_project(version.project_id, version.dataset_id)
        if kept is None:
            raise no_dataset(version.dataset_id)
        kept.versions.append(replace(version, number=len(kept.versions) + 1))
        return kept.versions[-1]

    @locked
    def get(self, project_id: str, dataset_id: str) -> DatasetSummary | None:
        kept = self._of_project(project_id, dataset_id)
        return kept.summary if kept else None

    @locked
    def list(
        self, project_id: str, *, limit: int = 20, after: str | None = None, oldest_first: bool = False
    ) -> Sequence[DatasetSummary]:
        found = [kept for kept in self._kept.values() if kept.dataset.project_id == project_id]
        found.sort(key=lambda kept: (kept.dataset.created_at, kept.dataset.id), reverse=not oldest_first)
        if after is not None:
            places = [place for place, kept in enumerate(found) if kept.dataset.id == after]
            if not places:
                raise dataset_rules.unknown_page(after)
            found = found[places[0] + 1 :]
        return [kept.summary for kept in found[:limit]]

    @locked
    def versions(self, project_id: str, dataset_id: str) -> Sequence[DatasetVersion]:
        kept = self._of_project(project_id, dataset_id)
        return kept.versions[::-1] if kept else []

    @locked
    def version(
        self, project_id: str, dataset_id: str, number: int | None = None, tag: str | None = None
    ) -> DatasetVersion | None:
        kept = self._of_project(project_id, dataset_id)
        if kept is None:
            return None
        wanted = number if tag is None else kept.tags.get(tag, 0)
        return next((v for v in reversed(kept.versions) if wanted in (None, v.number)), None)

    @locked
    def tag(self, project_id: str, dataset_id: str, tag: str, number: int | None) -> bool:
        kept = self._of_project(project_id, dataset_id)
        if kept is None:
            return False
        if number is None:
            return kept.tags.pop(tag, None) is not None
        if number > len(kept.versions):
            return False
        kept.tags[tag] = number
        return True

    @locked
    def delete(self, project_id: str, dataset_id: str) -> Sequence[str] | None:
        kept = self._of_project(project_id, dataset_id)
        if kept is None:
            return None
        if dataset_id in self._in_use:
            raise dataset_rules.in_use(dataset_id)
        del self._kept[dataset_id]
        return sorted({version.digest for version in kept.versions})

    @locked
    def is_kept(self, digest: str) -> bool:
        return any(version.digest == digest for kept in self._kept.values() for version in kept.versions)

    def refer(self, project_id: str, dataset_id: str) -> None:
        """A job does, from now on."""
        if self._of_project(project_id, dataset_id) is None:
            raise no_dataset(dataset_id)
        self._in_use.add(dataset_id)

    @locked
    def sizes(self, project_id: str) -> dict[str, int]:
        """Bytes by digest: what is there twice is there once."""
        of_project = [kept for kept in self._kept.values() if kept.dataset.project_id == project_id]
        return {version.digest: version.size for kept in of_project for version in kept.versions}

    def _check_quota(self, version: DatasetVersion, limits: ProjectLimits) -> None:
        more = 0 if version.digest in self.sizes(version.project_id) else version.size
        self.check_quota(version.project_id, limits, ProjectUse(storage_bytes=more))

    def _of_project(self, project_id: str, dataset_id: str) -> _KeptDataset | None:
        kept = self._kept.get(dataset_id)
        return kept if kept and kept.dataset.project_id == project_id else None


class MemoryUsageRepository(UsageRepository):
    def __init__(self) -> None:
        self.kept: list[Usage] = []

    @locked
    def add(self, rows: Sequence[Usage]) -> None:
        self.kept.extend(rows)

    @locked
    def sums(
        self,
        project_id: str,
        by: Literal["model", "day"],
        first: date,
        last: date,
        model: str | None = None,
    ) -> Sequence[UsageSum]:
        groups: dict[str, list[Usage]] = {}
        for row in self.kept:
            in_time = first.isoformat() <= row.day <= last.isoformat()
            if row.project_id == project_id and in_time and model in (None, row.model):
                groups.setdefault(row.model if by == "model" else row.day, []).append(row)
        return [_summed(key, rows) for key, rows in groups.items()]


def _summed(key: str, rows: Sequence[Usage]) -> UsageSum:
    waits = [row.first_token_seconds for row in rows if row.first_token_seconds is not None]
    return UsageSum(
        key=key,
        requests=len(rows),
        failed=sum(row.error is not None for row in rows),
        prompt_tokens=sum(row.prompt_tokens for row in rows),
        completion_tokens=sum(row.completion_tokens for row in rows),
        mean_seconds=fmean(row.seconds for row in rows),
        mean_first_token_seconds=fmean(waits) if waits else None,
    )


class MemoryAuditRepository(AuditRepository):
    def __init__(self) -> None:
        self.kept: list[AuditEntry] = []

    @locked
    def add(self, entry: AuditEntry) -> None:
        self.kept.append(replace(entry, number=len(self.kept) + 1))

    @locked
    def page(
        self, project_id: str | None, wanted: AuditFilter, limit: int, after: int | None = None
    ) -> Sequence[AuditEntry]:
        found = [
            entry
            for entry in reversed(self.kept)
            if project_id in (None, entry.project_id)
            and (after is None or entry.number < after)
            and _passes(entry, wanted)
        ]
        return found[:limit]


def _passes(entry: AuditEntry, wanted: AuditFilter) -> bool:
    return (
        (wanted.since is None or entry.created_at >= wanted.since)
        and (wanted.until is None or entry.created_at < wanted.until)
        and (wanted.actor is None or wanted.actor in (entry.actor, entry.user_id, entry.key_id))
        and (wanted.action is None or f"{entry.action}.".startswith(f"{wanted.action}."))
        and (wanted.object_id is None or f"{entry.object_id}/".startswith(f"{wanted.object_id}/"))
        and (wanted.outcome is None or entry.status in wanted.outcome.statuses)
    )
