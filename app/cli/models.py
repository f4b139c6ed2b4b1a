"""``flask models``: published models, their aliases, and base models."""

from __future__ import annotations

import re

import click

from app.cli.base import OPERATOR, Commands, services
from app.extensions import current_services

models = Commands("models", help="Published models and base models.")
_NAME = click.argument("name")
_SHARE = re.compile(r"([1-9][0-9]{0,8})(?:=([1-9][0-9]{0,5}))?", re.ASCII)


@models.command("list")
def list_models() -> None:
    """List published models and base models."""
    published = services().models
    click.echo("published:")
    for model in published.models(OPERATOR):
        count = f"{model.versions} version{'' if model.versions == 1 else 's'}"
        click.echo(f"  {model.name}:{model.latest}  {count}, on {model.base_model}")
    click.echo("base models:")
    for spec, present in published.bases():
        here = "on disk" if present else f"not here: flask models pull {spec.name}"
        click.echo(f"  {spec.name:24} {here:44} {spec.description}")


@models.command("show")
@_NAME
def show_model(name: str) -> None:
    """Show the versions of the model NAME, newest first, and its aliases."""
    found = services()
    for version in found.models.versions(OPERATOR, name):
        click.echo(f"{version.reference}  on {version.base_model}, {version.created_at:%Y-%m-%d %H:%M} UTC")
        for kind in ("ours", "vllm"):
            if isinstance(why := version.servable[kind], str):
                click.echo(f"  not served by {kind}: {why}")
        for key, value in version.metrics.items():
            click.echo(f"  {key}: {value}")
    for alias in found.model_aliases.aliases(OPERATOR, name):
        shares = " ".join(f"{number}={weight}" for number, weight in alias.weights.items())
        click.echo(f"{alias.reference}  {shares if len(alias.weights) > 1 else shares.partition('=')[0]}")


@models.command("alias")
@_NAME
@click.argument("alias")
@click.argument("versions", metavar="VERSION[=WEIGHT]...", nargs=-1, required=True)
def set_alias(name: str, alias: str, versions: tuple[str, ...]) -> None:
    """Have ALIAS name a version of the model NAME, or split it: champion 3, or champion 3=90 4=10."""
    services().model_aliases.set_alias(OPERATOR, name, alias, _weights(versions))


@models.command("unalias")
@_NAME
@click.argument("alias")
def remove_alias(name: str, alias: str) -> None:
    """Remove ALIAS from the model NAME; the versions stay."""
    services().model_aliases.remove_alias(OPERATOR, name, alias)


@models.command("pull")
@_NAME
def pull_base_model(name: str) -> None:
    """Lay the base model NAME under models/base."""
    click.echo(current_services().models.pull(name))


def _weights(versions: tuple[str, ...]) -> dict[int, int]:
    shares = [_SHARE.fullmatch(text) for text in versions]
    weights = {int(share[1]): int(share[2] or 1) for share in shares if share is not None}
    if len(weights) != len(versions):
        raise click.UsageError("write each version once, as its number, or as NUMBER=WEIGHT")
    return weights
