"""An answer on its way."""

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import chain

from app.core.entities.inference import AnswerPiece, FinishReason, Piece
from app.core.entities.reasoning import ReasoningStream
from app.core.entities.tool_calls import ToolCall, ToolCallStream

ReadCalls = Callable[[], ToolCallStream]


class AnswerStream:
    """Its pieces, reasoning and calls of tools told from the rest; the last has the counts.

    Close it, and the engine stops.

    ``opens_thinking``: whether the prompt ends with ``<think>``; None: a text that goes on has no reasoning.
    ``read_calls`` makes what tells calls apart; None: none are looked for.

    It is made once the engine has begun to answer: what hinders that is raised here. ``Unavailable`` for what
    fails on the way.
    """

    def __init__(
        self,
        model: str,
        opens_thinking: bool | None,
        pieces: Generator[Piece],
        read_calls: ReadCalls | None = None,
    ) -> None:
        self.model = model  # the reference that answers, or the base model's name
        self._opens_thinking = opens_thinking
        self._read_calls = read_calls
        self._pieces = pieces
        self._said: dict[int, _Said] = {}  # of each choice
        self._first = next(pieces)

    def __iter__(self) -> Iterator[AnswerPiece]:
        for piece in chain([self._first], self._pieces):
            if piece.tokens:
                yield AnswerPiece(tokens=piece.tokens)
                continue
            if self._opens_thinking is None:
                yield AnswerPiece(piece.text, "", piece.logprobs, piece.finish_reason, piece.choice)
                continue
            if piece.choice not in self._said:
                self._said[piece.choice] = _Said(self._opens_thinking, self._read_calls)
            said = self._said[piece.choice]
            reasoning, answer, calls = said.push(piece.text, ends=piece.finish_reason is not None)
            if reasoning or answer or calls or piece.logprobs or piece.finish_reason:
                reason = said.finished(piece.finish_reason)
                yield AnswerPiece(answer, reasoning, piece.logprobs, reason, piece.choice, tool_calls=calls)

    def close(self) -> None:
        self._pieces.close()


class _Said:
    """One choice, told into its parts."""

    def __init__(self, opens_thinking: bool, read_calls: ReadCalls | None) -> None:
        self._text = ReasoningStream(opens_thinking)
        self._calls = read_calls() if read_calls else None

    def push(self, text: str, ends: bool) -> tuple[str, str, Sequence[ToolCall]]:
        """What is new of reasoning, answer and calls."""
        reasoning, answer = self._text.push(text)
        if ends:
            late_reasoning, late_answer = self._text.finish()
            reasoning, answer = reasoning + late_reasoning, answer + late_answer
        if self._calls is None:
            return reasoning, answer, ()
        answer, calls = self._calls.push(answer)
        return reasoning, answer + (self._calls.finish() if ends else ""), calls

    def finished(self, reason: FinishReason | None) -> FinishReason | None:
        made = self._calls is not None and self._calls.made
        return "tool_calls" if made and reason == "stop" else reason
