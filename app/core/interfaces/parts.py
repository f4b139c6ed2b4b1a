"""What the parts of a training method declare: read by the config, the check of a job, the forecast and serving.

A declaration is made of class attributes and class methods, and is read without building the part, also in
processes without torch. ``app/core/factories.py`` says how a part is found.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

from app.core.entities.datasets import Conversation, RowShape, TokenizedRow
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import ChatTokenizer


class ObjectivePart(ABC):
    """What an objective declares."""

    rows: ClassVar[frozenset[RowShape]]  # the shapes of row that it trains on
    wanted: ClassVar[str]  # those shapes in words, with their columns
    label_head: ClassVar[bool] = False  # True: it trains a head for the labels of the rows, and writes no text

    @staticmethod
    @abstractmethod
    def encode(
        conversation: Conversation, tokenizer: ChatTokenizer, max_length: int | None
    ) -> Sequence[TokenizedRow]:
        """Encode a row of one of those shapes: one row of tokens, or the pieces of a long text. None: whole."""

    @classmethod
    def problems(cls, config: TrainingConfig) -> Iterable[str]:
        """Say what in a config with this objective cannot be; each begins with the key."""
        return ()

    @classmethod
    def prompt(cls, text: str, tokenizer: ChatTokenizer) -> list[int]:
        """Encode what a model trained so is asked: by default, a user's question."""
        return tokenizer.encode_prompt([{"role": "user", "content": text}])


class AdaptationPart(ABC):
    """What an adaptation declares. Bytes of memory are by those of the base model's weights as they are stored."""

    # The files of a version: "lora" are PEFT's of an adapter, "model" those of a whole model. A run may begin with
    # what another adaptation has published, if it is the same kind of files.
    publishes: ClassVar[str]
    lora_options: ClassVar[frozenset[str]] = frozenset()  # of use_rslora, use_dora and loraplus_lr_ratio
    quantised: ClassVar[bool] = False  # True: the base's weights are packed, and cannot be cut into pieces
    resting_bytes: ClassVar[float]  # that the weights take, with what computes them
    learning_bytes: ClassVar[float] = 0  # of masters, gradients and state, where that is more than an adapter's

    @classmethod
    def problems(cls, config: TrainingConfig) -> Iterable[str]:
        """Say what in a config with this adaptation cannot be; each begins with the key."""
        return ()
