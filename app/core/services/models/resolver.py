"""Answer which version or base model a name means."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from app.core.entities.models import CHAMPION, ModelAlias, ModelVersion, Reference, no_model, not_generative
from app.core.entities.reasoning import Reasoning
from app.core.entities.served_models import TunedName, no_served_model
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid, Unavailable
from app.core.interfaces.components import ArtifactStore, BaseModelStore, ChatTokenizer
from app.core.interfaces.storage import ModelVersionRepository


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that this host can load. ``key`` names it for ever; ``seed`` is that of its split.

    ``model_folder`` finds the weights that the adapter goes over, or ``Unavailable`` (base_model_missing). A base
    model has no adapter, nor has a version that is a whole model.
    """

    name: str
    key: str
    tokenizer: ChatTokenizer
    model_folder: Callable[[], Path]
    base_model: str
    adapter_folder: Path | None = None
    seed: int = TrainingConfig().seed
    reasoning: Reasoning = "keep"


class ModelResolver:
    """Finds what a name means in a project: a version comes before a base model of the same name.

    ``redirects``: a name that clients of OpenAI's dialect send → the name that stands for it, in every project.
    """

    def __init__(
        self,
        versions: ModelVersionRepository,
        bases: BaseModelStore,
        artifacts: ArtifactStore,
        redirects: Mapping[str, str] | None = None,
    ) -> None:
        self._versions = versions
        self._bases = bases
        self._artifacts = artifacts
        self._redirects = redirects or {}

    def version(
        self, project_id: str, reference: Reference, choose: Callable[[ModelAlias], int] = ModelAlias.the_one
    ) -> ModelVersion | None:
        """Find a version; None if there is no such version, or alias. ``choose`` picks a number of an alias.

        ``Invalid`` (split_alias) where an alias carries several and ``choose`` is not given.
        """
        if reference.number is not None:
            return self._versions.find(project_id, reference.name, reference.number)
        alias = self._versions.alias(project_id, reference.name, reference.alias or CHAMPION)
        if alias is not None:
            return self._versions.find(project_id, reference.name, choose(alias))
        return None if reference.alias else self._versions.find(project_id, reference.name)

    def find(
        self, project_id: str, name: str, choose: Callable[[ModelAlias], int] = ModelAlias.the_one
    ) -> ModelVersion | None:
        """Find the version that ``name`` means; None where it means the base model of that name.

        ``NotFound`` (model_not_found) for neither, ``Invalid`` as in ``version`` and for what is no reference.
        """
        reference = Reference.parse(name)
        version = self.version(project_id, reference, choose)
        if version is None and not self.is_base_model(reference):
            raise no_model(name)
        return version

    def is_base_model(self, reference: Reference) -> bool:
        """Tell whether a base model of the catalogue has this name."""
        return reference.is_bare and any(spec.name == reference.name for spec in self._bases.specs())

    def reference(self, project_id: str, name: str) -> str:
        """Translate a name of OpenAI's dialect: follow the redirects, and resolve an ``ft:`` name.

        ``NotFound`` for an ``ft:`` name of another project or base model, and for what is no name at all. Whoever
        takes the reference finds out whether there is such a model.
        """
        meant = self._redirects.get(name, name)
        try:
            tuned = TunedName.parse(meant)
            if tuned is None:
                Reference.parse(meant)
                return meant
        except Invalid:
            raise no_served_model(name) from None
        version = self.version(project_id, tuned.reference) if tuned.project_id == project_id else None
        if version is None or version.base_model != tuned.base_model:
            raise no_served_model(name)
        return version.reference

    def check_base(self, version: ModelVersion) -> None:
        """Raise ``Unavailable`` (base_mismatch) if the base model has other weights than the version's had.

        A base model that is not on this host is its engine's affair, and a whole model needs none.
        """
        if version.is_whole_model:
            return
        here = self._bases.digest(version.base_model)
        if None not in (here, version.base_digest) and here != version.base_digest:
            raise Unavailable(
                f"{version.base_model} is not the model that {version.reference} was trained over: restore "
                f"models/base/{version.base_model}, or train the version again",
                code="base_mismatch",
            )

    def subject(self, project_id: str, name: str) -> Subject:
        """Find what this host loads for ``name``.

        Raises what ``find`` and ``check_base`` raise, and ``Invalid`` (not_generative) for one that tells labels.
        """
        version = self.find(project_id, name)
        if version is None:
            tokenizer = self._bases.tokenizer(name)
            if not tokenizer.generates:
                raise not_generative(name)
            return Subject(name, name, tokenizer, partial(self._bases.folder, name), name)
        if not version.generates:
            raise not_generative(version.reference)
        self.check_base(version)
        folder, tokenizer = self._artifacts.folder(version), self._artifacts.tokenizer(version)
        names = version.reference, version.id, tokenizer
        seed = version.config.get("seed", TrainingConfig().seed)
        trained = {"seed": seed, "reasoning": version.config.get("reasoning", "keep")}
        if version.is_whole_model:
            return Subject(*names, lambda: folder, version.base_model, **trained)
        return Subject(
            *names, partial(self._bases.folder, version.base_model), version.base_model, folder, **trained
        )
