"""Weights & Biases: to its server where WANDB_API_KEY is set, else offline files, for ``wandb sync``."""

import html
import os
from collections.abc import Mapping

from app.core.interfaces.components import Tracker, TrainerJob


class WandbTracker(Tracker):
    """A run a job, by its id, in the project of the config's name. Offline files lie in ``<run folder>/wandb``."""

    package, extra = "wandb", "tracking"

    def start(self, job: TrainerJob) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when it is imported; its maker's, not ours
        import wandb

        self._run = wandb.init(
            project=job.config.experiment_name,
            name=job.run_folder.name,
            id=job.job_id,
            resume="allow",
            dir=job.run_folder,
            mode="online" if os.environ.get("WANDB_API_KEY") else "offline",
            config=job.config.model_dump(mode="json"),
            # What it would gather by itself: the code, its repository, the host, what is printed.
            settings=wandb.Settings(
                console="off",
                silent=True,
                save_code=False,
                disable_git=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def text(self, step: int, name: str, text: str) -> None:
        from wandb import Html

        self._run.log({name: Html(f"<pre>{html.escape(text)}</pre>")}, step=step)

    def finish(self, succeeded: bool) -> None:
        from wandb import teardown

        self._run.finish(exit_code=0 if succeeded else 1)
        teardown()  # its writer is a process of its own, which finish does not wait for
