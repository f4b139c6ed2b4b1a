"""What a run says that it trained on is what the ledger said before, and the run tokenizes nothing anew."""

from pathlib import Path
from typing import Any

import pytest

from app.bootstrap import build_runner
from app.core.entities.models import BaseModelSpec
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import ChatTokenizer, TrainerJob
from app.core.interfaces.stores import Stores
from app.core.services.jobs.preflight import check_job
from app.implementations.data.encoder_tokenizer import EncoderTokenizer, load_tokenizer
from app.implementations.data.store import FileDatasetStore
from app.implementations.data.token_cache import FileTokenCache
from app.implementations.data.tokenization import FolderChatTokenizer
from app.registries import BASE_MODEL_SOURCES, DATA_FORMATS

RAW = Path(__file__).parents[4] / "data" / "raw"
EPOCHS = 2
JOBS = [
    ("llama", {"objective": "sft", "dataset_path": "sample_data.json", "max_length": 100}),
    ("qwen2", {"objective": "sft", "dataset_path": "sample_data.json", "max_length": 128}),
    ("llama", {"objective": "dpo", "dataset_path": "sample_preferences.json"}),
    ("qwen2", {"objective": "pretrain", "dataset_path": "sample_data.json", "max_length": 32}),
    ("llama", {"objective": "classification", "dataset_path": "sample_tickets.json"}),
    ("bert", {"objective": "classification", "dataset_path": "sample_tickets.json", "max_length": 24}),
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for preset in ("llama", "qwen2", "bert"):
        found[preset] = tmp_path_factory.mktemp(preset) / "base"
        found[preset].mkdir()
        BASE_MODEL_SOURCES.load("random")(BaseModelSpec("tiny", "random", preset), found[preset])
    return found


class OneBase:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folder(self, name: str) -> Path:
        return self._folder

    def tokenizer(self, name: str) -> ChatTokenizer:
        return load_tokenizer(self._folder)


def refuse(*arguments: Any) -> Any:
    raise AssertionError("tokenized anew")


@pytest.mark.parametrize(("preset", "keys"), JOBS, ids=[f"{keys['objective']}-{preset}" for preset, keys in JOBS])
def test_trained_tokens_are_the_ledgers_times_the_passes(bases, listener, tmp_path, monkeypatch, preset, keys):
    store = FileDatasetStore(tmp_path, [DATA_FORMATS.create(name) for name in DATA_FORMATS.names()], 10**7)
    path = str(RAW / keys["dataset_path"])
    config = TrainingConfig.model_validate(
        {
            **keys,
            "dataset_path": path,
            "base_model": "tiny",
            "num_epochs": EPOCHS,
            "train_samples": 40,
            "precision": "fp32",
            "device": "cpu",
            "sample_prompts": [],
            "report_to": "none",
        }
    )
    base: Any = OneBase(bases[preset])
    digest = store.check(path, trusted=True).digest
    prepared = store.prepare(path, digest, config.seed, trusted=True)
    nowhere: Any = None  # what a check does not ask
    stores = Stores(nowhere, base, store, nowhere, FileTokenCache())
    check = check_job(config, prepared, stores, go_on=lambda: True)
    assert check is not None
    train = check.ledger.splits["train"]
    assert train.rows > 40
    assert train.tokens.dropped > 0

    for kind in (FolderChatTokenizer, EncoderTokenizer):
        for method in ("encode_training", "encode_text", "encode_plain"):
            monkeypatch.setattr(kind, method, refuse)
    run = tmp_path / "run"
    run.mkdir()
    job = TrainerJob("ftjob-1", 1, "torch", config, bases[preset], Path(prepared.folder), run, threads=1)
    metrics = build_runner("torch").run(job, listener())["metrics"]
    assert metrics["trained_tokens"] == EPOCHS * train.tokens.trained

    assert check_job(config, prepared, stores, go_on=lambda: True) == check
