"""How fast cleaning and each slow check of the inspection are: ``python -m benchmarks.inspection``."""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

from app.core.entities.data_pipeline import PipelineConfig
from app.core.entities.datasets import Conversation
from app.core.interfaces.components import unwatched
from app.core.processors.pipeline import run_pipeline
from app.implementations.data.inspection import inspect
from benchmarks.arithmetic import markdown_table
from benchmarks.processes import say
from benchmarks.rows import make_rows, read_rows

SEED = 42


def main() -> None:
    options = _options()
    raw = read_rows(options.data) if options.data else make_rows(options.rows, SEED)
    rows = [Conversation(number, row["messages"]) for number, row in enumerate(raw[: options.rows], start=1)]
    characters = sum(len(message["content"]) for row in rows for message in row.messages)
    say(f"{len(rows):,} rows of {characters / len(rows):.0f} characters")
    started = time.perf_counter()
    run_pipeline(rows, PipelineConfig(steps=("clean",)))
    rates = {"clean": len(rows) / (time.perf_counter() - started)}
    found = inspect(rows, PipelineConfig(), on_progress=unwatched if options.quiet else _show)
    rates |= found.report.rates
    print(markdown_table(("check", "rows a second"), [(name, f"{rate:,.0f}") for name, rate in rates.items()]))
    print(f"\nwarnings {dict(found.report.warning_counts)}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB, the rows included")


def _show(name: str, done: int, total: int) -> None:
    if done % 10_000 == 0 or done == total:
        say(f"  {name} {done:,} of {total:,}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.inspection", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="made up from a seed (default 100,000)")
    parser.add_argument("--data", type=Path, help="the first of a JSON list of messages rows instead")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser.parse_args()


if __name__ == "__main__":
    main()
