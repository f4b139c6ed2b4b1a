"""Logits, losses and figures of a label head against transformers' own and against formulas written out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from app.bootstrap import build_runner
from app.core.entities.datasets import IGNORED, Conversation, TokenizedRow
from app.core.entities.models import BaseModelSpec
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import TrainerJob, TrainingStopped
from app.implementations.data.cuts import read_split, write_split
from app.implementations.data.encoder_tokenizer import ENCODERS
from app.implementations.models.loading import ClassifierLoader
from app.implementations.training import packed_attention
from app.implementations.training.adaptations.lora import LoraAdaptation, trainable
from app.implementations.training.batches import pack
from app.implementations.training.loop import TrainingLoop
from app.implementations.training.objectives.classification import ClassificationObjective, scores
from app.implementations.training.optimizer import MasterOptimizer
from app.implementations.training.strategies.single import SingleProcess
from app.registries import BASE_MODEL_SOURCES

LABELS = ("invoice", "returns", "shipping")
PRESETS = ("llama", "qwen2", "bert")
PACKED = {"attn_implementation": packed_attention.NAME}
SMALL: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
}
FAMILIES = {
    "bert": lambda: BertConfig(**SMALL),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=100, dim=32, hidden_dim=64, n_layers=2, n_heads=4, max_position_embeddings=64, pad_token_id=1
    ),
    "electra": lambda: ElectraConfig(**SMALL, embedding_size=16),
    "modernbert": lambda: ModernBertConfig(
        **SMALL, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3
    ),
    "roberta": lambda: RobertaConfig(**SMALL),
    "xlm-roberta": lambda: XLMRobertaConfig(**SMALL),
}


def labelled_rows(count: int, seed: int = 1) -> list[TokenizedRow]:
    """Rows of 4 to 12 tokens whose class is told by one of their tokens."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for row in range(1, count + 1):
        length = int(torch.randint(4, 13, (1,), generator=generator))
        ids = torch.randint(10, 90, (length,), generator=generator).tolist()
        ids[1] = 5 + row % len(LABELS)
        made.append(TokenizedRow(row, ids, [IGNORED] * length, class_id=row % len(LABELS)))
    return made


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    places = {preset: tmp_path_factory.mktemp(preset) for preset in PRESETS}
    for preset, place in places.items():
        BASE_MODEL_SOURCES.load("random")(BaseModelSpec("tiny", "random", preset), place)
    return places


def adapted(folder: Path, dtype: torch.dtype = torch.float32, dropout: float = 0.0, **options: Any) -> PeftModel:
    torch.manual_seed(0)
    model = ClassifierLoader(LABELS).load(folder, dtype, **options)
    model = LoraAdaptation(TrainingConfig(r=4, lora_dropout=dropout)).prepare(model, "tiny")
    for name, parameter in trainable(model).items():
        if "lora_B" in name:  # zero at first, which would hide A's gradient
            parameter.data.normal_(std=0.1)
    return model


@pytest.mark.parametrize("longest", [1024, 0], ids=["in blocks", "one by one"])
@pytest.mark.parametrize("preset", ["llama", "qwen2"])
def test_packed_logits_and_gradients_equal_transformers_own_one_row_at_a_time(
    bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch, preset: str, longest: int
) -> None:
    monkeypatch.setattr("app.implementations.training.kernels.attention.LONGEST", longest)
    rows = labelled_rows(6)
    packed, plain = adapted(bases[preset], **PACKED), adapted(bases[preset], attn_implementation="eager")
    objective = ClassificationObjective(packed, TrainingConfig())

    logits = objective.logits(pack(rows))
    expected = torch.cat([plain(input_ids=torch.tensor([row.input_ids])).logits for row in rows])
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)

    loss = objective(pack(rows))["loss"]
    wanted = cross_entropy(expected, torch.tensor([row.class_id for row in rows]), reduction="sum")
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    loss.backward()
    wanted.backward()
    reference = trainable(plain)
    assert any("score" in name for name in reference)
    for name, parameter in trainable(packed).items():
        error = (parameter.grad - reference[name].grad).norm() / reference[name].grad.norm()
        assert error < 1e-4, name


