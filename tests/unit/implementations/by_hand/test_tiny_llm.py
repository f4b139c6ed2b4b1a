"""The model by hand against transformers' Llama: the same files, logits, gradients and answers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from app.core.errors import Invalid
from app.implementations.by_hand.tiny_llm import KVCache, TinyLLM, TinyLLMConfig, generate

IDS = torch.arange(2 * 17).reshape(2, 17) * 7 % 61
STOP = 60


def sizes(**changes: Any) -> TinyLLMConfig:
    small = {"hidden_size": 48, "layers": 3, "heads": 4, "kv_heads": 2, "vocab_size": 61, "context": 64}
    return TinyLLMConfig(**{**small, **changes})


def tiny(**changes: Any) -> TinyLLM:
    """With weights so large that answers vary: at the usual scale a random model repeats one token."""
    torch.manual_seed(0)
    model = TinyLLM(sizes(**changes))
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.data *= 10
    return model.eval()


def greedy(logits: torch.Tensor) -> int:
    return int(logits.argmax())


def test_the_default_sizes() -> None:
    config = TinyLLMConfig()
    assert (config.hidden_size, config.layers, config.heads, config.kv_heads) == (512, 6, 8, 8)
    assert config.intermediate_size == 1376
    with torch.device("meta"):
        assert sum(weight.numel() for weight in TinyLLM(config).parameters()) == 21_076_480


@pytest.mark.parametrize(
    "changes",
    [{}, {"kv_heads": 4}, {"kv_heads": 1}, {"tied": False}, {"rope_theta": 500.0, "norm_eps": 1e-3}],
    ids=["grouped", "every head its own", "one for all", "a head of its own", "other constants"],
)
def test_transformers_opens_what_was_saved_with_equal_logits(tmp_path: Path, changes: Any) -> None:
    ours = tiny(**changes)
    ours.save(tmp_path, eos_token_id=STOP)
    theirs, report = LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert theirs.generation_config.eos_token_id == theirs.config.eos_token_id == STOP
    torch.testing.assert_close(ours(IDS), theirs(IDS).logits, atol=1e-5, rtol=1e-5)
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path)) is LlamaForCausalLM


def test_gradients_are_transformers(tmp_path: Path) -> None:
    ours = tiny()
    ours.save(tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path)
    for logits in (ours(IDS), theirs(IDS).logits):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
    expected = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        error = (weight.grad - expected[name].grad).norm() / expected[name].grad.norm()
        assert error < 1e-5, name


@pytest.mark.parametrize("tied", [True, False])
def test_it_opens_what_transformers_saved(tmp_path: Path, tied: bool) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=3,
        vocab_size=61,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        rope_parameters={"rope_type": "default", "rope_theta": 777.0},
    )
    theirs = LlamaForCausalLM(config)
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    torch.testing.assert_close(TinyLLM.load(tmp_path)(IDS), theirs(IDS).logits, atol=1e-5, rtol=1e-5)


def test_bf16_weights_open_in_float32(tmp_path: Path) -> None:
    tiny().save(tmp_path)
    LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).save_pretrained(tmp_path)
    logits = TinyLLM.load(tmp_path)(IDS)
    assert logits.dtype is torch.float32
    torch.testing.assert_close(
        logits, LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)(IDS).logits, atol=1e-5, rtol=1e-5
    )


def test_a_config_from_before_transformers_5_keeps_its_theta(tmp_path: Path) -> None:
    tiny(rope_theta=777.0).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert TinyLLM.load(tmp_path).config.rope_theta == 777.0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "qwen2"}, "model_type"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"head_dim": 32}, "head_dim"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}}, "rope_parameters"),
    ],
)
def test_other_architectures_are_refused_by_what_differs(tmp_path: Path, changes: Any, named: str) -> None:
    tiny().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(Invalid, match=f"differs in {named}"):
        TinyLLM.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_size": 50}, "multiple of 2 × heads"),
        ({"hidden_size": 36, "heads": 4}, "multiple of 2 × heads"),
        ({"kv_heads": 3}, "multiple of kv_heads"),
        ({"layers": 0}, "layers"),
        ({"depth": 3}, "depth"),
    ],
)
def test_sizes_that_do_not_fit_each_other(changes: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        sizes(**changes)


def test_no_position_sees_a_later_one() -> None:
    model, changed = tiny(), IDS.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 61
    before, after = model(IDS), model(changed)
    assert before[:, :9].equal(after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:], atol=0.1)


@pytest.mark.parametrize("parts", [[17], [1] * 17, [9, 1, 7]], ids=["whole", "one by one", "in parts"])
def test_a_cache_changes_nothing(parts: list[int]) -> None:
    model = tiny()
    cache = KVCache(model.config, 17, batch=2)
    with torch.no_grad():
        found = torch.cat([model(part, cache) for part in IDS.split(parts, dim=1)], dim=1)
        torch.testing.assert_close(found, model(IDS), atol=1e-5, rtol=1e-5)
    assert cache.length == 17


def test_cached_generation_is_uncached_generation_is_transformers(tmp_path: Path) -> None:
    model = tiny(tied=False)  # tied embeddings of random weights answer a token with itself
    model.save(tmp_path)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path)
    for prompt in ([5], [1, 2, 3, 4], IDS[1].tolist()):
        made = [list(generate(model, prompt, greedy, max_tokens=30, use_cache=cached)) for cached in (True, False)]
        expected = theirs.generate(torch.tensor([prompt]), max_new_tokens=30, do_sample=False, pad_token_id=0)
        assert made[0] == made[1] == expected[0, len(prompt) :].tolist()
        assert len(set(made[0])) > 3


def test_generation_ends_at_a_stop_and_at_the_end_of_the_context() -> None:
    model = tiny(tied=False)
    whole = list(generate(model, [5], greedy, max_tokens=1000))
    assert len(whole) == 63
    stop = whole[10]
    assert list(generate(model, [5], greedy, max_tokens=1000, stop_ids=[stop])) == whole[: whole.index(stop)]
    assert list(generate(model, [5], greedy, max_tokens=7)) == whole[:7]
    assert list(generate(model, [5] * 64, greedy, max_tokens=7)) == []


def test_more_than_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="65 tokens are more than the model's context of 64"):
        tiny()(torch.zeros(1, 65, dtype=torch.long))
