"""The demo from end to end, twice, on the tiny random base model: real processes, nonsense for answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]


def test_help_starts_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.scripts.demo", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout[:6]) == (0, "usage:")
    assert "==" not in done.stdout


@pytest.fixture
def place(tmp_path: Path) -> Path:
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
        for number in range(1, 5)
        for split, asked in (("train", "When opens"), ("validation", "Opening hours of"), ("test", "How early is"))
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    config = {"dataset_path": str(tmp_path / "rows.json"), "num_epochs": 1, "warmup_steps": 0, "precision": "fp32"}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def demo(place: Path) -> subprocess.CompletedProcess[str]:
    folders = {
        name: str(place / name.lower()) for name in ("INSTANCE_DIR", "DATA_DIR", "MODELS_DIR", "RESULTS_DIR")
    }
    changes = {
        "ENGINE_BASE_MODEL": "tiny-random",
        "CPU_THREADS": "1",
        "TRAIN_CONFIG_FILE": str(place / "train.yaml"),
    }
    return subprocess.run(
        [sys.executable, "-m", "app.scripts.demo"],
        cwd=ROOT,
        env={**os.environ, **folders, **changes},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_it_runs_and_the_second_time_uses_again_what_is_there(place):
    first = demo(place)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "published support-assistant:1" in first.stdout
    assert "POST /api/v1/predict      support-assistant:1" in first.stdout
    head, row = first.stdout.split("right fact\n")[-1].splitlines()[:2]
    assert head.split() == ["questions", "tiny-random", "support-assistant:1"]
    assert row.split()[0] == "en"

    second = demo(place)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "used again" in second.stdout
    assert "published" not in second.stdout.replace("what is published", "")
    assert len(list((place / "results_dir").glob("support-assistant_*"))) == 1
    assert [
        p
        for p in psutil.process_iter(["environ"])
        if (p.info["environ"] or {}).get("INSTANCE_DIR") == str(place / "instance_dir")
    ] == []
