"""What the service offers to those who ask models, and to those who look after the engines."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import date
from typing import Literal

from app.core.entities.answer_stream import AnswerStream
from app.core.entities.engines import EngineReport
from app.core.entities.identity import Principal
from app.core.entities.inference import AnswerOptions, ChatRequest, CompletionRequest, LabelPrediction, Prediction
from app.core.entities.models import ModelVersion
from app.core.entities.usage import UsagePage
from app.core.interfaces.operations import Wanted


class Inference(ABC):
    """Answers requests to base models and published versions.

    Its methods raise ``NotFound`` for a model that the caller's project does not have, ``Invalid``
    (not_generative) where one with a label head is to chat, (not_servable) for one that no engine attaches and
    (chat_not_renderable, tools_not_supported) for what its template does not take, ``TooMany`` (tokens_used_up),
    and what ``EngineClient`` raises, (client_gone) among it once ``is_wanted`` says that nobody waits.
    """

    @abstractmethod
    def predict(
        self,
        principal: Principal,
        texts: Sequence[str],
        options: AnswerOptions,
        model: str | None = None,
        is_wanted: Wanted | None = None,
    ) -> Sequence[Prediction] | Sequence[LabelPrediction]:
        """Answer each text as the one message of a user, all at once; a label head tells the label of each.

        Where one fails, all do: ``Invalid`` names each text that the template or the engine does not take.
        """

    @abstractmethod
    def chat(self, principal: Principal, request: ChatRequest, is_wanted: Wanted | None = None) -> Prediction:
        """Answer the conversation so far."""

    @abstractmethod
    def stream(self, principal: Principal, request: ChatRequest, is_wanted: Wanted | None = None) -> AnswerStream:
        """Answer as ``chat``, piece by piece.

        It raises at once what ``chat`` raises, but for what fails on the way.
        """

    @abstractmethod
    def complete(
        self, principal: Principal, request: CompletionRequest, is_wanted: Wanted | None = None
    ) -> Sequence[Prediction]:
        """Go on with each text, as the model says it: thoughts are not told from the rest.

        Where one fails, all do.
        """

    @abstractmethod
    def stream_completion(
        self, principal: Principal, request: CompletionRequest, is_wanted: Wanted | None = None
    ) -> AnswerStream:
        """Go on with the one text that ``request`` has, piece by piece."""


class Engines(ABC):
    """Shows what engines hold, and says which adapters stay in them."""

    @abstractmethod
    def engines(self, principal: Principal) -> Sequence[EngineReport]:
        """List every engine that is configured, whether it answers or not."""

    @abstractmethod
    def load(self, principal: Principal, base_model: str, reference: str, *, pinned: bool) -> ModelVersion:
        """Have a version's adapter in the engine's memory, and keep it there or not.

        A pin is the version's, so that an engine that has been restarted gets it again with the first request.
        What ``Targets`` and ``EngineAdmin.load`` raise; then nothing has changed.
        """

    @abstractmethod
    def unload(self, principal: Principal, base_model: str, reference: str) -> None:
        """Free its memory, pinned or not; a request for it loads it again. ``NotFound`` (adapter_not_loaded)."""


class UsageReports(ABC):
    """Sums what requests used."""

    @abstractmethod
    def sums(
        self,
        principal: Principal,
        *,
        by: Literal["model", "day"],
        first: date | None = None,
        last: date | None = None,
        model: str | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> UsagePage:
        """Sum the project's usage by model, or by day from the newest on.

        Days are UTC's, ``first`` and ``last`` included: without ``last`` up to today, without ``first`` the thirty
        days before. ``after`` is the key of the last one of the page before.
        """
