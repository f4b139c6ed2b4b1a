"""How fast this machine multiplies what a step multiplies: ``python -m benchmarks.measure_matmul FILE``.

The file holds ``threads`` and ``products`` (the fields of ``Product``); the answer, ``flop_per_second``, goes to
standard output as JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.arithmetic import Product

REPEATS = 5


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(told["threads"])
    products = [Product(**product) for product in told["products"]]
    seconds = sum(map(_seconds, products))
    print(json.dumps({"flop_per_second": sum(product.flop for product in products) / seconds}))


def _seconds(product: Product) -> float:
    """Of all its multiplications in a step, in bf16, each with a weight of its own: a model's do not fit a cache.

    The best of several rounds: what the machine can do, not what it was kept from doing.
    """
    weights = [
        torch.full((product.outputs, product.inputs), 0.01, dtype=torch.bfloat16) for _ in range(product.count)
    ]
    x = torch.full((product.rows, product.inputs), 0.01, dtype=torch.bfloat16)
    dy = torch.full((product.rows, product.outputs), 0.01, dtype=torch.bfloat16)

    def both() -> None:
        for weight in weights:
            torch.nn.functional.linear(x, weight)
        for weight in weights:
            torch.mm(dy, weight)

    both()
    return min(_timed(both) for _ in range(REPEATS))


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
