"""What a request to train means: its config over the service's defaults, and what it names, looked up."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.core.entities.dataset_versions import DatasetReference
from app.core.entities.datasets import DatasetCheck
from app.core.entities.identity import Principal
from app.core.entities.training_config import TrainingConfig, training_config
from app.core.errors import Fault, Invalid
from app.core.interfaces.job_kinds import Draft
from app.core.interfaces.storage import DatasetRepository
from app.core.interfaces.stores import Stores
from app.core.services.jobs.lineage import begin_from_version
from app.core.services.jobs.request_checks import RequestChecks
from app.core.services.models.resolver import ModelResolver


class TrainingRequests:
    def __init__(
        self,
        stores: Stores,
        resolver: ModelResolver,
        dataset_versions: DatasetRepository,
        defaults: TrainingConfig,
    ) -> None:
        self._resolver = resolver
        self._checks = RequestChecks(stores.datasets, stores.bases, dataset_versions)
        self.defaults = defaults.with_changes(from_version=None)  # a request says itself where it begins

    def check(self, principal: Principal, overrides: Mapping[str, Any]) -> tuple[TrainingConfig, DatasetCheck]:
        """Return the whole config and the check of its data. ``Invalid`` with every fault of both."""
        # A client cannot say where on the host a run's files go, and the defaults' place is for one run only.
        defaults = self.defaults if principal.is_host else self.defaults.with_changes(output_dir=None)
        overrides, version_faults = begin_from_version(self._resolver, principal.project_id, overrides)
        faults = list(version_faults)
        config: TrainingConfig | None = None
        try:
            config = training_config(overrides, over=defaults, strict=True)
        except Invalid as error:
            faults.extend(error.faults)
        check, named_faults = self._checks.check(principal, config.model_dump() if config else overrides)
        faults.extend(named_faults)
        if faults or config is None or check is None:
            raise Invalid("the request has faults: nothing was started", faults=faults)
        if config.dataset_id is not None:  # by its number, so that it never moves
            config = config.with_changes(dataset_id=check.path)
        return config, check

    def draft(self, principal: Principal, overrides: Mapping[str, Any]) -> Draft:
        """Return the request as its job's row has it. ``Invalid`` as ``check``."""
        config, check = self.check(principal, overrides)
        version = None if config.dataset_id is None else DatasetReference.parse(config.dataset_id)
        return Draft(
            name=config.experiment_name,
            config=config.model_dump(mode="json"),
            base_model=config.base_model,
            dataset_digest=check.digest,
            dataset_id=version.id if version else None,
            dataset_number=version.number if version else None,
            # The rate that a multiplier is of: the defaults may change while the job is there.
            request={"default_learning_rate": self.defaults.learning_rate},
        )

    def config_faults(self, principal: Principal, overrides: Mapping[str, Any]) -> Sequence[Fault]:
        """Check a request's config over the service's defaults and the version it names; return its faults."""
        overrides, _ = begin_from_version(self._resolver, principal.project_id, overrides)
        try:
            training_config(overrides, over=self.defaults, strict=True)
        except Invalid as error:
            return error.faults
        return ()

    def named_faults(self, principal: Principal, overrides: Mapping[str, Any]) -> Sequence[Fault]:
        """Return what is wrong with the version, the base model, the data and the place that a request names."""
        overrides, faults = begin_from_version(self._resolver, principal.project_id, overrides)
        return [*faults, *self._checks.check(principal, overrides)[1]]
