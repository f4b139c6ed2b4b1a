"""RMSNorm with a frozen weight: saves its input and one number a token."""

from typing import Any

import torch

from app.implementations.training.kernels.pointwise import Pointwise


class _FrozenRmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float, pointwise: Pointwise) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        normed, scale = pointwise.rms_norm(flat, weight, eps)
        ctx.save_for_backward(flat, weight, scale)
        ctx.pointwise = pointwise
        return normed.view(x.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        gradient = gradients[0]
        found = ctx.pointwise.rms_norm_backward(gradient.reshape(x.shape), x, weight, scale)
        return found.view(gradient.shape), None, None, None


def fits(norm: Any) -> bool:
    """Llama's and Qwen2's, with a frozen weight."""
    return type(norm).__name__ in ("LlamaRMSNorm", "Qwen2RMSNorm") and not norm.weight.requires_grad


def forward_of(norm: Any, pointwise: Pointwise) -> Any:
    def forward(hidden_states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = _FrozenRmsNorm.apply(hidden_states, norm.weight, norm.variance_epsilon, pointwise)
        return out

    return forward
