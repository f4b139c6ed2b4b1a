"""What the numbers of a run depend on: kept in each checkpoint's manifest and compared when the run goes on."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from app.core.entities.datasets import TokenizedRow
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Fault, Invalid

# Keys of the config that change no number, or that stand under another name here.
_FREE = frozenset(
    {
        *("experiment_name", "model_name", "output_dir", "logging_steps", "save_steps", "save_total_limit"),
        *("report_to", "sample_prompts", "sample_max_tokens"),
        *("dataset_path", "dataset_id", "train_samples", "max_length", "reasoning"),  # by the rows that they give
        *("device", "precision", "kernels"),  # by what they came to on this machine
    }
)
# Another value makes another run: the checkpoint's weights, or its place among the steps, would mean nothing.
_FIXED = frozenset(
    {
        *("base_model", "from_version", "objective", "dpo_beta", "adaptation", "lora", "optimizer", "seed"),
        *("training rows", "rows a step", "deepspeed"),
    }
)
_LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")


def machine_pins(device: torch.device, precision: torch.dtype, kernels: Sequence[str]) -> dict[str, str | int]:
    """Of this process, once all that a run needs is loaded. ``kernels`` are those in use; nothing is compiled."""
    instructions = torch.backends.cpu.get_cpu_capability()
    if torch.cpu._is_amx_tile_supported():
        instructions += " with AMX"
    loaded = {name: str(sys.modules[name].__version__) for name in _LIBRARIES if name in sys.modules}
    return {
        "device": device.type,
        "precision": str(precision).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "instruction set": instructions,
        "fused kernels": ", ".join(kernels) or "none",
        **loaded,
    }


def pins(
    config: TrainingConfig,
    train_rows: Sequence[TokenizedRow],
    validation_rows: Sequence[TokenizedRow],
    processes: int,
    machine: Mapping[str, str | int],
) -> dict[str, Any]:
    """Name → value, in JSON's types; a block of the config has a name for each of its keys (``lora.r``)."""
    chosen = {key: value for key, value in config.model_dump(mode="json").items() if key not in _FREE}
    flat: dict[str, Any] = {}
    for key, value in chosen.items():
        block = value if isinstance(value, dict) else {"": value}
        flat |= {f"{key}.{inner}".rstrip("."): item for inner, item in block.items()}
    # As many rows a step make the same steps, however they are spread over micro-batches and processes.
    step_rows = config.batch_size * config.gradient_accumulation_steps * processes
    return {
        **flat,
        **machine,
        "processes": processes,
        "deepspeed": config.strategy == "deepspeed",  # its engine's state has a shape of its own
        "rows a step": step_rows,
        "training rows": _digest(train_rows),
        "validation rows": _digest(validation_rows),
    }


def compare(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Each difference in words, where it leaves the run the same one but for its last bits.

    ``Invalid`` (cannot_resume) with a fault for each of those that make it another run.
    """
    differing = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    words = {name: f"{name}: {_plain(then.get(name))} then, {_plain(now.get(name))} now" for name in differing}
    fixed = [name for name in differing if name.split(".")[0] in _FIXED]
    if fixed:
        raise Invalid(
            "this run cannot go on as another one: undo these changes, or begin a new run",
            code="cannot_resume",
            faults=[Fault(name, "changed", words[name]) for name in fixed],
        )
    return list(words.values())


def _digest(rows: Sequence[TokenizedRow]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row).encode())
    return digest.hexdigest()[:16]


def _plain(value: Any) -> str:
    return "nothing" if value is None else value if isinstance(value, str) else json.dumps(value)
