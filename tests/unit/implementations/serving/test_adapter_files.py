"""Which folders are refused as adapters, and with what reason."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.implementations.serving.adapter_files import AdapterRefused, check_adapter

LINEAR = {"model.layers.0.self_attn.q_proj": (64, 32), "lm_head": (512, 64)}
Q = "base_model.model.model.layers.0.self_attn.q_proj"
SHAPES = {f"{Q}.lora_A.weight": [4, 32], f"{Q}.lora_B.weight": [64, 4]}
CONFIG = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}


def write(folder: Path, config: Any = CONFIG, shapes: dict[str, list[int]] = SHAPES) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    header = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder


def test_a_sound_adapter_names_its_layers(tmp_path: Path) -> None:
    assert check_adapter(write(tmp_path), LINEAR) == ["model.layers.0.self_attn.q_proj"]


def test_a_dora_adapter_is_sound(tmp_path: Path) -> None:
    shapes = {**SHAPES, f"{Q}.lora_magnitude_vector": [64]}
    assert check_adapter(write(tmp_path, {**CONFIG, "use_dora": True}, shapes), LINEAR)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'"),
        ({"r": 0}, "r is not"),
        ({"r": "4"}, "r is not"),
        ({"lora_alpha": None}, "lora_alpha is not"),
        ({"bias": "all"}, "bias is trained"),
        ({"init_lora_weights": "pissa"}, "changes the base model"),
        ({"modules_to_save": ["lm_head"]}, "merged: modules_to_save"),
        ({"trainable_token_indices": [3], "layer_replication": [[0, 1]]}, "layer_replication, trainable_token"),
    ],
)
def test_a_config_that_cannot_be_served(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        check_adapter(write(tmp_path, {**CONFIG, **changes}), LINEAR)


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({}, "holds no LoRA matrices"),
        ({f"{Q}.lora_A.weight": [4, 32]}, "needs lora_A and lora_B"),
        ({**SHAPES, f"{Q}.lora_B.weight": [64, 5]}, "of one rank"),
        ({**SHAPES, f"{Q}.lora_B.weight": [65, 4]}, r"shape \[65, 4\], but the base model's layer needs 64"),
        ({**SHAPES, f"{Q}.lora_A.weight": [4]}, "needs 32"),
        ({Q.replace("0", "1") + ".lora_A.weight": [4, 32]}, "no linear layer 'model.layers.1"),
        ({**SHAPES, "base_model.model.lm_head.weight": [512, 64]}, "not of a LoRA"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, shapes: dict[str, list[int]], reason: str) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        check_adapter(write(tmp_path, shapes=shapes), LINEAR)


def test_files_that_are_missing_or_of_another_format(tmp_path: Path) -> None:
    with pytest.raises(AdapterRefused, match=r"^adapter_config.json cannot be read$"):
        check_adapter(tmp_path / "nowhere", LINEAR)
    weights = write(tmp_path) / "adapter_model.safetensors"
    weights.rename(tmp_path / "adapter_model.bin")
    with pytest.raises(AdapterRefused, match=r"^adapter_model.safetensors cannot be read$"):
        check_adapter(tmp_path, LINEAR)
    (tmp_path / "adapter_config.json").write_text("[" * 100_000)
    with pytest.raises(AdapterRefused, match="is not JSON"):
        check_adapter(tmp_path, LINEAR)


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_are_refused_and_not_more(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = write(tmp_path_factory.mktemp("adapter"))
    (folder / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(AdapterRefused):
        check_adapter(folder, LINEAR)
