"""A run's progress in a terminal: a live bar, or a line now and then where there is no terminal."""

import os
import sys
import time
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from app.core.entities.jobs import JobEvent

LINE_SECONDS = 10.0  # between two lines where standard error is not a terminal
# Which of these there are, the objective decides.
_EVALUATED = {
    "eval_loss": "validation loss",
    "eval_accuracy": "accuracy",
    "eval_macro_f1": "macro-F1",
    "eval_margin": "margin",
}


class RunProgress:
    """Hears a trainer's events: step, loss, tokens/s and time left."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._last_line = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, event: JobEvent) -> None:
        if event.type == "message":
            tqdm.write(f"  {event.message}", file=sys.stderr)
        elif "eval_loss" in event.data:
            shown = [f"{name} {event.data[key]:.3f}" for key, name in _EVALUATED.items() if key in event.data]
            tqdm.write(f"  step {event.data['step']}: {', '.join(shown)}", file=sys.stderr)
        elif _is_terminal():
            self._draw(event)
        else:
            self._line(event)

    def _draw(self, event: JobEvent) -> None:
        if self._bar is None:
            self._bar = tqdm(
                total=event.data["total_steps"],
                unit="step",
                bar_format="  {n_fmt}/{total_fmt} |{bar:30}| {elapsed}  {desc}",
            )
        bar = self._bar
        bar.set_description_str(_figures(event), refresh=False)
        bar.update(event.data["step"] - bar.n)

    def _line(self, event: JobEvent) -> None:
        last = event.data["step"] == event.data["total_steps"]
        if last or time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            print(f"  step {event.data['step']}/{event.data['total_steps']}  {_figures(event)}", file=sys.stderr)


def _is_terminal() -> bool:
    """One that says how large it is: in a container's it may be nothing by nothing, and a bar would not show."""
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return size.columns > 0 and size.lines > 0


def _figures(event: JobEvent) -> str:
    data = event.data
    left = int(data["eta_seconds"])
    return f"loss {data['loss']:.3f}  {data['tokens_per_second']:.0f} tokens/s  {left // 60}:{left % 60:02d} left"
