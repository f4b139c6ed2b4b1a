"""The core alone, in a thread, spoken to over its socket."""

import random
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, PreTrainedModel

from app.implementations.models.devices import pick_precision
from app.implementations.models.loading import CausalLoader
from app.implementations.models.nf4 import nf4_options
from app.implementations.serving import decoder
from app.implementations.serving.adapter_files import AdapterRefused
from app.implementations.serving.adapters import Adapters
from app.implementations.serving.channel import Channel, FrontGone
from app.implementations.serving.core import Core
from app.implementations.serving.fast_model import FastModel
from app.implementations.serving.loading import load_model
from app.implementations.serving.messages import (
    Answer,
    Attach,
    Cancel,
    Detach,
    Failed,
    Message,
    Precision,
    Ready,
    Sampling,
    Submit,
    Token,
    Turn,
)
from app.implementations.serving.model import Chunk, ServedModel
from app.implementations.serving.sequences import Running, Schedule
from app.implementations.serving.transformers_model import TransformersModel
from tests.serving_models import CONTEXT, VOCABULARY

NO_END = -1


def submit(number: int, prompt: Sequence[int], adapter: str | None = None, **changes: object) -> Submit:
    sampling = Sampling(**{"max_tokens": 12, **changes})  # type: ignore[arg-type]
    return Submit(number, list(prompt), sampling, adapter)


class Front:
    """The other end of the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.channel = Channel(connection)

    def until(self, done: Callable[[Message], bool]) -> list[Message]:
        seen: list[Message] = []
        while not (seen and done(seen[-1])):
            for message in self.channel.receive(wait=True):
                seen.append(message)
        return seen

    def ask(self, message: Attach | Detach) -> str | None:
        self.channel.send(message)
        answer = self.until(lambda m: isinstance(m, Answer))[-1]
        assert isinstance(answer, Answer)
        return answer.fault

    def answers(self, requests: Sequence[Submit]) -> Mapping[int, list[Token] | Failed]:
        """Everything at once; tokens, or the failure, of each."""
        for request in requests:
            self.channel.send(request)
        found: dict[int, list[Token] | Failed] = {r.id: [] for r in requests}
        open_ids = set(found)
        while open_ids:
            for message in self.channel.receive(wait=True):
                if isinstance(message, Failed):
                    found[message.id] = message
                    open_ids.discard(message.id)
                elif isinstance(message, Turn):
                    for token in message.tokens:
                        tokens = found[token.id]
                        assert isinstance(tokens, list)
                        tokens.append(token)
                        if token.finish:
                            open_ids.discard(token.id)
        return found

    def ids(self, requests: Sequence[Submit]) -> list[list[int]]:
        answers = self.answers(requests)
        return [[t.token for t in tokens] for r in requests if isinstance(tokens := answers[r.id], list)]


Load = Callable[[Path, Precision], ServedModel]


def fast(folder: Path, precision: Precision = "fp32", kv_bytes: int = 2**27) -> ServedModel:
    model = load_model(folder, precision, kv_bytes, kernels=None)
    assert isinstance(model, FastModel)
    return model


def slow(folder: Path, precision: Precision = "fp32") -> ServedModel:
    """As an architecture that has no fast path is served."""
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    return TransformersModel(CausalLoader().load(folder, dtype).eval(), torch.device("cpu"))


@contextmanager
def core_of(
    folder: Path, most_running: int = 64, precision: Precision = "fp32", load: Load = fast
) -> Iterator[Front]:
    ours, theirs = socket.socketpair()

    def run() -> None:
        with suppress(FrontGone):
            tokenizer = folder / "tokenizer.json"
            Core(load(folder, precision), Channel(theirs), 2**30, tokenizer, most_running).run()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        front = Front(ours)
        ready = front.until(lambda m: isinstance(m, Ready))[-1]
        assert isinstance(ready, Ready)
        assert (ready.context, ready.vocabulary) == (CONTEXT, VOCABULARY)
        yield front
    finally:
        ours.close()
        thread.join(20)
        theirs.close()
    assert not thread.is_alive()


@pytest.fixture(scope="module", params=[fast, slow])
def front(base_folder: Path, adapter_folders: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[Front]:
    with core_of(base_folder, load=request.param) as front:
        for name, folder in adapter_folders.items():
            assert front.ask(Attach(1, name, str(folder))) is None
        yield front


@cache
def reference(base: Path, adapter: Path | None, dtype: torch.dtype) -> PreTrainedModel | PeftModel:
    model = LlamaForCausalLM.from_pretrained(base, dtype=dtype)
    return PeftModel.from_pretrained(model, adapter) if adapter else model


def generate(base: Path, adapter: Path | None, request: Submit, dtype: torch.dtype = torch.float32) -> list[int]:
    """What transformers and PEFT answer."""
    ids = torch.tensor([request.prompt_ids])
    output = reference(base, adapter, dtype).generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=request.sampling.max_tokens,
        eos_token_id=list(request.sampling.stop_token_ids) or NO_END,
        pad_token_id=0,
    )
    return [int(i) for i in output[0, ids.shape[1] :]]


def test_tokens_equal_generate_with_the_same_adapter_whatever_else_runs(
    front: Front, base_folder: Path, adapter_folders: dict[str, Path]
) -> None:
    draw = random.Random(3)
    names = [None, *adapter_folders]
    requests = [
        submit(
            100 + number,
            [draw.randrange(VOCABULARY) for _ in range(draw.randrange(1, 40))],
            names[number % len(names)],
            max_tokens=draw.randrange(1, 24),
            stop_token_ids=draw.sample(range(VOCABULARY), 20),
        )
        for number in range(30)
    ]
    answers = front.ids(requests)
    for request, answer in zip(requests, answers, strict=True):
        folder = adapter_folders[request.adapter] if request.adapter else None
        assert answer == generate(base_folder, folder, request), request
    assert len({tuple(answer) for answer in answers}) > 20  # a model that says one thing would prove nothing


def test_in_bf16_the_slow_path_is_as_peft_is(base_folder: Path, adapter_folders: dict[str, Path]) -> None:
    """Its adapters in float32 beside the base model's bf16."""
    with core_of(base_folder, precision="bf16", load=slow) as front:
        for name in ("plain", "rank.16"):
            assert front.ask(Attach(1, name, str(adapter_folders[name]))) is None
        names = (None, "plain", "rank.16", "plain", None)
        requests = [submit(i, [i + 40, i + 50, i + 60], name) for i, name in enumerate(names)]
        answers = front.ids(requests)
    for request, answer in zip(requests, answers, strict=True):
        folder = adapter_folders[request.adapter] if request.adapter else None
        assert answer == generate(base_folder, folder, request, torch.bfloat16)


