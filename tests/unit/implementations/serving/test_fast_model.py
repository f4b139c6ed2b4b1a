"""The fast path's numbers are transformers' and PEFT's, whatever shares a pass, a slab or a prefix."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import LlamaConfig, Qwen2Config

from app.implementations.models.loading import CausalLoader
from app.implementations.serving import decoder
from app.implementations.serving.fast_model import FastModel
from app.implementations.serving.kernels import Kernels
from app.implementations.serving.kv_cache import SHORTEST, Cached, KvCache, NoRoom, places_of
from app.implementations.serving.messages import Sampling, Submit
from app.implementations.serving.model import Chunk
from app.implementations.serving.prefix_cache import BLOCK, PrefixCache
from app.implementations.serving.sequences import PROMPT_TOKENS, Running, Schedule
from tests.serving_house import CONFIGS, SHAPE, VOCABULARY, House

# PEFT has its doubts about a bias of LoRA's own, where it saves one and where the layer has none.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed"),
    pytest.mark.filterwarnings("ignore:Adapter 'default'. 8 LoRA tensor"),
]


@pytest.fixture(scope="module", params=list(CONFIGS))
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, kernels: Kernels) -> House:
    return House(request.param, tmp_path_factory.mktemp(request.param), kernels)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, kernels: Kernels) -> House:
    return House("llama", tmp_path_factory.mktemp("one"), kernels)


def some_ids(draw: random.Random, count: int) -> list[int]:
    return [draw.randrange(VOCABULARY) for _ in range(count)]


def advance(schedule: Schedule, model: FastModel) -> dict[int, torch.Tensor]:
    """One turn; the logits by request of those that drew a token."""
    pairs = schedule.turn()
    if not pairs:  # the last that ran has given its place up for a longer one
        return {}
    logits = model.step([chunk for _, chunk in pairs])
    for sequence, chunk in pairs:
        sequence.read += len(chunk.ids)
        sequence.remember(model)
    wanted = [sequence for sequence, chunk in pairs if chunk.last]
    found = {}
    for sequence, row in zip(wanted, logits, strict=True):
        found[sequence.request.id] = row
        if sequence.draw(row).finish:
            schedule.remove([sequence.request.id])
    return found


def logits_of(model: FastModel, requests: Sequence[Submit], adapters: Sequence[Any]) -> list[list[torch.Tensor]]:
    schedule = Schedule(model, 64)
    found: list[list[torch.Tensor]] = [[] for _ in requests]
    for request in requests:
        attached = None if request.adapter is None else adapters[int(request.adapter)]
        schedule.add(Running.start(request, attached, model))
    while not schedule.idle:
        for number, row in advance(schedule, model).items():
            found[number].append(row)
    return found


class Held:
    """As ``Attached``: what a sequence knows of its adapter."""

    def __init__(self, weights: Any) -> None:
        self.weights = weights


def check(house: House, requests: Sequence[Submit], found: Sequence[Sequence[torch.Tensor]]) -> None:
    """Against one plain pass of transformers and PEFT over prompt and answer."""
    names = {request.adapter for request in requests}
    plain = {name: house.plain(None if name is None else house.adapters[int(name)]) for name in names}
    for request, rows in zip(requests, found, strict=True):
        assert len(rows) == request.sampling.max_tokens
        answer = [int(row.argmax()) for row in rows]
        ids = torch.tensor([[*request.prompt_ids, *answer[:-1]]])
        with torch.inference_mode():
            expected = plain[request.adapter](ids).logits[0, len(request.prompt_ids) - 1 :]
        torch.testing.assert_close(torch.stack(list(rows)), expected, rtol=1e-3, atol=1e-3)


def test_200_requests_in_mixed_batches_have_the_logits_that_they_have_alone(house: House) -> None:
    draw = random.Random(11)
    model = house.fast()
    adapters = [Held(model.load_adapter(folder, [])[0]) for folder in house.adapters]
    requests = [
        Submit(
            number,
            some_ids(draw, draw.choice((1, 2, 20, 70, 300))),
            Sampling(draw.randrange(1, 12)),
            draw.choice([None, *map(str, range(len(adapters)))]),
        )
        for number in range(200)
    ]
    check(house, requests, logits_of(model, requests, adapters))


def test_a_long_prompt_alone_is_read_in_pieces(llama: House) -> None:
    """In the first of which nobody wants a token."""
    model = llama.fast()
    request = Submit(0, some_ids(random.Random(15), 2 * PROMPT_TOKENS + 10), Sampling(3))
    check(llama, [request], logits_of(model, [request], []))


def test_a_sequence_that_gave_its_place_up_goes_on_where_it_was(llama: House) -> None:
    draw = random.Random(12)
    model = llama.fast(kv_bytes=6 * 2**20)  # a slab or two
    requests = [Submit(n, some_ids(draw, 240), Sampling(40), None, sharing=str(n)) for n in range(40)]
    check(llama, requests, logits_of(model, requests, []))
    assert model.kv_bytes == 0


def test_a_prompt_that_was_read_is_not_read_again(llama: House) -> None:
    draw = random.Random(13)
    model = llama.fast()
    adapters = [Held(model.load_adapter(folder, [])[0]) for folder in llama.adapters[:2]]
    common = some_ids(draw, 3 * BLOCK)
    requests = [Submit(n, [*common, *some_ids(draw, n)], Sampling(5), "0") for n in range(5)]
    for request in requests:  # one after the other
        check(llama, [request], logits_of(model, [Submit(0, *_rest(request))], adapters))
    assert model.reused_tokens == 4 * 3 * BLOCK
    check(llama, requests[:1], logits_of(model, requests[:1], adapters))
    assert model.reused_tokens == 4 * 3 * BLOCK + 2 * BLOCK  # never all of a prompt
    for stranger in (Submit(0, common, Sampling(1), "1"), Submit(0, common, Sampling(1), "0", sharing="else")):
        before = model.reused_tokens
        logits_of(model, [stranger], adapters)
        assert model.reused_tokens == before


def _rest(request: Submit) -> tuple[Any, ...]:
    return request.prompt_ids, request.sampling, request.adapter, request.sharing


def test_weights_of_8_bits_answer_as_those_that_they_stand_for(llama: House) -> None:
    """With an adapter of DoRA, for which they count, too."""
    network = CausalLoader().load(llama.base, torch.float32)
    for module in network.modules():
        if isinstance(module, torch.nn.Linear):
            scales = module.weight.abs().amax(1, keepdim=True) / 127
            module.weight.copy_((module.weight / scales).round() * scales)
    ids = some_ids(random.Random(16), 20)
    model = FastModel(CausalLoader().load(llama.base, torch.float32).eval(), 2**27, llama.kernels, int8=True)
    plain = PeftModel.from_pretrained(network, llama.adapters[3]).eval()
    chunk = Chunk(ids, model.new_cache(), model.load_adapter(llama.adapters[3], [])[0], True)
    model.reserve(chunk.cache, len(ids))
    with torch.inference_mode():
        expected = plain(torch.tensor([ids])).logits[:, -1]
    torch.testing.assert_close(model.step([chunk]), expected, rtol=1e-3, atol=1e-3)


def test_many_adapters_take_each_others_rows(llama: House) -> None:
    """More than the bank ever held at once, in turn and with gaps between them."""
    draw = random.Random(14)
    model = llama.fast()
    adapters = [Held(model.load_adapter(llama.adapters[n % 5], [])[0]) for n in range(15)]
    for _ in range(12):
        chosen = draw.sample(range(15), draw.randrange(1, 5))
        requests = [Submit(place, some_ids(draw, 5), Sampling(2), str(n)) for place, n in enumerate(chosen)]
        found = logits_of(model, requests, adapters)
        asked = [Submit(r.id, r.prompt_ids, r.sampling, str(int(r.adapter or 0) % 5)) for r in requests]
        check(llama, asked, found)


def test_an_adapter_whose_products_overflow_spoils_its_own_answers_alone(llama: House) -> None:
    model = llama.fast()
    weights = model.load_adapter(llama.adapters[0], [])[0]
    for part in weights.parts.values():
        part.down.fill_(3e38)
    ids = [1, 2, 3]
    chunks = [Chunk(ids, model.new_cache(), adapter, True) for adapter in (None, weights)]
    for chunk in chunks:
        model.reserve(chunk.cache, len(ids))
    sound, broken = model.step(chunks)
    assert not bool(broken.isfinite().all())
    with torch.inference_mode():
        torch.testing.assert_close(
            sound, llama.plain(None)(torch.tensor([ids])).logits[0, -1], rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    ],
)
def test_other_networks_are_left_to_transformers(changes: dict[str, Any]) -> None:
    assert decoder.fits(LlamaConfig(**SHAPE))
    assert not decoder.fits(LlamaConfig(**SHAPE, **changes))


def test_a_sliding_window_is_left_to_transformers() -> None:
    sliding = Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=16, max_window_layers=1)
    assert not decoder.fits(sliding)


def test_places_are_lent_and_given_back() -> None:
    slab_bytes = 2 * 8192 * 4  # one layer, one head of one float32
    caches = KvCache(1, 1, 1, torch.float32, budget=2 * slab_bytes)
    assert caches.longest == 2 * 8192
    sequences = [Cached() for _ in range(2 * places_of(SHORTEST))]
    for sequence in sequences:
        caches.reserve(sequence, SHORTEST)
        sequence.length = SHORTEST
    assert caches.used_bytes == 2 * slab_bytes
    with pytest.raises(NoRoom):
        caches.reserve(sequences[0], 1)
    assert sequences[0].length == SHORTEST
    for sequence in sequences[places_of(SHORTEST) :]:
        caches.release(sequence)
    assert caches.used_bytes == slab_bytes
    caches.reserve(sequences[0], 1)
    assert sequences[0].slab is not None
    assert sequences[0].slab.tokens == 2 * SHORTEST


def test_the_budget_of_prefixes_is_kept() -> None:
    caches = KvCache(1, 1, 1, torch.float32, budget=2**20)
    prefixes = PrefixCache(caches, budget=3 * 2 * BLOCK * 4)
    sequence = Cached()
    caches.reserve(sequence, 256)
    sequence.length = 256
    for start in (0, 1000, 2000):
        prefixes.remember(sequence, range(start, start + 2 * BLOCK), "")
    assert prefixes.recall(Cached(), range(1001), "") == 0  # the first prompt had to go
    assert prefixes.recall(Cached(), range(2000, 2000 + 2 * BLOCK + 1), "") == 2 * BLOCK
