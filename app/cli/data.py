"""``flask data``: datasets of the default project, on the host, as its operator."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from app.bootstrap import load_pipeline_config, write_histogram
from app.cli.base import OPERATOR, Commands, services
from app.cli.preview import render_preview
from app.core.entities.datasets import canonical
from app.core.errors import Invalid

if TYPE_CHECKING:
    from app.core.entities.data_pipeline import Inspection
    from app.core.entities.dataset_versions import DatasetVersion, RowChange
    from app.core.entities.datasets import Conversation

data = Commands("data", help="Data to train on.")

SHOWN = 160  # characters of a text
SHOWN_WARNINGS = 20
SAMPLE = "data/raw/sample_data.json"
PIPELINE = "config/data_pipeline.yaml"


@data.command("upload")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="A new dataset of this name; without it the file's.")
@click.option("--to", "dataset_id", help="The next version of this dataset instead.")
@click.option("--column", "columns", metavar="THEIRS=OURS", multiple=True, help="Rename a column; repeatable.")
def upload(file: Path, name: str | None, dataset_id: str | None, columns: tuple[str, ...]) -> str:
    """Check FILE (json, jsonl, csv, parquet) and keep its rows as a dataset's version; print its reference."""
    if name is not None and dataset_id is not None:
        raise click.UsageError("--name or --to: a dataset that is there has its name")
    renamed = dict(map(_renamed, columns))
    with file.open("rb") as stream, tqdm(desc=file.name, unit="B", unit_scale=True, disable=None) as bar:
        version = services().dataset_changes.upload(
            OPERATOR,
            stream,
            file.name,
            name=None if dataset_id else name or file.stem,
            dataset_id=dataset_id,
            columns=renamed,
            progress=partial(_move, bar),
        )
    click.echo(version.reference)
    return version.reference


@data.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
def list_datasets(limit: int) -> None:
    """List datasets, newest first."""
    for found in services().dataset_versions.list(OPERATOR, limit=limit).datasets:
        newest = found.newest
        tags = "".join(f"  {tag}={number}" for tag, number in found.tags.items())
        click.echo(f"{newest.reference:32} {newest.rows:>9,} rows  {found.dataset.name}{tags}")


@data.command("analyze")
@click.argument("source", default=SAMPLE)
@click.option("--base-model", help="Lengths in this base model's tokens; without it in characters.")
@click.option("--max-length", type=click.IntRange(16), default=1024, show_default=True, help="Tokens of a row.")
@click.option("--histogram", type=click.Path(dir_okay=False, path_type=Path), help="Write a PNG of the lengths.")
def analyze(source: str, base_model: str | None, max_length: int, histogram: Path | None) -> None:
    """What SOURCE holds: a file, or a dataset (ds-…, ds-…:3, ds-…@tag)."""
    found = _inspected(source, base_model, max_length, slow_checks=False)
    _print_report(found)
    if histogram is not None:
        write_histogram(histogram, found.row_lengths, found.report.unit, found.report.lengths)
        click.echo(f"histogram: {histogram}")


@data.command("validate")
@click.argument("source", default=SAMPLE)
@click.option("--base-model", help="Also what its tokenizer makes of the rows.")
@click.option("--max-length", type=click.IntRange(16), default=1024, show_default=True, help="Tokens of a row.")
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="Warnings to print.")
def validate(source: str, base_model: str | None, max_length: int, limit: int) -> None:
    """Every fault of SOURCE (exit status 1), and what is legal and yet suspicious."""
    try:
        found = _inspected(source, base_model, max_length, slow_checks=True)
    except Invalid as error:
        for fault in error.faults:
            click.echo(f"  {fault.where}: {fault.message} [{fault.code}]")
        raise
    _print_report(found)
    for warning in found.warnings[:limit]:
        where = "all rows" if warning.row is None else f"row {warning.row}"
        click.echo(f"  {where}: {warning.message} [{warning.code}]")
    if len(found.warnings) > limit:
        click.echo(f"  … and {len(found.warnings) - limit} more: --limit")


@data.command("preview")
@click.argument("source", default=SAMPLE)
@click.option("--base-model", required=True, help="A name that `flask models list` shows.")
@click.option("--row", type=click.IntRange(1), default=1, show_default=True)
@click.option("--max-length", type=click.IntRange(16), default=1024, show_default=True, help="Tokens of a row.")
@click.option("--reasoning", type=click.Choice(["keep", "drop"]), default="keep", show_default=True)
def show_row(source: str, base_model: str, row: int, max_length: int, reasoning: str) -> None:
    """A row of SOURCE as the base model reads it, token by token."""
    found = services().data_preparation.preview(
        OPERATOR, source, row, trusted=True, base_model=base_model, max_length=max_length, reasoning=reasoning
    )
    click.echo(render_preview(found, colour=sys.stdout.isatty()), nl=False)