def test_in_4_bits_it_answers_as_peft_over_the_same_4_bits(
    base_folder: Path, adapter_folders: dict[str, Path]
) -> None:
    model = load_model(base_folder, "nf4", 2**27, kernels=None)
    weights, _ = model.load_adapter(adapter_folders["plain"], sorted(_layers(adapter_folders["plain"])))
    chunk = Chunk([40, 50, 60], model.new_cache(), weights, True)
    found = model.step([chunk])
    cpu = torch.device("cpu")
    dtype = pick_precision("auto", cpu)
    network = CausalLoader().load(base_folder, dtype, **nf4_options(dtype, cpu))
    assert "4bit" in type(network.model.layers[0].mlp.up_proj).__name__
    plain = PeftModel.from_pretrained(network, adapter_folders["plain"]).eval()
    with torch.inference_mode():
        expected = plain(input_ids=torch.tensor([[40, 50, 60]])).logits[:, -1].float()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_8_bits_are_refused_where_no_path_has_them(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "fits", lambda config: False)
    with pytest.raises(ValueError, match="int8: that is for Llama and Qwen2"):
        load_model(base_folder, "int8", 2**27, kernels=None)


def _layers(folder: Path) -> set[str]:
    names = load_file(folder / "adapter_model.safetensors")
    return {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in names}


