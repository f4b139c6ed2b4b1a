"""silu(gate) · up (Shazeer 2020, arXiv:2002.05202): saves gate and up, and nothing between."""

from typing import Any

import torch
from torch.nn.functional import silu


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, -1)
        return silu(gate) * up

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, -1)
        found = torch.empty_like(gate_up)
        to_gate, to_up = found.chunk(2, -1)
        torch.mul(gradients[0], silu(gate), out=to_up)
        to_gate.copy_(torch.ops.aten.silu_backward(gradients[0] * up, gate))
        return found


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """(…, 2·d), gate and up side by side → (…, d)."""
    out: torch.Tensor = _SwiGlu.apply(gate_up)
    return out
