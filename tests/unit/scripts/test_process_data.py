"""The command as a person runs it: table, faults, exit status."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from app.bootstrap import load_settings
from app.core.services.data.datasets import DatasetService
from app.implementations.data.store import FileDatasetStore
from app.implementations.models.base_models import FolderBaseModelStore
from app.implementations.models.random_model import write_random_tokenizer
from app.registries import BASE_MODEL_SOURCES, DATA_FORMATS
from app.scripts.process_data import parser, process

ROOT = Path(__file__).parents[3]


@pytest.fixture
def datasets(tmp_path: Path) -> DatasetService:
    formats = [DATA_FORMATS.create(name) for name in DATA_FORMATS.names()]
    bases = FolderBaseModelStore(load_settings().base_models_file, tmp_path / "base", BASE_MODEL_SOURCES)
    return DatasetService(datasets=FileDatasetStore(tmp_path, formats, 10**6), bases=bases)


def run(datasets: DatasetService, *arguments: str) -> int:
    return process(parser().parse_args(arguments), datasets)


def test_a_sound_file_is_split_and_counted(
    datasets: DatasetService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base" / "tiny-random"
    base.mkdir(parents=True)
    write_random_tokenizer("llama", base)
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")  # no tensors: no weights are needed
    file = tmp_path / "x.jsonl"
    file.write_text("\n".join(json.dumps({"question": f"q{i}", "answer": "a"}) for i in range(10)))
    assert run(datasets, "--dataset_path", str(file), "--base_model", "tiny-random", "--seed", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "sound" in lines[0]
    table = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert table["split"] == ["rows", "supervised", "unsupervised", "p50", "p90", "p100", "truncated", "rows"]
    assert [table[split][0] for split in ("train", "validation", "test")] == ["8", "1", "1"]
    assert table["train"][1] == "16"


def test_every_fault_is_listed(
    datasets: DatasetService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps([{"question": "q"}, {"messages": []}] * 20))
    assert run(datasets, "--dataset_path", str(file)) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "  row 1: answer: is missing [missing]" in output.err.splitlines()
    assert len(output.err.splitlines()) == 41


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--dataset_path", "absent.json"], "absent.json: there is no such file"),
        (["--base_model", "nope"], "unknown base model 'nope'"),
        (["--base_model", "deepseek-r1-1.5b"], "Three ways out"),
    ],
)
def test_what_is_not_there(
    datasets: DatasetService,
    tmp_path: Path,
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "sample_data.json").write_text('[{"question": "q", "answer": "a"}]')
    assert run(datasets, *arguments) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["app/scripts/process_data.py", "--help"], 0),
        (["-m", "app.scripts.process_data", "--seed", "x"], 2),
        (["-m", "app.scripts.process_data"], 0),
        (["app/scripts/process_data.py", "--dataset_path", "absent.json"], 1),
    ],
)
def test_as_a_process(command: list[str], status: int, tmp_path: Path) -> None:
    folders = {f"{name}_DIR": str(tmp_path / name) for name in ("INSTANCE", "DATA", "MODELS", "RESULTS")}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **folders},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
