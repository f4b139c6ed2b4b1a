"""Rotary positions of queries and keys at once, laid out by head on the way."""

from typing import Any

import torch


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return rotate(states.transpose(0, 1), cos[None], sin[None])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        found = rotate(gradients[0].transpose(0, 1), cos[:, None], -sin[:, None])
        return found, None, None


def rotary(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """states (T, heads, d), cos and sin (T, d/2) → (heads, T, d)."""
    out: torch.Tensor = _Rotary.apply(states, cos, sin)
    return out


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
