"""The ``flask`` commands. They run on the host, as its operator, in the default project."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click
from flask.cli import with_appcontext

from app.cli.base import OPERATOR, Command, Commands, services
from app.cli.chat import chat
from app.cli.data import data
from app.cli.identity import keys, projects, users
from app.cli.jobs import jobs
from app.cli.models import models
from app.cli.webhooks import webhooks
from app.core.entities.forecasts import in_minutes
from app.core.entities.inference import AnswerOptions, LabelPrediction
from app.core.entities.jobs import DEFAULT_QUEUE, PRIORITIES

if TYPE_CHECKING:
    from flask import Flask

train = Commands("train", help="Ask for fine-tuning jobs; `flask jobs` says what becomes of them.")


def init_cli(app: Flask) -> None:
    """Add the commands to ``flask``."""
    for group in (users, projects, keys, webhooks, data, train, jobs, models):
        app.cli.add_command(group)
    app.cli.add_command(predict)
    app.cli.add_command(chat)


def _job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a job is: ``command`` is given the overrides of the training config."""

    @click.option("--dataset-path", help="A file under data/raw.")
    @click.option("--dataset-id", help="Or a dataset of the project: ds-…, ds-…:3 or ds-…@tag.")
    @click.option("--base-model", help="A name that `flask models list` shows.")
    @click.option(
        "--set",
        "changes",
        metavar="KEY=VALUE",
        multiple=True,
        help="Any key of the training config; may be repeated.",
    )
    @wraps(command)
    def with_options(
        dataset_path: str | None,
        dataset_id: str | None,
        base_model: str | None,
        changes: tuple[str, ...],
        **others: Any,
    ) -> Any:
        named = {"dataset_path": dataset_path, "dataset_id": dataset_id, "base_model": base_model}
        overrides = dict(map(_change, changes)) | {key: value for key, value in named.items() if value is not None}
        return command(overrides, **others)

    return with_options


@train.command("submit")
@_job_options
@click.option(
    "--priority",
    type=click.IntRange(PRIORITIES[0], PRIORITIES[-1]),
    default=0,
    show_default=True,
    help="Among the jobs of the project; the higher, the sooner.",
)
@click.option("--queue", default=DEFAULT_QUEUE, show_default=True, help="Whose workers may take it.")
def submit(overrides: dict[str, Any], priority: int, queue: str) -> str:
    """Queue a job for a worker, and print its id."""
    job = services().training.submit(OPERATOR, overrides, priority=priority, queue=queue)
    click.echo(job.id)
    return job.id


@train.command("estimate")
@_job_options
def estimate(overrides: dict[str, Any]) -> None:
    """Say what a job would take, without starting it. Measures a few steps the first time."""
    found_services = services()
    job = found_services.training.submit_estimate(OPERATOR, overrides)
    job = found_services.execution.carry(job)
    found = found_services.training.estimate_of(job)
    assert found is not None
    forecast = found.forecast
    lines = {
        "steps": f"{forecast.steps:,}",
        "tokens": f"{forecast.input_tokens:,} read, {forecast.trained_tokens:,} trained",
        "time": f"{in_minutes(forecast.seconds)}, once the model is loaded",
        "peak memory": f"{forecast.peak_memory_bytes / 1e9:.2f} GB of {found.available_bytes / 1e9:.2f} GB free",
        "disk": f"{forecast.disk_bytes / 1e6:.0f} MB at most",
        "fits": "yes" if found.fits else "no",
    }
    if found.suggestion:
        changes = found.suggestion.items()
        lines["would fit"] = " ".join(f"--set {key}={json.dumps(value)}" for key, value in changes)
    for name, value in lines.items():
        click.echo(f"{name:12} {value}")


@click.command("predict", cls=Command)
@click.argument("text")
@click.option(
    "--model", help="A reference, name, name:3 or name@alias; without it the resident base model answers."
)
@click.option("--max-length", type=click.IntRange(1, 2048), default=128, show_default=True, help="New tokens.")
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.0, show_default=True)
@with_appcontext
def predict(text: str, model: str | None, max_length: int, temperature: float) -> None:
    """Ask a model TEXT, through the engine that `python run.py` has started."""
    if not text.strip():
        raise click.UsageError("TEXT is blank")
    options = AnswerOptions(max_tokens=max_length, temperature=temperature)
    [answer] = services().inference.predict(OPERATOR, [text], options, model)
    if isinstance(answer, LabelPrediction):
        for label, share in sorted(answer.scores.items(), key=lambda score: -score[1]):
            click.echo(f"{share:.3f}  {label}")
    else:
        click.echo(answer.first.text)


def _change(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--set wants KEY=VALUE, not {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
