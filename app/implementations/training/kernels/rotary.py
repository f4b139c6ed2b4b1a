"""Rotary positions of queries and keys at once, laid out by head on the way."""

from typing import Any

import torch

from app.implementations.training.kernels.pointwise import Pointwise


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, pointwise: Pointwise
    ) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.pointwise = pointwise
        return pointwise.rotate(states.transpose(0, 1), cos[None], sin[None])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        found = ctx.pointwise.rotate(gradients[0].transpose(0, 1), cos[:, None], -sin[:, None])
        return found, None, None, None


def rotary(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, pointwise: Pointwise) -> torch.Tensor:
    """states (T, heads, d), cos and sin (T, d/2) → (heads, T, d)."""
    out: torch.Tensor = _Rotary.apply(states, cos, sin, pointwise)
    return out
