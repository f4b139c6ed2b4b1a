"""Train in the foreground: ``python -m app.model.training_service --config config/train_config.yaml``.

The same job, run folder and record as through a worker; this process is the worker. Under torchrun that is so of
rank 0, and the other ranks take part in its job (docs/distributed.md). ``--resume RUN_FOLDER`` goes
on with a run that did not come to its end, by that run's own config.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import create_app
from app.bootstrap import SettingsError, load_settings, load_training_config, one_line, prepare_instance
from app.core.entities.jobs import FineTuningJob, JobState, UnfinishedRun
from app.core.entities.trainer import TrainerExit
from app.core.errors import AppError, Invalid
from app.core.services.jobs.resuming import run_to_resume
from app.model.progress import RunProgress
from app.processes.placement import torchrun_placement
from app.processes.trainer import follow

if TYPE_CHECKING:
    from flask import Flask

    from app.core.entities.training_config import TrainingConfig
    from app.core.services import Services

# Options that stand over a key of the file.
OPTIONS: dict[str, tuple[str, type, str]] = {
    "--base_model": ("base_model", str, "a name in config/base_models.yaml"),
    "--dataset_path": ("dataset_path", str, "a json, jsonl, csv or parquet file"),
    "--dataset_id": ("dataset_id", str, "or a dataset: ds-…, ds-…:3 or ds-…@tag"),
    "--experiment_name": ("experiment_name", str, "names the run folder"),
    "--model_name": ("model_name", str, "publishes a version under this name"),
    "--output_dir": ("output_dir", str, "the run folder, instead of one below results/"),
    "--learning_rate": ("learning_rate", float, ""),
    "--epochs": ("num_epochs", int, ""),
    "--train_samples": ("train_samples", int, "train on the first N training rows only"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 trained and published, 1 failed, 2 a usage error, 130 stopped by Ctrl-C."""
    options = parser().parse_args(arguments)
    changes = {key: value for key, _, _ in OPTIONS.values() if (value := getattr(options, key)) is not None}
    around = torchrun_placement(os.environ)
    if around is not None:
        if around.rank > 0:
            return int(follow() is not TrainerExit.SUCCEEDED)
        changes["processes"] = around.processes
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as torchrun ends us when another is lost
    try:
        run = None if options.resume is None else run_to_resume(options.resume)
        config = load_training_config(options.config if run is None else run.folder / "config.yaml", **changes)
        app = foreground_app()
        job = train(app, config, run)
    except Invalid as error:
        return fail(error, [f"  {fault.where}: {fault.message}" for fault in error.faults])
    except (AppError, SettingsError) as error:
        return fail(error)
    except KeyboardInterrupt:
        print("stopped: the job is cancelled", file=sys.stderr)
        return 130
    return report(app, job)


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        prog="python -m app.model.training_service", description="Fine-tune a model in the foreground."
    )
    source = arguments.add_mutually_exclusive_group()
    source.add_argument("--config", type=Path, default=Path("config/train_config.yaml"), help="a training YAML")
    source.add_argument(
        "--resume", type=Path, metavar="RUN_FOLDER", help="go on with this run, with its own config"
    )
    for option, (key, kind, text) in OPTIONS.items():
        arguments.add_argument(option, dest=key, type=kind, help=text or f"{key} of the file")
    return arguments


def foreground_app() -> Flask:
    """An application whose jobs run here. The first start makes the database and the user ``admin``."""
    # Progress and errors have lines of their own here; the log's are for who asks.
    quiet = {} if os.environ.get("LOG_LEVEL") else {"log_level": "WARNING"}
    app = create_app(load_settings(**quiet), inline=True)
    if password := prepare_instance(app):
        print(f"made the user admin with the password {password} (it is not shown again)", file=sys.stderr)
    return app


def train(app: Flask, config: TrainingConfig, run: UnfinishedRun | None = None) -> FineTuningJob:
    """Submit, validate and train one job under a progress bar; the answer is the job at its end.

    With ``run``, the job goes on with that one.
    """
    services: Services = app.extensions["services"]
    overrides: dict[str, Any] = config.as_request()
    with app.app_context(), RunProgress() as progress:
        training = services.training
        job = training.submit(None, overrides) if run is None else training.resume_run(run, overrides)
        return services.execution.carry(job, progress)


def report(app: Flask, job: FineTuningJob) -> int:
    """Say how it ended; the exit status."""
    services: Services = app.extensions["services"]
    if job.state is not JobState.SUCCEEDED:
        reason = f"{job.error.code}: {job.error.message}" if job.error else job.state.value
        faults = [f"  {fault.where}: {fault.message}" for fault in job.error.faults] if job.error else []
        print("\n".join([f"the run failed: {reason}", *faults]), file=sys.stderr)
        return 1
    version = services.models.version(job.model_version_id or "")
    metrics = job.result
    perplexity = metrics.get("perplexity")
    print(f"published {version.reference}")
    folder = app.extensions["settings"].results_dir / (job.run_folder or "")  # an absolute path stays one
    print(f"run folder        {os.path.relpath(folder)}")
    print(f"training loss     {metrics['train_loss']:.3f}")
    if perplexity is not None:
        print(f"validation loss   {metrics['eval_loss']:.3f} (perplexity {perplexity:.2f})")
    print(f"tokens            {metrics['input_tokens']:,} read, {metrics['trained_tokens']:,} trained")
    print(f"speed             {metrics['tokens_per_second']:.0f} tokens/s over {metrics['train_runtime']:.0f} s")
    print(f"peak memory       {metrics['peak_memory_bytes'] / 1e9:.1f} GB")
    return 0


def fail(error: Exception, lines: Sequence[str] = ()) -> int:
    """One line that says why, and a line for each fault."""
    print("\n".join([str(error) if lines else one_line(error), *lines]), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
