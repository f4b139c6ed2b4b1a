"""Classification: cross-entropy of a label head over the pooled text."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from app.core.entities.datasets import TokenizedRow
from app.implementations.data.encoder_tokenizer import ENCODERS
from app.implementations.training.batches import PackedBatch
from app.implementations.training.method import Objective


class ClassificationObjective(Objective):
    """Batch → the summed loss of its rows, and how many rows of each class (row) got which label (column).

    ``model`` is one of transformers' ``…ForSequenceClassification``, adapted or not, and the logits are its own.
    """

    @property
    def classifier(self) -> Any:
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @staticmethod
    def weight(row: TokenizedRow) -> int:
        return 1

    def forward(self, batch: PackedBatch) -> dict[str, torch.Tensor]:
        assert batch.classes is not None  # a row without a label was refused before the run
        logits = self.logits(batch)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        labels = logits.shape[1]
        pairs = batch.classes * labels + logits.detach().argmax(-1)
        return {
            "loss": cross_entropy(logits, batch.classes, reduction="sum"),
            "confusion": torch.bincount(pairs, minlength=labels**2).reshape(labels, labels),
        }

    def logits(self, batch: PackedBatch) -> torch.Tensor:
        """(rows, labels), in the model's precision."""
        return self._padded(batch) if self.classifier.config.model_type in ENCODERS else self._packed(batch)

    def figures(self, sums: Mapping[str, torch.Tensor], weight: int) -> dict[str, float]:
        """``macro_f1`` is the mean over the labels that occur, in the rows or in the answers."""
        return {**super().figures(sums, weight), **scores(sums["confusion"])}

    def _packed(self, batch: PackedBatch) -> torch.Tensor:
        """A causal model's: the last token of a text has seen all of it."""
        hidden = self.classifier.base_model(
            input_ids=batch.input_ids, position_ids=batch.position_ids, segments=batch.segments, use_cache=False
        ).last_hidden_state
        return self.classifier.score(hidden[0, [end - 1 for _, end in batch.segments]])

    def _padded(self, batch: PackedBatch) -> torch.Tensor:
        """An encoder's, whose tokens see the whole text: rows side by side, under a mask."""
        pad = self.classifier.config.pad_token_id
        texts = [batch.input_ids[0, start:end] for start, end in batch.segments]
        mask = pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
        ids = pad_sequence(texts, batch_first=True, padding_value=pad)
        return self.classifier(input_ids=ids, attention_mask=mask).logits


def scores(confusion: torch.Tensor) -> dict[str, float]:
    """Accuracy and macro-F1 of a (labels, labels) matrix of counts, true classes down, answers across."""
    right, asked, answered = (part.double() for part in (confusion.diag(), confusion.sum(1), confusion.sum(0)))
    occurs = asked + answered > 0
    f1 = 2 * right[occurs] / (asked + answered)[occurs]
    return {"accuracy": float(right.sum() / asked.sum()), "macro_f1": float(f1.mean())}