def test_every_encoder_family_is_tried() -> None:
    assert FAMILIES.keys() == ENCODERS


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_padded_logits_of_an_encoder_equal_those_of_a_row_alone(family: str, tmp_path: Path) -> None:
    """From a folder with the trunk alone: the head and all before it that is new are trained and saved."""
    torch.manual_seed(0)
    AutoModel.from_config(FAMILIES[family]()).save_pretrained(tmp_path / "base")
    rows = labelled_rows(6)
    model = adapted(tmp_path / "base").eval()
    with torch.no_grad():
        logits = ClassificationObjective(model, TrainingConfig()).logits(pack(rows))
        alone = torch.cat([model(input_ids=torch.tensor([row.input_ids])).logits for row in rows])
    torch.testing.assert_close(logits, alone, rtol=1e-5, atol=1e-5)

    LoraAdaptation(TrainingConfig()).save(model, tmp_path)
    torch.manual_seed(1)  # so that nothing new is drawn alike
    fresh = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=len(LABELS))
    opened = PeftModel.from_pretrained(fresh, tmp_path).eval()
    with torch.no_grad():
        again = torch.cat([opened(input_ids=torch.tensor([row.input_ids])).logits for row in rows])
    torch.testing.assert_close(again, alone, rtol=1e-5, atol=1e-5)


def test_only_what_the_base_model_lacks_is_new(bases: dict[str, Path]) -> None:
    llama = trainable(ClassifierLoader(LABELS).load(bases["llama"], torch.float32))
    bert = trainable(ClassifierLoader(LABELS).load(bases["bert"], torch.float32))
    assert llama.keys() == {"score.weight"}
    assert llama["score.weight"].shape == (3, 64)
    assert bert.keys() == {
        *("bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias")
    }


@pytest.mark.parametrize(
    ("confusion", "accuracy", "f1_of_each"),
    [
        ([[2, 0], [0, 2]], 1.0, [1.0, 1.0]),
        ([[0, 2], [2, 0]], 0.0, [0.0, 0.0]),
        # Of the first label: precision 3/5, recall 3/4; of the second 1/3 and 1/2; of the third 2/2 and 2/4.
        ([[3, 1, 0], [1, 1, 0], [1, 1, 2]], 0.6, [2 / 3, 0.4, 2 / 3]),
        # The majority's answer to all: what was never answered has no right one.
        ([[6, 0, 0], [2, 0, 0], [2, 0, 0]], 0.6, [0.75, 0.0, 0.0]),
        # The third label occurs neither in the rows nor in the answers, and is left out.
        ([[1, 1, 0], [0, 2, 0], [0, 0, 0]], 0.75, [2 / 3, 0.8]),
    ],
)
def test_figures_are_those_of_the_formulas(
    confusion: list[list[int]], accuracy: float, f1_of_each: list[float]
) -> None:
    figures = scores(torch.tensor(confusion))
    assert figures["accuracy"] == pytest.approx(accuracy)
    assert figures["macro_f1"] == pytest.approx(sum(f1_of_each) / len(f1_of_each))


def test_the_confusion_matrix_counts_rows_by_class_and_answer(bases: dict[str, Path]) -> None:
    rows = labelled_rows(9)
    objective = ClassificationObjective(adapted(bases["llama"], **PACKED), TrainingConfig())
    with torch.no_grad():
        sums = objective(pack(rows))
        answers = objective.logits(pack(rows)).argmax(-1).tolist()
    expected = torch.zeros(3, 3, dtype=torch.long)
    for row, answer in zip(rows, answers, strict=True):
        expected[row.class_id, answer] += 1

    assert torch.equal(sums["confusion"], expected)
    figures = objective.figures(sums, weight=9)
    assert figures.keys() == {"loss", "accuracy", "macro_f1"}
    assert figures["loss"] == pytest.approx(sums["loss"].item() / 9)
    assert [objective.weight(row) for row in rows] == [1] * 9


@pytest.fixture
def make_labelled_loop(bases: dict[str, Path], tmp_path: Path) -> Callable[..., TrainingLoop]:
    def make(
        listener: Any, preset: str, folder: str = "checkpoints", dtype: torch.dtype = torch.float32, **changes: Any
    ) -> TrainingLoop:
        config = TrainingConfig(
            **{"learning_rate": 1e-2, "warmup_steps": 2, "batch_size": 4, "num_epochs": 3, **changes}
        )
        model = adapted(bases[preset], dtype, dropout=0.2, **(PACKED if preset != "bert" else {}))
        objective = ClassificationObjective(model, TrainingConfig())
        strategy, device = SingleProcess(), torch.device("cpu")
        optimizer = MasterOptimizer(trainable(model), config.weight_decay)
        rows, held_out = labelled_rows(10), labelled_rows(6, seed=2)
        return TrainingLoop(
            *(config, objective, strategy.wrap(objective, device), optimizer, strategy, device),
            *(rows, held_out, tmp_path / folder, listener),
        )

    return make


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stop_at", [1, 3, 5])
@pytest.mark.parametrize("preset", ["llama", "bert"])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(make_labelled_loop, listener, preset, stop_at, dtype):
    """In the middle of an epoch and at its edge (three steps an epoch), dropout and the head included."""
    whole = make_labelled_loop(listener(), preset, dtype=dtype)
    whole.run()
    with pytest.raises(TrainingStopped):
        make_labelled_loop(listener(stop_at), preset, folder="parts", dtype=dtype).run()
    resumed = make_labelled_loop(listener(), preset, folder="parts", dtype=dtype)
    resumed.run()

    assert resumed.report.steps[0]["step"] == stop_at + 1
    assert [e["loss"] for e in resumed.report.steps] == [e["loss"] for e in whole.report.steps[stop_at:]]
    assert any("score" in name or "classifier" in name for name in whole.optimizer.masters)
    for name, master in whole.optimizer.masters.items():
        assert torch.equal(resumed.optimizer.masters[name], master), name


