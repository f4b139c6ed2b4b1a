"""The adaptation by hand, from start to published files."""

import json

import pytest
import torch

from app.core.entities.training_config import LoraSettings, TrainingConfig
from app.core.errors import Invalid
from app.implementations.by_hand.lora_linear import LoraOptions
from app.implementations.training.adaptations.lora import LoraAdaptation, trainable
from app.implementations.training.adaptations.lora_linear import LoraLinearAdaptation
from app.implementations.training.batches import pack
from app.implementations.training.objectives.sft import SftObjective


def config(**lora):
    return TrainingConfig(base_model="tiny", lora=LoraSettings(**{"r": 4, "lora_alpha": 8, **lora}))


def shake(model):
    torch.manual_seed(3)
    for _, weight in sorted(trainable(model).items()):
        weight.data.normal_()


def test_the_objective_sees_through_it_as_through_pefts(make_model, make_rows, tmp_path):
    adaptation = LoraLinearAdaptation(config())
    by_hand = adaptation.prepare(make_model(), "tiny")
    shake(by_hand)
    adaptation.save(by_hand, tmp_path)
    by_peft = LoraAdaptation(config()).prepare(make_model(), "tiny")
    by_peft.load_adapter(str(tmp_path), "default", is_trainable=True)
    batch = pack(make_rows(6))
    losses = [SftObjective(model, config())(batch)["loss"] for model in (by_hand, by_peft)]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    theirs = {
        name.removeprefix("base_model.model.").replace(".default.weight", ""): weight
        for name, weight in trainable(by_peft).items()
    }
    ours = trainable(by_hand)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        error = (weight.grad - theirs[name].grad).norm() / theirs[name].grad.norm()
        assert error < 1e-5, name


def test_it_starts_from_a_version(make_model, make_rows, tmp_path):
    adaptation = LoraLinearAdaptation(config())
    first = adaptation.prepare(make_model(), "tiny")
    shake(first)
    adaptation.save(first, tmp_path)
    again = LoraLinearAdaptation(config()).prepare(make_model(dtype=torch.bfloat16), "tiny", tmp_path)
    batch = pack(make_rows(3))
    losses = [SftObjective(model, config())(batch)["loss"].item() for model in (first, again)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert {weight.dtype for weight in trainable(again).values()} == {torch.bfloat16}
    assert trainable(again).keys() == trainable(first).keys()


def test_a_version_with_other_layers_is_refused(make_model, tmp_path):
    adaptation = LoraLinearAdaptation(config(target_modules=("q_proj",)))
    adaptation.save(adaptation.prepare(make_model(), "tiny"), tmp_path)
    with pytest.raises(Invalid, match="one of the two only"):
        LoraLinearAdaptation(config()).prepare(make_model(), "tiny", tmp_path)


def test_options_reach_the_layers(make_model):
    adaptation = LoraLinearAdaptation(config(use_rslora=True, lora_dropout=0.25, loraplus_lr_ratio=8))
    model = adaptation.prepare(make_model(), "tiny")
    layer = model.get_submodule("model.layers.0.mlp.up_proj")
    assert layer.options == LoraOptions(4, 8, dropout=0.25, rslora=True)
    factors = adaptation.rate_factors(trainable(model))
    assert set(factors.values()) == {8}
    assert sorted(factors) == sorted(name for name in trainable(model) if name.endswith("lora_B"))


def test_the_base_model_is_noted_by_its_name(make_model, tmp_path):
    adaptation = LoraLinearAdaptation(config())
    adaptation.save(adaptation.prepare(make_model(), "tiny"), tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"


def test_layers_that_the_model_lacks_are_named(make_model):
    with pytest.raises(Invalid) as raised:
        LoraLinearAdaptation(config(target_modules=("q_proj", "query"))).prepare(make_model(), "tiny")
    assert [fault.where for fault in raised.value.faults] == ["config.lora.target_modules"]
