"""What the service offers around models: published versions, their aliases, base models, their scores."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from app.core.entities.evaluation import EvaluationReport
from app.core.entities.identity import Principal
from app.core.entities.models import BaseModelSpec, ModelAlias, ModelSummary, ModelVersion, Reference
from app.core.entities.served_models import ServedModel


class ModelManagement(ABC):
    """Lists, finds and removes published models, and lays base models on the disk."""

    @abstractmethod
    def models(self, principal: Principal) -> Sequence[ModelSummary]:
        """List the project's models, by name."""

    @abstractmethod
    def model(self, principal: Principal, name: str) -> ModelSummary:
        """Return a model. ``NotFound`` (model_not_found)."""

    @abstractmethod
    def versions(self, principal: Principal, name: str) -> Sequence[ModelVersion]:
        """List the versions of a model, newest first. ``NotFound`` if there is no such model."""

    @abstractmethod
    def version(self, version_id: str) -> ModelVersion:
        """Return the version with that id in the default project: for commands on the host."""

    @abstractmethod
    def find(self, reference: Reference) -> ModelVersion | None:
        """Find a version in the default project: for commands on the host."""

    @abstractmethod
    def delete(self, principal: Principal, reference: str) -> None:
        """Remove one version, ``name:3``, with its files: for good, and its number is not given again.

        ``NotFound``; ``Conflict`` (version_has_alias); ``Forbidden`` (base_model_stays); ``Invalid`` for a name
        that may stand for another version tomorrow.
        """

    @abstractmethod
    def bases(self) -> Sequence[tuple[BaseModelSpec, bool]]:
        """List the base models, each with whether it is on the disk."""

    @abstractmethod
    def pull(self, name: str) -> Path:
        """Lay a base model under models/base; return its folder."""


class ModelAliases(ABC):
    """Moves the aliases of a project's models: names that stand for versions, each with a weight."""

    @abstractmethod
    def aliases(self, principal: Principal, name: str) -> Sequence[ModelAlias]:
        """List the aliases of a model, by name. ``NotFound`` if there is no such model."""

    @abstractmethod
    def set_alias(self, principal: Principal, name: str, alias: str, weights: Mapping[int, int]) -> ModelAlias:
        """Have ``alias`` carry these versions, each with its weight, in the place of what it carried.

        ``NotFound`` (model_not_found) names every version that is not there.
        """

    @abstractmethod
    def remove_alias(self, principal: Principal, name: str, alias: str) -> None:
        """Remove an alias; its versions stay. ``NotFound`` (alias_not_found)."""


class ServedModels(ABC):
    """Names, in OpenAI's dialect, the models that a project may ask."""

    @abstractmethod
    def list(self, principal: Principal) -> Sequence[ServedModel]:
        """List the resident base models, then the project's versions by name, newest first."""

    @abstractmethod
    def find(self, principal: Principal, name: str) -> ServedModel:
        """Find the model of that name. ``NotFound`` for a base model that is not resident, too.

        ``Invalid`` (split_alias) as in training.
        """

    @abstractmethod
    def reference(self, principal: Principal, name: str) -> str:
        """Return the reference that a name stands for: see ``ModelResolver.reference``."""


class Evaluation(ABC):
    """Scores the answers of models in this process, without a running service."""

    @abstractmethod
    def evaluate(
        self,
        model: str,
        dataset_path: str,
        *,
        split: str = "test",
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> EvaluationReport:
        """Ask ``model`` (``name``, ``name:3``, ``name@alias`` or a base model) the questions of a split.

        It is on the host's behalf: any file of it may be named.

        Rows need ``keys``: the figures and names that a right answer states. Model and data are immutable, so
        a report that was written once is read again. ``Invalid`` lists the faults of the data.
        """

    @abstractmethod
    def answers(self, model: str, questions: Sequence[str], *, max_tokens: int) -> Sequence[str]:
        """Answer each user message greedily, without a running service."""
