"""This project's trainer beside its peers: ``python -m benchmarks.training`` (``make bench-train``).

All train on the same rows in one run, one after the other, several rounds, each as a process of its own, the peers
in environments that are made here. ``--report`` measures this trainer alone, over batch sizes and row lengths.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.comparison import CONTESTANTS, Comparison, Contestant
from benchmarks.environments import ready
from benchmarks.processes import ROOT
from benchmarks.report import report
from benchmarks.rows import make_rows
from benchmarks.spec import Settings
from benchmarks.workbench import MODELS, open_workbench, save

ROWS = 96
FIRST_ROWS = {"smollm2": ROWS, "r1-shape": 20}


def main() -> None:
    options = _options()
    if options.report:
        report(open_workbench("throughput", options.model, options.threads))
        return
    pythons = {name: _python(CONTESTANTS[name], options.envs) for name in options.only}
    bench = open_workbench("training", options.model, options.threads)
    settings = Settings(epochs=options.epochs)
    rows = make_rows(ROWS, settings.seed)[: options.rows or FIRST_ROWS[options.model]]
    comparison = Comparison(bench, bench.lay_out("rows", rows, settings.max_length), settings, pythons)
    for number in range(1, options.rounds + 1):
        comparison.round(number)
    comparison.measure_losses()
    save(bench, comparison.as_json(), comparison.summary())
    if comparison.failed:
        raise SystemExit(f"failed: {', '.join(comparison.failed)}")


def _python(contestant: Contestant, environments: Path) -> Path:
    if contestant.environment is None:
        return Path(sys.executable)
    return ready(contestant.environment, environments)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.training", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--rows", type=int, help=f"the first N of {ROWS} (default {FIRST_ROWS})")
    parser.add_argument("--rounds", type=int, default=3, help="how often each trains, in turn (default 3)")
    parser.add_argument("--epochs", type=int, default=2, help="passes over the rows in a round (default 2)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each process (default: a core each)")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="NAME")
    parser.add_argument("--envs", type=Path, default=ROOT / "benchmarks" / ".envs", help="the peers' environments")
    parser.add_argument("--report", action="store_true", help="this trainer alone: batch sizes, row lengths")
    return parser.parse_args()


if __name__ == "__main__":
    main()
