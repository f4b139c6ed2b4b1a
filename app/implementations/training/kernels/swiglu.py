"""silu(gate) · up: saves gate and up, and nothing between."""

from typing import Any

import torch

from app.implementations.training.kernels.pointwise import Pointwise


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: torch.Tensor, pointwise: Pointwise) -> torch.Tensor:
        ctx.save_for_backward(gate_up)
        ctx.pointwise = pointwise
        return pointwise.swiglu(gate_up)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gate_up,) = ctx.saved_tensors
        return ctx.pointwise.swiglu_backward(gradients[0].contiguous(), gate_up), None


def swiglu(gate_up: torch.Tensor, pointwise: Pointwise) -> torch.Tensor:
    """(T, 2·d) → (T, d)."""
    out: torch.Tensor = _SwiGlu.apply(gate_up, pointwise)
    return out
