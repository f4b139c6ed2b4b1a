"""The report of ``flask lab quantization``: Markdown, with the plots beside it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from app.core.entities.evaluation import MeasuredRun
from app.utils.files import write_whole

PARTS = {
    "weights": "base model's weights",
    "adapter": "adapter, with float32 masters and gradients",
    "optimizer": "optimizer's state",
    "activations": "activations, of the largest batch",
}
FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "peak_memory_bytes": ("whole process at its peak", lambda value: megabytes(value)),
    "tokens_per_second": ("tokens a second", lambda value: f"{value:,.0f}"),
    "train_loss": ("training loss", lambda value: f"{value:.4f}"),
    "eval_loss": ("held-out loss", lambda value: f"{value:.4f}"),
    "perplexity": ("held-out perplexity", lambda value: f"{value:.2f}"),
}
TEXT = """# {title}

{about}

{table}

![memory by part](memory.png)

![loss by step](loss.png)

The parts are counted from the tensors: what a run holds between two steps, and what the forward pass of the batch
with the most tokens keeps for the backward pass. The whole process has Python, its libraries and what operations
need for a moment as well; on a GPU it is the GPU's memory alone. The last column is the second run's figure by the
first's. The held-out rows are the validation split, scored at each epoch's end.
"""


def write_report(folder: Path, runs: Sequence[MeasuredRun], about: str) -> Path:
    """``report.md``, ``memory.png`` and ``loss.png`` in ``folder``; the others are measured by the first run."""
    _memory_plot(runs).savefig(folder / "memory.png", dpi=120)
    _loss_plot(runs).savefig(folder / "loss.png", dpi=120)
    title = " against ".join(run.name for run in runs)
    target = folder / "report.md"
    write_whole(target, TEXT.format(title=title, about=about, table="\n".join(table(runs))))
    return target


def table(runs: Sequence[MeasuredRun]) -> list[str]:
    """Lines of Markdown. A figure that a run does not have is a dash."""
    lines = [
        f"| | {' | '.join(run.name for run in runs)} | ratio |",
        f"| --- |{' ---: |' * (len(runs) + 1)}",
    ]
    for part, label in PARTS.items():
        lines.append(_row(label, [run.memory.get(part) for run in runs], megabytes))
    lines.append(_row("all parts", [sum(run.memory.values()) for run in runs], megabytes))
    for key, (label, shown) in FIGURES.items():
        lines.append(_row(label, [run.metrics.get(key) for run in runs], shown))
    return lines


def megabytes(value: float) -> str:
    return f"{value / 1e6:,.1f} MB"


def _row(label: str, values: Sequence[float | None], shown: Callable[[float], str]) -> str:
    cells = ["–" if value is None else shown(value) for value in values]
    first, last = values[0], values[-1]
    ratio = f"{last / first:.2f}" if first and last is not None else "–"
    return f"| {label} | {' | '.join(cells)} | {ratio} |"


def _memory_plot(runs: Sequence[MeasuredRun]) -> Figure:
    figure, axes = _figure()
    left = [0.0] * len(runs)
    for part, label in PARTS.items():
        widths = [run.memory.get(part, 0) / 1e6 for run in runs]
        axes.barh([run.name for run in runs], widths, left=left, label=label)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("MB")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
    return figure


def _loss_plot(runs: Sequence[MeasuredRun]) -> Figure:
    figure, axes = _figure()
    for place, run in enumerate(runs):
        axes.plot(*_columns(run.losses), color=f"C{place}", alpha=0.6, label=f"{run.name}: training")
        axes.plot(*_columns(run.held_out), "o--", color=f"C{place}", label=f"{run.name}: held out")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    return figure


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]


def _figure() -> tuple[Figure, Any]:
    """Of its own: pyplot would keep it, and choose a screen."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    return figure, figure.subplots()
