"""``loss_curve.png``: losses and learning rate of a whole run, in one look."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

FEW_POINTS = 30  # up to here each is marked


@dataclass
class Curve:
    """By optimizer step. A step that was done again, after a resume, counts once."""

    loss: dict[int, float] = field(default_factory=dict)
    learning_rate: dict[int, float] = field(default_factory=dict)
    eval_loss: dict[int, float] = field(default_factory=dict)

    @property
    def first_step(self) -> int | None:
        return min([*self.loss, *self.eval_loss], default=None)

    def add(self, step: int, figures: Mapping[str, Any]) -> None:
        """Of a metrics event, what belongs into the picture."""
        for name in ("loss", "learning_rate", "eval_loss"):
            if figures.get(name) is not None:
                getattr(self, name)[step] = figures[name]

    def after(self, earlier: "Curve") -> "Curve":
        return Curve(
            earlier.loss | self.loss,
            earlier.learning_rate | self.learning_rate,
            earlier.eval_loss | self.eval_loss,
        )


def earlier_curve(run_folder: Path, before: int) -> Curve:
    """What earlier attempts in this folder said in their events of the steps before ``before``.

    Those from there on are done again, and a run that begins with the first has no past, whatever lies there.
    """
    curve = Curve()
    for data in _figures(run_folder):
        if data["step"] < before:
            curve.add(data["step"], data)
    return curve


def draw(curve: Curve, title: str) -> Figure:
    """Losses above, learning rate below, over the steps."""
    figure = Figure(figsize=(9, 5.5), dpi=120, layout="constrained")
    losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    steps, values = _sorted(curve.loss)
    every = [*curve.loss.values(), *curve.eval_loss.values()]
    marker = "." if len(steps) <= FEW_POINTS else ""
    losses.plot(steps, values, color="#9ecae1", linewidth=1, marker=marker, label="training")
    losses.plot(steps, smoothed(values), color="#08519c", linewidth=1.8, label="training, smoothed")
    if curve.eval_loss:
        places, found = _sorted(curve.eval_loss)
        losses.plot(places, found, color="#d94801", linewidth=1.2, marker="o", markersize=5, label="validation")
        best = min(found)
        at = places[found.index(best)]
        losses.set_title(
            f"lowest validation loss {best:.4g} at step {at}", loc="right", fontsize=9, color="#d94801"
        )
    losses.set_title(title, loc="left", fontsize=10)
    losses.set_ylabel("loss")
    losses.legend(frameon=False)
    rates.plot(*_sorted(curve.learning_rate), color="#636363", linewidth=1.2, marker=marker)
    rates.set_ylabel("learning rate")
    rates.set_xlabel("optimizer step")
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rates.xaxis.set_major_locator(MaxNLocator(integer=True))
    rates.set_xlim(left=0)
    for axes in (losses, rates):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    rates.set_ylim(bottom=0)
    if 2 * min(every) < max(every):  # else nothing would be seen of how a loss moves that moves little
        losses.set_ylim(bottom=0)
    return figure


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def smoothed(values: Sequence[float]) -> list[float]:
    """Means over a window of a twentieth of the points, at least five, around each: no lag behind the loss."""
    reach = max(2, len(values) // 40)
    sums = [0.0, *accumulate(values)]
    windows = [(max(0, place - reach), min(len(values), place + reach + 1)) for place in range(len(values))]
    return [(sums[end] - sums[start]) / (end - start) for start, end in windows]


def _sorted(points: Mapping[int, float]) -> tuple[list[int], list[float]]:
    steps = sorted(points)
    return steps, [points[step] for step in steps]


def _figures(run_folder: Path) -> Iterator[Mapping[str, Any]]:
    """Data of metrics events, the oldest attempt's first."""
    files = sorted(run_folder.glob("attempts/*/events.ndjson"), key=lambda file: file.stat().st_mtime)
    for file in files:
        for line in file.read_bytes().splitlines():
            with suppress(ValueError):  # the last line of one that was killed
                event = json.loads(line)
                if event["type"] == "metrics":
                    yield event["data"]
