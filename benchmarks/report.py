"""This trainer alone: tokens a second over batch sizes and row lengths."""

import sys
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median

from benchmarks.arithmetic import markdown_table
from benchmarks.processes import say, tail
from benchmarks.rows import make_equal_rows
from benchmarks.spec import Settings, read_answer
from benchmarks.workbench import Workbench, machine, save

BATCH_SIZES = (1, 4, 8, 16)
LENGTHS = (64, 256, 1024)  # tokens of every row
STEPS = 5
TEMPLATE = 32  # tokens that SmolLM2's template adds to a turn, and a few


@dataclass(frozen=True, slots=True)
class Cell:
    """``tokens_per_second`` is of the middle one of the steps after the first; None if memory did not suffice."""

    length: int
    batch_size: int
    tokens_per_second: float | None
    peak_bytes: int


def report(bench: Workbench) -> None:
    """Print a Markdown table, and write ``results/benchmarks/throughput-<time>.json``."""
    cells = {(length, size): _measure(bench, length, size) for length in LENGTHS for size in BATCH_SIZES}
    head = ("tokens a row", *(f"{size} rows a step" for size in BATCH_SIZES))
    table = markdown_table(head, [(str(n), *(_shown(cells[n, size]) for size in BATCH_SIZES)) for n in LENGTHS])
    found = {
        "machine": machine(bench.threads),
        "model": bench.model.name,
        "cells": [asdict(cell) for cell in cells.values()],
    }
    save(bench, found, f"tokens/s and peak GB, {bench.model.name}, {bench.threads} threads\n\n{table}")


def _measure(bench: Workbench, length: int, batch_size: int) -> Cell:
    settings = Settings(batch_size=batch_size, epochs=1, max_length=length)
    # About half of the tokens are the assistant's. The answers are longer than wanted, and cut.
    rows = make_equal_rows(batch_size * STEPS, max(4, length // 2 - TEMPLATE), length, settings.seed)
    name = f"{batch_size} rows of {length} tokens"
    say(name)
    run = bench.train(
        name,
        [sys.executable, "-m", "benchmarks.run_ours"],
        bench.lay_out(f"data of {name}", rows, length),
        settings,
    )
    if run.finished.status:
        say(f"  failed (all of it: {run.log}):\n{tail(run.log, 3)}")
        return Cell(length, batch_size, None, run.finished.peak_bytes)
    times = [after - before for before, after in pairwise(read_answer(run.spec).step_ends)]
    return Cell(length, batch_size, batch_size * length / median(times), run.finished.peak_bytes)


def _shown(cell: Cell) -> str:
    if cell.tokens_per_second is None:
        return "does not fit"
    return f"{cell.tokens_per_second:,.0f} · {cell.peak_bytes / 1e9:.1f}"
