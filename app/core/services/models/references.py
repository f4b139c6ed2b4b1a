"""The version behind a reference: what a name and an alias stand for, and whether its base is still the same."""

from collections.abc import Callable

from app.core.entities.models import CHAMPION, ModelAlias, ModelVersion, Reference
from app.core.errors import Unavailable
from app.core.interfaces.components import BaseModelStore
from app.core.interfaces.storage import ModelVersionRepository


def find_version(
    versions: ModelVersionRepository,
    project_id: str,
    reference: Reference,
    choose: Callable[[ModelAlias], int] = ModelAlias.the_one,
) -> ModelVersion | None:
    """None if there is no such version, or alias. ``choose`` takes one number of those that an alias carries.

    ``Invalid`` (split_alias) where there are several and ``choose`` is not told otherwise.
    """
    if reference.number is not None:
        return versions.find(project_id, reference.name, reference.number)
    alias = versions.alias(project_id, reference.name, reference.alias or CHAMPION)
    if alias is not None:
        return versions.find(project_id, reference.name, choose(alias))
    return None if reference.alias else versions.find(project_id, reference.name)


def check_base(bases: BaseModelStore, version: ModelVersion) -> None:
    """``Unavailable`` (base_mismatch) if the base model of that name has other weights than it was trained over.

    A base model that is not on this host is its engine's affair, and a whole model needs none.
    """
    if version.is_whole_model:
        return
    here = bases.digest(version.base_model)
    if None not in (here, version.base_digest) and here != version.base_digest:
        raise Unavailable(
            f"{version.base_model} is not the model that {version.reference} was trained over: restore "
            f"models/base/{version.base_model}, or train the version again",
            code="base_mismatch",
        )
