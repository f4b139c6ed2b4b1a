"""A look at rows before anything trains on them, and new versions made of old ones by the pipeline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from app.core.entities.data_pipeline import Inspection, PipelineConfig, PipelineResult
from app.core.entities.dataset_versions import DatasetVersion
from app.core.entities.datasets import Conversation, no_row
from app.core.entities.identity import Principal
from app.core.entities.previews import RowPreview
from app.core.entities.training_config import training_config
from app.core.errors import AppError, Fault, Invalid
from app.core.interfaces.components import BaseModelStore, ByteProgress, ChatTokenizer, RowProgress, unwatched
from app.core.interfaces.services.data import DataPreparation
from app.core.processors.pipeline import run_pipeline
from app.core.services.data.dataset_versions import DatasetVersionService
from app.core.services.data.datasets import DatasetService
from app.core.services.data.encoding import encode_by_shape, objective_of
from app.core.services.data.preview import preview

REFERENCE = "ds-"


class DataPreparationService(DataPreparation):
    """``inspect`` is the implementations'; ``defaults`` is what a pipeline does unasked."""

    def __init__(
        self,
        versions: DatasetVersionService,
        files: DatasetService,
        bases: BaseModelStore,
        inspect: Callable[..., Inspection],
        defaults: PipelineConfig,
    ) -> None:
        self._versions = versions
        self._files = files
        self._bases = bases
        self._inspect = inspect
        self.defaults = defaults

    def rows(
        self,
        principal: Principal | None,
        source: str,
        *,
        trusted: bool = False,
        progress: ByteProgress | None = None,
    ) -> Sequence[Conversation]:
        if not trusted:
            return self._versions.few_rows(principal, source, "POST /api/v1/datasets/{id}/validate")
        if source.startswith(REFERENCE):
            return self._versions.rows(principal, source)
        return self._files.rows(source, self.defaults.seed, trusted=True, progress=progress)

    def inspect(
        self,
        rows: Sequence[Conversation],
        config: PipelineConfig | None = None,
        *,
        base_model: str | None = None,
        max_length: int = 1024,
        slow_checks: bool = True,
        on_progress: RowProgress = unwatched,
    ) -> Inspection:
        config = config or self.defaults
        if not slow_checks:
            off = dict.fromkeys(("near_duplicates", "languages", "secrets", "personal_data"), False)
            config = config.model_copy(update={"inspection": config.inspection.model_copy(update=off)})
        tokens = None if base_model is None else token_counter(self._bases.tokenizer(base_model), max_length)
        return self._inspect(rows, config, tokens=tokens, max_length=max_length, on_progress=on_progress)

    def preview(
        self, principal: Principal | None, source: str, row: int, *, trusted: bool = False, **changes: Any
    ) -> RowPreview:
        if trusted and not source.startswith(REFERENCE):
            rows = self.rows(principal, source, trusted=True)
            found = next((one for one in rows if one.row == row), None)
            if found is None:
                raise no_row(row, [one.row for one in rows])
        else:
            found = self._versions.row(principal, source, row)
        config = training_config({"objective": objective_of(found), **changes})
        return preview(found, self._bases.tokenizer(config.base_model), config)

    def process(
        self,
        principal: Principal | None,
        reference: str,
        config: PipelineConfig | None = None,
        *,
        on_progress: RowProgress = unwatched,
    ) -> tuple[DatasetVersion, PipelineResult]:
        config = config or self.defaults
        parent = self._versions.version(principal, reference)
        result = run_pipeline(self._versions.rows(principal, reference), config, on_progress=on_progress)
        changes: list[Mapping[str, Any]] = [
            {key: value for key, value in asdict(step).items() if key not in ("changes", "warnings")}
            for step in result.steps
        ]
        made = self._versions.derive(principal, parent, result.rows, config.model_dump(mode="json"), changes)
        return made, result


def token_counter(tokenizer: ChatTokenizer, max_length: int) -> Callable[[Conversation], tuple[int, int]]:
    """Return what counts a row's tokens before truncation, and the supervised ones after it."""

    def count(conversation: Conversation) -> tuple[int, int]:
        try:
            pieces = encode_by_shape(conversation, tokenizer, max_length)
        except AppError as error:
            raise _of_row(conversation, error) from None
        whole = sum(piece.tokens + piece.truncated for piece in pieces)
        # Of a labelled text its class, which no tokenizer knows.
        return whole, sum(piece.supervised for piece in pieces) + (conversation.label is not None)

    return count


def _of_row(conversation: Conversation, error: AppError) -> AppError:
    where = f"row {conversation.row}"
    fault = Fault(where, error.code, error.message)
    return Invalid(f"{where}: {error.message}", code=error.code, faults=[fault])
