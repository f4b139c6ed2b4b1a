"""Where a run computes and in which precision."""

import resource
import sys

import psutil
import torch

from app.core.errors import Invalid


def pick_device(wanted: str) -> torch.device:
    """``auto`` prefers cuda, then mps, then cpu. ``Invalid`` for a device that this machine lacks."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        wanted = next(name for name, there in available.items() if there)
    if not available[wanted]:
        raise Invalid(f"device: this machine has no {wanted}", code="device_missing")
    return torch.device(wanted)


def pick_precision(wanted: str, device: torch.device) -> torch.dtype:
    """``auto`` is bf16 where the hardware multiplies it natively, else float32."""
    if wanted == "auto":
        wanted = "bf16" if _has_bf16(device) else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[wanted]


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return False
    # oneDNN falls back to float32 products inside where neither is there, at half the speed of float32.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def peak_memory_bytes(device: torch.device) -> int:
    """The most this process has held: of the GPU's memory on cuda, else of the host's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def held_memory_bytes(device: torch.device) -> int:
    """What this process holds now, as ``peak_memory_bytes`` counts it."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(_THIS_PROCESS.memory_info().rss)


def free_memory_bytes(device: torch.device) -> int | None:
    """Of the GPU; None where the host's memory is meant."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


_THIS_PROCESS = psutil.Process()