@data.command("process")
@click.argument("reference")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=f"Else {PIPELINE}.")
@click.option("--changes", type=click.IntRange(0), default=5, show_default=True, help="Changes to print a step.")
def process(reference: str, config: Path | None, changes: int) -> None:
    """Make the next version of a dataset with the data pipeline; print its reference."""
    chosen = None if config is None else load_pipeline_config(config)
    with _bars() as watch:
        version, result = services().data_preparation.process(OPERATOR, reference, chosen, on_progress=watch)
    for step in result.steps:
        done = f"{step.rows_changed:,} changed, {step.rows_dropped:,} dropped, {step.rows_made:,} made"
        click.echo(f"{step.name:8} {step.rows_before:,} → {step.rows_after:,} rows: {done}")
        for change in step.changes[:changes]:
            click.echo(f"  row {change.row}, {change.where}: {change.why}")
            for sign, text in (("-", change.before), ("+", change.after)):
                if text is not None:
                    click.echo(f"    {sign} {_cut(text)}")
    for warning in result.warnings[:SHOWN_WARNINGS]:
        click.echo(f"  row {warning.row}: {warning.message} [{warning.code}]")
    click.echo(version.reference)


@data.command("versions")
@click.argument("dataset_id")
def versions(dataset_id: str) -> None:
    """List the versions of the dataset DATASET_ID, newest first."""
    for version in services().dataset_versions.versions(OPERATOR, dataset_id):
        click.echo(_line(version))


@data.command("diff")
@click.argument("before")
@click.argument("after")
@click.option("--limit", type=click.IntRange(0, 1000), default=20, show_default=True, help="Rows to print.")
def diff(before: str, after: str, limit: int) -> None:
    """What became of the rows of BEFORE in AFTER (each ds-…, ds-…:3 or ds-…@tag)."""
    found = services().dataset_versions.diff(OPERATOR, before, after, limit, trusted=True)
    click.echo(f"{found.before} → {found.after}: {found.unchanged:,} rows are the same")
    click.echo(", ".join(f"{count:,} {kind}" for kind, count in found.counts.items()))
    for change in found.changes:
        click.echo(_shown(change))


@data.command("tag")
@click.argument("reference")
@click.argument("tag")
def tag_version(reference: str, tag: str) -> None:
    """Have TAG name the version REFERENCE; it moves if it named another."""
    services().dataset_changes.tag(OPERATOR, reference, tag)


@data.command("untag")
@click.argument("dataset_id")
@click.argument("tag")
def untag(dataset_id: str, tag: str) -> None:
    """Remove TAG from the dataset DATASET_ID; the version stays."""
    services().dataset_changes.untag(OPERATOR, dataset_id, tag)


@data.command("restore")
@click.argument("reference")
def restore(reference: str) -> None:
    """Make the rows of REFERENCE, an earlier version, the newest one; print its reference."""
    click.echo(services().dataset_changes.restore(OPERATOR, reference).reference)


@data.command("delete")
@click.argument("dataset_id")
def delete(dataset_id: str) -> None:
    """Delete the dataset DATASET_ID with all of its versions."""
    services().dataset_changes.delete(OPERATOR, dataset_id)


def _renamed(text: str) -> tuple[str, str]:
    theirs, equals, ours = text.partition("=")
    if not equals or not theirs or not ours:
        raise click.UsageError(f"--column wants THEIRS=OURS, not {text!r}")
    return theirs, ours


def _move(bar: tqdm[Any], done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


def _line(version: DatasetVersion) -> str:
    made = f"{version.created_at:%Y-%m-%d %H:%M} UTC"
    return f"{version.reference:32} {version.rows:>9,} rows  {version.digest[:12]}  {made}  {version.source}"


def _shown(change: RowChange) -> str:
    sides = (("-", change.before), ("+", change.after))
    lines = [f"  {sign} row {row.row}: {_short(row)}" for sign, row in sides if row is not None]
    return "\n".join(lines)


def _short(row: Conversation) -> str:
    return _cut(row.text or json.dumps(canonical(row)["messages"], ensure_ascii=False))


def _cut(text: str) -> str:
    """On one line."""
    text = text.replace("\n", "⏎")
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _inspected(source: str, base_model: str | None, max_length: int, *, slow_checks: bool) -> Inspection:
    preparation = services().data_preparation
    with tqdm(desc=Path(source).name, unit="B", unit_scale=True, disable=None) as bar:
        rows = preparation.rows(OPERATOR, source, trusted=True, progress=partial(_move, bar))
    with _bars() as watch:
        return preparation.inspect(
            rows, base_model=base_model, max_length=max_length, slow_checks=slow_checks, on_progress=watch
        )


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """One for each slow check, on standard error; none where nobody watches."""
    bars: dict[str, tqdm[Any]] = {}

    def watch(name: str, done: int, total: int) -> None:
        bar = bars.get(name) or bars.setdefault(name, tqdm(total=total, desc=name, unit=" rows", disable=None))
        bar.update(done - bar.n)

    try:
        yield watch
    finally:
        for bar in bars.values():
            bar.close()


def _print_report(found: Inspection) -> None:
    report = found.report
    click.echo(f"rows          {report.total_samples:,}")
    lengths = ", ".join(f"p{percent} {length:,}" for percent, length in report.lengths.items())
    click.echo(f"{report.unit:13} {lengths}")
    if report.label_counts:
        counts = ", ".join(f"{label} {count:,}" for label, count in report.label_counts.items())
        balanced = "balanced" if report.is_balanced else "not balanced"
        click.echo(f"labels        {counts}: {balanced}, largest by smallest {report.imbalance_ratio:.1f}")
    for name, counted in (("languages", report.languages), ("warnings", report.warning_counts)):
        if counted:
            click.echo(f"{name:13} {', '.join(f'{key} {count:,}' for key, count in counted.items())}")
    for name, rate in report.rates.items():
        click.echo(f"{name:13} {rate:,.0f} rows/s")
