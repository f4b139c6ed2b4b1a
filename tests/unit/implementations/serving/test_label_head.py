"""Label heads against plain transformers, and the core that serves them."""

import socket
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification

from app.implementations.models.loading import ClassifierLoader
from app.implementations.models.random_model import write_random_model
from app.implementations.serving.channel import Channel, FrontGone
from app.implementations.serving.label_config import head_labels
from app.implementations.serving.label_core import LabelCore
from app.implementations.serving.label_head import LabelHead, load_label_head
from app.implementations.serving.messages import (
    Answer,
    Attach,
    Cancel,
    Classified,
    Classify,
    Failed,
    Message,
    Ready,
)

LABELS = [f"label {number}" for number in range(11)]  # "10" sorts before "2"
TEXT = [5, 6, 7, 8]


@pytest.fixture(params=["llama", "bert"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    write_random_model(request.param, tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    torch.manual_seed(1)
    model = ClassifierLoader(LABELS).load(base, torch.float32)
    options = LoraConfig(r=4, target_modules="all-linear", task_type="SEQ_CLS", init_lora_weights=False)
    if model.config.model_type == "bert":
        options.modules_to_save = ["pooler"]
    get_peft_model(model, options).save_pretrained(tmp_path / "adapter")
    model.config.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def head(base: Path, adapter: Path) -> LabelHead:
    return load_label_head(adapter, base, head_labels(adapter), "fp32")


def shares(model: torch.nn.Module, ids: Sequence[int]) -> list[float]:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return logits.softmax(-1).tolist()


def test_an_adapters_shares_are_those_of_peft(base: Path, adapter: Path, head: LabelHead) -> None:
    assert head.labels == LABELS
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(LABELS))
    model = PeftModel.from_pretrained(plain, adapter).eval()
    for ids in (TEXT, TEXT[:1]):
        assert head.shares(ids) == pytest.approx(shares(model, ids), abs=1e-5)
    assert sum(head.shares(TEXT)) == pytest.approx(1)


def test_a_whole_model_with_a_head(base: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = ClassifierLoader(LABELS).load(base, torch.float32).eval()
    model.save_pretrained(tmp_path / "whole")
    head = load_label_head(tmp_path / "whole", None, head_labels(tmp_path / "whole"), "fp32")
    assert head.shares(TEXT) == pytest.approx(shares(model, TEXT), abs=1e-5)


def test_the_last_token_is_read_be_it_the_one_that_pads(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    write_random_model("llama", tmp_path / "base")
    torch.manual_seed(3)
    model = ClassifierLoader(LABELS).load(tmp_path / "base", torch.float32).eval()
    model.save_pretrained(tmp_path / "whole")
    head = load_label_head(tmp_path / "whole", None, LABELS, "fp32")
    pad = model.config.pad_token_id
    assert pad is not None
    with torch.no_grad():
        hidden = model.base_model(input_ids=torch.tensor([[*TEXT, pad]])).last_hidden_state
        wanted = model.score(hidden[0, -1]).softmax(-1).tolist()
    assert head.shares([*TEXT, pad]) == pytest.approx(wanted, abs=1e-5)


def test_what_writes_text_has_no_labels(base: Path, tmp_path: Path) -> None:
    assert head_labels(base) == []
    assert head_labels(tmp_path) == []  # the folder of an adapter has no config.json


def test_the_core_answers_in_order_and_a_text_that_fails_fails_alone(head: LabelHead) -> None:
    ours, theirs = socket.socketpair()
    heard: list[Message] = []

    def serve() -> None:
        with suppress(FrontGone):
            LabelCore(head, Channel(theirs)).run()

    with closing(theirs), closing(ours):
        front = Channel(ours)
        for message in (
            Classify(1, TEXT),
            Classify(2, [head.vocabulary]),  # which the front would refuse
            Classify(3, TEXT),
            Cancel(3),
            Attach(4, "adapter", "/nowhere"),
            Classify(5, TEXT),
        ):
            front.send(message)
        core = threading.Thread(target=serve)
        core.start()
        while len(heard) < 5:
            heard.extend(front.receive(wait=True))
        ours.shutdown(socket.SHUT_RDWR)
        core.join()
    assert heard[0] == Ready(head.context, head.vocabulary, [], LABELS)
    (refused,) = [message for message in heard if isinstance(message, Answer)]
    assert refused.fault is not None
    told = [message for message in heard[1:] if not isinstance(message, Answer)]
    assert [(type(message), message.id) for message in told] == [(Classified, 1), (Failed, 2), (Classified, 5)]  # type: ignore[union-attr]
