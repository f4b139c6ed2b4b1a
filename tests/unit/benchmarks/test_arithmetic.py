"""What the figures are made of."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from benchmarks.arithmetic import Product, Spread, bound, markdown_table, ratios, shown, spread, step_products

SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


@pytest.mark.parametrize(
    ("config", "model"),
    [(LlamaConfig(**SIZES, head_dim=16), LlamaForCausalLM), (Qwen2Config(**SIZES), Qwen2ForCausalLM)],
    ids=["llama", "qwen2"],
)
def test_a_steps_products_are_the_models_linear_layers(config: Any, model: Any) -> None:
    linear = {name: m for name, m in model(config).named_modules() if isinstance(m, torch.nn.Linear)}
    head = linear.pop("lm_head").weight.numel()
    trunk = sum(layer.weight.numel() for layer in linear.values())

    products = step_products(config.to_dict(), tokens=10, supervised=4)

    assert sum(product.flop for product in products) == 4 * 10 * trunk + 4 * 4 * head
    assert sum(product.count for product in products) == len(linear) + 1


def test_the_bound_is_the_products_time_and_no_more() -> None:
    products = [Product(rows=10, inputs=5, outputs=20, count=2), Product(rows=5, inputs=5, outputs=10, count=1)]
    flop = 4 * 10 * 5 * 20 * 2 + 4 * 5 * 5 * 10
    assert bound(products, tokens=10, flop_per_second=flop / 2) == pytest.approx(5)


def test_a_spread_is_the_middle_and_the_range() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([3.0, 1.0]).scaled(10) == Spread(20.0, 10.0, 30.0)
    with pytest.raises(ValueError, match="no median"):
        spread([])


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([400, 300, 100], [100, 100, 50]) == Spread(3.0, 2.0, 4.0)
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


def test_a_spread_is_shown_with_its_range() -> None:
    assert shown(Spread(1234.4, 1000, 2000.6)) == "1,234 (1,000–2,001)"
    assert shown(Spread(2.5, 2.25, 3.0), 2) == "2.50 (2.25–3.00)"


def test_a_table_is_markdown_and_lines_up() -> None:
    assert markdown_table(["trainer", "s"], [["ours", "1,000"], ["another one", "2"]]).splitlines() == [
        "| trainer     |     s |",
        "| ----------- | ----: |",
        "| ours        | 1,000 |",
        "| another one |     2 |",
    ]
