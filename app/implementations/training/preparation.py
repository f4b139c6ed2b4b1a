"""What a trainer does before it knows its job."""

import gc
import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path

# What most jobs import in their course: the models of the house, PEFT's second half, a tracker, the rows' reader.
LATE_IMPORTS = (
    "datasets",
    "peft.utils.transformers_weight_conversion",
    "torch.utils.tensorboard",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
    "app.implementations.training.objectives.sft",
    "app.implementations.training.strategies.single",
)


def prepare(base_model_folder: Path | None) -> None:
    """Imports, and the base model's weights in the system's memory of files: no memory of this process."""
    for name in LATE_IMPORTS:
        with suppress(ImportError):  # of what is not installed the job speaks
            import_module(name)
    if base_model_folder is not None and hasattr(os, "posix_fadvise"):
        for file in base_model_folder.glob("*.safetensors"):
            with file.open("rb") as weights:
                os.posix_fadvise(weights.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
    # All that is imported stays. To find that out takes the collector 0.3 s, in the middle of a job's start.
    gc.collect()
    gc.freeze()
