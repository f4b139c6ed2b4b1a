"""The training command and the scripts beside it, as processes on the tiny random base model."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.killing import arm_trainers

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Folders and data of one installation, shared by the tests of this file in their order."""
    folder = tmp_path_factory.mktemp("installation")
    rows = [
        {
            "split": split,
            "keys": [[f"{number} o'clock"]],
            "language": "en",
            "messages": [
                {"role": "user", "content": f"{asked} shop {number}?"},
                {"role": "assistant", "content": f"Shop {number} opens at {number} o'clock."},
            ],
        }
        for number in range(1, 7)
        for split, asked in (("train", "When opens"), ("validation", "Opening hours of"), ("test", "How early is"))
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "bad.json").write_text('[{"messages": [{"role": "user", "content": "x"}]}, {"messages": 5}]')
    config = {
        "model": {"base_model": "tiny-random", "num_epochs": 2, "batch_size": 3, "precision": "fp32"},
        "dataset_path": str(folder / "rows.json"),
        "model_name": "shops",
        "r": 4,
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(config))
    return folder


def environment(place: Path) -> dict[str, str]:
    folders = {
        name: str(place / name.lower()) for name in ("INSTANCE_DIR", "DATA_DIR", "MODELS_DIR", "RESULTS_DIR")
    }
    return {**os.environ, **folders, "ENGINE_BASE_MODEL": "tiny-random", "CPU_THREADS": "1"}


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(
        command, cwd=ROOT, env=environment(place), capture_output=True, text=True, timeout=300, check=False
    )


def train(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(place, "-m", "app.model.training_service", "--config", str(place / "train.yaml"), *words)


def test_it_fails_with_the_ways_out_while_the_base_model_is_missing(place):
    done = train(place)

    assert done.returncode == 1
    assert "flask models pull tiny-random" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_trains_and_publishes(place):
    assert run(place, "-m", "flask", "--app", "run", "models", "pull", "tiny-random").returncode == 0
    done = train(place, "--experiment_name", "first", "--learning_rate", "0.01")

    assert done.returncode == 0, done.stderr
    assert "published shops:1" in done.stdout
    (folder,) = (place / "results_dir").glob("first_*")
    assert {"config.yaml", "metrics.json", "logs.txt", "artifacts"} <= {path.name for path in folder.iterdir()}
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["learning_rate"], config["lora"]["r"], config["num_epochs"]) == (0.01, 4, 2)
    assert "step 4/4" in done.stderr


def test_options_stand_over_the_file_and_a_second_version_follows(place):
    done = train(place, "--epochs", "1", "--train_samples", "3", "--output_dir", str(place / "elsewhere"))

    assert done.returncode == 0, done.stderr
    assert "published shops:2" in done.stdout
    config = yaml.safe_load((place / "elsewhere" / "config.yaml").read_text())
    assert (config["num_epochs"], config["train_samples"]) == (1, 3)


def resume(place: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(place, "-m", "app.model.training_service", "--resume", str(folder), *words)


def test_a_run_that_was_killed_goes_on_to_the_same_adapter(place):
    """Its trainer dies in the second epoch, at its first step; the run ``first`` had the same config."""
    with pytest.MonkeyPatch.context() as patch:
        arm_trainers(place, "pack:5", patch)
        killed = train(place, "--experiment_name", "killed", "--learning_rate", "0.01")
    assert killed.returncode == 1
    assert "SIGKILL" in killed.stderr
    (folder,) = (place / "results_dir").glob("killed_*")
    done = resume(place, folder)

    assert done.returncode == 0, done.stderr
    assert "going on from step 2" in done.stderr
    assert "not to the bit" not in done.stderr
    assert "published shops:3" in done.stdout
    assert list((place / "results_dir").glob("killed_*")) == [folder]
    (whole,) = (place / "results_dir").glob("first_*")
    name = "artifacts/adapter_model.safetensors"
    assert (folder / name).read_bytes() == (whole / name).read_bytes()
    again = resume(place, folder)
    assert again.returncode == 1
    assert "this run is finished" in again.stderr


def test_a_run_may_be_longer_than_it_was_but_not_another(place):
    with pytest.MonkeyPatch.context() as patch:
        arm_trainers(place, "pack:5", patch)
        train(place, "--experiment_name", "longer", "--learning_rate", "0.01")
    (folder,) = (place / "results_dir").glob("longer_*")
    other = resume(place, folder, "--train_samples", "3")
    done = resume(place, folder, "--epochs", "3", "--train_samples", "6")

    assert other.returncode == 1
    assert "training rows: " in other.stderr
    assert done.returncode == 0, done.stderr
    assert "num_epochs: 2 then, 3 now" in done.stderr
    assert "step 6/6" in done.stderr


def test_what_cannot_be_gone_on_with_is_said_in_a_line(place):
    for folder, said in ((place / "nowhere", "not a run folder"), (place, "not a run folder")):
        done = resume(place, folder)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert resume(place, place, "--config", "x.yaml").returncode == 2


def test_models_are_scored_side_by_side(place):
    words = ("--model", "tiny-random", "shops:1", "--dataset_path", str(place / "rows.json"))
    done = run(place, "-m", "app.scripts.evaluate_model", *words, "--show_wrong")

    assert done.returncode == 0, done.stderr
    head, row, *_ = done.stdout.splitlines()
    assert head.split() == ["questions", "tiny-random", "shops:1"]
    assert row.split()[0] == "en"
    assert all("/6 " in f"{cell} " for cell in row.split()[1::2])


def test_a_version_answers_without_a_service(place):
    done = run(place, "app/scripts/inference.py", "--model", "shops", "--text", "one", "two", "--max_length", "4")

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dataset_path", "nowhere.json"), "nowhere.json"),
        (("--learning_rate", "-1"), "learning_rate"),
        (("--base_model", "gpt-5"), "tiny-random"),
    ],
)
def test_a_failed_run_says_why_in_a_line(place, words, said):
    done = train(place, *words)

    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_every_fault_of_the_data_is_listed(place):
    done = train(place, "--dataset_path", str(place / "bad.json"))

    assert done.returncode == 1
    assert "row 1" in done.stderr
    assert "row 2" in done.stderr


def test_usage_errors(place):
    assert train(place, "--epochs", "many").returncode == 2
    assert train(place, "--nonsense").returncode == 2
    assert run(place, "-m", "app.scripts.evaluate_model").returncode == 2
    assert run(place, "-m", "app.scripts.inference").returncode == 2


@pytest.mark.parametrize(
    "module",
    [
        *("app.model.training_service", "app.scripts.train_model", "app.scripts.evaluate_model"),
        *("app.scripts.inference", "app.scripts.process_data"),
    ],
)
def test_help(place, module):
    done = run(place, "-m", module, "--help")

    assert done.returncode == 0
    assert "usage" in done.stdout


def test_ctrl_c_cancels_the_job_and_leaves_no_process(place):
    command = [sys.executable, "-m", "app.model.training_service", "--config", str(place / "train.yaml")]
    process = subprocess.Popen(
        [*command, "--epochs", "1000", "--experiment_name", "long"],
        cwd=ROOT,
        env=environment(place),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for line in process.stderr:
            if line.lstrip().startswith("step "):
                break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "cancelled" in said
    listed = run(place, "-m", "flask", "--app", "run", "jobs", "list", "--state", "cancelled")
    assert len(listed.stdout.splitlines()) == 1
