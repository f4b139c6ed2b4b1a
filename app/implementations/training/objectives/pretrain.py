"""Pretraining, from scratch or continued: cross-entropy of every token of a text."""

from collections.abc import Sequence

from app.core.entities.datasets import Conversation, TokenizedRow
from app.core.interfaces.components import ChatTokenizer
from app.implementations.training.objectives.sft import SftObjective


class PretrainObjective(SftObjective):
    """What differs from sft is which tokens are supervised: all."""

    rows = frozenset({"a plain text", "a conversation"})
    wanted = "plain texts (text) or conversations (messages)"

    @staticmethod
    def encode(
        conversation: Conversation, tokenizer: ChatTokenizer, max_length: int | None
    ) -> Sequence[TokenizedRow]:
        """Supervise every token, up to the end of a conversation's last turn.

        A piece begins with the last token of the one before it: its own first token is nobody's target.
        """
        dropped = 0
        if conversation.text is None:
            whole = tokenizer.encode_training(conversation.messages, None)
            ids, dropped = whole.input_ids, whole.dropped
        else:
            ids = tokenizer.encode_text(conversation.text)
        step = (max_length or len(ids) + 1) - 1
        pieces = [ids[start : start + step + 1] for start in range(0, max(1, len(ids) - 1), max(1, step))]
        return [TokenizedRow(0, piece, piece, dropped=0 if n else dropped) for n, piece in enumerate(pieces)]

    @classmethod
    def prompt(cls, text: str, tokenizer: ChatTokenizer) -> list[int]:
        return tokenizer.encode_text(text)[:-1]  # it goes on
