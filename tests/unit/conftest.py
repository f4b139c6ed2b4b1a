"""The web application over a database of its own and twins of what is outside, and callers of each role."""

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine

from app import create_app
from app.bootstrap import Overrides, Settings, build_services, load_settings
from app.cli import init_cli
from app.core.entities.answer_stream import AnswerStream
from app.core.entities.engines import EngineKind, EngineState, LoadedAdapter
from app.core.entities.identity import DEFAULT_PROJECT_ID, MEMBER_ROLES, Principal, Role, Session, User
from app.core.entities.inference import (
    Adapter,
    Answer,
    AnswerOptions,
    ChatRequest,
    CompletionRequest,
    Piece,
    Prediction,
    TokenCounts,
    TokenLogprob,
)
from app.core.entities.models import ModelVersion
from app.core.entities.tool_calls import TOOL_FORMATS, ToolCallStream, split_tool_calls
from app.core.errors import Unavailable
from app.core.interfaces.components import ArtifactStore, ChatTokenizer
from app.core.interfaces.operations import EngineAdmin, ExternalIssuer, JobQueue, Wanted
from app.core.interfaces.storage import DatabaseHealth
from app.core.services import Services
from app.implementations.identity.secret_keys import SecretKeys
from app.implementations.identity.tokens import JwtIssuer
from app.lab.commands import lab
from tests.databases import Repositories

QUIET = "version: 1\ndisable_existing_loggers: false\n"
OIDC_ISSUER = "https://login.example.com"
OF_TWINS = {
    "default_base_model": "tiny-random",
    "trainer": "double",
    "model_redirects": {"gpt-4o-mini": "support", "acme/old": "smollm2-135m-instruct"},
    "oidc_issuer": OIDC_ISSUER,
    "oidc_audience": "llm-finetuning",
    # Out of the way, but for the one that a test is about.
    **dict.fromkeys(
        ("rate_limit", "token_rate_limit", "login_rate_limit", "login_account_rate_limit"), "1000000 per minute"
    ),
}
SOUND_ROWS = """[
  {"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Good day."}]},
  {"messages": [{"role": "user", "content": "Open?"}, {"role": "assistant", "content": "From nine to five."}]}
]"""


class TwinDatabase(DatabaseHealth):
    problem: str | None = None

    def check(self) -> str | None:
        return self.problem


class TwinQueue(JobQueue):
    def __init__(self) -> None:
        self.rung: list[str] = []
        self.problem: str | None = None

    def ring(self, job_id: str, queue: str) -> None:
        self.rung.append(job_id)

    def check(self) -> str | None:
        return self.problem


class TwinEngines:
    def resident(self) -> Sequence[str]:
        return ["smollm2-135m-instruct"]


class TwinEngineAdmin(EngineAdmin):
    """Holds what it is told to; ``away`` names bases whose engine does not answer."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, LoadedAdapter]] = {"tiny-random": {}, "smollm2-135m-instruct": {}}
        self.away: set[str] = set()

    def states(self) -> Sequence[EngineState]:
        return [
            EngineState(base)
            if base in self.away
            else EngineState(base, self.kind(base), 256, list(self.held[base].values()))
            for base in self.held
        ]

    def kind(self, base_model: str) -> EngineKind:
        return EngineKind.OURS

    def load(self, base_model: str, adapter: Adapter) -> None:
        self._check(base_model)
        self.held[base_model][adapter.name] = LoadedAdapter(adapter.name, 100, adapter.pinned)

    def unload(self, base_model: str, name: str) -> bool:
        self._check(base_model)
        return self.held[base_model].pop(name, None) is not None

    def _check(self, base_model: str) -> None:
        if base_model in self.away:
            raise Unavailable("away", code="engine_unavailable")


class TwinArtifacts(ArtifactStore):
    """Every version's are there."""

    def publish(self, version_id: str, source: Path) -> str:
        return version_id

    def folder(self, version: ModelVersion) -> Path:
        return Path("/registry") / version.artifacts

    def tokenizer(self, version: ModelVersion) -> ChatTokenizer:
        return cast("Any", None)

    def discard(self, artifacts: str) -> None:
        pass


