"""A row of data as the token ids that its objective trains on: the same for the check of a job and for its run."""

from app.core.entities.datasets import Conversation, TokenizedRow
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import ChatTokenizer


def encode(conversation: Conversation, tokenizer: ChatTokenizer, config: TrainingConfig) -> TokenizedRow:
    """``row`` is the conversation's. ``Invalid`` with the faults of a row that the objective cannot use."""
    row = tokenizer.encode_training(conversation.messages, config.max_length)
    return TokenizedRow(conversation.row, row.input_ids, row.labels, row.truncated)
