"""What the figures are made of: counts of operations, bounds, ratios, tables. No measurement happens here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Product:
    """A frozen linear layer of ``inputs`` × ``outputs``, met by ``rows`` rows, ``count`` times in a step.

    Training computes it twice: y = x Wᵀ, and the input's gradient dx = dy W. W itself has none.
    """

    rows: int
    inputs: int
    outputs: int
    count: int

    @property
    def flop(self) -> int:
        return 2 * 2 * self.rows * self.inputs * self.outputs * self.count


def step_products(config: Mapping[str, Any], tokens: int, supervised: int) -> list[Product]:
    """The products of one step of ``tokens`` tokens, the head's over the ``supervised`` ones alone.

    ``config`` is config.json of a Llama or Qwen2. Attention's own products, the adapters' and everything that is
    not a product are left out: no trainer can do with less than these.
    """
    hidden, layers, wide = config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    of_head = config.get("head_dim") or hidden // heads
    queries, keys = heads * of_head, config["num_key_value_heads"] * of_head
    return [
        Product(tokens, hidden, queries, layers),
        Product(tokens, hidden, keys, 2 * layers),
        Product(tokens, queries, hidden, layers),
        Product(tokens, hidden, wide, 2 * layers),
        Product(tokens, wide, hidden, layers),
        Product(supervised, hidden, config["vocab_size"], 1),
    ]


def bound(products: Iterable[Product], tokens: int, flop_per_second: float) -> float:
    """Tokens a second, if a step of ``tokens`` tokens were these products and nothing else."""
    return tokens * flop_per_second / sum(product.flop for product in products)


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of several readings, and the range that they lie in."""

    median: float
    lowest: float
    highest: float

    def scaled(self, factor: float) -> "Spread":
        return Spread(self.median * factor, self.lowest * factor, self.highest * factor)


def spread(readings: Sequence[float]) -> Spread:
    """``ValueError`` when there are none."""
    return Spread(median(readings), min(readings), max(readings))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours by theirs, round by round, since a machine has slow minutes. ``ValueError`` for unequal counts."""
    return spread([mine / other for mine, other in zip(ours, theirs, strict=True)])


def shown(found: Spread, digits: int = 0) -> str:
    """``median (lowest–highest)``."""
    return f"{found.median:,.{digits}f} ({found.lowest:,.{digits}f}–{found.highest:,.{digits}f})"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column to the left, the others to the right, padded so that it reads well in a terminal too."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def written(line: Sequence[str]) -> str:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        return f"| {' | '.join(cells)} |"

    return "\n".join(written(line) for line in [lines[0], rule, *lines[1:]])
