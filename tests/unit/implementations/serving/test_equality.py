"""In float32 each request's tokens are those of ``model.generate`` with the same PEFT adapter, whatever the engine
has to do beside it: 200 random mixed batches."""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from app.implementations.models.loading import CausalLoader
from app.implementations.serving.channel import Channel, FrontGone
from app.implementations.serving.core import Core
from app.implementations.serving.fast_model import FastModel
from app.implementations.serving.kernels import Kernels
from app.implementations.serving.kv_cache import NoRoom
from app.implementations.serving.messages import Answer, Attach, Cancel, Message, Sampling, Submit, Turn
from app.implementations.serving.sequences import PROMPT_TOKENS
from tests.serving_house import VOCABULARY, House

pytestmark = [
    pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed"),
    pytest.mark.filterwarnings("ignore:Adapter 'default'. [0-9]+ LoRA tensor"),
]

NEAR = 1e-4  # where the two best logits are nearer, either is right
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = 10


def some_adapter(draw: random.Random) -> dict[str, Any]:
    options = {
        "r": draw.choice((1, 2, 3, 5, 8, 13)),
        "lora_alpha": draw.choice((1, 4, 8, 16)),
        "use_rslora": draw.random() < 0.3,
        "target_modules": draw.choice(("all-linear", draw.sample(LAYERS, draw.randrange(1, 6)))),
    }
    kind = draw.choice((None, None, "use_dora", "lora_bias", "rank_pattern"))
    if kind == "rank_pattern":
        patterns = {"rank_pattern": {"v_proj": 7}, "alpha_pattern": {"q_proj": 2}}
        return {**options, **patterns, "target_modules": LAYERS[: draw.randrange(3, 8)]}
    return {**options, kind: True} if kind else options


class Watched(FastModel):
    """Counts how often there was no room."""

    full = 0

    def reserve(self, cache: Any, tokens: int) -> None:
        try:
            super().reserve(cache, tokens)
        except NoRoom:
            self.full += 1
            raise


class Script(Channel):
    """The front's part, by the turns of the core: what is sent before which turn."""

    def __init__(self, messages: Sequence[tuple[int, Message]]) -> None:
        self._messages = deque(sorted(messages, key=lambda pair: pair[0]))
        self._turn = -1
        self.sent: list[Message] = []

    def receive(self, *, wait: bool) -> Sequence[Message]:
        self._turn += 1
        if wait:  # nobody is there: on to the next who comes
            if not self._messages:
                raise FrontGone
            self._turn = max(self._turn, self._messages[0][0])
        now = []
        while self._messages and self._messages[0][0] <= self._turn:
            now.append(self._messages.popleft()[1])
        return now

    def wake(self) -> None:
        """Nobody waits."""

    def send(self, message: Message) -> None:
        self.sent.append(message)


@dataclass
class Batch:
    """Requests by the turn at which they come, adapters loaded and requests given up on the way."""

    requests: dict[int, Submit] = field(default_factory=dict)
    messages: list[tuple[int, Message]] = field(default_factory=list)
    given_up: set[int] = field(default_factory=set)

    def run(self, model: FastModel, adapter_bytes: int) -> dict[int, list[int]]:
        script = Script(self.messages)
        with pytest.raises(FrontGone):
            Core(model, script, adapter_bytes, Path("none")).run()
        assert [m.fault for m in script.sent if isinstance(m, Answer) and m.fault] == []
        found: dict[int, list[int]] = {number: [] for number in self.requests}
        for turn in (message for message in script.sent if isinstance(message, Turn)):
            for token in turn.tokens:
                found[token.id].append(token.token)
        return found


def some_batch(draw: random.Random, house: House) -> Batch:
    batch = Batch()
    common = [draw.randrange(VOCABULARY) for _ in range(draw.choice((70, 150, 400)))]
    adapters = [None, *draw.sample(range(ADAPTERS), draw.randrange(1, 6))]
    for number in range(draw.randrange(2, 17)):
        turn = draw.choice((0, 0, draw.randrange(40)))
        own = [
            draw.randrange(VOCABULARY) for _ in range(draw.choice((1, 2, 20, 60, 245, 250, PROMPT_TOKENS + 50)))
        ]
        ids = [*common, *own] if draw.random() < 0.4 else own
        adapter = draw.choice(adapters)
        if adapter is not None:
            batch.messages.append((turn, Attach(1000 + number, str(adapter), str(house.adapters[adapter]))))
        stops = draw.sample(range(VOCABULARY), 5)
        sampling = Sampling(draw.randrange(1, 20), stop_token_ids=stops)
        if draw.random() < 0.25:
            seeded = {"temperature": draw.choice((0.3, 1.0, 2.0)), "seed": draw.randrange(1000)}
            sampling = Sampling(sampling.max_tokens, stop_token_ids=stops, top_k=draw.choice((0, 50)), **seeded)
        name = None if adapter is None else str(adapter)
        batch.requests[number] = Submit(number, ids, sampling, name, sharing=draw.choice("ab"))
        batch.messages.append((turn, batch.requests[number]))
        if draw.random() < 0.1:
            batch.given_up.add(number)
            batch.messages.append((turn + draw.randrange(1, 8), Cancel(number)))
    return batch


class Reference:
    """transformers and PEFT."""

    def __init__(self, house: House) -> None:
        self._networks = {None: house.plain(None)}
        self._networks |= {str(n): house.plain(folder) for n, folder in enumerate(house.adapters)}

    def check(self, request: Submit, answer: Sequence[int], *, whole: bool) -> None:
        """``whole`` False: it was given up on the way."""
        ids = torch.tensor([request.prompt_ids])
        output = self._networks[request.adapter].generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=request.sampling.max_tokens if whole else max(1, len(answer)),
            eos_token_id=list(request.sampling.stop_token_ids),
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        expected = output.sequences[0, ids.shape[1] :].tolist()
        for place, logits in enumerate(output.logits):
            best = logits[0].topk(2).values
            if best[0] - best[1] < NEAR:
                return
            assert list(answer[: place + 1]) == expected[: place + 1] or (not whole and not answer), request
        assert len(answer) <= len(expected)


@pytest.mark.parametrize("batches", [10, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_tokens_are_those_of_generate(family: str, batches: int, kernels: Kernels, tmp_path: Path) -> None:
    """Prompts in pieces, prefixes read before, places given up, adapters that come, go and are evicted."""
    draw = random.Random(f"{family} {batches}")
    house = House(family, tmp_path, kernels, [some_adapter(draw) for _ in range(ADAPTERS)])
    reference = Reference(house)
    model = Watched(CausalLoader().load(house.base, torch.float32).eval(), 6 * 2**20, kernels)
    room = sum(model.load_adapter(folder, [])[1] for folder in house.adapters[:4])
    greedy = 0
    for _ in range(batches):
        batch = some_batch(draw, house)
        answers = batch.run(model, room)
        for number, request in batch.requests.items():
            if request.sampling.temperature == 0:
                greedy += 1
                reference.check(request, answers[number], whole=number not in batch.given_up)
            elif number not in batch.given_up:
                alone = Batch({number: request}, [m for m in batch.messages if _is_of(m[1], number)])
                assert alone.run(model, room) == {number: answers[number]}, request
        assert model.kv_bytes == 0
    assert greedy > 4 * batches
    assert model.full > batches / 4  # else nobody had to give way
    assert model.reused_tokens > 100 * batches


def _is_of(message: Message, number: int) -> bool:
    return isinstance(message, Submit | Attach) and message.id in (number, 1000 + number)
