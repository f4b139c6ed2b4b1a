"""What runs things: queues, trainer processes, tokens, passwords, engines."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from app.core.entities.engines import EngineKind, EngineState
from app.core.entities.forecasts import Shortage
from app.core.entities.inference import Adapter, Generation, GenerationRequest, LabelRequest, Piece
from app.core.entities.jobs import JobEvent
from app.core.entities.limits import Window
from app.core.entities.usage import Usage
from app.core.errors import Fault

Wanted = Callable[[], bool]  # whether somebody still waits; it may be asked in another thread

DOORBELL = "training.ring"  # the message's name, where a queue sends messages; its argument is a job's id


class JobQueue(ABC):
    """The doorbell. Losing a message costs a worker one poll interval."""

    @abstractmethod
    def ring(self, job_id: str, queue: str) -> None:
        """Say to the workers of ``queue`` that a job waits. Never raises: the row is saved, and workers poll."""

    @abstractmethod
    def check(self) -> str | None:
        """None when the broker answers, else one line that says what is wrong."""


@dataclass(frozen=True, slots=True)
class TrainerOutcome:
    """How a trainer ended. ``result`` is what it wrote when it succeeded."""

    kind: Literal["succeeded", "failed", "stopped", "crashed"]
    code: str | None = None  # failed: the error code; crashed: trainer_failed, out_of_memory or lease_ended
    message: str | None = None
    result: Mapping[str, Any] | None = None
    faults: tuple[Fault, ...] = ()
    shortage: Shortage | None = None  # out_of_memory, where the trainer could tell


class TrainerHandle(ABC):
    """One running trainer process."""

    @abstractmethod
    def wait(self, seconds: float) -> bool:
        """Until the trainer rings, ends, or time is up; True once it has ended."""

    @abstractmethod
    def new_events(self) -> Sequence[JobEvent]:
        """Whole lines of events.ndjson not yet read, the first so many of them; none: all have been read."""

    @abstractmethod
    def renew(self, deadline: float) -> None:
        """Let the trainer live until ``deadline`` (seconds of CLOCK_BOOTTIME, read before the row was written)."""

    @abstractmethod
    def stop(self) -> None:
        """Ask it to end at the next step."""

    @abstractmethod
    def kill(self) -> None:
        """End it and every process of its session now; returns when they are gone."""

    @abstractmethod
    def outcome(self) -> TrainerOutcome:
        """Once ``wait`` has said that it ended."""


class TrainerLauncher(ABC):
    """Starts trainer processes."""

    @abstractmethod
    def start(self, job_file: Mapping[str, Any], attempt_folder: Path, deadline: float) -> TrainerHandle:
        """``job_file`` is the protocol's job file (docs/trainer-protocol.md), written whole before the start."""

    @abstractmethod
    def prepare(self, threads: int, gpus: str | None) -> None:
        """See that a spare trainer gets ready for the next ``start`` of this thread with the same ``threads`` and
        ``gpus``. Returns at once, and does nothing where there is one already, or is to be none."""

    @abstractmethod
    def dismiss(self) -> None:
        """End the spare trainer of this thread, if it has one; returns when it is gone."""

    @abstractmethod
    def earlier_events(
        self, run_folder: Path, job_id: str, before: int, last_known: Callable[[int], int]
    ) -> Iterator[tuple[int, Sequence[JobEvent]]]:
        """What trainers of the job's claims before that one have written, by claim, some at a time.

        ``last_known`` answers the number of a claim's last event that is not wanted, nor any before it.
        """


class TokenIssuer(ABC):
    @abstractmethod
    def issue(self, claims: Mapping[str, Any], seconds: int) -> str: ...

    @abstractmethod
    def verify(self, token: str) -> Mapping[str, Any]:
        """``Unauthorized`` with code token_expired or token_invalid."""

    @abstractmethod
    def rotate(self) -> str:
        """Sign with a new key from now on, and answer its id; what the old one signed is good until it expires.

        ``Conflict`` (key_is_configured) where the key is a setting.
        """

    @abstractmethod
    def public_keys(self) -> Sequence[Mapping[str, Any]]:
        """Those that anybody may verify with, as JWKs (RFC 7517); none where the key is a secret."""


class ExternalIssuer(ABC):
    """Somebody else who says who a caller is."""

    @property
    @abstractmethod
    def url(self) -> str: ...

    @abstractmethod
    def has_issued(self, token: str) -> bool:
        """Whether the token says so. Anybody can write that: ``verify`` it."""

    @abstractmethod
    def verify(self, token: str) -> Mapping[str, Any]:
        """Its claims. ``Unauthorized`` (token_expired, token_invalid), ``Unavailable`` (issuer_unavailable)."""


class PasswordHasher(ABC):
    @abstractmethod
    def hash(self, password: str) -> str: ...

    @abstractmethod
    def matches(self, password: str, password_hash: str) -> bool: ...


class EngineAdmin(ABC):
    """The operator's hand on engines and their adapters."""

    @abstractmethod
    def states(self) -> Sequence[EngineState]:
        """Of every engine that is configured, as each says now."""

    @abstractmethod
    def kind(self, base_model: str) -> EngineKind:
        """As it said some time ago; OURS as long as nobody has answered, and where there is no engine."""

    @abstractmethod
    def load(self, base_model: str, adapter: Adapter) -> None:
        """Have it in memory, pinned or not; it may be there already.

        ``Invalid`` (adapter_refused, and pin_not_supported where the engine is another's), ``Unavailable``
        (base_not_resident, engine_unavailable, engine_timeout).
        """

    @abstractmethod
    def unload(self, base_model: str, name: str) -> bool:
        """Whether it was there. ``Unavailable`` as in ``load``."""


class UsageLog(ABC):
    """Keeps a row of each request, off its path."""

    @abstractmethod
    def record(self, usage: Usage) -> None:
        """Never raises and never waits: what finds no place is lost, and counted."""


class RateCounter(ABC):
    """Counts in sliding windows of ``seconds``, together with the other processes where it can."""

    @abstractmethod
    def take(self, key: str, seconds: int, most: int) -> bool:
        """One more; False, and nothing is taken, where that would be above ``most``."""

    @abstractmethod
    def add(self, key: str, seconds: int, cost: int) -> None:
        """So many more, whatever has been taken."""

    @abstractmethod
    def window(self, key: str, seconds: int) -> Window: ...

    @abstractmethod
    def forget(self, key: str, seconds: int) -> None: ...


class EngineClient(ABC):
    """Speaks the inference wire to whatever engine serves a base model: ours or vLLM."""

    @abstractmethod
    def resident(self) -> Sequence[str]:
        """Base models with an engine that answers, in the order of configuration."""

    @abstractmethod
    def generate(self, request: GenerationRequest, is_wanted: Wanted | None = None) -> Generation:
        """Attaches the adapter if it must. ``Unavailable`` (base_not_resident, engine_unavailable,
        engine_timeout; client_gone soon after ``is_wanted`` says no, and the engine stops), ``TooMany``
        (engine_busy), or ``Invalid`` with what the engine says of a request."""

    @abstractmethod
    def classify(self, request: LabelRequest) -> Sequence[Mapping[str, float]]:
        """Each label's share, of each text; what ``generate`` raises."""

    @abstractmethod
    def stream(self, request: GenerationRequest, is_wanted: Wanted | None = None) -> Generator[Piece]:
        """The same as it comes; what ``generate`` raises, it raises before the first piece. Close it, and the
        engine stops. ``Unavailable`` for what fails on the way."""
