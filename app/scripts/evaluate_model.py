"""Score a model on held-out questions: ``python -m app.scripts.evaluate_model --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # python app/scripts/evaluate_model.py
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tqdm import tqdm

from app.bootstrap import SettingsError, one_line
from app.core.entities.evaluation import EvaluationReport, Score
from app.core.errors import AppError
from app.core.interfaces.services.models import Evaluation
from app.model.training_service import foreground_app


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 scored, 1 failed, 2 a usage error."""
    options = parser().parse_args(arguments)
    try:
        service = foreground_app().extensions["services"].evaluation
        reports = [evaluate(service, model, options.dataset_path, options.split) for model in options.model]
    except (AppError, SettingsError) as error:
        print(one_line(error), file=sys.stderr)
        return 1
    print("\n".join(score_table(reports)))
    if options.show_wrong:
        print("\n".join(wrong_answers(reports[-1])))
    return 0


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser("evaluate_model", description="Score models on held-out questions.")
    arguments.add_argument(
        "--model", nargs="+", required=True, help="base models, or versions: name, name:3, name@alias"
    )
    arguments.add_argument(
        "--dataset_path", default="data/raw/sample_data.json", help="a json, jsonl, csv or parquet file"
    )
    arguments.add_argument("--split", default="test", choices=("train", "validation", "test"))
    arguments.add_argument("--show_wrong", action="store_true", help="print what the last model got wrong")
    return arguments


def evaluate(service: Evaluation, model: str, dataset_path: str, split: str) -> EvaluationReport:
    """Under a progress bar."""
    with tqdm(desc=f"  asking {model}", unit="question", leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return service.evaluate(model, dataset_path, split=split, on_progress=show)


def score_table(reports: Sequence[EvaluationReport]) -> list[str]:
    """A row for each group of questions, a column for each model: how many answers state the right fact."""
    groups = sorted({group for report in reports for group in report.scores()})
    width = max(len(report.model) for report in reports) + 2
    lines = [f"{'questions':<12}" + "".join(f"{report.model:>{max(width, 18)}}" for report in reports)]
    for group in groups:
        cells = [_cell(report.scores().get(group, Score(0, 0))) for report in reports]
        lines.append(f"{group:<12}" + "".join(f"{cell:>{max(width, 18)}}" for cell in cells))
    return lines


def wrong_answers(report: EvaluationReport) -> list[str]:
    return [
        f"row {answer.row}: {answer.question}\n  said     {answer.answer}\n  expected {answer.expected}"
        for answer in report.answers
        if not answer.correct
    ]


def _cell(score: Score) -> str:
    return f"{score.correct}/{score.total} ({score.share:.0%})"


if __name__ == "__main__":
    sys.exit(main())
