"""A whole run of the trainer's work in this process, on the tiny random base model."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM

from app.bootstrap import build_runner
from app.core.entities.datasets import Conversation
from app.core.entities.models import BaseModelSpec
from app.core.entities.trainer import Placement
from app.core.entities.training_config import TrainingConfig
from app.core.errors import AppError, Invalid
from app.core.interfaces.components import TrainerJob, TrainingStopped
from app.core.services.jobs import tracking
from app.core.services.jobs.resuming import latest_checkpoint
from app.implementations.data import cuts
from app.implementations.data.tokenization import FolderChatTokenizer
from app.implementations.training.checkpoints import pins_of
from app.implementations.training.loss_curve import draw, earlier_curve, png
from app.registries import BASE_MODEL_SOURCES


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2's architecture and template, and DeepSeek-R1-Distill-Qwen's: biases, a thought opened."""
    folder = tmp_path_factory.mktemp("base")
    BASE_MODEL_SOURCES.load("random")(BaseModelSpec("tiny", "random", request.param), folder)
    return folder


def write_split(folder: Path, split: str, count: int) -> None:
    rows = [
        Conversation(
            place,
            [
                {"role": "user", "content": f"When does shop {place} open?"},
                {"role": "assistant", "content": f"Shop {place} opens at {place % 12} o'clock."},
            ],
        )
        for place in range(1, count + 1)
    ]
    cuts.write_split(folder, split, rows)


@pytest.fixture
def job(base: Path, tmp_path: Path) -> TrainerJob:
    dataset, run = tmp_path / "dataset", tmp_path / "run"
    dataset.mkdir()
    run.mkdir()
    for split, count in (("train", 12), ("validation", 4), ("test", 2)):
        write_split(dataset, split, count)
    config = TrainingConfig(base_model="tiny", num_epochs=2, batch_size=4, precision="fp32", device="cpu")
    return TrainerJob("ftjob-1", 1, "torch", config, base, dataset, run, threads=1)


def test_a_run_leaves_what_a_version_is_made_of(job, listener):
    heard = listener()
    result = build_runner("torch").run(job, heard)

    run = job.run_folder
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics == json.loads(json.dumps(result["metrics"]))
    assert metrics.keys() >= {
        *("train_loss", "eval_loss", "perplexity", "train_runtime", "input_tokens", "trained_tokens"),
        *("tokens_per_second", "peak_memory_bytes"),
    }
    tokenizer = FolderChatTokenizer(run / "artifacts")
    assert tokenizer.template_hash == result["template_hash"]
    manifest = json.loads((run / "artifacts" / "manifest.json").read_text())
    assert manifest["template_hash"] == tokenizer.template_hash
    rows = cuts.read_split(job.dataset_folder, "train")
    tokens = [tokenizer.encode_training(row.messages, 1024) for row in rows]
    assert metrics["input_tokens"] == 2 * sum(len(row.input_ids) for row in tokens)
    assert metrics["trained_tokens"] == 2 * sum(label >= 0 for row in tokens for label in row.labels)
    assert [event["step"] for event in heard.steps] == [1, 2, 3, 4, 5, 6]


