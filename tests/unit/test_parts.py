"""A part is one file and one line: an objective, an adaptation, a data processor and a tracker of this test's own.

Each is written as its author would write it, a module with one class, and gets its line in the registry's table.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.bootstrap import build_runner
from app.core.entities.data_pipeline import PipelineConfig, pipeline_config
from app.core.entities.datasets import Conversation
from app.core.entities.engines import has_label_head, is_whole_model
from app.core.entities.forecasts import Forecast
from app.core.entities.models import BaseModelSpec
from app.core.entities.training_config import TrainingConfig, training_config
from app.core.errors import Invalid
from app.core.factories import ComponentFactory
from app.core.interfaces.components import Reporter, TrainerJob
from app.core.processors.pipeline import run_pipeline
from app.core.services.data.encoding import encode, objective_of
from app.core.services.jobs import forecasting, lineage
from app.core.services.jobs.tracking import chosen_trackers
from app.implementations.data import cuts
from app.implementations.data.tokenization import FolderChatTokenizer
from app.registries import ADAPTATIONS, BASE_MODEL_SOURCES, DATA_PROCESSORS, OBJECTIVES, TRACKERS

OBJECTIVE = '''
from __future__ import annotations

from typing import TYPE_CHECKING

from app.core.entities.datasets import TokenizedRow
from app.implementations.training.method import Objective

if TYPE_CHECKING:
    import torch


class Questions(Objective):
    """Every token of the question learns."""

    rows = frozenset({"a conversation"})
    wanted = "conversations that begin with a question"

    @staticmethod
    def encode(conversation, tokenizer, max_length):
        ids = tokenizer.encode_text(conversation.messages[0]["content"])[:max_length]
        return [TokenizedRow(0, ids, ids)]

    @classmethod
    def problems(cls, config):
        if config.reasoning == "drop":
            yield "reasoning: no question has a thought to drop, set it to keep"

    @staticmethod
    def weight(row):
        return row.supervised

    def __call__(self, batch) -> dict[str, torch.Tensor]:
        from app.implementations.training.objectives.token_losses import token_losses
        return {"loss": token_losses(self.model, batch, ()).sum()}
'''
ADAPTATION = """
from app.implementations.training.method import Adaptation


class NormsOnly(Adaptation):
    publishes = "model"
    resting_bytes = 1.5

    @classmethod
    def problems(cls, config):
        if config.seed == 13:
            yield "seed: norms take no 13"

    def prepare(self, model, base_model, start_from=None):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("norm" in name)
        return model

    def save(self, model, folder):
        model.save_pretrained(str(folder))
"""
PROCESSOR = """
from dataclasses import replace

from app.core.interfaces.components import DataProcessor


class Shout(DataProcessor):
    after = {"clean": "reads clean texts"}

    def process(self, rows, record, on_progress):
        def loud(message):
            return {**message, "content": message["content"].upper()}

        return [replace(row, messages=list(map(loud, row.messages))) for row in rows]
"""
TRACKER = """
from app.core.interfaces.components import Tracker


class LineTracker(Tracker):
    package, extra = "PACKAGE", "tracking"

    def start(self, job):
        self._file = (job.run_folder / "lines.txt").open("a")

    def log(self, step, figures):
        self._file.write(f"{step} {sorted(figures)[0]}\\n")

    def text(self, step, name, text):
        pass

    def finish(self, succeeded):
        self._file.write(f"succeeded: {succeeded}\\n")
        self._file.close()
