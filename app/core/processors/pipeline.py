"""The steps from rows to those that train, in the order of the config: rows to rows, and a record."""

from __future__ import annotations

from collections.abc import Sequence

from app.core.entities.data_pipeline import PipelineConfig, PipelineResult, StepRecord
from app.core.entities.datasets import Conversation
from app.core.entities.recording import Recorder
from app.core.factories import DATA_PROCESSORS
from app.core.interfaces.components import DataProcessor, RowProgress, unwatched

KEPT_CHANGES = 1000


def run_pipeline(
    rows: Sequence[Conversation],
    config: PipelineConfig,
    *,
    keep_changes: int | None = KEPT_CHANGES,
    on_progress: RowProgress = unwatched,
) -> PipelineResult:
    """Do the step ``convert`` and those of ``config``: the same result for the same rows and config, anywhere.

    Of each step the first ``keep_changes`` changes are kept (None: all of them) and all are counted.
    """
    records: list[StepRecord] = []
    for name in ("convert", *config.steps):
        step: DataProcessor = DATA_PROCESSORS.create(name, config=config)
        recorder = Recorder(name, keep_changes)
        before = len(rows)
        rows = step.process(rows, recorder, on_progress)
        records.append(recorder.record(before, len(rows)))
    return PipelineResult(rows, records)
