"""TensorBoard: event files in the run folder. ``tensorboard --logdir results`` shows all runs together."""

import json
from collections.abc import Mapping
from textwrap import indent

from app.core.interfaces.components import Tracker, TrainerJob

FLUSH_SECONDS = 10  # how far the page may be behind


class TensorBoardTracker(Tracker):
    """Each attempt adds a file; TensorBoard reads all files of a folder as one run."""

    package, extra = "tensorboard", "train"
    by_default = True

    def start(self, job: TrainerJob) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(job.run_folder / "tensorboard"), flush_secs=FLUSH_SECONDS)
        self.text(0, "config", json.dumps(job.config.model_dump(mode="json"), indent=2, ensure_ascii=False))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def text(self, step: int, name: str, text: str) -> None:
        self._writer.add_text(name, indent(text, "    ", lambda _: True), step)  # Markdown shows it as it is

    def finish(self, succeeded: bool) -> None:
        self._writer.close()