def test_in_bf16_the_fast_path_is_as_near_to_float32_as_peft_is(
    base_folder: Path, adapter_folders: dict[str, Path]
) -> None:
    model = fast(base_folder, "bf16")
    draw = random.Random(5)
    chunks, exact, pefts = [], [], []
    for folder in (None, *adapter_folders.values()):
        ids = [draw.randrange(VOCABULARY) for _ in range(20)]
        adapter = None if folder is None else model.load_adapter(folder, [])[0]
        chunks.append(Chunk(ids, model.new_cache(), adapter, last=True))
        model.reserve(chunks[-1].cache, len(ids))
        with torch.inference_mode():
            exact.append(reference(base_folder, folder, torch.float32)(torch.tensor([ids])).logits[0, -1])
            pefts.append(reference(base_folder, folder, torch.bfloat16)(torch.tensor([ids])).logits[0, -1].float())
    truth = torch.stack(exact)
    ours, theirs = ((logits - truth).norm() for logits in (model.step(chunks), torch.stack(pefts)))
    assert ours < 1.5 * theirs < 0.1 * truth.norm()


def test_an_answer_ends_at_a_stop_id_or_at_max_tokens(front: Front) -> None:
    [free] = front.answers([submit(200, [5, 6, 7])]).values()
    assert isinstance(free, list)
    assert [t.finish for t in free] == [None] * 11 + ["length"]
    third = free[2].token
    first_seen = next(i for i, t in enumerate(free) if t.token == third)
    [stopped] = front.answers([submit(201, [5, 6, 7], stop_token_ids=[third])]).values()
    assert isinstance(stopped, list)
    assert [t.token for t in stopped] == [t.token for t in free[: first_seen + 1]]
    assert stopped[-1].finish == "stop"


def test_a_seed_answers_the_same_alone_and_among_others(front: Front) -> None:
    seeded = submit(300, [9, 8, 7], "plain", temperature=1.0, top_p=0.9, seed=42, max_tokens=20)
    [alone] = front.ids([seeded])
    crowd = [
        submit(310 + i, [i + 1, i + 2], n, temperature=1.0) for i, n in enumerate([None, "dora", "plain"] * 3)
    ]
    among = front.ids([*crowd[:5], seeded, *crowd[5:]])[5]
    assert alone == among
    other = front.ids([submit(330, [9, 8, 7], "plain", temperature=1.0, top_p=0.9, seed=43, max_tokens=20)])
    assert other != [alone]


def test_logprobs_are_the_models_own(front: Front, base_folder: Path) -> None:
    prompt = [11, 12, 13]
    [tokens] = front.answers([submit(400, prompt, logprobs=3, max_tokens=1, temperature=2.0, seed=1)]).values()
    assert isinstance(tokens, list)
    with torch.inference_mode():
        logits = LlamaForCausalLM.from_pretrained(base_folder)(torch.tensor([prompt])).logits[0, -1]
    expected = torch.log_softmax(logits, -1)
    assert tokens[0].logprob == pytest.approx(float(expected[tokens[0].token]), abs=1e-4)
    assert [i for i, _ in tokens[0].top] == expected.topk(3).indices.tolist()
    assert [p for _, p in tokens[0].top] == pytest.approx(expected.topk(3).values.tolist(), abs=1e-4)


def test_a_cancelled_request_leaves_within_a_turn(front: Front) -> None:
    front.channel.send(submit(500, [1, 2, 3], max_tokens=200))
    front.until(lambda m: isinstance(m, Turn) and any(t.id == 500 for t in m.tokens))
    front.channel.send(Cancel(500))
    front.channel.send(submit(501, [4, 5, 6], max_tokens=1))
    turn = front.until(lambda m: isinstance(m, Turn) and any(t.id == 501 for t in m.tokens))[-1]
    assert isinstance(turn, Turn)
    assert [t.id for t in turn.tokens] == [501]
    assert (turn.running, turn.waiting) == (0, 0)


def test_requests_beyond_the_limit_wait_their_turn(base_folder: Path) -> None:
    with core_of(base_folder, most_running=2) as front:
        requests = [submit(i, [i + 1], max_tokens=4) for i in range(5)]
        for request in requests:
            front.channel.send(request)
        turns: list[Turn] = []
        ended: list[int] = []
        while len(ended) < 5:
            turns += [m for m in front.channel.receive(wait=True) if isinstance(m, Turn)]
            ended = [t.id for turn in turns for t in turn.tokens if t.finish]
        assert max(len(turn.tokens) for turn in turns) == 2
        assert ended == [0, 1, 2, 3, 4]


