"""``lengths.png``: how long the rows of a dataset are, in one look."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

MAX_BARS = 60


def histogram_png(lengths: Sequence[int], unit: str, percentiles: Mapping[int, int]) -> bytes:
    """Rows by length, with the percentiles as lines. A PNG of a readable size, also for no rows."""
    from matplotlib.figure import Figure  # not pyplot, which keeps every figure and looks for a screen
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.hist(lengths, bins=_bars(lengths), color="#9ecae1", edgecolor="#3182bd", linewidth=0.5)
    for percent, length in percentiles.items():
        axes.axvline(length, color="#d94801", linewidth=1)
        axes.annotate(
            f"p{percent}: {length:,}",
            (length, 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, -4),
            textcoords="offset points",
            rotation=90,
            va="top",
            fontsize=8,
            color="#d94801",
        )
    axes.set_title(f"{len(lengths):,} rows", loc="left", fontsize=10)
    axes.set_xlabel(f"{unit} of a row")
    axes.set_ylabel("rows")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _bars(lengths: Sequence[int]) -> list[float]:
    """Edges of bars of whole numbers, centred on them where there are few."""
    longest = max(lengths, default=1)
    width = max(1, -(-longest // MAX_BARS))
    return [edge - 0.5 for edge in range(0, longest + width + 1, width)]
