"""The fast path's numbers are transformers' and PEFT's, whatever shares a pass, a slab or a prefix."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from app.implementations.models.loading import load_causal_lm
from app.implementations.serving import decoder
from app.implementations.serving.fast_model import FastModel
from app.implementations.serving.kv_cache import SHORTEST, Cached, KvCache, NoRoom, places_of
from app.implementations.serving.messages import Sampling, Submit
from app.implementations.serving.model import Chunk
from app.implementations.serving.prefix_cache import BLOCK, PrefixCache
from app.implementations.serving.sequences import PROMPT_TOKENS, Running, Schedule

# PEFT has its doubts about a bias of LoRA's own, where it saves one and where the layer has none.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed"),
    pytest.mark.filterwarnings("ignore:Adapter 'default'. 8 LoRA tensor"),
]

VOCABULARY = 300
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, rope_parameters=LLAMA3),
    "biased": LlamaConfig(**{**SHAPE, "tie_word_embeddings": True}, attention_bias=True, mlp_bias=True),
    "qwen2": Qwen2Config(**SHAPE),
}
ADAPTERS: list[dict[str, Any]] = [
    {"r": 4, "lora_alpha": 8},
    {"r": 12, "lora_alpha": 4, "use_rslora": True},
    {
        "r": 3,
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {"v_proj": 7},
        "alpha_pattern": {"q_proj": 1},
    },
    {"r": 2, "use_dora": True},
    {"r": 5, "lora_bias": True, "target_modules": ["o_proj", "gate_proj", "up_proj", "down_proj"]},
]


class House:
    """A base model with a trunk of random weights, and adapters over it, as files."""

    def __init__(self, family: str, place: Path) -> None:
        self.base = place / "base"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            network = AutoModelForCausalLM.from_config(CONFIGS[family])
            for name, weight in network.named_parameters():
                if name.endswith("bias"):
                    torch.nn.init.normal_(weight, std=0.3)
            network.save_pretrained(self.base)
            self.adapters = [self._adapter(place / str(n), options) for n, options in enumerate(ADAPTERS)]

    def _adapter(self, folder: Path, options: dict[str, Any]) -> Path:
        chosen = {"target_modules": "all-linear", "task_type": "CAUSAL_LM", "init_lora_weights": False, **options}
        network = get_peft_model(AutoModelForCausalLM.from_pretrained(self.base), LoraConfig(**chosen))
        for name, weight in network.named_parameters():
            if ".lora_" in name and "magnitude" not in name:
                torch.nn.init.normal_(weight, std=0.2)
            elif "magnitude" in name:
                torch.nn.init.uniform_(weight, 0.5, 2.0)
        network.save_pretrained(folder)
        return folder

    def fast(self, kv_bytes: int = 2**27) -> FastModel:
        return FastModel(load_causal_lm(self.base, torch.float32).eval(), kv_bytes)

    def plain(self, adapter: Path | None) -> Any:
        network = AutoModelForCausalLM.from_pretrained(self.base)
        return (network if adapter is None else PeftModel.from_pretrained(network, adapter)).eval()


@pytest.fixture(scope="module", params=list(CONFIGS))
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House("llama", tmp_path_factory.mktemp("one"))


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
