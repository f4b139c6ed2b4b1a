"""This engine under more and less load: ``python -m benchmarks.serving_load``.

Tokens a second of 1 to 64 requests at once, each for 64 tokens after a prompt of 32, over 1 to 128 adapters of
rank 8 on every linear layer, taken in turn; and the bound that reading the weights once for each token sets to a
single stream, by the speed at which this machine reads memory.

``--base`` takes a folder, for a model that no config names: ``python -m benchmarks.random_model`` makes one of
DeepSeek-R1-Distill-Qwen-1.5B's shape.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import torch

from app.bootstrap import build_base_models, load_settings
from benchmarks.adapters import write_adapters
from benchmarks.arithmetic import markdown_table, shown, spread
from benchmarks.processes import say
from benchmarks.serving import MODEL, Bench, read
from benchmarks.serving_plan import PROMPT, Scenario

STREAMS = (1, 4, 16, 64)
ADAPTERS = (0, 1, 16, 128)
READ_BYTES = 2**30
READS = 5


def main() -> None:
    options = _options()
    base = options.base or build_base_models(load_settings()).folder(MODEL)
    found: dict[tuple[int, int], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-load-") as name:
        folder = Path(name)
        written = write_adapters(base, folder / "adapters", max(options.adapters))
        for number in range(1, options.rounds + 1):
            for adapters in options.adapters:
                bench = Bench(base, written[:adapters], folder, options.threads, None, number, options.precision)
                with bench.server("ours", with_adapters=adapters > 0) as client:
                    for streams in options.streams:
                        scenario = Scenario(f"{streams} over {adapters}", "decode", streams, adapters, PROMPT, 0)
                        found.setdefault((streams, adapters), []).append(read(client, scenario, number))
                        say(f"round {number}: {scenario.title}: {found[streams, adapters][-1]:.3g}")
    head = ["streams", *(f"{count} adapters" for count in options.adapters)]
    rows = [
        [str(streams), *(shown(spread(found[streams, adapters]), 1) for adapters in options.adapters)]
        for streams in options.streams
    ]
    print(f"{base.name}, {options.precision}, {options.threads} threads: tokens/s\n\n{markdown_table(head, rows)}")
    print(f"\n{bound(base, options.precision, options.threads)}")


def bound(base: Path, precision: str, threads: int) -> str:
    """The weights, but for the table of embeddings, which is looked up."""
    torch.set_num_threads(threads)
    room = torch.zeros(READ_BYTES // 4)
    seconds = []
    for _ in range(READS):
        started = time.perf_counter()
        room.sum()
        seconds.append(time.perf_counter() - started)
    speed = READ_BYTES / min(seconds)
    shape = json.loads((base / "config.json").read_text("utf-8"))
    weights = sum(file.stat().st_size for file in base.glob("*.safetensors"))  # in bf16
    if not shape.get("tie_word_embeddings"):
        weights -= 2 * shape["vocab_size"] * shape["hidden_size"]
    weights = weights // 2 if precision == "int8" else weights
    return (
        f"weights {weights / 1e9:.2f} GB, memory read at {speed / 1e9:.0f} GB/s: "
        f"one stream has at most {speed / weights:.1f} tokens/s"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_load", description=__doc__)
    parser.add_argument("--base", type=Path, help=f"a folder with a model; without: {MODEL}")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--streams", type=int, nargs="+", default=list(STREAMS))
    parser.add_argument("--adapters", type=int, nargs="+", default=list(ADAPTERS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
