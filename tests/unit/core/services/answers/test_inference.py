"""Which model answers, with which template, over twins of what is outside."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from app.core.entities.datasets import Message, TokenizedRow
from app.core.entities.engines import EngineName
from app.core.entities.identity import Principal, Role
from app.core.entities.inference import (
    Adapter,
    Answer,
    AnswerOptions,
    AnswerPiece,
    ChatRequest,
    Choice,
    CompletionRequest,
    Generation,
    GenerationRequest,
    LabelPrediction,
    LabelRequest,
    Piece,
    Prediction,
    TokenCounts,
)
from app.core.entities.models import BaseModelSpec, ModelVersion
from app.core.entities.reasoning import split_reasoning
from app.core.entities.tool_calls import TOOL_FORMATS, Tool, ToolCall
from app.core.entities.usage import Usage
from app.core.errors import Invalid, NotFound, TooMany, Unavailable
from app.core.interfaces.components import ArtifactStore, BaseModelStore, ChatTokenizer
from app.core.interfaces.operations import EngineClient, UsageLog, Wanted
from app.core.services.answers.inference import InferenceService
from app.core.services.answers.targets import Targets
from app.core.services.models.resolver import ModelResolver
from app.core.services.people.rates import RateService
from tests.databases import Versions
from tests.rates import a_minute

ASKER = Principal("u1", "ada", "default", Role.VIEWER)


class LetterTokenizer(ChatTokenizer):
    """A letter a token, after the template's own mark."""

    fingerprint = "letters"
    tool_format = TOOL_FORMATS[0]

    def __init__(self, mark: str) -> None:
        self.template_hash = f"hash of {mark}"
        self.stop_token_ids = (ord(mark),)
        self._mark = mark

    def encode_prompt(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        offered = [ord(c) for tool in tools for c in tool["function"]["name"]]
        return offered + [ord(c) for m in messages for c in f"{self._mark}{m['role'][0]}{m['content']}"]

    def encode_training(self, messages: Sequence[Message], max_length: int | None) -> TokenizedRow:
        raise AssertionError("serving does not train")

    def encode_text(self, text: str) -> list[int]:
        return [*map(ord, text), ord(self._mark)]

    def encode_plain(self, text: str, max_length: int | None) -> TokenizedRow:
        ids = [ord(c) for c in text][:max_length]
        return TokenizedRow(0, ids, [])

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        raise AssertionError("serving shows no tokens")

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def split_reasoning(self, text: str) -> tuple[str | None, str]:
        return split_reasoning(text, self.opens_thinking)


class MemoryBases(BaseModelStore):
    def digest(self, name: str) -> str | None:
        return None

    def specs(self) -> Sequence[BaseModelSpec]:
        return [BaseModelSpec(name, "random", "llama") for name in ("tiny", "big")]

    def spec(self, name: str) -> BaseModelSpec:
        return next(spec for spec in self.specs() if spec.name == name)

    def folder(self, name: str) -> Path:
        return Path("/bases") / name

    def present(self, name: str) -> bool:
        return True

    def pull(self, name: str) -> Path:
        return self.folder(name)

    def tokenizer(self, name: str) -> ChatTokenizer:
        return LetterTokenizer({"tiny": "T", "big": "B"}[name])


class MemoryArtifacts(ArtifactStore):
    def publish(self, version_id: str, source: Path) -> str:
        return version_id

    def folder(self, version: ModelVersion) -> Path:
        return Path("/registry") / version.artifacts

    def tokenizer(self, version: ModelVersion) -> ChatTokenizer:
        return LetterTokenizer("V")

    def discard(self, artifacts: str) -> None:
        pass


class MemoryEngines(EngineClient):
    """Notes what it is asked, and answers the same to all."""

    def __init__(self, *bases: str, text: str = "yes") -> None:
        self.bases = bases
        self.text = text
        self.asked: list[GenerationRequest] = []
        self.classified: list[LabelRequest] = []
        self.ended = 0  # streams

    def resident(self) -> Sequence[str]:
        return self.bases

    def generate(self, request: GenerationRequest, is_wanted: Wanted | None = None) -> Generation:
        self.asked.append(request)
        if is_wanted and not is_wanted():
            raise Unavailable("nobody waits for the answer", code="client_gone")
        if len(request.prompt_ids) > 20:
            raise Invalid("the prompt is too long")
        if "?" in map(chr, request.prompt_ids):
            raise Unavailable("nobody knows", code="engine_unavailable")
        choices = [Choice(self.text, "stop") for _ in range(request.options.n)]
        return Generation(choices, TokenCounts(len(request.prompt_ids), 3))

    def classify(self, request: LabelRequest) -> Sequence[Mapping[str, float]]:
        self.classified.append(request)
        return [{"delivery": 0.25, "defect": 0.75} for _ in request.texts]

    def stream(self, request: GenerationRequest, is_wanted: Wanted | None = None) -> Generator[Piece]:
        generation = self.generate(request, is_wanted)
        try:
            for letter in self.text:
                for choice in range(request.options.n):
                    yield Piece(letter, choice=choice)
            for choice in range(request.options.n):
                yield Piece(finish_reason="stop", choice=choice)
            yield Piece(tokens=generation.tokens)
        finally:
            self.ended += 1


SHORT = AnswerOptions(max_tokens=9, temperature=0.5)


def ask(service: InferenceService, model: str | None = None) -> Prediction:
    [answer] = service.predict(ASKER, ["hi"], SHORT, model)
    return answer


class KeptUsage(UsageLog):
    def __init__(self) -> None:
        self.rows: list[Usage] = []

    def record(self, usage: Usage) -> None:
        self.rows.append(usage)


def version(name: str, **changes: object) -> ModelVersion:
    made = ModelVersion(
        id=f"id-{name}",
        project_id="default",
        name=name,
        number=0,
        base_model="tiny",
        template_hash="hash of V",
        artifacts=f"folder-{name}",
        job_id=None,
        dataset_digest="d",
        config={},
        metrics={},
        created_by=None,
        created_at=datetime.now(UTC),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def targets_of(versions: Versions) -> Targets:
    bases, artifacts = MemoryBases(), MemoryArtifacts()
    return Targets(ModelResolver(versions, bases, artifacts), bases, artifacts)


@pytest.fixture
def engines() -> MemoryEngines:
    return MemoryEngines("tiny", "big")


@pytest.fixture
def versions(database: Engine) -> Versions:
    return Versions(database)


@pytest.fixture
def usage() -> KeptUsage:
    return KeptUsage()


@pytest.fixture
def service(versions: Versions, engines: MemoryEngines, usage: KeptUsage) -> InferenceService:
    return InferenceService(targets_of(versions), engines, usage, a_minute())


def test_without_a_model_the_first_resident_base_answers(
    service: InferenceService, engines: MemoryEngines
) -> None:
    answer = ask(service)
    assert (answer.first, answer.model) == (Answer("yes", None, "stop"), "tiny")
    assert answer.tokens == TokenCounts(4, 3)
    assert engines.asked == [
        GenerationRequest(
            base_model="tiny",
            prompt_ids=[ord(c) for c in "Tuhi"],
            options=SHORT,
            stop_token_ids=(ord("T"),),
            sharing=ASKER.project_id,
        )
    ]


def test_without_a_model_and_without_an_engine(versions: Versions) -> None:
    lonely = InferenceService(targets_of(versions), MemoryEngines(), KeptUsage(), a_minute())
    with pytest.raises(Unavailable) as caught:
        ask(lonely)
    assert caught.value.code == "base_not_resident"


def test_a_version_answers_with_its_own_template_and_adapter(
    service: InferenceService, versions: Versions, engines: MemoryEngines
) -> None:
    versions.publish(version("support"))
    answer = ask(service, "support")
    assert answer.model == "support:1"
    [asked] = engines.asked
    assert asked.base_model == "tiny"
    assert asked.adapter == Adapter("id-support", "/registry/folder-support")
    assert asked.prompt_ids == [ord(c) for c in "Vuhi"]
    assert asked.stop_token_ids == (ord("V"),)


def test_a_bare_name_is_the_newest_version_and_a_number_is_that_one(
    service: InferenceService, versions: Versions
) -> None:
    versions.publish(version("support", id="one"))
    versions.publish(version("support", id="two"))
    assert ask(service, "support").model == "support:2"
    assert ask(service, "support:1").model == "support:1"


def test_a_base_models_name_is_that_base_unless_a_version_has_it(
    service: InferenceService, versions: Versions, engines: MemoryEngines
) -> None:
    assert ask(service, "big").model == "big"
    assert engines.asked[-1].base_model == "big"
    versions.publish(version("big"))
    assert ask(service, "big").model == "big:1"


@pytest.mark.parametrize("model", ["nobody", "support:2", "tiny:1"])
def test_a_model_that_the_project_does_not_have(service: InferenceService, versions: Versions, model: str) -> None:
    versions.publish(version("support"))
    with pytest.raises(NotFound, match=model) as caught:
        ask(service, model)
    assert caught.value.code == "model_not_found"


def test_an_encoder_writes_no_text(service: InferenceService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LetterTokenizer, "generates", False)
    with pytest.raises(Invalid, match="big") as caught:
        ask(service, "big")
    assert caught.value.code == "not_generative"


def test_another_projects_model_does_not_exist(
    service: InferenceService, versions: Versions, engines: MemoryEngines
) -> None:
    versions.publish(version("support", project_id="other"))
    with pytest.raises(NotFound):
        ask(service, "support")
    assert engines.asked == []


def test_a_whole_model_is_asked_through_its_own_engine(
    service: InferenceService,
    versions: Versions,
    engines: MemoryEngines,
    usage: KeptUsage,
) -> None:
    versions.publish(version("support", config={"adaptation": "full"}))
    assert ask(service, "support").model == "support:1"
    (asked,) = engines.asked
    assert (asked.engine, asked.adapter) == (EngineName("tiny", "folder-support"), None)
    assert str(asked.engine) == "folder-support"
    assert [(row.base_model, row.version_id) for row in usage.rows] == [("tiny", "id-support")]


def test_a_label_head_tells_each_texts_label(
    service: InferenceService,
    versions: Versions,
    engines: MemoryEngines,
    usage: KeptUsage,
) -> None:
    versions.publish(version("tickets", config={"objective": "classification", "max_length": 16}))
    told = service.predict(
        ASKER, ["late", "broken" * 9], AnswerOptions(max_tokens=9, deadline_seconds=3), "tickets"
    )
    scores = {"delivery": 0.25, "defect": 0.75}
    assert told == [LabelPrediction("defect", scores, "tickets:1", tokens) for tokens in (4, 16)]
    (asked,) = engines.classified
    assert asked.engine == EngineName("tiny", "folder-tickets")
    assert asked.texts == [list(map(ord, text)) for text in ("late", ("broken" * 9)[:16])]
    assert asked.deadline_seconds == 3
    assert [(row.prompt_tokens, row.completion_tokens, row.error) for row in usage.rows] == [(20, 0, None)]


def test_a_label_head_names_what_it_does_not_take(
    service: InferenceService, versions: Versions, engines: MemoryEngines
) -> None:
    versions.publish(version("tickets", config={"objective": "classification"}))
    with pytest.raises(Invalid) as caught:
        service.predict(ASKER, ["late"], AnswerOptions(temperature=1, stop=["x"]), "tickets")
    assert [fault.where for fault in caught.value.faults] == ["temperature", "stop"]
    with pytest.raises(Invalid) as caught:
        service.predict(ASKER, ["late", "", "gone"], AnswerOptions(), "tickets")
    assert [(fault.where, fault.code) for fault in caught.value.faults] == [("texts.1", "no_token")]
    for chat in (service.chat, service.stream):
        with pytest.raises(Invalid, match="tickets:1 reads text and writes none") as caught:
            chat(ASKER, ChatRequest([{"role": "user", "content": "hi"}], "tickets"))
        assert caught.value.code == "not_generative"
    assert engines.asked == engines.classified == []


def test_what_is_no_reference_is_refused(service: InferenceService) -> None:
    with pytest.raises(Invalid):
        ask(service, "../etc")


def test_reasoning_is_told_apart(versions: Versions) -> None:
    thinking = MemoryEngines("tiny", text="<think>hm</think>42")
    service = InferenceService(targets_of(versions), thinking, KeptUsage(), a_minute())
    answer = ask(service)
    assert answer.first == Answer("42", "hm", "stop")


def test_a_batch_is_answered_in_order(service: InferenceService, engines: MemoryEngines) -> None:
    texts = [str(number) for number in range(64)]
    answers = service.predict(ASKER, texts, SHORT, "tiny")
    asked = sorted("".join(map(chr, request.prompt_ids)) for request in engines.asked)
    assert asked == sorted(f"Tu{text}" for text in texts)
    assert [answer.tokens.prompt for answer in answers] == [2 + len(text) for text in texts]


def test_a_batch_names_each_text_that_has_a_fault(service: InferenceService) -> None:
    long = "x" * 30
    with pytest.raises(Invalid) as caught:
        service.predict(ASKER, ["hi", long, "ho", long], SHORT)
    assert [(fault.where, fault.message) for fault in caught.value.faults] == [
        (f"texts.{place}", "the prompt is too long") for place in (1, 3)
    ]
    with pytest.raises(Invalid, match="the prompt is too long"):
        service.predict(ASKER, [long], SHORT)
    with pytest.raises(Unavailable, match="nobody knows"):
        service.predict(ASKER, ["hi", "what?", "ho"], SHORT)


def test_a_batch_has_one_deadline(service: InferenceService, engines: MemoryEngines) -> None:
    service.predict(ASKER, ["a", "b"], AnswerOptions(deadline_seconds=5))
    assert all(0 < (asked.options.deadline_seconds or 0) <= 5 for asked in engines.asked)
    with pytest.raises(Unavailable) as caught:
        service.predict(ASKER, ["a", "b"], AnswerOptions(deadline_seconds=1e-9))
    assert (caught.value.code, len(engines.asked)) == ("engine_timeout", 2)


def test_what_ignores_the_end_stops_at_no_token(service: InferenceService, engines: MemoryEngines) -> None:
    service.predict(ASKER, ["hi"], AnswerOptions(ignore_eos=True))
    assert engines.asked[0].stop_token_ids == ()


def test_a_chat_is_rendered_whole(service: InferenceService, engines: MemoryEngines) -> None:
    messages: list[Message] = [{"role": "system", "content": "Be."}, {"role": "user", "content": "Who"}]
    answer = service.chat(ASKER, ChatRequest(messages, "big", replace(SHORT, n=2)))
    assert (answer.first, answer.model) == (Answer("yes", None, "stop"), "big")
    assert answer.others == [answer.first]
    assert "".join(map(chr, engines.asked[0].prompt_ids)) == "BsBe.BuWho"


CHAT = ChatRequest([{"role": "user", "content": "hi"}], "tiny", SHORT)


def test_a_stream_tells_reasoning_apart(versions: Versions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LetterTokenizer, "opens_thinking", True)
    thinking = MemoryEngines("tiny", text="h </think>\n42")
    service = InferenceService(targets_of(versions), thinking, KeptUsage(), a_minute())
    stream = service.stream(ASKER, CHAT)
    assert (stream.model, len(thinking.asked)) == ("tiny", 1)
    pieces = list(stream)
    assert pieces == [
        AnswerPiece(reasoning="h"),
        AnswerPiece("4"),
        AnswerPiece("2"),
        AnswerPiece(finish_reason="stop"),
        AnswerPiece(tokens=TokenCounts(4, 3)),
    ]


@pytest.mark.parametrize(
    ("opens", "text", "expected"),
    [
        (False, " yes ", Answer(" yes ", None, "stop")),
        (False, "<think> h </think> yes ", Answer("yes", "h", "stop")),
        (True, "</think> yes", Answer("yes", "", "stop")),
        (True, "<thin", Answer("", "<thin", "stop")),
    ],
)
def test_a_whole_answer_is_what_streams(
    service: InferenceService,
    engines: MemoryEngines,
    monkeypatch: pytest.MonkeyPatch,
    opens: bool,
    text: str,
    expected: Answer,
) -> None:
    monkeypatch.setattr(LetterTokenizer, "opens_thinking", opens)
    engines.text = text
    assert service.chat(ASKER, CHAT).first == expected


TOOLS = [{"type": "function", "function": {"name": "f"}}]
CALLED = 'Well. <tool_call>{"name": "f", "arguments": {}}</tool_call>'


def test_calls_of_tools_are_told_apart(service: InferenceService, engines: MemoryEngines) -> None:
    engines.text = CALLED
    [call] = (said := service.chat(ASKER, replace(CHAT, tools=TOOLS)).first).tool_calls
    assert chr(engines.asked[0].prompt_ids[0]) == "f"  # the template was shown it
    assert (said.text, call, said.finish_reason) == ("Well.", ToolCall("f", "{}"), "tool_calls")

    pieces = list(service.stream(ASKER, replace(CHAT, tools=TOOLS, options=replace(CHAT.options, n=2))))
    for choice in (0, 1):
        own = [piece for piece in pieces if piece.choice == choice]
        assert "".join(piece.text for piece in own) == "Well."
        assert [call for piece in own for call in piece.tool_calls] == [ToolCall("f", "{}")]
        assert [piece.finish_reason for piece in own if piece.finish_reason] == ["tool_calls"]


def test_calls_are_text_where_none_is_offered_or_the_format_is_not_known(
    service: InferenceService, engines: MemoryEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines.text = CALLED
    assert service.chat(ASKER, CHAT).first == Answer(CALLED, None, "stop")
    monkeypatch.setattr(LetterTokenizer, "tool_format", None)
    asked = replace(CHAT, tools=TOOLS)
    assert service.chat(ASKER, asked).first == Answer(CALLED, None, "stop")
    assert "".join(piece.text for piece in service.stream(ASKER, asked)) == CALLED


def test_the_engine_hears_that_nobody_waits(service: InferenceService) -> None:
    with pytest.raises(Unavailable) as caught:
        service.chat(ASKER, CHAT, lambda: False)
    assert caught.value.code == "client_gone"
    with pytest.raises(Unavailable):
        service.predict(ASKER, ["hi", "ho"], SHORT, is_wanted=lambda: False)
    with pytest.raises(Unavailable):
        service.stream(ASKER, CHAT, lambda: False)


@pytest.mark.parametrize("read", [0, 1])
def test_a_stream_that_is_closed_is_closed_at_the_engine(
    service: InferenceService, engines: MemoryEngines, read: int
) -> None:
    stream = service.stream(ASKER, CHAT)
    for _ in zip(range(read), stream, strict=False):
        pass
    assert engines.ended == 0
    stream.close()
    assert engines.ended == 1


def test_what_hinders_a_stream_is_raised_before_it(service: InferenceService) -> None:
    for text, kind in (("x" * 30, Invalid), ("what?", Unavailable)):
        with pytest.raises(kind):
            service.stream(ASKER, replace(CHAT, messages=[{"role": "user", "content": text}]))
    with pytest.raises(NotFound):
        service.stream(ASKER, replace(CHAT, model="nobody"))


def test_each_answer_leaves_a_row_of_what_it_used(
    service: InferenceService, versions: Versions, usage: KeptUsage
) -> None:
    versions.publish(version("support"))
    ask(service, "support")
    service.predict(ASKER, ["hello"], SHORT)
    of_version, of_base = usage.rows
    assert (of_version.model, of_version.version_id, of_version.base_model) == ("support:1", "id-support", "tiny")
    assert (of_version.project_id, of_version.caller) == ("default", "u1")
    assert (of_version.prompt_tokens, of_version.completion_tokens) == (4, 3)
    assert (of_version.finish_reason, of_version.error) == ("stop", None)
    assert (of_base.model, of_base.version_id, of_base.prompt_tokens) == ("tiny", None, 7)


def test_a_refusal_of_the_engine_leaves_its_code(
    service: InferenceService, engines: MemoryEngines, usage: KeptUsage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(request: GenerationRequest, is_wanted: object) -> Generation:
        raise Unavailable("busy", code="engine_busy")

    monkeypatch.setattr(engines, "generate", refuse)
    with pytest.raises(Unavailable):
        ask(service, "tiny")
    [row] = usage.rows
    assert (row.finish_reason, row.error, row.prompt_tokens, row.completion_tokens) == (None, "engine_busy", 4, 0)


@pytest.fixture
def rates() -> RateService:
    return a_minute(tokens=20)


@pytest.fixture
def limited(versions: Versions, engines: MemoryEngines, usage: KeptUsage, rates: RateService) -> InferenceService:
    """With twenty tokens a minute for each caller."""
    return InferenceService(targets_of(versions), engines, usage, rates)


def test_a_caller_without_tokens_is_refused_before_the_engine_is_asked(
    limited: InferenceService, engines: MemoryEngines, rates: RateService
) -> None:
    ask(limited, "tiny")
    assert rates.tokens(ASKER)[0].remaining == 20 - 7
    limited.predict(ASKER, ["hi", "hi"], SHORT, "tiny")  # admitted with what is left, and answered whole
    assert rates.tokens(ASKER)[0].remaining == 0
    asked = len(engines.asked)
    for refused in (lambda: ask(limited, "tiny"), lambda: limited.stream(ASKER, CHAT)):
        with pytest.raises(TooMany) as caught:
            refused()
        assert caught.value.code == "tokens_used_up"
    assert len(engines.asked) == asked


def test_a_client_that_goes_away_has_spent_what_it_got(limited: InferenceService, rates: RateService) -> None:
    stream = limited.stream(ASKER, CHAT)
    prompt = 20 - rates.tokens(ASKER)[0].remaining
    assert prompt == 0  # counted at the end
    next(iter(stream))
    stream.close()
    assert 0 < rates.tokens(ASKER)[0].remaining < 20


def test_a_refusal_of_the_engine_spends_nothing(
    limited: InferenceService, engines: MemoryEngines, rates: RateService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(request: GenerationRequest, is_wanted: object) -> Generation:
        raise Unavailable("busy", code="engine_busy")

    monkeypatch.setattr(engines, "generate", refuse)
    with pytest.raises(Unavailable):
        ask(limited, "tiny")
    assert rates.tokens(ASKER)[0].remaining == 20


def test_what_no_model_was_found_for_leaves_none(service: InferenceService, usage: KeptUsage) -> None:
    with pytest.raises(NotFound):
        ask(service, "nobody")
    assert usage.rows == []


def test_texts_go_on_as_they_are(service: InferenceService, engines: MemoryEngines) -> None:
    engines.text = "<think>hm</think>yes"
    said = service.complete(ASKER, CompletionRequest(["ab", "c"], "tiny", SHORT))
    assert [one.first for one in said] == [Answer("<think>hm</think>yes", None, "stop")] * 2
    assert sorted(request.prompt_ids for request in engines.asked) == [[97, 98], [99]]
    assert all(request.stop_token_ids == (ord("T"),) for request in engines.asked)
    pieces = list(service.stream_completion(ASKER, CompletionRequest(["ab"], "tiny", SHORT)))
    assert "".join(piece.text for piece in pieces) == "<think>hm</think>yes"
    assert pieces[-1].tokens == TokenCounts(2, 3)


def test_of_texts_each_fault_is_named(service: InferenceService) -> None:
    with pytest.raises(Invalid) as caught:
        service.complete(ASKER, CompletionRequest(["x" * 21, "fine", "y" * 21], "tiny", SHORT))
    assert [fault.where for fault in caught.value.faults] == ["prompt.0", "prompt.2"]
