"""Conversations to token ids and labels, by the model's own tokenizer and chat template, without torch.

Training and serving go through the same pieces. A conversation is cut where the assistant begins and ends, and
each piece is encoded by itself, so that no token spans a cut: what serving sends as a prompt is, id for id, the
beginning of what training saw.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.core.entities.datasets import IGNORED, Message, TokenizedRow
from app.core.entities.reasoning import END_THINK, THINK, Reasoning, split_reasoning, without_thoughts
from app.core.entities.tool_calls import Tool
from app.core.errors import Fault, Invalid
from app.core.interfaces.components import ChatTokenizer
from app.implementations.data.chat_template import ChatTemplate, load_chat_template, special_tokens, unsupported
from app.implementations.data.control_tokens import guard
from app.implementations.data.plain_text import (
    any_of,
    encode_part,
    encode_plain,
    fingerprint_of,
    for_continuing,
    read_tokenizer,
    token_texts,
    unreadable,
)
from app.implementations.data.template_tools import knows_tools, tool_format

_QUESTION: Message = {"role": "user", "content": "question"}
_ANSWER: Message = {"role": "assistant", "content": "answer"}

Piece = tuple[str, bool]  # text, and whether the assistant said it


class FolderChatTokenizer(ChatTokenizer):
    """Reads tokenizer.json, tokenizer_config.json, generation_config.json and the chat template of a folder.

    Control tokens in a message's content (``<|im_end|>`` typed by a user) or a tool are plain text: only the
    template opens and closes turns. Raises ``Unavailable`` (tokenizer_unreadable) for a damaged folder and
    ``Invalid`` (template_not_supported) for one without a usable chat template. Safe in many threads.

    With ``reasoning`` drop, the assistant's thoughts are removed before anything is rendered.
    """

    def __init__(self, folder: Path, reasoning: Reasoning = "keep") -> None:
        config = read_json(folder / "tokenizer_config.json")
        self._tokenizer = read_tokenizer(folder)
        self._continuing = for_continuing(self._tokenizer)
        self._template = load_chat_template(folder, config)
        self._drops_thoughts = reasoning == "drop"
        self.template_hash = self._template.hash
        self.template_text = self._template.text
        self._files = fingerprint_of(folder)
        prompt, self._ending, self._tail = _probe(self._template, special_tokens(config).get("eos_token"))
        self.opens_thinking = prompt.rstrip().endswith(THINK)
        self._knows_tools = knows_tools(self._template)
        self.tool_format = tool_format(self._template) if self._knows_tools else None

        added = {token.content: i for i, token in self._tokenizer.get_added_tokens_decoder().items()}
        stops = _eos_ids(read_json(folder / "generation_config.json"))
        stops |= {added[text] for text in (special_tokens(config).get("eos_token"), self._ending) if text in added}
        self.stop_token_ids: Sequence[int] = sorted(stops)
        self._end_of_text = added.get(special_tokens(config).get("eos_token", ""), min(stops, default=None))
        self._added = tuple(text for text in added if text)
        self._space_eaters = tuple(
            token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.rstrip
        )
        self._control = self._control_tokens()

    @property
    def fingerprint(self) -> str:
        return f"{self._files} {self._template.changes_with}"

    def encode_prompt(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        if not self._knows_tools:
            _check_no_tools(messages, tools)
        guarded, offered, mark = guard(self._control, self._as_read(messages), tools)
        ids, _ = self._encode(self._prompt(guarded, offered), mark)
        return ids

    def encode_training(self, messages: Sequence[Message], max_length: int | None) -> TokenizedRow:
        """See the interface. ``row`` of the answer is 0: the caller knows it. Longer rows lose their end."""
        if not messages or messages[-1]["role"] != "assistant":
            raise Invalid("the last message must be the assistant's", code="no_answer")
        guarded, _, mark = guard(self._control, self._as_read(messages), ())
        prompt = self._prompt(guarded[:-1])
        completion = self._completion(guarded, "".join(text for text, _ in prompt))
        ids, labels = self._encode([*prompt, (completion, True)], mark)
        written = len(ids) + len(self._encode_piece(self._tail))
        while labels[-1] == IGNORED:  # the line break after the end of the last turn
            ids.pop()
            labels.pop()
        kept = ids[:max_length]
        return TokenizedRow(
            0, kept, labels[:max_length], truncated=len(ids) - len(kept), dropped=written - len(ids)
        )

    def encode_text(self, text: str) -> list[int]:
        """``Invalid`` (tokenizer_not_supported) where the model names no token for the end of a text."""
        if self._end_of_text is None:
            raise Invalid(
                "the model names no end-of-text token: set eos_token in its tokenizer_config.json",
                code="tokenizer_not_supported",
            )
        guarded, _, mark = guard(self._control, [{"role": "user", "content": text}], ())
        ids, _ = self._encode([(guarded[0]["content"], False)], mark)
        return [*ids, self._end_of_text]

    def encode_plain(self, text: str, max_length: int | None) -> TokenizedRow:
        return encode_plain(self._tokenizer, self._control, text, max_length)

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        return token_texts(self._tokenizer, ids)

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def split_reasoning(self, text: str) -> tuple[str | None, str]:
        return split_reasoning(text, self.opens_thinking)

    def _prompt(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[Piece]:
        """Everything up to where the assistant's next words begin, its earlier words as pieces of their own.

        Where the template renders a finished turn otherwise than it began it (DeepSeek-R1 and Qwen3 drop the
        thoughts of earlier turns), the history is one piece that nobody is trained on.
        """
        whole = self._template.render(messages, add_generation_prompt=True, tools=tools)
        pieces: list[Piece] = []
        done = ""
        for place, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            opened = self._template.render(messages[:place], add_generation_prompt=True, tools=tools)
            closed = self._finished(messages[: place + 1], tools)
            if not opened.startswith(done) or not closed.startswith(opened):
                return [(whole, False)]
            pieces += [(opened[len(done) :], False), (closed[len(opened) :], True)]
            done = closed
        if not whole.startswith(done):
            return [(whole, False)]
        return [*pieces, (whole[len(done) :], False)]

    def _completion(self, messages: Sequence[Message], prompt: str) -> str:
        """What the model should say after ``prompt``: the last message and the end of the turn."""
        whole = self._finished(messages)
        if whole.startswith(prompt):
            return whole[len(prompt) :]
        if prompt.rstrip().endswith(THINK):
            reasoning, answer = _thought_and_answer(messages[-1]["content"])
            return f"{reasoning}\n{END_THINK}\n\n{answer}{self._ending}"
        others = [message for message in messages if message["role"] != "system"]
        if len(others) < len(messages):  # Mistral writes it into the last question, and not once that is answered
            return self._completion(others, "".join(text for text, _ in self._prompt(others[:-1])))
        raise unsupported(
            "the model's chat template is not supported: an answer, once given, is not rendered as the "
            "continuation of its generation prompt, so there is no telling which tokens to train on"
        )

    def _finished(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        """Up to the end of the last turn, without what ends the document (Phi-3) and no later turn would keep."""
        written = self._template.render(messages, add_generation_prompt=False, tools=tools)
        return written.removesuffix(self._tail)

    def _as_read(self, messages: Sequence[Message]) -> Sequence[Message]:
        return without_thoughts(messages) if self._drops_thoughts else messages

    def _encode(self, pieces: Sequence[Piece], mark: str | None) -> tuple[list[int], list[int]]:
        """Ids and labels. The assistant's pieces are supervised up to and including the end of the turn."""
        ids: list[int] = []
        labels: list[int] = []
        before = ""
        for text, supervised in pieces:
            new: list[int] = []
            for part in text.split(mark) if mark else [text]:
                new += self._encode_piece(part, before)
                before = part or before
            kept = self._turn_length(new) if supervised else 0
            ids += new
            labels += new[:kept] + [IGNORED] * (len(new) - kept)
        return ids, labels

    def _encode_piece(self, text: str, before: str = "") -> list[int]:
        """``before`` is the part that it goes on from."""
        if not before:
            tokenizer = self._tokenizer
        elif before.endswith(self._added) or before.rstrip().endswith(self._space_eaters):
            tokenizer = self._continuing.after_added
        else:
            tokenizer = self._continuing.after_text
        return encode_part(tokenizer, text).ids

    def _turn_length(self, ids: Sequence[int]) -> int:
        for place in range(len(ids) - 1, -1, -1):
            if ids[place] in self.stop_token_ids:
                return place + 1
        raise unsupported(
            "the model's chat template is not supported: it ends the assistant's turn with no special token, so "
            "the model could not learn where to stop"
        )

    def _control_tokens(self) -> re.Pattern[str]:
        """Added tokens that steer a conversation: special ones, stops, and those that the template writes."""
        texts = {
            token.content
            for i, token in self._tokenizer.get_added_tokens_decoder().items()
            if token.special or i in self.stop_token_ids or token.content in self._template.text
        } - {THINK, END_THINK, ""}
        return any_of(texts)


