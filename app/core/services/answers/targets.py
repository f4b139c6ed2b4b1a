"""Who answers to a name."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

from cachetools import TTLCache

from app.core.entities.engines import EngineKind, needs_own_engine, not_servable
from app.core.entities.inference import Adapter
from app.core.entities.models import ModelAlias, ModelVersion, not_generative
from app.core.entities.training_config import training_config
from app.core.errors import Invalid
from app.core.interfaces.components import ArtifactStore, BaseModelStore, ChatTokenizer
from app.core.services.models.resolver import ModelResolver

MOST_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Target:
    """A base model, or an adapter over it, with the template that it was trained with."""

    name: str
    base_model: str
    tokenizer: ChatTokenizer
    adapter: Adapter | None = None
    version_id: str | None = None  # None: a base model
    own_engine: str | None = None  # the artifacts of a version that no base's engine attaches
    label_length: int | None = None  # of a label head: tokens of a text that it was trained on at most


class Targets:
    """Finds the version behind a reference, or a base model. ``kind_of`` says what engine a base model has.

    What was found is taken for true for ``keep_seconds``: a name costs a busy model no query. A name that nothing
    was found for is looked up each time.
    """

    def __init__(
        self,
        resolver: ModelResolver,
        bases: BaseModelStore,
        artifacts: ArtifactStore,
        kind_of: Callable[[str], EngineKind] = lambda base_model: EngineKind.OURS,
        keep_seconds: float = 0.0,
    ) -> None:
        self._resolver = resolver
        self._bases = bases
        self._artifacts = artifacts
        self._kind_of = kind_of
        self._kept = TTLCache[tuple[str, str], Target](MOST_KEPT, keep_seconds)  # by project and name
        self._lock = Lock()

    def find(self, project_id: str, model: str, conversation: str | None = None) -> Target:
        """A published version comes before a base model of the same name.

        Where an alias is split between versions, a ``conversation`` stays with one; without it each is drawn anew.
        Raises ``NotFound`` for a model that the project does not have, ``Invalid`` (not_generative) for an encoder
        without a label head and (not_servable) for one that its engine does not attach, ``Unavailable``
        (artifacts_missing, template_mismatch, base_mismatch) where what it was trained with is not what is here.
        """
        with self._lock, suppress(KeyError):
            return self._kept[project_id, model]
        split: list[ModelAlias] = []

        def draw(alias: ModelAlias) -> int:
            if len(alias.weights) > 1:
                split.append(alias)
            return alias.draw(conversation)

        version = self._resolver.find(project_id, model, draw)
        target = self.base(model) if version is None else self.of(version)
        if not split:
            with self._lock:
                self._kept[project_id, model] = target
        return target

    def base(self, name: str) -> Target:
        tokenizer = self._bases.tokenizer(name)
        if not tokenizer.generates:
            raise not_generative(name)
        return Target(name, name, tokenizer)

    def of(self, version: ModelVersion) -> Target:
        """``Invalid`` and ``Unavailable`` as in ``find``."""
        if needs_own_engine(version.config):
            self._resolver.check_base(version)
            length = None if version.generates else training_config(version.config).max_length
            tokenizer = self._artifacts.tokenizer(version)
            return Target(
                *(version.reference, version.base_model, tokenizer),
                version_id=version.id,
                own_engine=version.artifacts,
                label_length=length,
            )
        if why := not_servable(version.config, self._kind_of(version.base_model)):
            raise Invalid(f"{version.reference} cannot be served: {why}", code="not_servable")
        self._resolver.check_base(version)
        tokenizer = self._artifacts.tokenizer(version)
        adapter = Adapter(name=version.id, folder=str(self._artifacts.folder(version)), pinned=version.pinned)
        return Target(version.reference, version.base_model, tokenizer, adapter, version.id)
