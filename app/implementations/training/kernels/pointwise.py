"""The element-wise parts of a decoder layer, forward and backward: as PyTorch's own operations, or compiled.

Compiled (``torch.compile``), each is one pass over memory in float32 registers where the plain one makes several.
It needs a C++ compiler, and seconds once; a cache on the disk keeps the result.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import torch
from torch.nn.functional import silu


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(T, d) → what RMSNorm makes of it (Zhang & Sennrich 2019, arXiv:1910.07467), and 1/rms (T, 1)."""
    wide = _wide(x)
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return weight * (wide * scale).to(x.dtype), scale


def rms_norm_backward(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    normed = _wide(x) * scale
    inner = _wide(gradient * weight)
    return ((inner - normed * (inner * normed).mean(-1, keepdim=True)) * scale).to(x.dtype)


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """(T, 2·d), gate and up side by side → silu(gate) · up (Shazeer 2020, arXiv:2002.05202)."""
    gate, up = gate_up.chunk(2, -1)
    return silu(gate) * up


def swiglu_backward(gradient: torch.Tensor, gate_up: torch.Tensor) -> torch.Tensor:
    gate, up = gate_up.chunk(2, -1)
    found = torch.empty_like(gate_up)
    to_gate, to_up = found.chunk(2, -1)
    torch.mul(gradient, silu(gate), out=to_up)
    to_gate.copy_(torch.ops.aten.silu_backward(gradient * up, gate))
    return found


def _swiglu_fused(gate_up: torch.Tensor) -> torch.Tensor:
    gate, up = (_wide(half) for half in gate_up.chunk(2, -1))
    return (gate * torch.sigmoid(gate) * up).to(gate_up.dtype)


def _swiglu_backward_fused(gradient: torch.Tensor, gate_up: torch.Tensor) -> torch.Tensor:
    gate, up = (_wide(half) for half in gate_up.chunk(2, -1))
    wide = _wide(gradient)
    sigmoid = torch.sigmoid(gate)
    active = gate * sigmoid
    return torch.cat([wide * up * (sigmoid + active - active * sigmoid), wide * active], -1).to(gate_up.dtype)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x (…, d) turned by its positions' angles (Su et al. 2021, arXiv:2104.09864); contiguous, whatever x is.

    ``cos`` and ``sin`` broadcast to (…, d/2). With −sin it turns back.
    """
    half = cos.shape[-1]
    turned = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    for here, there, sign in ((0, half, -1), (half, 0, 1)):
        part = turned[..., here : here + half]
        torch.mul(x[..., here : here + half], cos, out=part)
        part.addcmul_(x[..., there : there + half], sin, value=sign)
    return turned


def _rotate_fused(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = (_wide(half) for half in x.chunk(2, -1))
    cos, sin = _wide(cos), _wide(sin)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype).contiguous()


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


@dataclass(frozen=True, slots=True)
class Pointwise:
    rms_norm: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    rms_norm_backward: Callable[..., torch.Tensor]
    swiglu: Callable[..., torch.Tensor]
    swiglu_backward: Callable[..., torch.Tensor]
    rotate: Callable[..., torch.Tensor]


PLAIN = Pointwise(rms_norm, rms_norm_backward, swiglu, swiglu_backward, rotate)
_FUSED = Pointwise(rms_norm, rms_norm_backward, _swiglu_fused, _swiglu_backward_fused, _rotate_fused)


@cache
def compiled() -> Pointwise:
    """The same, compiled at their first call. Sizes are not compiled in: packs differ from step to step."""
    made: dict[str, Any] = {
        field.name: torch.compile(getattr(_FUSED, field.name), dynamic=True) for field in fields(Pointwise)
    }
    return Pointwise(**made)


def can_compile() -> bool:
    return any(map(shutil.which, ("g++", "clang++", "c++")))
