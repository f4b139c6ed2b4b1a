"""Check a data file, split it, and say what it holds: ``python -m app.scripts.process_data --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # python app/scripts/process_data.py
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from app import create_app
from app.bootstrap import one_line
from app.core.entities.datasets import SplitSummary
from app.core.errors import AppError, Invalid
from app.core.interfaces.services.data import DatasetFiles
from app.core.services.data.datasets import PERCENTILES


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 sound and split, 1 faults (listed on standard error), 2 a usage error."""
    options = parser().parse_args(arguments)
    return process(options, create_app().extensions["services"].datasets)


def process(options: argparse.Namespace, datasets: DatasetFiles) -> int:
    try:
        prepared = datasets.prepare(options.dataset_path, options.seed, trusted=True)
        summary = datasets.summary(prepared, options.base_model, options.max_length)
    except Invalid as error:
        lines = [f"  {fault.where}: {fault.message} [{fault.code}]" for fault in error.faults]
        print("\n".join([f"{options.dataset_path}: {error.message}", *lines]), file=sys.stderr)
        return 1
    except AppError as error:
        print(one_line(error), file=sys.stderr)
        return 1
    print(f"{options.dataset_path}: sound; split into {prepared.folder}")
    print("\n".join(table(summary)))
    return 0


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        "process_data", description="Check a data file, split it, count its tokens."
    )
    arguments.add_argument(
        "--dataset_path", default="data/raw/sample_data.json", help="a json, jsonl, csv or parquet file"
    )
    arguments.add_argument("--base_model", help="count tokens as this base model does")
    arguments.add_argument(
        "--max_length", type=int, default=1024, help="tokens of a row; longer ones are truncated"
    )
    arguments.add_argument("--seed", type=int, default=42, help="of the split, where rows carry none")
    return arguments


def table(summary: Sequence[SplitSummary]) -> list[str]:
    percentiles = [f"p{percent}" for percent in PERCENTILES]
    heads = ["rows", "supervised", "unsupervised", *percentiles, "truncated rows"]
    lines = ["split       " + "".join(f"{head:>15}" for head in heads)]
    for part in summary:
        figures = [part.rows]
        if tokens := part.tokens:
            figures += [tokens.supervised, tokens.unsupervised, *tokens.row_lengths.values()]
            figures.append(tokens.truncated_rows)
        lines.append(f"{part.split:12}" + "".join(f"{figure:>15,}" for figure in figures))
    return lines


if __name__ == "__main__":
    sys.exit(main())
