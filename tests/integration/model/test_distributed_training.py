"""Jobs of two processes through the training command, on the tiny random base model."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[3]
WAIT_SECONDS = 120.0
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
COMMAND = ("-m", "app.model.training_service", "--config")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders, data and base model of one installation."""
    folder = tmp_path_factory.mktemp("installation")
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"When opens shop {number}?"},
                {"role": "assistant", "content": f"Shop {number} opens at {number} o'clock."},
            ]
        }
        for number in range(1, 21)
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    pulled = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "run", "models", "pull", "tiny-random"],
        cwd=ROOT,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert pulled.returncode == 0, pulled.stderr
    return folder


def environment(place: Path) -> dict[str, str]:
    folders = {
        name: str(place / name.lower()) for name in ("INSTANCE_DIR", "DATA_DIR", "MODELS_DIR", "RESULTS_DIR")
    }
    return {**os.environ, **folders, "ENGINE_BASE_MODEL": "tiny-random", "CPU_THREADS": "2"}


def command(place: Path, name: str, *before: str, **config: object) -> list[str]:
    whole = {
        "base_model": "tiny-random",
        "dataset_path": str(place / "rows.json"),
        "experiment_name": name,
        "num_epochs": 1,
        "batch_size": 2,
        "precision": "fp32",
        "learning_rate": 0.01,
        "processes": 2,
        "r": 4,
        **config,
    }
    (place / f"{name}.yaml").write_text(yaml.safe_dump(whole))
    return [sys.executable, *before, *COMMAND, str(place / f"{name}.yaml")]


