"""Whole runs of each adaptation, and of its options, on the tiny random base model."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.bootstrap import build_runner
from app.core.entities.models import BaseModelSpec
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid
from app.core.interfaces.components import TrainerJob, TrainingStopped
from app.implementations.models.loading import CausalLoader, loader_for
from app.implementations.serving.adapter_files import check_adapter
from app.implementations.training import packed_attention
from app.implementations.training.adaptations.lora import count_parameters, trainable
from app.implementations.training.batches import pack
from app.implementations.training.objective_module import ObjectiveModule
from app.implementations.training.objectives.sft import SftObjective
from app.registries import ADAPTATIONS, BASE_MODEL_SOURCES
from tests.unit.implementations.training.test_runner import write_split

OPTIONS: dict[str, dict[str, Any]] = {
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "loraplus": {"loraplus_lr_ratio": 16.0},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    BASE_MODEL_SOURCES.load("random")(BaseModelSpec("tiny", "random", "qwen2"), folder)
    return folder


@pytest.fixture
def make_job(base: Path, tmp_path: Path) -> Callable[..., TrainerJob]:
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    for split, count in (("train", 12), ("validation", 4), ("test", 2)):
        write_split(dataset, split, count)

    def make(name: str = "run", start_from: Path | None = None, **config: Any) -> TrainerJob:
        run = tmp_path / name
        run.mkdir(exist_ok=True)
        settings = {"num_epochs": 2, "batch_size": 4, "warmup_steps": 0, "learning_rate": 5e-3, "r": 4, **config}
        whole = TrainingConfig(base_model="tiny", device="cpu", **{"precision": "fp32", **settings})
        return TrainerJob(f"ftjob-{name}", 1, "torch", whole, base, dataset, run, 1, start_from=start_from)

    return make


def run(job: TrainerJob, listener: Any) -> dict[str, Any]:
    return dict(build_runner("torch").run(job, listener)["metrics"])


def prepared(base: Path, start_from: Path | None = None, **config: Any) -> tuple[Any, nn.Module]:
    settings = TrainingConfig(device="cpu", **{"r": 4, **config})
    adaptation = ADAPTATIONS.create(settings.adaptation, config=settings)
    model = adaptation.load(
        loader_for(adaptation.quantised), base, torch.float32, attn_implementation=packed_attention.NAME
    )
    torch.manual_seed(0)
    return adaptation, adaptation.prepare(model, "tiny", start_from)


def sft(model: Any) -> SftObjective:
    return SftObjective(model, TrainingConfig())


def linear_shapes(base: Path) -> dict[str, tuple[int, int]]:
    model = CausalLoader().load(base, torch.float32)
    return {name: tuple(m.weight.shape) for name, m in model.named_modules() if isinstance(m, nn.Linear)}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("adaptation", ["lora", "qlora", "full"])
def test_the_loss_falls(make_job, listener, adaptation, precision):
    heard = listener()
    metrics = run(make_job(adaptation=adaptation, precision=precision), heard)
    assert heard.steps[-1]["loss"] < heard.steps[0]["loss"] - 0.1
    assert metrics["best_eval_loss"] < heard.steps[0]["loss"]


@pytest.mark.parametrize("adaptation", ["lora", "qlora"])
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_trains_and_the_engine_takes_what_it_published(make_job, listener, base, adaptation, option):
    plain, heard = listener(), listener()
    run(make_job("plain", adaptation=adaptation), plain)
    job = make_job(adaptation=adaptation, **OPTIONS[option])
    run(job, heard)

    assert heard.steps[-1]["loss"] < heard.steps[0]["loss"] - 0.1
    assert heard.steps[-1]["loss"] != plain.steps[-1]["loss"]
    assert len(check_adapter(job.run_folder / "artifacts", linear_shapes(base))) == 14
    opened = PeftModel.from_pretrained(CausalLoader().load(base, torch.float32), job.run_folder / "artifacts")
    assert count_parameters(opened)[1] > count_parameters(CausalLoader().load(base, torch.float32))[1]


def test_rslora_divides_by_the_root_of_the_rank(base):
    scaling = {
        option: next(m.scaling["default"] for m in model.modules() if isinstance(m, LoraLayer))
        for option in (False, True)
        for _, model in [prepared(base, lora_alpha=8, use_rslora=option)]
    }
    assert scaling == {False: 8 / 4, True: 8 / 2}


def test_dora_begins_as_the_base_model_and_learns_magnitudes(base, make_rows):
    batch = pack(make_rows(4))
    plain = sft(CausalLoader().load(base, torch.float32, attn_implementation="packed"))(batch)["loss"]
    _, model = prepared(base, use_dora=True)
    loss = sft(model)(batch)["loss"]
    loss.backward()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    magnitudes = [p for name, p in trainable(model).items() if "magnitude" in name]
    assert len(magnitudes) == 14
    assert all(p.grad.abs().sum() > 0 for p in magnitudes)


def test_loraplus_names_every_b_and_nothing_else(base):
    adaptation, model = prepared(base, loraplus_lr_ratio=16.0)
    factors = adaptation.rate_factors(trainable(model))
    assert set(factors.values()) == {16.0}
    assert set(factors) == {name for name, p in trainable(model).items() if p.shape[1] == 4}


# --- full ---


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_full_version_opens_as_a_model_in_the_precision_of_its_base(make_job, listener, base, tmp_path, stored):
    kept = tmp_path / "kept"
    AutoModelForCausalLM.from_pretrained(base, dtype=stored).save_pretrained(kept)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (kept / name).write_bytes((base / name).read_bytes())
    job = replace(make_job(adaptation="full", num_epochs=1), base_model_folder=kept)
    metrics = run(job, listener())

    artifacts = job.run_folder / "artifacts"
    assert json.loads((artifacts / "config.json").read_text())["dtype"] == str(stored).removeprefix("torch.")
    assert packed_attention.NAME not in (artifacts / "config.json").read_text()
    model = AutoModelForCausalLM.from_pretrained(artifacts)
    assert model.dtype is stored
    assert metrics["trainable_parameters"] == sum(p.numel() for p in model.parameters())
    before = AutoModelForCausalLM.from_pretrained(kept)
    changed = [not torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True)]
    assert all(changed)
    text = [{"role": "user", "content": "Open?"}]
    rendered = [
        AutoTokenizer.from_pretrained(f).apply_chat_template(text, tokenize=False) for f in (artifacts, kept)
    ]
    assert rendered[0] == rendered[1]


def test_full_gradients_are_those_of_transformers_own_loss(base, make_rows):
    rows = make_rows(5)
    _, model = prepared(base, adaptation="full")
    sft(model)(pack(rows))["loss"].backward()
    plain = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
    for row in rows:
        logits = plain(input_ids=torch.tensor([row.input_ids])).logits[0, :-1]
        cross_entropy(logits, torch.tensor(row.labels[1:]), reduction="sum").backward()
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4, msg=name)


# --- qlora ---


def test_qlora_computes_what_lora_does_over_the_dequantised_weights(base, make_rows):
    from bitsandbytes.functional import dequantize_4bit

    batch = pack(make_rows(5))
    _, quantised = prepared(base, adaptation="qlora")
    _, plain = prepared(base)
    weights = dict(quantised.named_parameters())
    for name, parameter in plain.named_parameters():
        ours = weights[name]
        state = getattr(ours, "quant_state", None)
        parameter.data = ours.data.clone() if state is None else dequantize_4bit(ours.data, state).float()
    for name, parameter in trainable(quantised).items():
        if "lora_B" in name:  # zero at first, which would hide A's gradient
            nn.init.normal_(parameter)
            dict(plain.named_parameters())[name].data = parameter.data.clone()
    losses = [sft(model)(batch)["loss"] for model in (quantised, plain)]
    for loss in losses:
        loss.backward()

    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    for name, parameter in trainable(plain).items():
        torch.testing.assert_close(weights[name].grad, parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_linear_layers_but_the_head_are_in_four_bits_with_quantised_constants(base):
    from bitsandbytes.nn import Linear4bit

    _, model = prepared(base, adaptation="qlora")
    four_bit = {name: m for name, m in model.named_modules() if isinstance(m, Linear4bit)}
    assert len(four_bit) == 14
    assert not any("lm_head" in name for name in four_bit)
    assert {(m.weight.quant_type, m.weight.quant_state.nested) for m in four_bit.values()} == {("nf4", True)}
    assert count_parameters(model) == count_parameters(prepared(base)[1])


def test_an_evaluation_leaves_qloras_gradients_as_they_are(base, make_rows):
    """bitsandbytes repacks weights at the first evaluation, on some CPUs, into a form without a gradient."""
    batch = pack(make_rows(5))
    _, model = prepared(base, adaptation="qlora")
    objective = ObjectiveModule(sft(model))

    def gradients() -> list[torch.Tensor]:
        objective.train().zero_grad()
        objective(batch)["loss"].backward()
        return [p.grad.clone() for p in trainable(model).values()]

    before = gradients()
    with torch.no_grad():
        objective.eval()(batch)
    assert any(gradient.abs().sum() > 0 for gradient in before)
    for first, second in zip(before, gradients(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("adaptation", ["qlora", "full"])
def test_a_run_that_was_stopped_ends_as_one_left_alone(make_job, listener, adaptation):
    whole, stopped = make_job("whole", adaptation=adaptation), make_job("stopped", adaptation=adaptation)
    losses = listener()
    run(whole, losses)
    first, second = listener(stop_at=4), listener()
    with pytest.raises(TrainingStopped):
        run(stopped, first)
    run(stopped, second)

    assert [e["loss"] for e in first.steps + second.steps] == [e["loss"] for e in losses.steps]
    weights = [sorted((job.run_folder / "artifacts").glob("*.safetensors"))[0] for job in (whole, stopped)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


# --- from_version ---


@pytest.mark.parametrize(
    ("before", "after"), [("lora", "lora"), ("lora", "qlora"), ("qlora", "lora"), ("full", "full")]
)
def test_training_goes_on_from_a_version(make_job, listener, before, after):
    first = make_job("first", adaptation=before)
    metrics = run(first, listener())
    heard = listener()
    run(make_job("second", first.run_folder / "artifacts", adaptation=after, learning_rate=1e-9), heard)

    near = {"rel": 1e-4} if before == after else {"rel": 0.05}  # 4 bits change the base model under the adapter
    assert heard.evaluations[0]["eval_loss"] == pytest.approx(metrics["eval_loss"], **near)


@pytest.mark.parametrize("adaptation", ["lora", "qlora"])
def test_a_run_begins_with_the_versions_adapter(make_job, listener, base, adaptation):
    job = make_job(adaptation=adaptation, use_dora=True)
    run(job, listener())
    kept = load_file(job.run_folder / "artifacts" / "adapter_model.safetensors")
    _, model = prepared(base, job.run_folder / "artifacts", adaptation=adaptation, use_dora=True)
    begun = {name.replace(".default", ""): p for name, p in trainable(model).items()}
    assert {name.removesuffix(".weight") for name in begun} == {name.removesuffix(".weight") for name in kept}
    for name, weight in kept.items():
        assert torch.equal(begun.get(name, begun.get(f"{name}.weight")), weight), name


def test_an_adapter_of_other_layers_is_refused(make_job, listener, base):
    job = make_job(target_modules=["q_proj"])
    run(job, listener())
    with pytest.raises(Invalid, match="from_version"):
        prepared(base, job.run_folder / "artifacts", target_modules=["v_proj"])
