"""The core of a model with a label head: reads texts in the order in which they come."""

import logging
from collections import deque

from app.implementations.serving.channel import Channel
from app.implementations.serving.label_head import LabelHead
from app.implementations.serving.messages import (
    Answer,
    Attach,
    Cancel,
    Classified,
    Classify,
    Detach,
    Failed,
    Message,
    Ready,
)

logger = logging.getLogger(__name__)


class LabelCore:
    def __init__(self, head: LabelHead, channel: Channel) -> None:
        self._head = head
        self._channel = channel
        self._waiting: deque[Classify] = deque()

    def run(self) -> None:
        """Until the front closes its end: raises ``FrontGone``."""
        head = self._head
        self._channel.send(Ready(head.context, head.vocabulary, [], head.labels))
        while True:
            for message in self._channel.receive(wait=not self._waiting):
                self._handle(message)
            if self._waiting:
                self._channel.send(self._read(self._waiting.popleft()))

    def _handle(self, message: Message) -> None:
        match message:
            case Classify():
                self._waiting.append(message)
            case Cancel(id=gone):
                self._waiting = deque(one for one in self._waiting if one.id != gone)
            case Attach(id=request_id) | Detach(id=request_id):
                self._channel.send(Answer(request_id, "a model with a label head takes no adapters"))
            case _:
                logger.error("the front sent a %s", type(message).__name__)

    def _read(self, text: Classify) -> Message:
        try:
            return Classified(text.id, self._head.shares(text.ids))
        except Exception:
            logger.exception("text %d failed", text.id)
            return Failed(text.id, 500, "the engine failed on this text; its log says why")
