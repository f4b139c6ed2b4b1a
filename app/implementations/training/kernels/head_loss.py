"""Cross-entropy through a frozen output head, its gradient formed in the forward pass.

The logits of a chunk of positions live until their gradient to the hidden states is known: (n, vocabulary) never
exists whole, nothing of it is kept, and the backward pass is one multiplication. The idea is that of the fused
linear cross-entropy of Liger Kernel (Hsu et al. 2024, arXiv:2410.10989); a frozen head needs no weight gradient.
"""

from typing import Any

import torch

ROWS = 256  # positions in one product with the head: fewer would read its weights too often
BLOCK_BYTES = 2 * 2**20  # of their logits, in float32, that are turned into a gradient at once: a cache holds them


class _FrozenHeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        block = max(1, BLOCK_BYTES // (weight.shape[0] * wide.itemsize))
        wanted = ctx.needs_input_grad[0]
        found = torch.empty_like(hidden) if wanted else None
        losses = torch.empty(hidden.shape[0], dtype=wide, device=hidden.device)
        for first in range(0, hidden.shape[0], ROWS):
            rows = slice(first, first + ROWS)
            logits = hidden[rows] @ weight.t()
            parts = zip(
                logits.split(block), losses[rows].split(block), targets[rows, None].split(block), strict=True
            )
            for part, loss, target in parts:
                scores = part.to(wide)
                likely = scores.softmax(-1)
                # The normaliser by way of the likeliest token: its probability cannot underflow.
                normaliser = scores.amax(-1) - likely.amax(-1).log()
                loss[:] = normaliser - scores.gather(1, target)[:, 0]
                if wanted:
                    part.copy_(likely.scatter_add_(1, target, likely.new_full(target.shape, -1.0)))
            if found is not None:
                torch.mm(logits, weight, out=found[rows])
        if found is not None:
            ctx.save_for_backward(found)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (found,) = ctx.saved_tensors
        # In the wider type: as bf16 the factors themselves would be rounded.
        return (found * gradients[0][:, None]).to(found.dtype), None, None


def frozen_head_loss(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """hidden (n, d), weight (vocabulary, d), targets (n,) → each target's loss (n,), in float32 at least."""
    losses: torch.Tensor = _FrozenHeadLoss.apply(hidden, weight, targets)
    return losses


def fits(causal_lm: Any) -> bool:
    """Llama's and Qwen2's head, a plain frozen product: not trained, adapted, biased, soft-capped or scaled."""
    head = causal_lm.get_output_embeddings()
    return (
        type(causal_lm).__name__ in ("LlamaForCausalLM", "Qwen2ForCausalLM")
        and type(head) is torch.nn.Linear
        and head.bias is None
        and not head.weight.requires_grad
    )