def test_a_template_that_stands_in_a_config_has_a_file_in_the_version(job, listener, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(job.base_model_folder, base)
    text = (base / "chat_template.jinja").read_text("utf-8")
    (base / "chat_template.jinja").unlink()
    config = json.loads((base / "tokenizer_config.json").read_text("utf-8"))
    (base / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": text}), "utf-8")
    job = replace(job, base_model_folder=base, config=job.config.with_changes(num_epochs=1))
    result = build_runner("torch").run(job, listener())
    artifacts = job.run_folder / "artifacts"
    assert (artifacts / "chat_template.jinja").read_text("utf-8") == text
    assert FolderChatTokenizer(artifacts).template_hash == result["template_hash"]


@pytest.mark.parametrize("adaptation", ["lora", "lora_linear"])
def test_plain_peft_opens_the_adapter(job, listener, adaptation):
    job = replace(job, config=job.config.with_changes(adaptation=adaptation))
    build_runner("torch").run(job, listener())
    base = AutoModelForCausalLM.from_pretrained(job.base_model_folder, dtype=torch.float32)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        before = base(ids).logits
        tuned = PeftModel.from_pretrained(base, job.run_folder / "artifacts")
        after = tuned(ids).logits

    settings = json.loads((job.run_folder / "artifacts" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "tiny"
    assert not torch.allclose(before, after)


def test_train_samples_limits_the_rows(job, listener):
    few = TrainerJob(
        **{
            **{name: getattr(job, name) for name in job.__slots__},
            "config": job.config.with_changes(train_samples=3, num_epochs=1),
        }
    )
    heard = listener()
    build_runner("torch").run(few, heard)

    assert heard.steps[-1]["total_steps"] == 1
    assert any("on 3 rows" in message for message in heard.messages)


def test_a_disk_that_is_full_at_the_end_fails_the_run_and_nothing_is_lost(job, listener, small_disk):
    whole = listener()
    build_runner("torch").run(job, whole)
    changes = {"save_steps": 5, "report_to": "none", "sample_prompts": []}
    cramped = replace(job, run_folder=small_disk.folder, config=job.config.with_changes(**changes))
    heard = listener()
    report = heard.metrics

    def fill(step, *arguments):
        report(step, *arguments)
        if step == 6:
            small_disk.fill(1000)

    heard.metrics = fill
    with pytest.raises(AppError) as failed:
        build_runner("torch").run(cramped, heard)

    assert failed.value.code == "disk_full"
    assert "make room" in failed.value.message
    small_disk.clear()
    left = {path.name for path in small_disk.folder.iterdir() if not path.name.endswith(".lock")}
    assert left == {"checkpoints", "forecast.json"}
    again = listener()
    build_runner("torch").run(cramped, again)
    assert [event["step"] for event in again.steps] == [6]
    name = "artifacts/adapter_model.safetensors"
    assert (cramped.run_folder / name).read_bytes() == (job.run_folder / name).read_bytes()


def test_a_checkpoint_says_what_its_numbers_depend_on(job, listener):
    build_runner("torch").run(job, listener())
    pins = pins_of(latest_checkpoint(job.run_folder / "checkpoints" / job.job_id))

    assert pins.items() >= {"threads": 1, "device": "cpu", "precision": "float32", "lora.r": 16}.items()
    assert pins["torch"] == torch.__version__
    assert pins["instruction set"].startswith(torch.backends.cpu.get_cpu_capability())
    assert {"transformers", "peft", "training rows", "validation rows"} <= pins.keys()


def test_two_runs_are_equal_bit_for_bit(job, listener):
    first, second = listener(), listener()
    build_runner("torch").run(job, first)
    adapter = (job.run_folder / "artifacts" / "adapter_model.safetensors").read_bytes()
    other = replace(job, job_id="another")  # in the same folder, as output_dir allows: it starts from nothing
    build_runner("torch").run(other, second)

    assert [event["loss"] for event in first.steps] == [event["loss"] for event in second.steps]
    assert (job.run_folder / "artifacts" / "adapter_model.safetensors").read_bytes() == adapter


def test_what_is_watched_lands_in_the_run_folder(job, listener):
    heard = listener()
    asked = job.config.with_changes(sample_prompts=["When does it open?"], sample_max_tokens=4, report_to="auto")
    result = build_runner("torch").run(replace(job, config=asked), heard)

    run = job.run_folder
    assert (run / "loss_curve.png").read_bytes().startswith(b"\x89PNG")
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert [(line["step"], line["prompt"]) for line in samples] == [
        (3, "When does it open?"),
        (6, "When does it open?"),
    ]
    assert sum("When does it open? → " in message for message in heard.messages) == 2
    assert heard.steps[0]["memory_bytes"] > 1e6
    assert result["metrics"]["cpu_percent"] > 0

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    losses = {event.step: event.value for event in events.Scalars("train/loss")}
    assert losses == pytest.approx({event["step"]: event["loss"] for event in heard.steps})
    assert [event.step for event in events.Scalars("eval/perplexity")] == [3, 6]


def test_nothing_is_asked_and_nobody_told_where_the_config_says_so(job, listener):
    heard = listener()
    build_runner("torch").run(
        replace(job, config=job.config.with_changes(sample_prompts=[], report_to="none")), heard
    )

    assert {"samples.jsonl", "tensorboard"}.isdisjoint(path.name for path in job.run_folder.iterdir())
    assert not any("→" in message for message in heard.messages)


def test_a_tracker_that_is_missing_is_refused_before_the_model_is_loaded(job, listener, monkeypatch):
    monkeypatch.setattr(tracking, "is_installed", lambda name: False)
    heard = listener()
    with pytest.raises(Invalid, match="mlflow"):
        build_runner("torch").run(replace(job, config=job.config.with_changes(report_to=["mlflow"])), heard)
    assert heard.messages == []


def test_a_run_that_was_stopped_is_drawn_whole_in_the_end(job, listener):
    """Its second attempt knows the losses of the first from the first's events."""
    first = listener(stop_at=2)
    with pytest.raises(TrainingStopped):
        build_runner("torch").run(job, first)
    attempt = job.run_folder / "attempts" / "1"
    attempt.mkdir(parents=True)
    lines = [json.dumps({"type": "metrics", "data": event}) + "\n" for event in first.steps]
    (attempt / "events.ndjson").write_text("".join(lines))

    again, second = replace(job, attempt=2), listener()
    build_runner("torch").run(again, second)
    assert second.steps[0]["step"] == 3
    drawn = earlier_curve(job.run_folder, before=3)
    for event in second.steps:
        drawn.add(event["step"], event)
    for event in second.evaluations:
        drawn.add(event["step"], event)
    picture = png(draw(drawn, f"{job.config.experiment_name} · tiny"))
    assert (job.run_folder / "loss_curve.png").read_bytes() == picture
    assert list(drawn.loss) == [1, 2, 3, 4, 5, 6]


def test_other_ranks_leave_what_is_watched_to_the_first(job, listener, monkeypatch):
    """As rank 1 of one: what it would write, it would write beside rank 0."""
    heard = listener()
    other = replace(job, placement=Placement(rank=1, processes=1))
    assert build_runner("torch").run(other, heard) == {}
    assert {path.name for path in job.run_folder.iterdir()} == {"checkpoints"}
    assert not any("→" in message for message in heard.messages)
