"""Linear layers in 4 bits by bitsandbytes (QLoRA, https://arxiv.org/abs/2305.14314)."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import BitsAndBytesConfig


def nf4_options(precision: torch.dtype, device: torch.device) -> Mapping[str, Any]:
    """For the loading of a base model: its linear layers but the head become NF4, and the constants of that are
    quantised once more. Products are computed in ``precision``.

    Quantised where it will compute: layer by layer, so that the whole is never there unquantised.
    """
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=precision,
    )
    return {"quantization_config": quantization, "device_map": {"": device}}
