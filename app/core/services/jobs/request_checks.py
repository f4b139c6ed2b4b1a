"""What a request for a job names, looked up: versions, base model, data."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.core.entities.dataset_versions import DatasetReference
from app.core.entities.datasets import DatasetCheck
from app.core.entities.identity import Principal, Role
from app.core.entities.training_config import flattened
from app.core.errors import Fault, Invalid
from app.core.interfaces.components import BaseModelStore, DatasetStore
from app.core.interfaces.storage import DatasetRepository


class RequestChecks:
    def __init__(self, datasets: DatasetStore, bases: BaseModelStore, dataset_versions: DatasetRepository) -> None:
        self._datasets = datasets
        self._bases = bases
        self._dataset_versions = dataset_versions

    def check(
        self, principal: Principal, config: Mapping[str, Any]
    ) -> tuple[DatasetCheck | None, Sequence[Fault]]:
        """The check of the data, if it could be found, and every fault. A key of the wrong type is passed over."""
        config, _ = flattened(config)
        base_model, dataset_path = config.get("base_model"), config.get("dataset_path")
        faults: list[Fault] = []
        if not principal.is_host and config.get("output_dir") is not None:
            faults.append(Fault("config.output_dir", "not_allowed", "only the foreground command may set it"))
        check: DatasetCheck | None = None
        if isinstance(base_model, str):
            try:
                self._bases.spec(base_model)
            except Invalid as error:
                faults.append(Fault("base_model", error.code, error.message))
        if config.get("dataset_id") is not None:
            check, dataset_faults = self._version(principal, config["dataset_id"])
            faults.extend(dataset_faults)
        elif isinstance(dataset_path, str) and not principal.role.covers(Role.OPERATOR):
            message = "files of the host are the operator's: upload the rows as a dataset and send its dataset_id"
            faults.append(Fault("dataset_path", "not_allowed", message))
        elif isinstance(dataset_path, str):
            try:
                check = self._datasets.check(dataset_path, trusted=principal.is_host)
                faults.extend(check.faults)
            except Invalid as error:
                faults.extend(error.faults or [Fault("dataset_path", error.code, error.message)])
        return check, faults

    def _version(self, principal: Principal, reference: Any) -> tuple[DatasetCheck | None, Sequence[Fault]]:
        """Its rows were checked when they were uploaded; ``path`` of the answer is ``ds-…:3``."""
        if not isinstance(reference, str):
            return None, ()
        try:
            parsed = DatasetReference.parse(reference)
        except Invalid as error:
            return None, [Fault("dataset_id", error.code, error.message)]
        version = self._dataset_versions.version(principal.project_id, parsed.id, parsed.number, parsed.tag)
        if version is None:
            message = f"there is no dataset {reference[:100]!r} in this project"
            return None, [Fault("dataset_id", "dataset_not_found", message)]
        return DatasetCheck(version.reference, version.digest, version.rows, ()), ()
