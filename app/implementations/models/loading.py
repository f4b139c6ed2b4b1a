"""Models from a local folder into memory, in the ways that transformers has: by name in ``MODEL_LOADERS``."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from app.core.factories import MODEL_LOADERS
from app.core.interfaces.components import ModelLoader
from app.implementations.models.lean_peft import PeftModel, show_bitsandbytes
from app.implementations.models.nf4 import nf4_options


def loader_for(quantised: bool, labels: Sequence[str] = (), device: torch.device | None = None) -> ModelLoader:
    """Choose the loader: of quantised weights, else of a head for ``labels``, else of a model that writes."""
    name = "quantised" if quantised else "classifier" if labels else "causal"
    return MODEL_LOADERS.create(name, labels=labels, device=device)


class CausalLoader(ModelLoader):
    """Loads a model that writes text."""

    def load(self, folder: Path, precision: Any, adapter: Path | None = None, **options: Any) -> Any:
        model = _load(AutoModelForCausalLM, folder, precision, **options)
        return _adapted(model.requires_grad_(False), adapter)


class ClassifierLoader(ModelLoader):
    """Loads a model with a label head.

    Whatever the folder lacks is drawn from torch's random state: the head, and the pooler of most encoders.
    """

    def load(self, folder: Path, precision: Any, adapter: Path | None = None, **options: Any) -> Any:
        options |= {"id2label": dict(enumerate(self.labels)), "output_loading_info": True}
        options["label2id"] = {label: place for place, label in options["id2label"].items()}
        model, found = _load(AutoModelForSequenceClassification, folder, precision, **options)
        model.config.architectures = [type(model).__name__]  # what a version's config.json says
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in found["missing_keys"])
        return _adapted(model, adapter)


class QuantisedLoader(ModelLoader):
    """Loads a model, with a label head where there are labels, whose linear layers but the head become NF4."""

    def load(self, folder: Path, precision: Any, adapter: Path | None = None, **options: Any) -> Any:
        show_bitsandbytes()
        options |= nf4_options(precision, self.device or torch.device("cpu"))
        return loader_for(False, self.labels).load(folder, precision, adapter, **options)


def _load(kind: Any, folder: Path, precision: torch.dtype, **options: Any) -> Any:
    """From safetensors only. transformers' bars and notices stay off the terminal."""
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


def _adapted(model: Any, adapter: Path | None) -> Any:
    """Not merged: in bf16 the sum would round the update, and what is trained is not merged either."""
    if adapter is None:
        return model
    return PeftModel.from_pretrained(model, str(adapter), local_files_only=True, autocast_adapter_dtype=False)
