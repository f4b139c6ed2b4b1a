"""``flask lab …``: small things to try, on this machine."""

from __future__ import annotations

import click
from flask import current_app

from app.cli.base import Commands, services
from app.core.entities.inference import SamplingOptions
from app.lab.service import LabService, lab_service

_LAB_MODEL = "A base model or a version (name, name:3, name@alias), of Llama's architecture."

lab = Commands("lab", help="To learn from: small things to try, on this machine.")


@lab.command("quantization")
@click.option("--dataset-path", help="A json, jsonl, csv or parquet file; without it, that of train_config.yaml.")
@click.option("--base-model", help="A name that `flask models list` shows.")
@click.option("--rows", type=click.IntRange(1), help="Train on the first N training rows only.")
@click.option("--epochs", type=click.IntRange(1, 1000), help="Passes over the training rows.")
def lab_quantization(
    dataset_path: str | None, base_model: str | None, rows: int | None, epochs: int | None
) -> None:
    """Train with LoRA and with QLoRA on one file, here and now, and report memory, speed and loss."""
    from app.lab.quantization import compare

    named = {"dataset_path": dataset_path, "base_model": base_model, "train_samples": rows, "num_epochs": epochs}
    target = compare(**{key: value for key, value in named.items() if value is not None})
    click.echo("\n".join(line for line in target.read_text("utf-8").splitlines() if line.startswith("|")))
    click.echo(f"report: {target}")


@lab.command("train")
@click.option("--small", is_flag=True, help="A model of 0.8 million parameters instead of 21.")
@click.option(
    "--dataset-path", help="A file of conversations (json, jsonl, csv, parquet); without it, the sample data."
)
def lab_train(small: bool, dataset_path: str | None) -> None:
    """Train a language model from scratch, here and now: on text, then on conversations."""
    from app.lab import terminal

    terminal.train_here(small, dataset_path or terminal.DATASET)


@lab.command("eval")
@click.option("--model", default="tiny-llm-chat", show_default=True, help=_LAB_MODEL)
@click.option(
    "--dataset-path", help="A file of conversations (json, jsonl, csv, parquet); without it, the sample data."
)
@click.option("--answers", type=click.IntRange(0), default=5, show_default=True, help="Questions to ask it.")
def lab_eval(model: str, dataset_path: str | None, answers: int) -> None:
    """Loss and perplexity of a model on conversations held out from training, and a few answers."""
    from app.lab import terminal

    terminal.print_held_out(terminal.measure(_service(), model, dataset_path or terminal.DATASET, answers))


@lab.command("chat")
@click.option("--model", default="tiny-llm-chat", show_default=True, help=_LAB_MODEL)
@click.option(
    "--temperature", type=click.FloatRange(0, 2), default=0.7, show_default=True, help="0: the likeliest."
)
@click.option("--top-k", type=click.IntRange(0), default=40, show_default=True, help="0: from all tokens.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=0.95, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="The same answers again to the same messages.")
@click.option("--max-length", type=click.IntRange(1, 2048), default=64, show_default=True, help="New tokens.")
@click.option("--remember", is_flag=True, help="Answer with the conversation so far in mind.")
def lab_chat(
    model: str,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int | None,
    max_length: int,
    remember: bool,
) -> None:
    """Talk to a model in this process, through the code written by hand."""
    from app.lab import terminal

    sampling = SamplingOptions(max_length, temperature, top_p, top_k)
    service = _service()
    terminal.talk(service, model, sampling, seed=seed, remember=remember)


@lab.command("demo")
def lab_demo() -> None:
    """All of it in under two minutes: train --small, eval, and a question asked twice."""
    from app.lab import terminal

    terminal.demo()


def _service() -> LabService:
    services()  # the database must be there
    return lab_service(current_app)