def _check_no_tools(messages: Sequence[Message], tools: Sequence[Tool]) -> None:
    told = "the model's chat template knows no tools: leave it out"
    faults = [Fault("tools", "tools_not_supported", told)] if tools else []
    for place, message in enumerate(messages):
        if message["role"] == "tool" or message.get("tool_calls"):
            faults.append(Fault(f"messages.{place}", "tools_not_supported", told))
    if faults:
        raise Invalid("the request has faults", code="tools_not_supported", faults=faults)


def _probe(template: ChatTemplate, end_of_text: str | None) -> tuple[str, str, str]:
    """(generation prompt of one question, what the template writes after an answer, and after all turns)."""
    try:
        prompt = template.render([_QUESTION], add_generation_prompt=True)
        asked = template.render([_QUESTION], add_generation_prompt=False)
        whole = template.render([_QUESTION, _ANSWER], add_generation_prompt=False)
    except Invalid as error:
        raise unsupported(f"the model's chat template is not supported: {error.message}") from None
    tail = ""
    if end_of_text and not prompt.startswith(asked) and prompt.startswith(asked.removesuffix(end_of_text)):
        tail = end_of_text
    ending = whole.removesuffix(tail).rpartition(_ANSWER["content"])[2].strip()
    return prompt, ending, tail


def _thought_and_answer(content: str) -> tuple[str, str]:
    before, closed, after = content.partition(END_THINK)
    if not closed:
        return "", content
    return before.strip().removeprefix(THINK).strip(), after.strip()


def _eos_ids(generation_config: Mapping[str, Any]) -> set[int]:
    eos = generation_config.get("eos_token_id")
    return {i for i in (eos if isinstance(eos, list) else [eos]) if isinstance(i, int)}


def read_json(file: Path) -> Mapping[str, Any]:
    """A file that is not there is empty; ``Unavailable`` for one that cannot be read."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise unreadable(file.name) from None
    return found if isinstance(found, dict) else {}
