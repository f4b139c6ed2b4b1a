"""Stores that several services share, handed to them as one argument."""

from dataclasses import dataclass

from app.core.interfaces.components import ArtifactStore, BaseModelStore, DatasetStore, TokenCache
from app.core.interfaces.identity import KeyRepository, SessionRepository, UserRepository
from app.core.interfaces.storage import ModelVersionRepository


@dataclass(frozen=True, slots=True)
class Stores:
    """``versions`` are rows of the database; the others are folders of this host."""

    versions: ModelVersionRepository
    bases: BaseModelStore
    datasets: DatasetStore
    artifacts: ArtifactStore
    tokens: TokenCache


@dataclass(frozen=True, slots=True)
class People:
    """Users, and what they call with."""

    users: UserRepository
    keys: KeyRepository
    sessions: SessionRepository
