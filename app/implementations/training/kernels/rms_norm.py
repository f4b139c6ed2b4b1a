"""RMSNorm with a frozen weight: saves its input and one number a token."""

from typing import Any

import torch


class _FrozenRmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        normed, scale = rms_norm(flat, weight, eps)
        ctx.save_for_backward(flat, weight, scale)
        return normed.view(x.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        gradient = gradients[0]
        found = rms_norm_backward(gradient.reshape(x.shape), x, weight, scale)
        return found.view(gradient.shape), None, None


def fits(norm: Any) -> bool:
    """Llama's and Qwen2's, with a frozen weight."""
    return type(norm).__name__ in ("LlamaRMSNorm", "Qwen2RMSNorm") and not norm.weight.requires_grad


def forward_of(norm: Any) -> Any:
    def forward(hidden_states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = _FrozenRmsNorm.apply(hidden_states, norm.weight, norm.variance_epsilon)
        return out

    return forward


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(T, d) → what RMSNorm makes of it (Zhang & Sennrich 2019, arXiv:1910.07467), and 1/rms (T, 1)."""
    wide = torch.promote_types(x.dtype, torch.float32)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
    scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return weight * (x * scale).to(x.dtype), scale


def rms_norm_backward(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Gradient of x (T, d). What is as large as x is changed in place: a pass over memory is what this costs."""
    normed = x * scale
    found = (gradient * weight).to(normed.dtype)
    projection = (found * normed).mean(-1, keepdim=True)
    return found.addcmul_(normed, projection, value=-1).mul_(scale).to(x.dtype)
