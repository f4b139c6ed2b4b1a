"""Supervised fine-tuning: cross-entropy of the assistant's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.core.entities.datasets import Conversation, TokenizedRow
from app.core.interfaces.components import ChatTokenizer
from app.implementations.training.method import Objective

if TYPE_CHECKING:
    import torch

    from app.implementations.training.batches import PackedBatch


class SftObjective(Objective):
    """Batch → the summed loss of its supervised tokens."""

    rows = frozenset({"a conversation"})
    wanted = "conversations: messages, or instruction and output, or prompt and completion"
    generates = True
    counts_tokens = True

    @staticmethod
    def encode(
        conversation: Conversation, tokenizer: ChatTokenizer, max_length: int | None
    ) -> Sequence[TokenizedRow]:
        return [tokenizer.encode_training(conversation.messages, max_length)]

    @staticmethod
    def weight(row: TokenizedRow) -> int:
        return row.supervised

    def __call__(self, batch: PackedBatch) -> dict[str, torch.Tensor]:
        from app.implementations.training.objectives.token_losses import token_losses

        return {"loss": token_losses(self.model, batch, self.config.kernel_names).sum()}
