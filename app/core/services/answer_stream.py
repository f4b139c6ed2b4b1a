"""An answer on its way."""

from collections.abc import Generator, Iterator
from itertools import chain

from app.core.entities.inference import AnswerPiece, Piece
from app.core.entities.reasoning import ReasoningStream


class AnswerStream:
    """Its pieces, reasoning told from the rest; the last has the counts. Close it, and the engine stops.

    ``opens_thinking``: whether the prompt ends with ``<think>``; None: a text that goes on has no reasoning.

    It is made once the engine has begun to answer: what hinders that is raised here. ``Unavailable`` for what
    fails on the way.
    """

    def __init__(self, model: str, opens_thinking: bool | None, pieces: Generator[Piece]) -> None:
        self.model = model  # the reference that answers, or the base model's name
        self._opens_thinking = opens_thinking
        self._pieces = pieces
        self._texts: dict[int, ReasoningStream] = {}  # of each choice
        self._first = next(pieces)

    def __iter__(self) -> Iterator[AnswerPiece]:
        for piece in chain([self._first], self._pieces):
            if piece.tokens:
                yield AnswerPiece(tokens=piece.tokens)
                continue
            if self._opens_thinking is None:
                yield AnswerPiece(piece.text, "", piece.logprobs, piece.finish_reason, piece.choice)
                continue
            text = self._texts.setdefault(piece.choice, ReasoningStream(self._opens_thinking))
            reasoning, answer = text.push(piece.text)
            if piece.finish_reason:
                late_reasoning, late_answer = text.finish()
                reasoning, answer = reasoning + late_reasoning, answer + late_answer
            if reasoning or answer or piece.logprobs or piece.finish_reason:
                yield AnswerPiece(answer, reasoning, piece.logprobs, piece.finish_reason, piece.choice)

    def close(self) -> None:
        self._pieces.close()
