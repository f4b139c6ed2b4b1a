"""What a trainer does before it knows its job."""

import gc
import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from app.core.errors import AppError
from app.implementations.data.encoder_tokenizer import load_tokenizer

# What most jobs import in their course: the models of the house, PEFT's second half, a tracker, the rows' reader.
# The loading comes first: it imports PEFT without bitsandbytes.
LATE_IMPORTS = (
    "app.implementations.models.loading",
    "datasets",
    "peft.utils.transformers_weight_conversion",
    "torch.utils.tensorboard",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
    "app.implementations.training.objectives.sft",
    "app.implementations.training.objectives.token_losses",
    "app.implementations.training.strategies.single",
)


def prepare(base_model_folder: Path | None) -> None:
    """Imports; of the base model the tokenizer, and the weights in the system's cache of files, where they take no
    memory of this process."""
    for name in LATE_IMPORTS:
        with suppress(ImportError):  # of what is not installed the job speaks
            import_module(name)
    # Of every architecture how its checkpoints are read: a thousand expressions that the first model compiles.
    get_checkpoint_conversion_mapping("llama")
    if base_model_folder is not None:
        with suppress(AppError, OSError):  # of a damaged folder too
            load_tokenizer(base_model_folder)
            _read_ahead(base_model_folder)
    # All that is imported stays. To find that out takes the collector 0.3 s, in the middle of a job's start.
    gc.collect()
    gc.freeze()


def _read_ahead(folder: Path) -> None:
    if hasattr(os, "posix_fadvise"):
        for file in folder.glob("*.safetensors"):
            with file.open("rb") as weights:
                os.posix_fadvise(weights.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
