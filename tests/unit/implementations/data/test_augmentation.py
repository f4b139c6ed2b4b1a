"""Rows are added to train; what the assistant says, and what is held out, stays as it is."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.entities.data_pipeline import AugmentationOptions, PipelineConfig
from app.core.entities.datasets import SPLITS, Conversation, Split
from app.core.entities.recording import Recorder
from app.core.interfaces.components import unwatched
from app.implementations.data.augmentation import FRAMES, AugmentRows

EVERY = AugmentationOptions(augmenters=("rephrase", "typos", "system_prompt", "later_turn"))
QUESTION = "How long do I have to return an item that I bought last week?"
ANSWER = "Unused goods can be returned within 45 days."
WORDS = st.lists(st.sampled_from([*QUESTION.split(), "Return", "AB-1234", "中文", "`x`", "45", "?"]), min_size=1)


def row(number: int, *said: str, split: Split = "train", system: str | None = None) -> Conversation:
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(said)]
    first = [{"role": "system", "content": system}] if system else []
    return Conversation(number, [*first, *messages], split, {"id": number})


def augment(
    rows: list[Conversation], options: AugmentationOptions, seed: int, record: Recorder
) -> Sequence[Conversation]:
    return AugmentRows(PipelineConfig(augmentation=options, seed=seed)).process(rows, record, unwatched)


def augmented(rows: list[Conversation], *names: str, seed: int = 1, **options: object) -> list[Conversation]:
    """Those that were made."""
    chosen = AugmentationOptions.model_validate({"augmenters": names, **options})
    found = augment(rows, chosen, seed, Recorder("augment", None))
    assert list(found[: len(rows)]) == rows
    return list(found[len(rows) :])


def answers(conversation: Conversation) -> list[str]:
    return [message["content"] for message in conversation.messages if message["role"] == "assistant"]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.lists(WORDS.map(" ".join), min_size=1, max_size=2),
            st.sampled_from(SPLITS),
            st.sampled_from([None, "Be brief."]),
        ),
        max_size=8,
    ),
    st.integers(0, 2**32 - 1),
)
def test_only_training_rows_are_added_and_no_answer_changes(
    drawn: list[tuple[list[str], Split, str | None]], seed: int
) -> None:
    rows = [
        row(number, *[text for q in questions for text in (q, f"answer {number}")], split=split, system=system)
        for number, (questions, split, system) in enumerate(drawn, start=1)
    ]
    found = augment(rows, EVERY, seed, Recorder("augment", None))
    assert found == augment(rows, EVERY, seed, Recorder("augment", None))
    assert list(found[: len(rows)]) == rows
    by_number = {one.row: one for one in found}
    assert len(by_number) == len(found)
    told = {answer for one in rows if one.split == "train" for answer in answers(one)}
    for new in found[len(rows) :]:
        source = by_number[new.extra["of"]]
        assert source in rows
        assert source.split == new.split == "train"
        assert new.extra == {**source.extra, "augmented": new.extra["augmented"], "of": source.row}
        assert answers(new)[-len(answers(source)) :] == answers(source)
        assert set(answers(new)) <= told
        assert new.messages != source.messages


def test_a_question_is_put_into_a_frame_of_its_language() -> None:
    german = "Wie lange kann ich einen Artikel zurückgeben, den ich gekauft habe?"
    chinese = "我上周买的商品还能在多少天之内办理退货?"
    rows = [row(1, QUESTION, ANSWER), row(2, german, "45 Tage."), row(3, chinese, "45天。")]
    for new, language, question in zip(
        augmented(rows, "rephrase"), ("en", "de", "zh"), (QUESTION, german, chinese), strict=True
    ):
        asked = new.messages[0]["content"]
        assert asked in {frame.format(question) for frame in FRAMES[language]}
    assert augmented([row(1, "Hoeveel dagen heb ik om een artikel terug te sturen?", "45.")], "rephrase") == []


def test_the_last_question_is_the_one_that_changes() -> None:
    talk = row(1, "Hello, I would like to ask something.", "Please do.", QUESTION, ANSWER)
    for name in ("rephrase", "typos"):
        (new,) = augmented([talk], name)
        assert new.messages[0] == talk.messages[0]
        assert new.messages[2] != talk.messages[2]


def test_typos_spare_what_the_answer_hangs_on() -> None:
    question = "Could somebody send parcel AB-1234 to anna.smith@firma.nl in Utrecht before half past 10.45 today?"
    for seed in range(40):
        for new in augmented([row(1, question, "Yes.")], "typos", seed=seed):
            for kept in ("AB-1234", "anna.smith@firma.nl", "Utrecht", "10.45"):
                assert kept in new.messages[0]["content"]


@pytest.mark.parametrize(
    "question", ["see https://shop.example/returns", "why does `retunr` fail?", "a:\n    retunr"]
)
def test_code_and_addresses_are_not_mistyped(question: str) -> None:
    assert augmented([row(1, question, "b")], "typos") == []


def test_a_system_message_is_given_and_never_replaced() -> None:
    prompts = ["Be kind.", "Be exact."]
    rows = [row(1, "a", "b"), row(2, "c", "d", system="You are a pirate.")]
    (new,) = augmented(rows, "system_prompt", system_prompts=prompts)
    assert new.messages[0]["role"] == "system"
    assert new.messages[0]["content"] in prompts
    assert new.messages[1:] == rows[0].messages


def test_a_later_turn_follows_the_exchange_of_another_row() -> None:
    rows = [row(number, f"question {number}", f"answer {number}") for number in range(1, 6)]
    made = augmented(rows, "later_turn")
    assert made
    for new in made:
        other, own = new.messages[:2], new.messages[2:]
        assert list(own) == list(rows[new.extra["of"] - 1].messages)
        assert list(other) in [list(one.messages) for one in rows if one.row != new.extra["of"]]


def test_a_share_of_the_rows() -> None:
    rows = [row(number, f"{QUESTION} {number}", ANSWER) for number in range(1, 301)]
    assert 60 <= len(augmented(rows, "typos", share=0.3)) <= 120


def test_rows_without_a_question_stay_alone() -> None:
    assert augmented([Conversation(1, [], "train", text="a text", label="x")], *EVERY.augmenters) == []


def test_each_augmenter_is_recorded() -> None:
    rows = [row(1, QUESTION, ANSWER), row(2, f"{QUESTION} Anything", ANSWER)]
    recorder = Recorder("augment", 1)
    found = augment(rows, EVERY, 1, recorder)
    record = recorder.record(2, len(found))
    assert record.rows_made == sum(record.reasons.values()) == len(found) - 2
    assert set(record.reasons) == set(EVERY.augmenters)
    assert len(record.changes) == 1
    assert record.changes[0].before is None
