"""Published models and the base models under them."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from app.core.entities.identity import DEFAULT_PROJECT_ID, Principal
from app.core.entities.models import NAME, BaseModelSpec, ModelAlias, ModelSummary, ModelVersion, Reference
from app.core.errors import Forbidden, Invalid, NotFound, Unavailable
from app.core.interfaces.operations import EngineAdmin
from app.core.interfaces.services.models import ModelAliases, ModelManagement
from app.core.interfaces.stores import Stores
from app.core.services.models.resolver import ModelResolver


class ModelManagementService(ModelManagement, ModelAliases):
    def __init__(self, stores: Stores, resolver: ModelResolver, engines: EngineAdmin) -> None:
        self._versions = stores.versions
        self._resolver = resolver
        self._bases = stores.bases
        self._artifacts = stores.artifacts
        self._engines = engines

    def models(self, principal: Principal) -> Sequence[ModelSummary]:
        return self._versions.models(principal.project_id)

    def model(self, principal: Principal, name: str) -> ModelSummary:
        for summary in self.models(principal):
            if summary.name == name:
                return summary
        raise _no_model(name)

    def versions(self, principal: Principal, name: str) -> Sequence[ModelVersion]:
        versions = self._versions.versions(principal.project_id, name)
        if not versions:
            raise _no_model(name)
        return versions

    def delete(self, principal: Principal, reference: str) -> None:
        parsed = Reference.parse(reference)
        versions = self._versions.versions(principal.project_id, parsed.name)
        if not versions and self._resolver.is_base_model(parsed):
            raise Forbidden(f"{parsed.name} is a base model, and all projects': it stays", code="base_model_stays")
        if parsed.number is None and versions:
            raise Invalid(f"{reference!r} may name another version tomorrow: write {parsed.name}:3, or as ft:…")
        version = next((one for one in versions if one.number == parsed.number), None)
        if version is None or not self._versions.delete(principal.project_id, version.id):
            raise _no_model(reference)
        with suppress(Unavailable, Invalid):  # an engine that is away, or that has one of its own, holds nothing
            self._engines.unload(version.base_model, version.id)
        self._artifacts.discard(version.artifacts)

    def version(self, version_id: str) -> ModelVersion:
        version = self._versions.get(DEFAULT_PROJECT_ID, version_id)
        if version is None:
            raise _no_model(version_id)
        return version

    def find(self, reference: Reference) -> ModelVersion | None:
        return self._resolver.version(DEFAULT_PROJECT_ID, reference)

    def aliases(self, principal: Principal, name: str) -> Sequence[ModelAlias]:
        self.versions(principal, name)
        return self._versions.aliases(principal.project_id, name)

    def set_alias(self, principal: Principal, name: str, alias: str, weights: Mapping[int, int]) -> ModelAlias:
        if not NAME.fullmatch(alias):
            raise Invalid(
                f"{alias[:80]!r} is no name for an alias: at most 64 letters, digits, dots, dashes, underscores",
                code="bad_name",
            )
        made = ModelAlias(principal.project_id, name, alias, weights, principal.user_id, datetime.now(UTC))
        self._versions.set_alias(made)
        return made

    def remove_alias(self, principal: Principal, name: str, alias: str) -> None:
        if not self._versions.remove_alias(principal.project_id, name, alias):
            raise NotFound(f"no alias {alias[:80]!r} of {name[:80]!r} in this project", code="alias_not_found")

    def bases(self) -> Sequence[tuple[BaseModelSpec, bool]]:
        return [(spec, self._bases.present(spec.name)) for spec in self._bases.specs()]

    def pull(self, name: str) -> Path:
        return self._bases.pull(name)


def _no_model(name: str) -> NotFound:
    return NotFound(f"no model {name[:80]!r} in this project", code="model_not_found")