def test_accumulation_gives_the_gradient_of_one_large_batch(make_labelled_loop, listener):
    one, four = listener(), listener()
    for heard, options in ((one, {"batch_size": 8}), (four, {"batch_size": 2, "gradient_accumulation_steps": 4})):
        loop = make_labelled_loop(heard, "llama", folder=str(options), num_epochs=1, **options)
        for module in loop.wrapped.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        loop.run()

    for figure in ("loss", "accuracy", "macro_f1", "grad_norm"):
        assert one.steps[0][figure] == pytest.approx(four.steps[0][figure], rel=1e-4)


@pytest.fixture(params=["llama", "bert"])
def job(request: pytest.FixtureRequest, bases: dict[str, Path], tmp_path: Path) -> TrainerJob:
    for folder in ("dataset", "run"):
        (tmp_path / folder).mkdir()
    texts = {
        "shipping": "Was order {} shipped on Monday?",
        "invoice": "Your invoice {} for payment.",
        "returns": "May I return item {}?",
    }
    for split, count in (("train", 60), ("validation", 9), ("test", 3)):
        rows = [
            Conversation(place, [], text=texts[LABELS[place % 3]].format(place), label=LABELS[place % 3])
            for place in range(1, count + 1)
        ]
        write_split(tmp_path / "dataset", split, rows)
    config = TrainingConfig(
        base_model="tiny",
        objective="classification",
        num_epochs=10,
        batch_size=4,
        learning_rate=1e-3,
        precision="fp32",
        device="cpu",
    )
    folders = (bases[request.param], tmp_path / "dataset", tmp_path / "run")
    return TrainerJob("ftjob-1", 1, "torch", config, *folders, threads=1)


def test_a_run_learns_and_plain_transformers_opens_what_it_leaves(job: TrainerJob, listener: Any) -> None:
    heard = listener()
    metrics = build_runner("torch").run(job, heard)["metrics"]

    assert metrics["eval_accuracy"] == metrics["eval_macro_f1"] == 1.0
    assert metrics["perplexity"] is None
    assert metrics["trained_tokens"] == 10 * 60  # a row has one target
    assert heard.steps[0]["accuracy"] < 1

    artifacts = job.run_folder / "artifacts"
    config = AutoConfig.from_pretrained(artifacts)
    assert config.id2label == dict(enumerate(LABELS))
    assert config.architectures[0].endswith("ForSequenceClassification")
    torch.manual_seed(99)  # the new head of the opened base is another
    base = AutoModelForSequenceClassification.from_pretrained(job.base_model_folder, config=config)
    model = PeftModel.from_pretrained(base, artifacts).eval()
    tokenizer = AutoTokenizer.from_pretrained(artifacts)
    texts = {row.text: row.label for row in read_split(job.dataset_folder, "validation")}
    loss = 0.0
    for text, label in texts.items():
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits
        assert model.config.id2label[int(logits.argmax())] == label
        loss += cross_entropy(logits, torch.tensor([LABELS.index(label)])).item()
    assert loss / len(texts) == pytest.approx(metrics["eval_loss"], rel=1e-4)


def test_two_runs_are_equal_bit_for_bit(job: TrainerJob, listener: Any) -> None:
    job = replace(job, config=job.config.with_changes(num_epochs=1))
    adapter = job.run_folder / "artifacts" / "adapter_model.safetensors"
    build_runner("torch").run(job, listener())
    first = adapter.read_bytes()
    build_runner("torch").run(replace(job, job_id="another"), listener())
    assert adapter.read_bytes() == first
