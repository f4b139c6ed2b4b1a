"""The version behind a reference: the one place that knows what a bare name and an alias stand for."""

from collections.abc import Callable

from app.core.entities.models import CHAMPION, ModelAlias, ModelVersion, Reference
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
