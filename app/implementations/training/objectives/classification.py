"""Classification: cross-entropy of a label head over the pooled text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.core.entities.datasets import Conversation, TokenizedRow
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import ChatTokenizer
from app.implementations.data.encoder_tokenizer import ENCODERS
from app.implementations.training.method import Objective

if TYPE_CHECKING:
    import torch

    from app.implementations.training.batches import PackedBatch


class ClassificationObjective(Objective):
    """Batch → the summed loss of its rows, and how many rows of each class (row) got which label (column).

    ``model`` is one of transformers' ``…ForSequenceClassification``, adapted or not, and the logits are its own.
    """

    rows = frozenset({"a labelled text"})
    wanted = "labelled texts: text and label"
    label_head = True

    @classmethod
    def problems(cls, config: TrainingConfig) -> Iterable[str]:
        if config.from_version is not None:
            yield f"from_version: not with objective: {config.objective}, whose head is made for its labels"

    @staticmethod
    def encode(
        conversation: Conversation, tokenizer: ChatTokenizer, max_length: int | None
    ) -> Sequence[TokenizedRow]:
        """Not as a chat turn: a text to classify is no question, and plain transformers reads it alike."""
        assert conversation.text is not None
        return [tokenizer.encode_plain(conversation.text, max_length)]

    @property
    def classifier(self) -> Any:
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @staticmethod
    def weight(row: TokenizedRow) -> int:
        return 1

    def __call__(self, batch: PackedBatch) -> dict[str, torch.Tensor]:
        import torch
        from torch.nn.functional import cross_entropy

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
        import torch
        from torch.nn.utils.rnn import pad_sequence

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
