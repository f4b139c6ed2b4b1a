"""``flask lab quantization`` on the tiny random base model: two real runs and the report of them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PNG = b"\x89PNG\r\n\x1a\n"


def lab(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    folders = {
        name: str(place / name.lower()) for name in ("INSTANCE_DIR", "DATA_DIR", "MODELS_DIR", "RESULTS_DIR")
    }
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "run", "lab", "quantization", *words],
        cwd=ROOT,
        env={**os.environ, **folders, "DEFAULT_BASE_MODEL": "tiny-random", "CPU_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_both_are_trained_and_compared(tmp_path: Path) -> None:
    rows = [
        {
            "split": "validation" if number % 4 == 0 else "train",
            "messages": [
                {"role": "user", "content": f"When opens shop {number}?"},
                {"role": "assistant", "content": f"Shop {number} opens at {number} o'clock."},
            ],
        }
        for number in range(1, 17)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    done = lab(tmp_path, "--dataset-path", str(tmp_path / "rows.json"), "--rows", "9", "--epochs", "2")
    assert done.returncode == 0, done.stdout + done.stderr

    [report] = (tmp_path / "results_dir").glob("quantization_*/report.md")
    assert str(report) in done.stdout
    text = report.read_text()
    assert re.match(r"# LoRA \((bfloat16|float32)\) against QLoRA \(NF4\)\n", text)
    assert "4 optimizer steps" in text
    cells = {line.split("|")[1].strip(): line.split("|")[2:5] for line in text.splitlines() if line[:2] == "| "}
    assert float(cells["base model's weights"][2]) < 0.8
    assert float(cells["optimizer's state"][2]) == 1.0
    assert all(float(cells[label][0]) > 0 for label in ("training loss", "held-out loss", "held-out perplexity"))
    plots = re.findall(r"!\[.+\]\((.+)\)", text)
    assert len(plots) == 2
    assert all((report.parent / plot).read_bytes().startswith(PNG) for plot in plots)


def test_a_run_that_fails_says_why_and_leaves_no_report(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('[{"messages": [{"role": "user", "content": "x"}]}]')
    done = lab(tmp_path, "--dataset-path", str(tmp_path / "rows.json"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert not list((tmp_path / "results_dir").glob("quantization_*"))
