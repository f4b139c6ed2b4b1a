"""What a name stands for on this host: a published version of the default project, or a base model."""

from dataclasses import dataclass
from pathlib import Path

from app.core.entities.identity import DEFAULT_PROJECT_ID
from app.core.entities.models import Reference, not_generative
from app.core.entities.training_config import TrainingConfig
from app.core.errors import NotFound
from app.core.interfaces.components import ArtifactStore, BaseModelStore, ChatTokenizer
from app.core.interfaces.storage import ModelVersionRepository
from app.core.services.models.references import check_base, find_version


@dataclass(frozen=True, slots=True)
class Subject:
    """``key`` names it for ever; a base model has no adapter, nor has a version that is a whole model.

    ``seed`` is that of the split: a version is asked nothing that it was trained on.
    """

    name: str
    key: str
    base_model: str
    adapter_folder: Path | None
    tokenizer: ChatTokenizer
    seed: int = TrainingConfig().seed
    model_folder: Path | None = None  # of a version that is a model by itself

    def folder(self, bases: BaseModelStore) -> Path:
        """The weights that an adapter would go over. ``Unavailable`` (base_model_missing)."""
        return self.model_folder or bases.folder(self.base_model)


def find_subject(
    versions: ModelVersionRepository, bases: BaseModelStore, artifacts: ArtifactStore, model: str
) -> Subject:
    """``model``: ``name``, ``name:3``, ``name@alias`` or a base model.

    ``NotFound`` for none of them, ``Invalid`` (not_generative) for one that answers with a label and (split_alias)
    for an alias of several versions.
    """
    reference = Reference.parse(model)
    version = find_version(versions, DEFAULT_PROJECT_ID, reference)
    if version is not None:
        if not version.generates:
            raise not_generative(version.reference)
        check_base(bases, version)
        folder, tokenizer = artifacts.folder(version), artifacts.tokenizer(version)
        adapter, whole = (None, folder) if version.is_whole_model else (folder, None)
        seed = version.config["seed"]
        return Subject(version.reference, version.id, version.base_model, adapter, tokenizer, seed, whole)
    if reference.is_bare and reference.name in {spec.name for spec in bases.specs()}:
        base = bases.tokenizer(model)
        if not base.generates:
            raise not_generative(model)
        return Subject(model, model, model, None, base)
    raise NotFound(f"no model {model!r}: neither a published version nor a base model")