def test_who_sends_much_does_not_keep_others_waiting(base_folder: Path) -> None:
    with core_of(base_folder, most_running=2) as front:
        busy = [Submit(i, [i + 1], Sampling(6), sharing="busy") for i in range(10)]
        other = Submit(10, [11], Sampling(6), sharing="other")
        for request in (*busy, other):
            front.channel.send(request)
        turns = front.until(lambda m: isinstance(m, Turn) and any(t.id == 9 and t.finish for t in m.tokens))
    ended = [t.id for turn in turns if isinstance(turn, Turn) for t in turn.tokens if t.finish]
    assert ended.index(10) <= 3
    assert [number for number in ended if number != 10] == list(range(10))


def test_an_adapter_that_is_unloaded_serves_those_who_have_it_and_nobody_else(
    front: Front, adapter_folders: dict[str, Path]
) -> None:
    folder = str(adapter_folders["plain"])
    assert front.ask(Attach(600, "leaving", folder)) is None
    [expected] = front.ids([submit(601, [3, 2, 1], "leaving", max_tokens=30)])
    front.channel.send(submit(602, [3, 2, 1], "leaving", max_tokens=30))
    front.until(lambda m: isinstance(m, Turn))
    front.channel.send(Detach(603, "leaving"))
    tokens: list[int] = []
    seen = front.until(lambda m: isinstance(m, Turn) and any(t.id == 602 and t.finish for t in m.tokens))
    tokens = [t.token for m in seen if isinstance(m, Turn) for t in m.tokens]
    assert tokens == expected[-len(tokens) :]
    failed = front.answers([submit(604, [1], "leaving")])[604]
    assert isinstance(failed, Failed)
    assert failed.status == 404
    assert front.ask(Detach(605, "leaving")) == "no such adapter is loaded"


def _spoil_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    for part, value in changes.items():
        name = next(n for n in weights if part in n)
        if value is None:
            del weights[name]
        else:
            weights[name] = value
    save_file(weights, folder / "adapter_model.safetensors")


def _nan(folder: Path) -> None:
    _spoil_weights(folder, lora_A=torch.full((4, 64), float("nan")))


