"""The operator's hand on engines: what they hold, and which adapters stay."""

from collections.abc import Sequence
from dataclasses import replace

from app.core.entities.engines import AdapterReport, EngineReport
from app.core.entities.identity import Principal
from app.core.entities.models import ModelVersion, Reference, no_model
from app.core.errors import Invalid, NotFound
from app.core.interfaces.operations import EngineAdmin
from app.core.interfaces.services.answers import Engines
from app.core.interfaces.storage import ModelVersionRepository
from app.core.services.answers.targets import Targets
from app.core.services.models.resolver import ModelResolver


class EngineService(Engines):
    def __init__(
        self,
        versions: ModelVersionRepository,
        resolver: ModelResolver,
        targets: Targets,
        admin: EngineAdmin,
    ) -> None:
        self._versions = versions
        self._resolver = resolver
        self._targets = targets
        self._admin = admin

    def engines(self, principal: Principal) -> Sequence[EngineReport]:
        reports = []
        for state in self._admin.states():
            found = [(self._versions.get(principal.project_id, one.name), one) for one in state.adapters]
            adapters = [AdapterReport(v.reference, one.bytes, one.pinned) for v, one in found if v is not None]
            others = [one.bytes or 0 for version, one in found if version is None]
            reports.append(
                EngineReport(
                    base_model=state.base_model,
                    resident=state.kind is not None,
                    kind=state.kind,
                    context=state.context,
                    adapters=sorted(adapters, key=lambda adapter: adapter.reference),
                    others=len(others),
                    other_bytes=sum(others),
                )
            )
        return reports

    def load(self, principal: Principal, base_model: str, reference: str, *, pinned: bool) -> ModelVersion:
        version = self._version(principal, base_model, reference)
        adapter = self._targets.of(version).adapter
        if adapter is None:
            raise Invalid(
                f"{version.reference} has an engine of its own, and no adapter for that of {base_model}",
                code="no_adapter",
            )
        self._admin.load(base_model, replace(adapter, pinned=pinned))
        self._versions.pin(version.project_id, version.id, pinned)
        return replace(version, pinned=pinned)

    def unload(self, principal: Principal, base_model: str, reference: str) -> None:
        version = self._version(principal, base_model, reference)
        was_loaded = self._admin.unload(base_model, version.id)
        self._versions.pin(version.project_id, version.id, False)
        if not was_loaded and not version.pinned:
            raise NotFound(f"{version.reference} is not loaded", code="adapter_not_loaded")

    def _version(self, principal: Principal, base_model: str, reference: str) -> ModelVersion:
        version = self._resolver.version(principal.project_id, Reference.parse(reference))
        if version is None:
            raise no_model(reference)
        if version.base_model != base_model:
            raise Invalid(
                f"{version.reference} is an adapter of {version.base_model}, not of {base_model[:80]!r}",
                code="wrong_base_model",
            )
        return version
