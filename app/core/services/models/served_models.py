"""Models as the clients of OpenAI's dialect name and list them."""

from collections.abc import Mapping, Sequence

from app.core.entities.identity import Principal
from app.core.entities.models import ModelVersion, Reference
from app.core.entities.served_models import ServedModel, TunedName, tuned_name
from app.core.errors import Invalid, NotFound
from app.core.interfaces.operations import EngineClient
from app.core.interfaces.storage import ModelVersionRepository
from app.core.services.models.references import find_version


class ServedModelService:
    """``redirects``: a name that clients send → the name that stands for it here, in whose project it ever is."""

    def __init__(
        self, versions: ModelVersionRepository, engines: EngineClient, redirects: Mapping[str, str]
    ) -> None:
        self._versions = versions
        self._engines = engines
        self._redirects = redirects

    def list(self, principal: Principal) -> Sequence[ServedModel]:
        """The resident base models, then the project's versions by name, newest first."""
        names = [summary.name for summary in self._versions.models(principal.project_id)]
        versions = [version for name in names for version in self._versions.versions(principal.project_id, name)]
        return [*map(ServedModel, self._engines.resident()), *map(_served, versions)]

    def find(self, principal: Principal, name: str) -> ServedModel:
        """``NotFound`` for a base model that is not resident, too. ``Invalid`` (split_alias) as in training."""
        reference = Reference.parse(self.reference(principal, name))
        version = find_version(self._versions, principal.project_id, reference)
        if version is not None:
            return _served(version)
        if reference.is_bare and reference.name in self._engines.resident():
            return ServedModel(reference.name)
        raise _no_model(name)

    def reference(self, principal: Principal, name: str) -> str:
        """What ``name`` stands for, as the other services take it: redirected, and an ``ft:`` name resolved.

        ``NotFound`` for an ``ft:`` name of another project or base model, and for what is no name at all. Whether
        there is such a model, who takes the reference finds out.
        """
        meant = self._redirects.get(name, name)
        try:
            tuned = TunedName.parse(meant)
            if tuned is None:
                Reference.parse(meant)
                return meant
        except Invalid:
            raise _no_model(name) from None
        own = tuned.project_id == principal.project_id
        version = find_version(self._versions, principal.project_id, tuned.reference) if own else None
        if version is None or version.base_model != tuned.base_model:
            raise _no_model(name)
        return version.reference


def _served(version: ModelVersion) -> ServedModel:
    return ServedModel(tuned_name(version), version.created_at, version.project_id)


def _no_model(name: str) -> NotFound:
    return NotFound(
        f"there is no model {name[:80]!r} here: GET /v1/models lists those that there are", code="model_not_found"
    )
