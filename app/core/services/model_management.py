"""Published models and the base models under them."""

from collections.abc import Sequence
from pathlib import Path

from app.core.entities.identity import DEFAULT_PROJECT_ID, Principal
from app.core.entities.models import BaseModelSpec, ModelSummary, ModelVersion, Reference
from app.core.errors import NotFound
from app.core.interfaces.components import BaseModelStore
from app.core.interfaces.storage import ModelVersionRepository


class ModelManagementService:
    def __init__(self, versions: ModelVersionRepository, bases: BaseModelStore) -> None:
        self._versions = versions
        self._bases = bases

    def models(self, principal: Principal) -> Sequence[ModelSummary]:
        return self._versions.models(principal.project_id)

    def model(self, principal: Principal, name: str) -> ModelSummary:
        for summary in self.models(principal):
            if summary.name == name:
                return summary
        raise _no_model(name)

    def versions(self, principal: Principal, name: str) -> Sequence[ModelVersion]:
        """Newest first. ``NotFound`` if there is no such model."""
        versions = self._versions.versions(principal.project_id, name)
        if not versions:
            raise _no_model(name)
        return versions

    def version(self, version_id: str) -> ModelVersion:
        """By its id, in the default project: for commands on the host."""
        version = self._versions.get(DEFAULT_PROJECT_ID, version_id)
        if version is None:
            raise _no_model(version_id)
        return version

    def find(self, reference: Reference) -> ModelVersion | None:
        """In the default project: for commands on the host."""
        return self._versions.find(DEFAULT_PROJECT_ID, reference.name, reference.number)

    def bases(self) -> Sequence[tuple[BaseModelSpec, bool]]:
        """Each base model, and whether it is on the disk."""
        return [(spec, self._bases.present(spec.name)) for spec in self._bases.specs()]

    def pull(self, name: str) -> Path:
        """Lay a base model under models/base; the folder."""
        return self._bases.pull(name)


def _no_model(name: str) -> NotFound:
    return NotFound(f"no model {name[:80]!r} in this project", code="model_not_found")
