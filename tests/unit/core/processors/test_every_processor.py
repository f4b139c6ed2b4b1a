"""What the pipeline may expect of every data processor that is registered."""

import copy

import pytest

from app.core.entities.data_pipeline import PipelineConfig
from app.core.entities.datasets import Conversation
from app.core.entities.recording import Recorder
from app.core.errors import Invalid
from app.core.interfaces.components import DataProcessor, unwatched
from app.registries import DATA_PROCESSORS

ROWS = [
    Conversation(
        number,
        [
            {"role": "user", "content": f" When does shop {number % 9} open, <b>please</b>?\0"},
            {"role": "assistant", "content": f"Shop {number % 9} opens at {number % 9} o'clock. "},
        ],
        "train" if number % 5 else "test",
        {"id": number},
    )
    for number in range(1, 31)
]


@pytest.fixture(params=list(DATA_PROCESSORS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def processor(name: str) -> DataProcessor:
    return DATA_PROCESSORS.create(name, config=PipelineConfig(seed=7))


def test_it_is_a_pure_function_of_rows_and_config(name: str) -> None:
    before = copy.deepcopy(ROWS)
    once, again = (processor(name).process(ROWS, Recorder(name, None), unwatched) for _ in range(2))
    assert once == again
    assert before == ROWS
    assert all(isinstance(row, Conversation) for row in once)


def test_its_record_accounts_for_every_row(name: str) -> None:
    recorder = Recorder(name, None)
    found = processor(name).process(ROWS, recorder, unwatched)
    record = recorder.record(len(ROWS), len(found))
    assert record.rows_after == record.rows_before - record.rows_dropped + record.rows_made
    assert sum(record.reasons.values()) == len(record.changes)
    own = [row.row for row in found]
    assert len(set(own)) == len(own)


def test_it_takes_no_rows(name: str) -> None:
    assert list(processor(name).process([], Recorder(name, None), unwatched)) == []


def test_what_has_to_come_before_it_is_a_step(name: str) -> None:
    wanted = DATA_PROCESSORS.load(name).after
    assert set(wanted) <= set(DATA_PROCESSORS)
    if wanted:
        with pytest.raises(ValueError, match=f"{name} {next(iter(wanted.values()))}"):
            PipelineConfig(steps=(name,))


def test_raw_rows_are_converted_first() -> None:
    raw = [{"instruction": "When do you open?", "output": "At nine."}, {"text": "A text."}]
    recorder = Recorder("convert", None)
    chat, text = processor("convert").process(raw, recorder, unwatched)  # type: ignore[arg-type]
    assert (chat.row, [message["content"] for message in chat.messages]) == (1, ["When do you open?", "At nine."])
    assert (text.row, text.text) == (2, "A text.")
    with pytest.raises(Invalid) as refused:
        processor("convert").process([*raw, {"words": 1}], recorder, unwatched)  # type: ignore[list-item]
    assert [fault.where for fault in refused.value.faults] == ["row 3"]
