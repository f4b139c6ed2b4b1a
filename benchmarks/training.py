"""This project's trainer beside its peers: ``python -m benchmarks.training`` (``make bench-train``).

All train on the same rows in one run, one after the other, several rounds, each as a process of its own, the peers
in environments that are made here. ``--roads`` measures this trainer without each of its kernels in their place;
``--report`` this trainer alone, over batch sizes, row lengths and strategies.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.comparison import CONTESTANTS, OURS, PEERS, ROADS, Comparison, Contestant
from benchmarks.environments import ready
from benchmarks.processes import ROOT
from benchmarks.report import report
from benchmarks.rows import make_rows, read_rows
from benchmarks.spec import Settings
from benchmarks.workbench import MODELS, open_workbench, save

ROWS = 96
FIRST_ROWS = {"smollm2": ROWS, "r1-shape": 20}


def main() -> None:
    options = _options()
    if options.report:
        report(open_workbench("throughput", options.model, options.threads))
        return
    names = options.only or [*OURS, *(ROADS if options.roads else PEERS)]
    pythons = {name: _python(CONTESTANTS[name], options.envs) for name in names}
    bench = open_workbench("training", options.model, options.threads)
    settings = Settings(epochs=options.epochs)
    rows = read_rows(options.data) if options.data else make_rows(ROWS, settings.seed)
    rows = rows[: options.rows or FIRST_ROWS[options.model]]
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
    parser.add_argument("--data", type=Path, help="a JSON list of messages rows (default: made up from a seed)")
    parser.add_argument("--rows", type=int, help="the first N of them (default 96, or 20 for r1-shape)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each trains, in turn (default 3)")
    parser.add_argument("--epochs", type=int, default=2, help="passes over the rows in a round (default 2)")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="of each process (default: a core each)"
    )
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, metavar="NAME", help=", ".join(CONTESTANTS))
    parser.add_argument("--envs", type=Path, default=ROOT / "benchmarks" / ".envs", help="the peers' environments")
    parser.add_argument("--roads", action="store_true", help="this trainer with and without each of its kernels")
    parser.add_argument("--report", action="store_true", help="this trainer over batch sizes, lengths, strategies")
    return parser.parse_args()


if __name__ == "__main__":
    main()
