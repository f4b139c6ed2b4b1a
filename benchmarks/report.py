"""This trainer alone: tokens a second over batch sizes, row lengths and strategies."""

import sys
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median

from benchmarks.arithmetic import markdown_table
from benchmarks.processes import say, tail
from benchmarks.rows import make_equal_rows
from benchmarks.spec import Settings, read_answer
from benchmarks.workbench import Workbench, machine, save

BATCH_SIZES = (1, 4, 8, 16)  # rows in an optimizer step, over all processes
LENGTHS = (64, 256, 1024)  # tokens of every row
STRATEGIES = (("single", 1), ("ddp", 2))  # and processes, which share the threads
STEPS = 5
TEMPLATE = 32  # tokens that SmolLM2's template adds to a turn, and a few


@dataclass(frozen=True, slots=True)
class Cell:
    """``tokens_per_second`` is of the middle one of the steps after the first; None if the run failed.

    ``peak_bytes`` is of one process.
    """

    strategy: str
    processes: int
    length: int
    batch_size: int
    tokens_per_second: float | None
    peak_bytes: int


def report(bench: Workbench) -> None:
    """Print a Markdown table, and write ``results/benchmarks/throughput-<time>.json``."""
    cells = [
        _measure(bench, strategy, processes, length, batch_size)
        for strategy, processes in STRATEGIES
        for length in LENGTHS
        for batch_size in BATCH_SIZES
        if batch_size >= processes
    ]
    found = {
        "machine": machine(bench.threads),
        "model": bench.model.name,
        "cells": [asdict(cell) for cell in cells],
    }
    title = f"{bench.model.name}, {bench.threads} threads: tokens/s · peak GB of a process"
    save(bench, found, f"{title}\n\n{_table(cells)}")


def _measure(bench: Workbench, strategy: str, processes: int, length: int, batch_size: int) -> Cell:
    settings = Settings(batch_size=batch_size, epochs=1, max_length=length, strategy=strategy, processes=processes)
    # About half of the tokens are the assistant's. The answers are longer than wanted, and cut.
    rows = make_equal_rows(batch_size * STEPS, max(4, length // 2 - TEMPLATE), length, settings.seed)
    name = f"{strategy} {batch_size} x {length}"
    say(name)
    data = bench.lay_out(f"rows {name}", rows, length)
    run = bench.train(name, [sys.executable, "-m", "benchmarks.run_ours"], data, settings)
    speed = None
    if run.finished.status:
        say(f"  failed with status {run.finished.status} (all of it: {run.log}):\n{tail(run.log, 3)}")
    else:
        times = [after - before for before, after in pairwise(read_answer(run.spec).step_ends)]
        speed = batch_size * length / median(times)
    return Cell(strategy, processes, length, batch_size, speed, run.finished.peak_bytes)


def _table(cells: list[Cell]) -> str:
    """A line a strategy and length, a column a batch size; blank where there are fewer rows than processes."""
    by_place = {(cell.strategy, cell.length, cell.batch_size): cell for cell in cells}
    head = ("strategy, tokens a row", *(f"{size} rows a step" for size in BATCH_SIZES))
    rows = [
        (
            f"{strategy}{f' × {processes}' if processes > 1 else ''}, {length}",
            *(_shown(by_place.get((strategy, length, size))) for size in BATCH_SIZES),
        )
        for strategy, processes in STRATEGIES
        for length in LENGTHS
    ]
    return markdown_table(head, rows)


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell.tokens_per_second is None:
        return "failed"
    return f"{cell.tokens_per_second:,.0f} · {cell.peak_bytes / 1e9:.1f}"