def run(place: Path, name: str, *before: str, **config: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(place, name, *before, **config),
        cwd=ROOT,
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def check_published(place: Path, name: str, done: subprocess.CompletedProcess[str]) -> Path:
    """The run's folder. Plain PEFT opens what is in it."""
    assert done.returncode == 0, done.stderr
    assert f"published {name}:1" in done.stdout
    (folder,) = (place / "results_dir").glob(f"{name}_*")
    base = AutoModelForCausalLM.from_pretrained(place / "models_dir/base/tiny-random", dtype=torch.float32)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        before = base(ids).logits
        after = PeftModel.from_pretrained(base, folder / "artifacts")(ids).logits
    assert not torch.allclose(before, after)
    return folder


def test_a_job_of_two_processes_is_published(place: Path) -> None:
    folder = check_published(place, "pair", run(place, "pair", strategy="ddp"))

    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["processes"] == 2
    assert metrics["threads"] == 1  # of each: the job has two
    (attempt,) = (folder / "attempts").iterdir()
    events = [json.loads(line) for line in (attempt / "events.ndjson").read_text().splitlines()]
    steps = [event["data"]["step"] for event in events if event["data"].get("loss") is not None]
    assert steps == sorted(set(steps))
    alone = check_published(place, "alone", run(place, "alone", processes=1, gradient_accumulation_steps=2))
    expected = json.loads((alone / "metrics.json").read_text())
    for key in ("train_loss", "eval_loss"):
        assert metrics[key] == pytest.approx(expected[key], rel=1e-5)
    assert metrics["input_tokens"] == expected["input_tokens"]


@pytest.mark.parametrize(("strategy", "zero_stage"), [("fsdp", 2), ("deepspeed", 3)])
def test_what_was_cut_is_published_whole(place: Path, strategy: str, zero_stage: int) -> None:
    name = f"cut-{strategy}"
    check_published(place, name, run(place, name, strategy=strategy, zero_stage=zero_stage))


def test_torchrun_starts_the_ranks(place: Path) -> None:
    done = run(place, "launched", *TORCHRUN, strategy="ddp", processes=1)
    folder = check_published(place, "launched", done)
    assert json.loads((folder / "metrics.json").read_text())["processes"] == 2
    assert yaml.safe_load((folder / "config.yaml").read_text())["processes"] == 2


@pytest.fixture
def start(place: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started = []

    def launch(name: str, **config: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(place, name, num_epochs=1000, **config),
            cwd=ROOT,
            env=environment(place),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield launch
    for process in started:
        process.kill()
        process.communicate()


def family(process: subprocess.Popen[str]) -> tuple[psutil.Process, psutil.Process]:
    """Rank 0 and the other, once they train."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.lstrip().startswith("step "):
            break
    assert process.poll() is None, said
    (first,) = psutil.Process(process.pid).children()
    (other,) = first.children()
    return first, other


def gone(process: psutil.Process) -> bool:
    try:
        process.wait(WAIT_SECONDS)
    except psutil.TimeoutExpired:
        return False
    return True


def test_a_rank_that_is_killed_ends_the_job_by_name(
    place: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start("killed", strategy="ddp")
    first, other = family(process)
    other.kill()
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 1
    assert "rank_lost: rank 1 of 2 ended by SIGKILL" in said
    assert gone(first)
    assert gone(other)


def test_cancel_leaves_no_rank(place: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("cancelled", strategy="fsdp")
    first, other = family(process)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 130
    assert "cancelled" in said
    assert gone(first)
    assert gone(other)
    assert time.monotonic() - began < 30  # three seconds, on a machine that is not busy


def test_sigkill_of_the_trainer_leaves_no_rank(place: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("trainer-killed", strategy="ddp")
    first, other = family(process)
    first.kill()
    assert gone(other)
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 1
    assert "SIGKILL" in said


@pytest.fixture(scope="module")
def alone(place: Path) -> Callable[[str], dict[str, Any]]:
    """What one process measures with an adaptation, on the rows of two; made once for all strategies."""

    @cache
    def metrics(adaptation: str) -> dict[str, Any]:
        name = f"{adaptation}-alone"
        done = run(place, name, adaptation=adaptation, strategy="single", processes=1, batch_size=4)
        assert done.returncode == 0, done.stderr
        return measured(place, name)

    return metrics


def measured(place: Path, name: str) -> dict[str, Any]:
    (folder,) = (place / "results_dir").glob(f"{name}_*")
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


@pytest.mark.parametrize(
    ("adaptation", "strategy", "zero_stage"),
    [("qlora", "deepspeed", 2), ("full", "deepspeed", 3), ("full", "fsdp", 2)],
)
def test_adaptations_are_spread(
    place: Path, alone: Callable[[str], dict[str, Any]], adaptation: str, strategy: str, zero_stage: int
) -> None:
    name = f"{adaptation}-{strategy}"
    done = run(place, name, adaptation=adaptation, strategy=strategy, zero_stage=zero_stage)

    assert done.returncode == 0, done.stderr
    metrics, expected = measured(place, name), alone(adaptation)
    for key in ("train_loss", "eval_loss"):
        assert metrics[key] == pytest.approx(expected[key], rel=1e-3 if adaptation == "qlora" else 1e-4)
    assert metrics["trainable_parameters"] == expected["trainable_parameters"]


QUESTIONS = [f"When opens shop {number}?" for number in range(1, 21)]
ROWS = {
    "dpo": [{"prompt": asked, "chosen": "At nine o'clock.", "rejected": "No idea."} for asked in QUESTIONS],
    "classification": [
        {"text": f"{asked} {word}", "label": word} for asked in QUESTIONS for word in ("open", "closed")
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("objective", ROWS)
def test_objectives_are_spread(place: Path, objective: str, strategy: str) -> None:
    """Two processes of two rows each come to the numbers of one process with four."""
    rows = place / f"{objective}.json"
    rows.write_text(json.dumps(ROWS[objective]))
    metrics = []
    for name, options in {
        "spread": {"strategy": strategy},
        "alone": {"strategy": "single", "processes": 1, "batch_size": 4},
    }.items():
        name = f"{objective}-{strategy}-{name}"
        done = run(place, name, objective=objective, dataset_path=str(rows), **options)
        assert done.returncode == 0, done.stderr
        metrics.append(measured(place, name))
    spread, alone = metrics
    for key in ("train_loss", "eval_loss"):
        assert spread[key] == pytest.approx(alone[key], rel=1e-4)
    assert spread["trained_tokens"] == alone["trained_tokens"]
