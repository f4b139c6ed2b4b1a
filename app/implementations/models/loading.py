"""Base models from a local folder into memory."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging


def load_causal_lm(folder: Path, precision: torch.dtype, **options: Any) -> Any:
    """Frozen weights, from safetensors only; no code of the folder is run and no hub is asked.

    ``options`` are transformers' own (``attn_implementation``). Its bars and notices stay off the terminal.
    """
    return _load(AutoModelForCausalLM, folder, precision, options).requires_grad_(False)


def load_classifier(folder: Path, precision: torch.dtype, labels: Sequence[str], **options: Any) -> Any:
    """As ``load_causal_lm``, with a head for ``labels`` drawn from torch's random state.

    Whatever the folder lacks is new (the head, and the pooler of most encoders): it alone requires a gradient.
    """
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: place for place, label in enumerate(labels)}}
    model, found = _load(
        AutoModelForSequenceClassification, folder, precision, {**options, **names, "output_loading_info": True}
    )
    model.config.architectures = [type(model).__name__]  # a version's config.json says so, and names the labels
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in found["missing_keys"])
    return model


def load_base_model(folder: Path, precision: torch.dtype, labels: Sequence[str] = (), **options: Any) -> Any:
    """With a label head where there are labels."""
    if labels:
        return load_classifier(folder, precision, labels, **options)
    return load_causal_lm(folder, precision, **options)


def _load(kind: Any, folder: Path, precision: torch.dtype, options: Mapping[str, Any]) -> Any:
    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    # peft 0.21 asks transformers 5.23 for a property by its old name.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    return kind.from_pretrained(
        str(folder),
        dtype=precision,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        **options,
    )
