"""LoRA by hand against PEFT: the same sums, the same gradients, the same files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from app.core.errors import Invalid
from app.implementations.by_hand.lora_linear import (
    ALL_LINEAR,
    LoraLinear,
    LoraOptions,
    add_lora,
    load_lora,
    lora_layers,
    merge_lora,
    save_lora,
    unmerge_lora,
)

IDS = torch.arange(24).reshape(2, 12) * 7 % 64
LABELS = IDS * 5 % 64
PEFTS_LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


def base_model(dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def pefts_model(**options: Any) -> Any:
    """With every matrix random: B of zeros would hide what A does."""
    chosen = {"r": 4, "lora_alpha": 8, "target_modules": ALL_LINEAR, "task_type": "CAUSAL_LM", **options}
    model = get_peft_model(base_model(), LoraConfig(**chosen))
    shake(model)
    return model.eval()


def shake(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for name, weight in sorted(model.named_parameters()):
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.3


def opened(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    model = base_model(dtype)
    load_lora(model, folder)
    return model


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


@pytest.mark.parametrize("targets", [ALL_LINEAR, ["q_proj", "down_proj"], ["model.layers.1.mlp.up_proj"]])
@pytest.mark.parametrize("rslora", [False, True])
def test_what_peft_saved_gives_pefts_logits_and_gradients(tmp_path: Path, targets: Any, rslora: bool) -> None:
    theirs = pefts_model(target_modules=targets, use_rslora=rslora)
    theirs.save_pretrained(tmp_path)
    ours = opened(tmp_path)
    assert not torch.allclose(logits(ours), logits(base_model()), atol=0.1)
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-5, rtol=1e-5)
    for model in (ours, theirs):
        model(IDS, labels=LABELS).loss.backward()
    gradients = {
        name.removeprefix("base_model.model.").replace(".default.weight", ""): weight.grad
        for name, weight in theirs.named_parameters()
        if weight.requires_grad
    }
    own = {name: weight.grad for name, weight in ours.named_parameters() if weight.requires_grad}
    assert own.keys() == gradients.keys()
    for name, gradient in own.items():
        assert gradient.abs().max() > 1e-4, name
        torch.testing.assert_close(gradient, gradients[name], atol=1e-5, rtol=1e-5)


def test_dropout_is_pefts(tmp_path: Path) -> None:
    theirs = pefts_model(lora_dropout=0.5)
    theirs.save_pretrained(tmp_path)
    ours = opened(tmp_path)
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-5, rtol=1e-5)
    drawn = []
    for model in (ours.train(), theirs.train()):
        torch.manual_seed(3)
        drawn.append(logits(model))
    torch.testing.assert_close(drawn[0], drawn[1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(drawn[0], logits(ours.eval()), atol=1e-2)


@pytest.mark.parametrize("rslora", [False, True])
def test_peft_opens_what_was_saved(tmp_path: Path, rslora: bool) -> None:
    ours = base_model()
    add_lora(ours, LoraOptions(4, 8.0, 0.1, rslora))
    shake(ours)
    save_lora(ours, tmp_path, "tiny")
    theirs = PeftModel.from_pretrained(base_model(), str(tmp_path))
    torch.testing.assert_close(logits(theirs), logits(ours), atol=1e-5, rtol=1e-5)
    assert theirs.peft_config["default"].base_model_name_or_path == "tiny"
    assert theirs.peft_config["default"].lora_dropout == 0.1


def test_the_adapter_begins_as_nothing_and_only_it_learns() -> None:
    model = base_model()
    before = logits(model)
    chosen = add_lora(model, LoraOptions(4, 8.0))
    assert logits(model).equal(before)
    learning = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert sorted(learning) == sorted(f"{name}.lora_{side}" for name in chosen for side in "AB")


def test_all_linear_is_what_peft_makes_of_it() -> None:
    ours, theirs = base_model(), pefts_model()
    chosen = add_lora(ours, LoraOptions(4, 8.0))
    assert sorted(chosen) == sorted(
        name.removeprefix("base_model.model.").removesuffix(".lora_A")
        for name, _ in theirs.named_modules()
        if name.endswith(".lora_A")
    )
    assert type(ours.lm_head) is nn.Linear


def test_a_model_that_is_no_transformers_has_no_head_to_spare() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    assert add_lora(model, LoraOptions(2, 2.0)) == ["0", "2"]


def test_equal_seeds_give_equal_adapters() -> None:
    def start(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return LoraLinear(nn.Linear(6, 5), LoraOptions(3, 3.0)).lora_A.detach()

    assert start(1).equal(start(1))
    assert not start(1).equal(start(2))


def test_merged_is_the_same_sum_and_unmerged_the_old_weights(tmp_path: Path) -> None:
    pefts_model().save_pretrained(tmp_path)
    model = opened(tmp_path)
    apart = logits(model)
    weights = {name: layer.base.weight.clone() for name, layer in lora_layers(model).items()}
    for _ in range(2):  # the second time changes nothing
        merge_lora(model)
        torch.testing.assert_close(logits(model), apart, atol=1e-5, rtol=1e-5)
    assert all(layer.merged for layer in lora_layers(model).values())
    for _ in range(2):
        unmerge_lora(model)
        assert logits(model).equal(apart)
    for name, layer in lora_layers(model).items():
        assert layer.base.weight.equal(weights[name])


def test_unmerging_is_exact_in_bf16(tmp_path: Path) -> None:
    pefts_model().save_pretrained(tmp_path)
    model = opened(tmp_path, torch.bfloat16)
    apart = logits(model)
    assert apart.dtype is torch.bfloat16
    merge_lora(model)
    assert not logits(model).equal(apart)
    unmerge_lora(model)
    assert logits(model).equal(apart)


def test_merging_a_tied_head_leaves_the_embedding_alone() -> None:
    model = base_model()
    add_lora(model, LoraOptions(2, 4.0), ["lm_head"])
    shake(model)
    apart, embedding = logits(model), model.model.embed_tokens.weight.clone()
    merge_lora(model)
    torch.testing.assert_close(logits(model), apart, atol=1e-5, rtol=1e-5)
    assert model.model.embed_tokens.weight.equal(embedding)
    unmerge_lora(model)
    assert model.lm_head.base.weight is model.model.embed_tokens.weight


def test_targets_that_are_not_there_are_all_named() -> None:
    model = base_model()
    with pytest.raises(Invalid, match="base model lacks") as caught:
        add_lora(model, LoraOptions(2, 4.0), ["q_proj", "embed_tokens", "query"])
    assert [fault.message.partition(";")[0] for fault in caught.value.faults] == ["embed_tokens", "query"]
    assert "known: down_proj, gate_proj" in caught.value.faults[0].message
    assert not lora_layers(model)


def test_adapters_do_not_nest() -> None:
    model = base_model()
    add_lora(model, LoraOptions(2, 4.0))
    with pytest.raises(ValueError, match="already"):
        add_lora(model, LoraOptions(2, 4.0))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "lora_only"}, "bias"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"modules_to_save": ["norm"]}, "modules_to_save"),
    ],
)
def test_what_is_more_than_plain_lora_is_refused_by_name(tmp_path: Path, options: Any, named: str) -> None:
    pefts_model(**options).save_pretrained(tmp_path)
    with pytest.raises(Invalid, match=rf"plain LoRA: it sets .*{named}"):
        load_lora(base_model(), tmp_path)


def test_files_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    pefts_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())

    def refused(**changes: Any) -> str:
        (tmp_path / "adapter_config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(Invalid) as caught:
            load_lora(base_model(), tmp_path)
        return caught.value.message

    assert "peft_type is IA3" in refused(peft_type="IA3")
    assert "(4, 32) does not fit, (5, 32) would" in refused(r=5)


@pytest.mark.parametrize(
    ("gone", "says"), [("lora_B", "q_proj has no B"), ("lora_A", "more than A and B")], ids=["no B", "no A"]
)
def test_half_a_pair_is_refused(tmp_path: Path, gone: str, says: str) -> None:
    from safetensors.torch import load_file, save_file

    pefts_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    del weights[f"{PEFTS_LAYER}.{gone}.weight"]
    save_file(weights, tmp_path / "adapter_model.safetensors")
    with pytest.raises(Invalid, match=says):
        load_lora(base_model(), tmp_path)
