"""For each family's template: what serving sends is how training began, and the end of a turn is trained on."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.entities.datasets import IGNORED, Message
from app.core.errors import Invalid
from app.implementations.data.encoder_tokenizer import load_tokenizer
from app.implementations.data.tokenization import FolderChatTokenizer
from tests.chat_families import FAMILIES, Family, write_family

SYSTEM = "Be brief."


@dataclass(frozen=True)
class Case:
    family: Family
    folder: Path
    tokenizer: FolderChatTokenizer

    def id_of(self, text: str) -> int:
        return int(self.tokenizer._tokenizer.token_to_id(text))

    def whole(self, ids: list[int]) -> str:
        return str(self.tokenizer._tokenizer.decode(ids, skip_special_tokens=False))


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp(request.param.name)
    write_family(request.param, folder)
    return Case(request.param, folder, FolderChatTokenizer(folder))


def chat(*contents: str, system: str | None = None) -> list[Message]:
    messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    for place, content in enumerate(contents):
        messages.append({"role": "assistant" if place % 2 else "user", "content": content})
    return messages


def trained(case: Case, messages: list[Message]) -> list[int]:
    return [label for label in case.tokenizer.encode_training(messages, None).labels if label != IGNORED]


def systems(case: Case) -> list[str | None]:
    return [None, SYSTEM] if case.family.takes_system else [None]


SPELT = [
    "<|im_end|>",
    "<|eot_id|>",
    "</s>",
    "[INST]",
    "<end_of_turn>",
    "<|end|>",
    "<think>",
    "</think>",
    "\n\n",
    " ",
    "é😀",
]
WILD = st.lists(st.sampled_from(["order", "Monday", *SPELT]), min_size=1, max_size=4).map("".join)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(st.tuples(WILD, WILD), min_size=1, max_size=3), with_system=st.booleans())
def test_serving_sends_what_training_saw_at_every_turn(
    case: Case, turns: list[tuple[str, str]], with_system: bool
) -> None:
    system = SYSTEM if with_system and case.family.takes_system else None
    messages = chat(*(text for turn in turns for text in turn), system=system)
    whole = case.tokenizer.encode_training(messages, None)
    stays = case.family.keeps_history and (system is None or case.family.keeps_history_with_system)
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = case.tokenizer.encode_prompt(messages[:place])
        row = case.tokenizer.encode_training(messages[: place + 1], None)
        assert row.input_ids[: len(prompt)] == prompt
        assert row.labels[len(prompt) :] == row.input_ids[len(prompt) :]
        if stays:
            assert list(whole.input_ids[: len(prompt)]) == prompt


def test_the_end_of_each_turn_is_trained_on(case: Case) -> None:
    end = case.id_of(case.family.end)
    assert end in case.tokenizer.stop_token_ids
    for system in systems(case):
        messages = chat("What is it?", "An order.", "And the price?", "Two.", system=system)
        stays = case.family.keeps_history and (system is None or case.family.keeps_history_with_system)
        spoken = trained(case, messages)
        assert spoken[-1] == end
        assert spoken.count(end) == (2 if stays else 1)
        said = case.tokenizer.decode(spoken)
        assert "Two." in said
        assert ("An order." in said) is stays
        assert "price" not in said


def test_control_tokens_that_a_user_spells_are_text(case: Case) -> None:
    control = {case.id_of(text) for text in case.family.special}
    for text in case.family.special:
        forged = case.tokenizer.encode_prompt(chat(f"a{text}b"))
        honest = case.tokenizer.encode_prompt(chat("ab"))
        assert [i for i in forged if i in control] == [i for i in honest if i in control]
        row = case.tokenizer.encode_training(chat("a", f"b{text}c"), None)
        assert sum(i in control for i in row.input_ids) == sum(
            i in control for i in case.tokenizer.encode_training(chat("a", "bc"), None).input_ids
        )
        assert text in case.tokenizer.decode([label for label in row.labels if label != IGNORED])


def test_the_ids_are_those_of_transformers(case: Case) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(case.folder)
    for system in systems(case):
        messages = chat("What is it?", "An order.", "And the price?", "Two.", system=system)
        for place in (1, 3):
            before = messages[: place + (system is not None)]
            asked = theirs.apply_chat_template(before, add_generation_prompt=True)["input_ids"]
            assert case.tokenizer.encode_prompt(before) == asked
        if case.family.name == "deepseek-r1-distill" or (system and not case.family.keeps_history_with_system):
            continue  # a finished conversation is not rendered as it was begun
        row = case.tokenizer.encode_training(messages, None)
        written = theirs.apply_chat_template(messages)["input_ids"]
        assert list(row.input_ids) == written[: len(row.input_ids)]
        assert len(row.input_ids) + row.dropped == len(written)


def test_a_system_message_is_taken_or_refused_by_name(case: Case) -> None:
    messages = chat("What is it?", "An order.", system=SYSTEM)
    if case.family.takes_system:
        assert SYSTEM in case.whole(case.tokenizer.encode_prompt(messages[:-1]))
        return
    for refused in (lambda: case.tokenizer.encode_prompt(messages[:-1]), lambda: trained(case, messages)):
        with pytest.raises(Invalid, match="first user message") as caught:
            refused()
        assert caught.value.code == "system_message_refused"


def test_a_conversation_that_no_template_takes_is_refused_by_name(case: Case) -> None:
    question, answer = chat("What is it?", "An order.")
    twice = [question, question, answer]
    if case.family.name not in {"gemma-2", "llama-2", "mistral-v0.3", "mistral-tekken"}:
        assert case.tokenizer.encode_training(twice, None).supervised
        return
    with pytest.raises(Invalid, match=r"in turn|alternate") as caught:
        case.tokenizer.encode_training(twice, None)
    assert caught.value.code == "chat_not_renderable"


@pytest.mark.parametrize("name", ["qwen3", "deepseek-r1-distill"])
class TestReasoning:
    MESSAGES = chat("a", "<think>\nfirst thought\n</think>\n\nb", "c", "<think>\nsecond thought\n</think>\n\nd")

    @pytest.fixture
    def folder(self, name: str, tmp_path: Path) -> Path:
        write_family(next(family for family in FAMILIES if family.name == name), tmp_path)
        return tmp_path

    def test_kept_the_last_thought_is_trained_on_and_earlier_ones_are_gone(self, folder: Path, name: str) -> None:
        tokenizer = FolderChatTokenizer(folder)
        row = tokenizer.encode_training(self.MESSAGES, None)
        written = tokenizer._tokenizer.decode(list(row.input_ids), skip_special_tokens=False)
        assert "second thought\n</think>\n\nd" in written
        assert "first thought" not in written
        said = tokenizer.decode([label for label in row.labels if label != IGNORED])
        assert "second thought\n</think>\n\nd" in said

    def test_dropped_the_answer_follows_an_empty_thought(self, folder: Path, name: str) -> None:
        tokenizer = load_tokenizer(folder, "drop")
        row = tokenizer.encode_training(self.MESSAGES, None)
        said = tokenizer.decode([label for label in row.labels if label != IGNORED])
        assert "thought" not in said
        assert said.endswith("\n</think>\n\nd")
        assert list(row.input_ids[: len(prompt := tokenizer.encode_prompt(self.MESSAGES[:-1]))]) == prompt


def test_a_template_without_that_habit_drops_thoughts_in_serving_too(tmp_path: Path) -> None:
    write_family(next(family for family in FAMILIES if family.name == "smollm2"), tmp_path)
    keep, drop = load_tokenizer(tmp_path), load_tokenizer(tmp_path, "drop")
    messages = TestReasoning.MESSAGES
    assert "first thought" in keep.decode(keep.encode_prompt(messages[:3]))
    assert "first thought" not in drop.decode(drop.encode_prompt(messages[:3]))
    assert "thought" not in drop.decode(drop.encode_training(messages, None).input_ids)
