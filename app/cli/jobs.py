"""``flask jobs``: what becomes of jobs."""

from __future__ import annotations

import csv
import sys
from itertools import chain

import click
from flask import current_app

from app.cli.base import Commands, services
from app.core.entities.identity import Principal
from app.core.entities.jobs import FineTuningJob, JobState
from app.utils.csv_cells import csv_safe

jobs = Commands("jobs", help="What becomes of jobs of every kind.")
_TASK = click.argument("task_id")


@jobs.command("list")
@click.option("--state", type=click.Choice([state.value for state in JobState]))
@click.option("--kind", help="train, estimate, process, inspect or evaluate; else all.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
def list_jobs(state: str | None, kind: str | None, limit: int) -> None:
    """List jobs of every kind, newest first."""
    page = services().job_records.list(
        Principal.host(), state=JobState(state) if state else None, kind=kind, limit=limit
    )
    for job in page.jobs:
        click.echo(_line(job))


@jobs.command("show")
@_TASK
def show(task_id: str) -> None:
    """Show how far the job TASK_ID is, and why it failed."""
    job = services().job_records.get(Principal.host(), task_id)
    click.echo(_line(job))
    for made in job.made:
        click.echo(f"  made: {made}")
    for name in ("priority", "queue", "attempts", "lost", "retry_of", "model_version_id", "run_folder"):
        if (value := getattr(job, name)) not in (None, 0):
            click.echo(f"  {name}: {value}")
    for name in ("loss", "eval_loss", "learning_rate", "tokens_per_second", "eta_seconds"):
        if (value := getattr(job.progress, name)) is not None:
            click.echo(f"  {name}: {value:.6g}")
    if job.error:
        click.echo(f"  error: {job.error.code}: {job.error.message}")
        for fault in job.error.faults:
            click.echo(f"    {fault.where}: {fault.message}")


@jobs.command("events")
@_TASK
@click.option("--after", type=click.IntRange(0), default=0, show_default=True, help="The last number seen.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
def events(task_id: str, after: int, limit: int) -> None:
    """Read what the job TASK_ID has said and measured, in order."""
    for event in services().job_records.events(Principal.host(), task_id, after=after, limit=limit):
        loss = event.data.get("loss", event.data.get("eval_loss"))
        figure = "" if loss is None else f"  loss {loss:.4g}"
        click.echo(f"{event.seq:>6}  {event.created_at:%H:%M:%S}  {event.level:5}  {event.message}{figure}")


@jobs.command("metrics")
@_TASK
@click.option("--names", help="Of what was measured, with commas between; without it, all.")
@click.option("--points", type=click.IntRange(1, 2000), default=20, show_default=True, help="At most.")
@click.option("--csv", "as_csv", is_flag=True, help="With the lowest and the highest value of each point.")
def metrics(task_id: str, names: str | None, points: int, as_csv: bool) -> None:
    """Show what the job TASK_ID has measured: the mean over so many steps in each line."""
    curve = services().job_records.metrics(Principal.host(), task_id, points=points)
    wanted = [name.strip() for name in names.split(",")] if names else curve.names
    if unknown := [name for name in wanted if name not in curve.names]:
        raise click.ClickException(
            f"not measured: {', '.join(unknown)}; there is {', '.join(curve.names) or 'none'}"
        )
    if as_csv:
        table = csv.writer(sys.stdout, lineterminator="\n")
        names_of = (csv_safe(f"{name}{of}") for name in wanted for of in ("", "_min", "_max"))
        table.writerow(["first_step", "step", *names_of])
        for point in curve.points:
            figures = [point.figures.get(name) for name in wanted]
            cells = [(figure.mean, figure.min, figure.max) if figure else (None,) * 3 for figure in figures]
            table.writerow([point.first_step, point.last_step, *chain.from_iterable(cells)])
        return
    click.echo("  ".join([f"{'step':>9}", *(f"{name:>{max(10, len(name))}}" for name in wanted)]))
    for point in curve.points:
        means = {name: figure.mean for name, figure in point.figures.items() if figure.mean is not None}
        cells_of = [f"{means[name]:.4g}" if name in means else "" for name in wanted]
        line = [f"{cell:>{max(10, len(name))}}" for name, cell in zip(wanted, cells_of, strict=True)]
        click.echo("  ".join([f"{point.last_step:>9}", *line]).rstrip())


@jobs.command("logs")
@_TASK
@click.option("--lines", type=click.IntRange(1), default=50, show_default=True)
def logs(task_id: str, lines: int) -> None:
    """Print the last output of the trainers of the job TASK_ID."""
    job = services().job_records.get(Principal.host(), task_id)
    if job.run_folder is None:
        raise click.ClickException("no trainer has been started for this job yet")
    path = current_app.extensions["settings"].results_dir / job.run_folder / "logs.txt"
    if not path.is_file():
        raise click.ClickException(f"there is no {path.name} in the run folder {job.run_folder}")
    for line in path.read_text("utf-8", "replace").splitlines()[-lines:]:
        click.echo(line)


@jobs.command("cancel")
@_TASK
def cancel(task_id: str) -> None:
    """Cancel the job TASK_ID; one that trains ends at its next step, and its last checkpoint is kept."""
    click.echo(_line(services().jobs.cancel(Principal.host(), task_id)))


@jobs.command("pause")
@_TASK
def pause(task_id: str) -> None:
    """Pause the job TASK_ID; one that trains leaves a checkpoint after its next step."""
    click.echo(_line(services().jobs.pause(Principal.host(), task_id)))


@jobs.command("resume")
@_TASK
def resume(task_id: str) -> None:
    """Queue the paused job TASK_ID again; it goes on from its checkpoint."""
    click.echo(_line(services().jobs.resume(Principal.host(), task_id)))


@jobs.command("retry")
@_TASK
def retry(task_id: str) -> None:
    """Ask anew for what the failed or cancelled job TASK_ID asked for, and print the new job's id."""
    click.echo(services().jobs.retry(Principal.host(), task_id).id)


def _line(job: FineTuningJob) -> str:
    steps = f"{job.progress.step}/{job.progress.total_steps or '?'}"
    state = f"{job.kind:8}  {job.state.value:16} {steps:>11}"
    return f"{job.id:33}  {state}  {job.name}  {job.created_at:%Y-%m-%d %H:%M} UTC"
