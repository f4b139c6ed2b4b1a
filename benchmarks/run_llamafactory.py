"""LLaMA-Factory, measured, in its own environment: ``python -m benchmarks.run_llamafactory SPEC``.

``run_exp`` is what its ``llamafactory-cli train`` calls; the keys are those of its YAML files. ``tokenized_path``
is its own way to train on rows that are token ids already: its template for SmolLM2 writes the system prompt
otherwise, and trains on the line break after each answer.
"""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import torch
from datasets import Dataset, DatasetDict

from benchmarks.peer_callback import Measuring, adapter_folder
from benchmarks.spec import Spec, read_spec, read_token_rows


def main() -> None:
    spec = read_spec()
    torch.set_num_threads(spec.threads)
    _stand_in_for_torchaudio()
    from llamafactory.train.tuner import run_exp

    measuring = Measuring(spec, "llamafactory", "trl")
    run_exp(_arguments(spec), callbacks=[measuring])
    measuring.answer()


def _stand_in_for_torchaudio() -> None:
    """An empty module: the package, which LLaMA-Factory imports for rows with sound, wants CUDA's libraries."""
    module = ModuleType("torchaudio")
    module.__spec__ = ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = module


def _arguments(spec: Spec) -> dict[str, object]:
    settings = spec.settings
    rows = Path(spec.output) / "tokenized"
    DatasetDict({"train": Dataset.from_list(_with_masks(spec))}).save_to_disk(rows)
    return {
        "model_name_or_path": spec.model,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": settings.lora_rank,
        "lora_alpha": settings.lora_alpha,
        "lora_dropout": 0.0,
        "lora_target": "all",
        "dataset": "rows",  # it wants a name, and reads tokenized_path instead
        "tokenized_path": str(rows),
        "template": "smollm2",
        "cutoff_len": settings.max_length,
        "output_dir": str(adapter_folder(spec)),
        "per_device_train_batch_size": settings.batch_size,
        "num_train_epochs": float(settings.epochs),
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": settings.max_grad_norm,
        "seed": settings.seed,
        "bf16": True,
        "pure_bf16": False,  # float32 adapters
        "disable_gradient_checkpointing": True,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _with_masks(spec: Spec) -> list[dict[str, list[int]]]:
    return [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in read_token_rows(spec)]


if __name__ == "__main__":
    main()
