"""``flask data``: datasets of the default project, on the host, as its operator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.base import OPERATOR, Commands, services
from app.core.entities.datasets import canonical

if TYPE_CHECKING:
    from app.core.entities.dataset_versions import DatasetVersion
    from app.core.entities.datasets import Conversation
    from app.core.services.dataset_versions import RowChange

data = Commands("data", help="Data to train on.")

SHOWN = 160  # characters of a row


@data.command("upload")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="A new dataset of this name; without it the file's.")
@click.option("--to", "dataset_id", help="The next version of this dataset instead.")
@click.option("--column", "columns", metavar="THEIRS=OURS", multiple=True, help="Rename a column; repeatable.")
def upload(file: Path, name: str | None, dataset_id: str | None, columns: tuple[str, ...]) -> None:
    """Check FILE (json, jsonl, csv, parquet) and keep its rows as a dataset's version; print its reference."""
    if name is not None and dataset_id is not None:
        raise click.UsageError("--name or --to: a dataset that is there has its name")
    renamed = dict(map(_renamed, columns))
    with file.open("rb") as stream:
        version = services().dataset_versions.upload(
            OPERATOR,
            stream,
            file.name,
            name=None if dataset_id else name or file.stem,
            dataset_id=dataset_id,
            columns=renamed,
        )
    click.echo(version.reference)


@data.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
def list_datasets(limit: int) -> None:
    """List datasets, newest first."""
    for found in services().dataset_versions.list(OPERATOR, limit=limit).datasets:
        newest = found.newest
        tags = "".join(f"  {tag}={number}" for tag, number in found.tags.items())
        click.echo(f"{newest.reference:32} {newest.rows:>9,} rows  {found.dataset.name}{tags}")


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
    found = services().dataset_versions.diff(OPERATOR, before, after, limit)
    click.echo(f"{found.before} → {found.after}: {found.unchanged:,} rows are the same")
    click.echo(", ".join(f"{count:,} {kind}" for kind, count in found.counts.items()))
    for change in found.changes:
        click.echo(_shown(change))


@data.command("tag")
@click.argument("reference")
@click.argument("tag")
def tag_version(reference: str, tag: str) -> None:
    """Have TAG name the version REFERENCE; it moves if it named another."""
    services().dataset_versions.tag(OPERATOR, reference, tag)


@data.command("untag")
@click.argument("dataset_id")
@click.argument("tag")
def untag(dataset_id: str, tag: str) -> None:
    """Remove TAG from the dataset DATASET_ID; the version stays."""
    services().dataset_versions.untag(OPERATOR, dataset_id, tag)


@data.command("restore")
@click.argument("reference")
def restore(reference: str) -> None:
    """Make the rows of REFERENCE, an earlier version, the newest one; print its reference."""
    click.echo(services().dataset_versions.restore(OPERATOR, reference).reference)


@data.command("delete")
@click.argument("dataset_id")
def delete(dataset_id: str) -> None:
    """Delete the dataset DATASET_ID with all of its versions."""
    services().dataset_versions.delete(OPERATOR, dataset_id)


def _renamed(text: str) -> tuple[str, str]:
    theirs, equals, ours = text.partition("=")
    if not equals or not theirs or not ours:
        raise click.UsageError(f"--column wants THEIRS=OURS, not {text!r}")
    return theirs, ours


def _line(version: DatasetVersion) -> str:
    made = f"{version.created_at:%Y-%m-%d %H:%M} UTC"
    return f"{version.reference:32} {version.rows:>9,} rows  {version.digest[:12]}  {made}  {version.source}"


def _shown(change: RowChange) -> str:
    sides = (("-", change.before), ("+", change.after))
    lines = [f"  {sign} row {row.row}: {_short(row)}" for sign, row in sides if row is not None]
    return "\n".join(lines)


def _short(row: Conversation) -> str:
    text = row.text or json.dumps(canonical(row)["messages"], ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
