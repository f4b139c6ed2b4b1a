"""Base models from a local folder into memory."""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging


def load_causal_lm(folder: Path, precision: torch.dtype, **options: Any) -> Any:
    """Frozen weights, from safetensors only; no code of the folder is run and no hub is asked.

    ``options`` are transformers' own (``attn_implementation``). Its bars and notices stay off the terminal.
    """
    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    # peft 0.21 asks transformers 5.23 for a property by its old name.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    model = AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=precision,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        **options,
    )
    return model.requires_grad_(False)