class TwinInference:
    """Says back what it was asked, or raises what it was told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.failure: BaseException | None = None  # of a stream, on the way
        self.ended = 0  # streams
        self.stream_ended = threading.Event()
        self.reasoning: str | None = None
        self.streams: str | None = None  # instead of what was asked

    def predict(
        self,
        principal: Principal,
        texts: Sequence[str],
        options: AnswerOptions,
        model: str | None = None,
        is_wanted: Wanted | None = None,
    ) -> Sequence[Prediction]:
        self.asked.append((principal.project_id, list(texts), options, model))
        if self.error:
            raise self.error
        return [self._said_back(text, options, model) for text in texts]

    def chat(self, principal: Principal, request: ChatRequest, is_wanted: Wanted | None) -> Prediction:
        self.asked.append((principal.project_id, request))
        if self.error:
            raise self.error
        if is_wanted and not is_wanted():
            raise Unavailable("nobody waits for the answer", code="client_gone")
        said = self._said_back(request.messages[-1]["content"], request.options, request.model)
        if not (request.tools and self.streams):
            return said
        text, calls = split_tool_calls(self.streams, self._read_calls(request))
        reason = "tool_calls" if calls else "stop"
        answers = [replace(said.first, text=text, tool_calls=calls, finish_reason=reason)]
        return replace(said, answers=answers)

    def _read_calls(self, request: ChatRequest) -> ToolCallStream:
        return ToolCallStream(TOOL_FORMATS[0], {tool["function"]["name"] for tool in request.tools})

    def stream(self, principal: Principal, request: ChatRequest, is_wanted: Wanted | None = None) -> AnswerStream:
        self.asked.append((principal.project_id, request))
        if self.error:
            raise self.error
        said = self._said_back(request.messages[-1]["content"], request.options, request.model)
        reads = partial(self._read_calls, request) if request.tools else None
        return AnswerStream(said.model, False, self._pieces(said), reads)

    def complete(
        self, principal: Principal, request: CompletionRequest, is_wanted: Wanted | None = None
    ) -> Sequence[Prediction]:
        self.asked.append((principal.project_id, request))
        if self.error:
            raise self.error
        return [
            self._said_back(
                text if isinstance(text, str) else "".join(map(chr, text)), request.options, request.model
            )
            for text in request.prompts
        ]

    def stream_completion(
        self, principal: Principal, request: CompletionRequest, is_wanted: Wanted | None = None
    ) -> AnswerStream:
        [said] = self.complete(principal, request)
        return AnswerStream(said.model, None, self._pieces(said))

    def _said_back(self, text: str, options: AnswerOptions, model: str | None) -> Prediction:
        logprobs = None if options.logprobs is None else (TokenLogprob("a", -0.5, {"a": -0.5}),)
        answers = [Answer(text[::-1], self.reasoning, "stop", logprobs)] * options.n
        return Prediction(answers, model or "smollm2-135m-instruct", TokenCounts(len(text), len(text)))

    def _pieces(self, said: Prediction) -> Generator[Piece]:
        """A letter each. ``failure`` comes after the first."""
        try:
            for choice, answer in enumerate(said.answers):
                thoughts = f"<think>{answer.reasoning}</think>" if answer.reasoning else ""
                for letter in self.streams or thoughts + answer.text:
                    yield Piece(letter, answer.logprobs or (), choice=choice)
                    if self.failure:
                        raise self.failure
                yield Piece(finish_reason="stop", choice=choice)
            yield Piece(tokens=said.tokens)
        finally:
            self.ended += 1
            self.stream_ended.set()


class Twins(Repositories):
    """What stands behind the services, for tests to fill and to look into."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.database = TwinDatabase()
        self.queue = TwinQueue()
        self.engines = TwinEngineAdmin()
        self.inference = TwinInference()


@pytest.fixture
def twins(database: Engine) -> Twins:
    return Twins(database)


@pytest.fixture
def tokens(settings: Settings) -> JwtIssuer:
    return JwtIssuer(SecretKeys(None, settings.instance_dir / "secret_key"))


@pytest.fixture
def quiet_settings(settings: Settings, tmp_path: Path) -> Settings:
    """Logs nowhere: pytest's own handlers see the records. ``data/raw/sound.json`` can be trained on."""
    quiet = tmp_path / "logging.yaml"
    quiet.write_text(QUIET)
    raw = settings.data_dir / "raw"
    raw.mkdir()
    (raw / "sound.json").write_text(SOUND_ROWS)
    return settings.model_copy(update={"logging_file": quiet, **OF_TWINS})


@pytest.fixture
def external() -> ExternalIssuer | None:
    return None


@pytest.fixture
def services(
    quiet_settings: Settings, database: Engine, twins: Twins, external: ExternalIssuer | None
) -> Services:
    """Everything that HTTP and the command line reach, with the real database and the real stores of files."""
    overrides = Overrides(
        queue=twins.queue,
        engines=cast("Any", TwinEngines()),
        engine_admin=twins.engines,
        artifacts=TwinArtifacts(),
        external=external,
        database=twins.database,
        available_bytes=lambda device: 10**9,
    )
    built = build_services(quiet_settings, database, overrides=overrides)
    return replace(built, inference=cast("Any", twins.inference))


@pytest.fixture
def light_worker(services: Services) -> Iterator[None]:
    """Carries the light jobs as they come."""
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            if not services.execution.run_next("light worker", is_light=True):
                ended.wait(0.02)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    services.execution.drain()
    ended.set()
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def shared_app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """One for all tests: to document its routes costs a tenth of a second."""
    quiet = tmp_path_factory.mktemp("app") / "logging.yaml"
    quiet.write_text(QUIET)
    app = create_app(load_settings(logging_file=quiet), cast("Any", object()))
    init_cli(app)
    app.cli.add_command(lab)
    return app


@pytest.fixture
def app(shared_app: Flask, services: Services, quiet_settings: Settings) -> Iterator[Flask]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(shared_app.extensions, "services", services)
        patch.setitem(shared_app.extensions, "settings", quiet_settings)
        yield shared_app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def bearer(twins: Twins, tokens: JwtIssuer) -> Callable[..., dict[str, str]]:
    """The header of a new member of a project, or of an operator, without the cost of a password."""

    def make(role: Role = Role.OPERATOR, project: str = DEFAULT_PROJECT_ID) -> dict[str, str]:
        number, now = len(twins.users.list()), datetime.now(UTC)
        is_operator = role is Role.OPERATOR
        user = User(f"user-{number}", f"user{number}", "no password", now, is_operator=is_operator)
        twins.users.add(user, project, role if role in MEMBER_ROLES else Role.ADMIN)
        session = Session(f"session-{number}", user.id, project, f"h{number}", "s", now, now + timedelta(hours=1))
        twins.sessions.add(session)
        claims = {"sub": user.id, "project": project, "sid": session.id}
        return {"Authorization": f"Bearer {tokens.issue(claims, 600)}"}

    return make


@pytest.fixture
def caller(client: FlaskClient, bearer: Callable[..., dict[str, str]]) -> Callable[..., Any]:
    """``caller(method, path, …)`` as an operator in the default project."""
    headers = bearer()

    def call(method: str, path: str, **arguments: Any) -> Any:
        return client.open(path, method=method, headers={**headers, **arguments.pop("headers", {})}, **arguments)

    return call
