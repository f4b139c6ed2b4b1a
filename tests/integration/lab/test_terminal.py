"""``flask lab train``, ``eval`` and ``chat`` as processes, on a model of toy sizes; ``demo`` as it is."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from app.implementations.by_hand.tiny_llm import TinyLLM

ROOT = Path(__file__).resolve().parents[3]
SIZES = {"hidden_size": 64, "layers": 2, "heads": 4, "kv_heads": 2, "vocab_size": 400, "context": 64}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One installation for the tests of this file, in their order."""
    folder = tmp_path_factory.mktemp("installation")
    rows = [
        {
            "split": split,
            "messages": [
                {"role": "user", "content": f"{asked} shop {number}?"},
                {"role": "assistant", "content": f"Shop {number} opens at {number} o'clock."},
            ],
        }
        for number in range(1, 7)
        for split, questions in (
            ("train", [f"Question {place}: when opens" for place in range(30)]),
            ("validation", ["Opening hours of"]),
            ("test", ["Question: hours of"]),
        )
        for asked in questions
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "config").mkdir()
    (folder / "config" / "tiny.yaml").write_text(yaml.safe_dump({**SIZES, "corpus": "rows.json"}))
    catalogue = {"tiny-llm": {"source": "scratch", "location": "config/tiny.yaml"}}
    (folder / "config" / "base_models.yaml").write_text(yaml.safe_dump(catalogue))
    return folder


def lab(place: Path, *words: str, said: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    folders = {
        name: str(place / name.lower()) for name in ("INSTANCE_DIR", "DATA_DIR", "MODELS_DIR", "RESULTS_DIR")
    }
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "run", "lab", *words],
        cwd=ROOT,
        env={**os.environ, **folders, "CPU_THREADS": "1", **variables},
        input=said,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def run(place: Path):
    return lambda *words, said="": lab(
        place, *words, said=said, BASE_MODELS_FILE=str(place / "config" / "base_models.yaml")
    )


def perplexity(out: str) -> float:
    return float(re.search(r"perplexity +([\d.]+)", out)[1])


def test_it_trains_on_text_and_then_on_conversations(place, run):
    done = run("train", "--dataset-path", str(place / "rows.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    titles = re.findall(r"^== (.*)", done.stdout, re.MULTILINE)
    assert [title.partition(":")[0] for title in titles] == [
        *("1. A new model", "2. Pretraining", "3. Fine-tuning", "Next")
    ]
    assert done.stdout.index("published tiny-llm-text:1") < done.stdout.index("published tiny-llm-chat:1")
    folder = Path(re.search(r"location: (.*)}", done.stdout)[1])
    ids = torch.arange(12)[None]
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(TinyLLM.load(folder)(ids), theirs(ids).logits, atol=1e-5, rtol=1e-5)
    (second,) = (place / "results_dir").glob("tiny-llm-chat_*")
    assert yaml.safe_load((second / "config.yaml").read_text())["from_version"] == "tiny-llm-text:1"


def test_what_was_learnt_shows_on_held_out_conversations(place, run):
    found = {
        model: run("eval", "--model", model, "--dataset-path", str(place / "rows.json"), "--answers", "2")
        for model in ("tiny-llm", "tiny-llm-chat")
    }
    for done in found.values():
        assert done.returncode == 0, done.stderr
        assert "on 6 held-out conversations" in done.stdout
        assert done.stdout.count("\n  Q: ") == 2
    assert perplexity(found["tiny-llm-chat"].stdout) < perplexity(found["tiny-llm"].stdout) / 2


def test_it_talks_the_same_for_the_same_seed(run):
    said = "When opens shop 1?\n\nWhen opens shop 2?\n/quit\nnever asked\n"
    once, again, other = (run("chat", "--seed", seed, "--temperature", "2", said=said) for seed in "112")
    assert once.returncode == 0, once.stderr
    assert once.stdout.startswith("tiny-llm-chat:1: /quit or Ctrl-D ends\n> ")
    assert once.stdout == again.stdout
    assert once.stdout != other.stdout
    assert once.stdout.count("> ") >= 4


def test_a_message_that_is_too_long_does_not_end_it(run):
    done = run("chat", "--remember", said=f"{'long ' * 100}\n/new\nWhen opens shop 1?\n")
    assert done.returncode == 0
    assert done.stdout.startswith("tiny-llm-chat:1: /new begins anew, /quit or Ctrl-D ends\n> ")
    assert done.stderr == "this is longer than the model's context of 64 tokens\n"


def test_a_model_that_is_not_there(run):
    for command in ("chat", "eval"):
        done = run(command, "--model", "nobody")
        assert done.returncode == 1
        assert "`flask lab train` makes tiny-llm-chat" in done.stderr.splitlines()[-1]


def test_data_with_faults_ends_it_before_a_job(place, run):
    (place / "bad.json").write_text('[{"messages": 5}]')
    done = run("train", "--dataset-path", str(place / "bad.json"))
    assert done.returncode == 1
    assert "row 1: messages" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_the_demo(tmp_path):
    done = lab(tmp_path, "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert perplexity(done.stdout.partition("== 4.")[2]) < 1.5
    assert "published tiny-llm-small-chat:1" in done.stdout
    assert re.search(r"Done in \d+ seconds", done.stdout)
