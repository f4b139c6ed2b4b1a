"""Models as the clients of OpenAI's dialect name and list them."""

from collections.abc import Sequence

from app.core.entities.identity import Principal
from app.core.entities.models import ModelVersion, Reference
from app.core.entities.served_models import ServedModel, no_served_model, tuned_name
from app.core.interfaces.operations import EngineClient
from app.core.interfaces.services.models import ServedModels
from app.core.interfaces.storage import ModelVersionRepository
from app.core.services.models.resolver import ModelResolver


class ServedModelService(ServedModels):
    def __init__(self, versions: ModelVersionRepository, engines: EngineClient, resolver: ModelResolver) -> None:
        self._versions = versions
        self._engines = engines
        self._resolver = resolver

    def list(self, principal: Principal) -> Sequence[ServedModel]:
        names = [summary.name for summary in self._versions.models(principal.project_id)]
        versions = [version for name in names for version in self._versions.versions(principal.project_id, name)]
        return [*map(ServedModel, self._engines.resident()), *map(_served, versions)]

    def find(self, principal: Principal, name: str) -> ServedModel:
        reference = Reference.parse(self.reference(principal, name))
        version = self._resolver.version(principal.project_id, reference)
        if version is not None:
            return _served(version)
        if reference.is_bare and reference.name in self._engines.resident():
            return ServedModel(reference.name)
        raise no_served_model(name)

    def reference(self, principal: Principal, name: str) -> str:
        return self._resolver.reference(principal.project_id, name)


def _served(version: ModelVersion) -> ServedModel:
    return ServedModel(tuned_name(version), version.created_at, version.project_id)