"""
LINES: list[tuple[ComponentFactory[Any], str, str]] = [
    (OBJECTIVES, "questions", "own_objective:Questions"),
    (ADAPTATIONS, "norms", "own_adaptation:NormsOnly"),
    (DATA_PROCESSORS, "shout", "own_processor:Shout"),
    (TRACKERS, "lines", "own_tracker:LineTracker"),
]
CHAT = Conversation(3, [{"role": "user", "content": "When?"}, {"role": "assistant", "content": "At nine."}])
OWN = {"objective": "questions", "adaptation": "norms"}


@pytest.fixture(autouse=True)
def own_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "parts"
    folder.mkdir()
    sources = {"objective": OBJECTIVE, "adaptation": ADAPTATION, "processor": PROCESSOR, "tracker": TRACKER}
    for kind, source in sources.items():
        (folder / f"own_{kind}.py").write_text(source.replace("PACKAGE", "json"))
    monkeypatch.syspath_prepend(folder)
    for factory, name, target in LINES:
        monkeypatch.setattr(factory, "_table", {**factory._table, name: target})
    yield
    for kind in sources:
        sys.modules.pop(f"own_{kind}", None)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    BASE_MODEL_SOURCES.load("random")(BaseModelSpec("tiny", "random", "llama"), folder)
    return folder


def faults(**raw: object) -> str:
    with pytest.raises(Invalid) as refused:
        training_config(raw)
    return "; ".join(f"{fault.where}: {fault.message}" for fault in refused.value.faults)


def test_the_config_takes_them_and_says_which_there_are() -> None:
    config = training_config({**OWN, "report_to": ["lines"]})
    assert (config.objective, config.adaptation, config.report_to) == ("questions", "norms", ("lines",))
    assert TrainingConfig.model_validate(config.model_dump(mode="json")) == config
    assert "'dpo', 'pretrain', 'classification' or 'questions'" in faults(objective="question")
    assert "'qlora' or 'norms'" in faults(adaptation="norm")
    assert "'wandb' or 'lines'" in faults(report_to=["line"])
    assert "'augment' or 'shout'" in _pipeline_fault("whisper")


def test_the_json_schema_and_so_the_openapi_document_has_them() -> None:
    keys = TrainingConfig.model_json_schema()["properties"]
    assert "questions" in keys["objective"]["enum"]
    assert "norms" in keys["adaptation"]["enum"]
    assert "lines" in json.dumps(keys["report_to"])
    steps = PipelineConfig.model_json_schema()["properties"]["steps"]["items"]
    assert steps["enum"] == ["clean", "split", "augment", "shout"]


def test_their_rules_are_the_configs() -> None:
    assert "reasoning: no question has a thought" in faults(objective="questions", reasoning="drop")
    both = faults(**OWN, reasoning="drop", seed=13, use_dora=True)
    assert "lora.use_dora: not with adaptation: norms" in both
    assert "no question has a thought to drop, set it to keep; seed: norms take no 13" in both
    assert "shout reads clean texts, so clean has to come before it" in _pipeline_fault("shout")


def test_rows_are_encoded_or_refused_as_the_objective_says(base: Path) -> None:
    tokenizer, config = FolderChatTokenizer(base), TrainingConfig(objective="questions")
    (row,) = encode(CHAT, tokenizer, config)
    assert (row.row, row.input_ids) == (3, tokenizer.encode_text("When?"))
    assert objective_of(CHAT) == "sft"
    with pytest.raises(Invalid, match="is a plain text, and the objective questions trains on conversations that"):
        encode(Conversation(1, [], text="A text."), tokenizer, config)


def test_its_memory_is_forecast_and_it_is_suggested(base: Path) -> None:
    weights = 10**9
    found = Forecast(10**10, 1.0, 1, 1, 1, 1, 2 * 10**9 + forecasting.BASE_BYTES, 1.0, 1024)
    config = TrainingConfig(adaptation="lora", gradient_checkpointing=True, batch_size=1, max_length=16)
    available = int((forecasting.BASE_BYTES + 1.5 * weights + 10**6) / forecasting.ROOM)
    assert forecasting.suggest(config, found, available, weights) == {"adaptation": "norms"}
    rough = [forecasting.rough_bytes(TrainingConfig(adaptation=name), base, 64) for name in ("norms", "full")]
    assert rough[0] < rough[1]


def test_what_it_publishes_says_what_can_go_on_from_it_and_how_it_is_served() -> None:
    assert lineage._fits("full", "norms")
    assert not lineage._fits("lora", "norms")
    assert is_whole_model({"adaptation": "norms"})
    assert not has_label_head({"objective": "questions"})


def test_a_step_of_its_own_is_done_and_recorded() -> None:
    result = run_pipeline([CHAT], PipelineConfig(steps=("clean", "shout")))
    assert [message["content"] for message in result.rows[0].messages] == ["WHEN?", "AT NINE."]
    assert [step.name for step in result.steps] == ["convert", "clean", "shout"]


def test_a_tracker_that_is_not_installed_says_what_to_install(tmp_path: Path) -> None:
    config = TrainingConfig(report_to=["lines"])
    assert chosen_trackers(config) == ["lines"]
    TRACKERS.load("lines").package = "no_such_package"
    with pytest.raises(Invalid) as refused:
        chosen_trackers(config)
    assert "'.[tracking]'" in refused.value.faults[0].message


def test_to_read_what_the_parts_declare_loads_no_framework() -> None:
    code = (
        "import sys; from app.registries import ADAPTATIONS, DATA_PROCESSORS, OBJECTIVES, TRACKERS\n"
        "for parts in (ADAPTATIONS, DATA_PROCESSORS, OBJECTIVES, TRACKERS):\n"
        "    for name in parts: parts.load(name)\n"
        "heavy = {'torch', 'transformers', 'peft', 'numpy', 'mlflow', 'wandb'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_it_trains(base: Path, tmp_path: Path) -> None:
    dataset, run = tmp_path / "dataset", tmp_path / "run"
    dataset.mkdir()
    run.mkdir()
    for split, count in (("train", 4), ("validation", 2), ("test", 1)):
        cuts.write_split(dataset, split, [Conversation(row, CHAT.messages) for row in range(1, count + 1)])
    config = TrainingConfig(
        **OWN, base_model="tiny", num_epochs=1, batch_size=2, precision="fp32", device="cpu", report_to=["lines"]
    )
    job = TrainerJob("ftjob-own", 1, "torch", config, base, dataset, run, 1)
    metrics = build_runner("torch").run(job, _Quiet())["metrics"]
    assert metrics["train_loss"] > 0
    assert 0 < metrics["trainable_parameters"] < 10_000
    assert (run / "artifacts" / "model.safetensors").is_file()
    assert "succeeded: True" in (run / "lines.txt").read_text()


class _Quiet(Reporter):
    def message(self, text: str, level: str = "info") -> None: ...

    def metrics(self, step: int, total_steps: int, figures: Any) -> None:
        assert total_steps == 2

    def should_stop(self) -> bool:
        return False


def _pipeline_fault(step: str) -> str:
    with pytest.raises(Invalid) as refused:
        pipeline_config({"steps": [step]})
    return refused.value.faults[0].message