def _torn(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _other_width(folder: Path) -> None:
    _spoil_weights(folder, lora_A=torch.zeros(4, 65))


def _half(folder: Path) -> None:
    _spoil_weights(folder, lora_B=None)


def _wrong_rank(folder: Path) -> None:
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 4', '"r": 5'))


@pytest.mark.parametrize("load", [fast, slow])
@pytest.mark.parametrize("spoil", [_nan, _torn, _other_width, _half, _wrong_rank])
def test_a_broken_adapter_harms_nobody(
    base_folder: Path,
    adapter_folders: dict[str, Path],
    tmp_path: Path,
    spoil: Callable[[Path], None],
    load: Load,
) -> None:
    """As the first adapter, when the base model is not wrapped yet, and as a later one."""
    broken = tmp_path / "broken"
    shutil.copytree(adapter_folders["plain"], broken)
    spoil(broken)
    model = load(base_folder, "fp32")
    with core_of(base_folder, load=load) as front:
        requests = [submit(1, [1, 2, 3]), submit(2, [1, 2, 3], "good")]
        reason = front.ask(Attach(10, "bad", str(broken)))
        assert reason is not None
        assert str(tmp_path) not in reason
        assert front.ask(Attach(11, "good", str(adapter_folders["rank.16"]))) is None
        before = front.ids(requests)
        assert front.ask(Attach(12, "bad", str(broken))) == reason
        assert front.ids(requests) == before
    first = submit(1, [1, 2, 3])
    assert before[0] == generate(base_folder, None, first)
    assert before[1] == generate(base_folder, adapter_folders["rank.16"], first)
    assert model.end_ids == [2]


def test_an_adapter_whose_numbers_overflow_fails_its_own_requests_alone(
    front: Front, adapter_folders: dict[str, Path], tmp_path: Path
) -> None:
    """All its weights are numbers, so that it is loaded."""
    shutil.copytree(adapter_folders["plain"], tmp_path / "hot")
    _spoil_weights(tmp_path / "hot", **{"down_proj.lora_A": torch.full((4, 128), 3e38)})
    requests = [submit(700 + i, [i + 1, i + 2], name) for i, name in enumerate([None, "plain", "dora"] * 3)]
    alone = front.ids(requests)
    assert front.ask(Attach(710, "hot", str(tmp_path / "hot"))) is None
    hot = [submit(720 + i, [i + 1, i + 2], "hot") for i in range(3)]
    answers = front.answers([hot[0], *requests[:4], hot[1], *requests[4:], hot[2]])
    failures = [answers[request.id] for request in hot]
    assert [failed.status for failed in failures if isinstance(failed, Failed)] == [500, 500, 500]
    tokens = [answers[request.id] for request in requests]
    assert [[t.token for t in one] for one in tokens if isinstance(one, list)] == alone
    assert front.ask(Detach(730, "hot")) is None


def test_the_least_recently_used_adapter_makes_room(base_folder: Path, adapter_folders: dict[str, Path]) -> None:
    model = fast(base_folder)
    folders = [str(adapter_folders["plain"])] * 4
    size = model.load_adapter(Path(folders[0]), [])[1]
    adapters = Adapters(model, capacity=2 * size)
    adapters.attach("a", folders[0])
    adapters.attach("b", folders[1])
    in_use = adapters.get("b")
    adapters.get("a")
    adapters.attach("c", folders[2])
    assert in_use is not None
    assert adapters.collect({in_use}) == ["a"]
    assert [adapters.get(name) is not None for name in "abc"] == [False, True, True]
    adapters.attach("d", folders[3])
    assert adapters.collect(()) == ["b"]
    adapters.attach("a", folders[0])  # and it may come back
    assert adapters.collect(()) == ["c"]


def test_a_pinned_adapter_stays(base_folder: Path, adapter_folders: dict[str, Path]) -> None:
    model = fast(base_folder)
    folder = str(adapter_folders["plain"])
    size = model.load_adapter(Path(folder), [])[1]
    adapters = Adapters(model, capacity=2 * size)
    assert adapters.attach("a", folder, pinned=True) == size
    adapters.attach("b", folder)
    adapters.attach("c", folder)
    assert adapters.collect(()) == ["b"]
    adapters.attach("c", folder, pinned=True)  # nothing is loaded, only pinned
    with pytest.raises(AdapterRefused, match="pinned"):
        adapters.attach("d", folder, pinned=True)
    assert adapters.get("d") is None
    assert adapters.bytes == 2 * size
    adapters.attach("d", folder)
    assert adapters.collect(()) == []  # who was attached last may exceed
    adapters.attach("a", folder)  # pinned no more
    adapters.attach("e", folder)
    assert adapters.collect(()) == ["d", "a"]
    assert adapters.detach("c")
    adapters.attach("c", folder)  # to be unloaded takes the pin away
    adapters.attach("f", folder)
    assert adapters.collect(()) == ["e"]


def test_who_has_the_fewest_running_is_next(base_folder: Path) -> None:
    """Whatever another has sent before."""
    model = fast(base_folder)
    schedule = Schedule(model, most_running=4)
    for number, project in enumerate("aaaaaabbc"):
        request = Submit(number, [1, 2], Sampling(5), sharing=project)
        schedule.add(Running.start(request, None, model))
    assert {sequence.request.id for sequence, _ in schedule.turn()} == {0, 6, 8, 1}
    schedule.remove([0, 1])
    assert {sequence.request.id for sequence, _ in schedule.turn()} == {2, 6, 8, 3}


def test_a_burst_of_long_prompts_is_read_in_pieces(base_folder: Path) -> None:
    model = fast(base_folder)
    schedule = Schedule(model, 64)
    for number, length in enumerate([150, 150, 1, 150, 200, 1]):
        schedule.add(Running.start(submit(number, [1] * length), None, model))
    turns = []
    for _ in range(5):
        pairs = schedule.turn()
        turns.append({sequence.request.id: len(chunk.ids) for sequence, chunk in pairs})
        for sequence, chunk in pairs:
            sequence.read += len(chunk.ids)
            sequence.cache.length += len(chunk.ids)
            if chunk.last:
                sequence.ids.append(1)
    assert turns[0] == {0: 150, 1: 106}
    assert turns[1] == {0: 1, 1: 44, 2: 1, 3: 150, 4: 62}
    assert turns[2] == {0: 1, 1: 1, 2: 1, 3: 1, 4: 138, 5: 1}
    assert turns[3] == turns[4] == dict.fromkeys(range(6), 1)
