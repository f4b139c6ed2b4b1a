"""Products with a frozen weight.

On a CPU in bf16 oneDNN lays a weight out anew for its instructions at every call. One that never changes is laid
out once, for each direction, as far as the memory set aside for that goes.
"""

from collections.abc import Sequence

import torch

BUDGET = 1536 * 2**20  # bytes of weights laid out a second or third time, in one model


class FrozenProduct:
    """``weight`` (n, k), ``bias`` (n,) or None: (T, k) → (T, n), and gradients back."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        self._for_outputs: torch.Tensor | None = None
        self._for_gradients: torch.Tensor | None = None

    def outputs(self, x: torch.Tensor) -> torch.Tensor:
        """(T, k) → (T, n), new memory."""
        if self._for_outputs is not None:
            return _laid_out_product(x, self._for_outputs, self.bias)
        return x @ self.weight.t() if self.bias is None else torch.addmm(self.bias, x, self.weight.t())

    def gradients(self, gradient: torch.Tensor) -> torch.Tensor:
        """(T, n) → (T, k), new memory."""
        if self._for_gradients is not None:
            return _laid_out_product(gradient, self._for_gradients, None)
        return gradient @ self.weight

    def lay_out_for_outputs(self) -> None:
        self._for_outputs = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach())

    def lay_out_for_gradients(self) -> None:
        self._for_gradients = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach().t())


def lay_out(products: Sequence[FrozenProduct], budget: int = BUDGET) -> int:
    """Gradients first, whose products gain more; the bytes taken. It depends on the model alone, so that a resumed
    run computes as the one before it did."""
    taken = 0
    for lay_out_one in (FrozenProduct.lay_out_for_gradients, FrozenProduct.lay_out_for_outputs):
        for product in products:
            size = product.weight.nbytes
            if _fits(product.weight) and taken + size <= budget:
                lay_out_one(product)
                taken += size
    return taken


def _fits(weight: torch.Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def _laid_out_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")
    return out
