"""A language model from scratch, in the terminal: what ``flask lab train``, ``eval``, ``chat`` and ``demo`` do.

The two trainings are jobs like any other, in this process; measuring and talking go through the model written by
hand (``app/implementations/by_hand/tiny_llm.py``).
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from app.bootstrap import load_training_config
from app.core.entities.inference import SamplingOptions
from app.core.entities.jobs import JobState
from app.core.errors import AppError, Invalid, NotFound
from app.lab.service import ANSWER_TOKENS, lab_service
from app.model.training_service import foreground_app, report, train
from app.utils.project import ROOT, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flask import Flask

    from app.core.entities.models import ModelVersion
    from app.core.services import Services
    from app.lab.service import Chat, HeldOut, LabService

SAMPLING = SamplingOptions(ANSWER_TOKENS, temperature=0.7, top_k=40, top_p=0.95)
DATASET = "data/raw/sample_data.json"
QUESTION = "How long do I have to return an item?"


@dataclass(frozen=True, slots=True)
class Preset:
    """``name`` is a base model with source scratch; what is trained is ``<name>-text`` and ``<name>-chat``."""

    name: str
    pretrain: Mapping[str, Any] = field(default_factory=dict)  # over config/tiny_pretrain.yaml
    sft: Mapping[str, Any] = field(default_factory=dict)  # over config/tiny_sft.yaml

    @property
    def text_model(self) -> str:
        return f"{self.name}-text"

    @property
    def chat_model(self) -> str:
        return f"{self.name}-chat"


FULL = Preset("tiny-llm")
# Small models want large steps: at these, 0.8 M parameters learn more in six passes than tiny-llm in fourteen.
SMALL = Preset(
    "tiny-llm-small",
    {"num_epochs": 2, "learning_rate": 3e-3},
    {"num_epochs": 4, "learning_rate": 3e-3},
)


def train_here(small: bool, dataset_path: str) -> None:
    """``AppError`` if a job does not succeed."""
    app, preset = foreground_app(), SMALL if small else FULL
    print_next_steps(app, preset, train_from_scratch(app, preset, dataset_path))


def train_from_scratch(app: Flask, preset: Preset, dataset_path: str) -> ModelVersion:
    """Fresh weights, then pretraining, then conversations: what these made in the end."""
    say(f"1. A new model: {preset.name}")
    print(f"  in {shown(app.extensions['services'].models.pull(preset.name))}")
    say("2. Pretraining: the next token of every text")
    text = _trained(app, "tiny_pretrain.yaml", dataset_path, preset.name, preset.text_model, preset.pretrain)
    say("3. Fine-tuning: the answers of conversations")
    changes = {**preset.sft, "from_version": text.reference}
    return _trained(app, "tiny_sft.yaml", dataset_path, preset.name, preset.chat_model, changes)


def _trained(
    app: Flask, file: str, dataset_path: str, base_model: str, model_name: str, changes: Mapping[str, Any]
) -> ModelVersion:
    names = {"base_model": base_model, "model_name": model_name, "experiment_name": model_name}
    config = load_training_config(ROOT / "config" / file, **{"dataset_path": dataset_path, **names, **changes})
    job = train(app, config)
    report(app, job)
    if job.state is not JobState.SUCCEEDED:
        raise AppError(f"the training of {model_name} did not succeed", code="job_failed")
    services: Services = app.extensions["services"]
    return services.models.version(job.model_version_id or "")


def print_next_steps(app: Flask, preset: Preset, version: ModelVersion) -> None:
    say("Next")
    model = f" --model {preset.chat_model}" if preset is SMALL else ""
    folder = shown(app.extensions["settings"].models_dir / "registry" / version.artifacts)
    print(
        f"""  flask lab eval{model}
  flask lab chat{model}
To serve it like any base model, add to config/base_models.yaml
  {preset.name}-trained: {{source: folder, location: {folder}}}
and start ENGINE_BASE_MODEL={preset.name}-trained python run.py; then ask it with
  flask predict "{QUESTION}" --model {preset.name}-trained"""
    )


def measure(lab: LabService, model: str, dataset_path: str, answers: int) -> HeldOut:
    """Under a progress bar."""
    with _says_what_makes_it(), tqdm(desc=f"  measuring {model}", unit="row", leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return lab.measure(model, dataset_path, answers=answers, on_progress=show)


def print_held_out(found: HeldOut) -> None:
    print(f"{found.model} on {found.rows} held-out conversations, {found.tokens:,} tokens of the assistant")
    print(f"  loss        {found.loss:.3f}")
    print(f"  perplexity  {found.perplexity:.2f}")
    for answer in found.answers:
        print(f"\n  Q: {answer.question}\n  A: {' '.join(answer.answer.split())}")
        if answer.answer != answer.expected:
            print(f"     expected: {answer.expected}")


def talk(lab: LabService, model: str, sampling: SamplingOptions, *, seed: int | None, remember: bool) -> None:
    """Until the end of the input. Ctrl-C cuts an answer short, and between answers it ends."""
    with _says_what_makes_it():
        chat = lab.chat(model, seed)
    with suppress(ImportError):
        import readline  # noqa: F401  (arrow keys and history for ``input``)
    print(f"{chat.name}: {'/new begins anew, ' if remember else ''}/quit or Ctrl-D ends")
    while (text := _ask()) not in (None, "/quit"):
        if text == "/new" or not remember:
            chat.forget()
        if text not in ("", "/new"):
            _answer(chat, text, sampling)


@contextmanager
def _says_what_makes_it() -> Iterator[None]:
    try:
        yield
    except NotFound as error:
        raise NotFound(f"{error.message}; `flask lab train` makes {FULL.chat_model}") from None


def _ask() -> str | None:
    try:
        return input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return None


def _answer(chat: Chat, text: str, sampling: SamplingOptions) -> None:
    try:
        for piece in chat.say(text, sampling):
            print(piece, end="", flush=True)
        print()
    except KeyboardInterrupt:
        print(" …")
    except Invalid as error:
        print(error, file=sys.stderr)


def demo() -> None:
    """All of it with a small model."""
    started = time.monotonic()
    app = foreground_app()
    lab = lab_service(app)
    version = train_from_scratch(app, SMALL, DATASET)
    say("4. Conversations that it has not seen")
    print_held_out(measure(lab, version.reference, DATASET, answers=3))
    say(f"5. One question twice: {_described(SAMPLING)}")
    print(f"  Q: {QUESTION}")
    for seed in (1, 2):
        print(f"  A: {''.join(lab.chat(version.reference, seed).say(QUESTION, SAMPLING))}")
    print_next_steps(app, SMALL, version)
    print(f"\nDone in {time.monotonic() - started:.0f} seconds.")


def _described(sampling: SamplingOptions) -> str:
    return f"temperature {sampling.temperature}, top-k {sampling.top_k}, top-p {sampling.top_p}"


def say(title: str) -> None:
    print(f"\n== {title}", flush=True)
