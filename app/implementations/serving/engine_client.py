"""The gateway's client of the inference wire. It uses vLLM's fields and routes alone, so it speaks to vLLM too."""

import json
import logging
import threading
import time
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from operator import attrgetter
from typing import Any, NoReturn

from cachetools import TTLCache, cachedmethod

from app.core.entities.engines import EngineName
from app.core.entities.inference import Adapter, Generation, GenerationRequest, LabelRequest, Piece
from app.core.errors import AppError, Invalid, TooMany, Unavailable
from app.core.interfaces.operations import EngineClient, Wanted
from app.implementations.serving.client_wire import completion_body, generation_of, pieces_of, shares_of
from app.implementations.serving.connections import Connections, CutOff, Exchange, NotConnected
from app.implementations.serving.places import EnginePlaces, Place

logger = logging.getLogger(__name__)

HEALTH_SECONDS = 1.0
HEALTH_KEPT_SECONDS = 1.0
MOST_LOADS = 3  # of an adapter for one request: others may take its place before the engine is asked


class HttpEngineClient(EngineClient):
    """``timeout``: seconds that a generation may take, in all, the start of its engine among them; the deadline of
    a request only shortens it.

    Besides what the interface says: ``TooMany`` when the engine's queue is full, ``Invalid`` when it finds fault
    with the request (a prompt beyond the context), ``Unavailable`` with engine_timeout or adapter_refused.
    """

    def __init__(self, places: EnginePlaces, timeout: float) -> None:
        self._places = places
        self._timeout = timeout
        self._connections = Connections()
        weakref.finalize(self, self._connections.close)
        self._resident = TTLCache[Any, Sequence[str]](1, HEALTH_KEPT_SECONDS)
        self._health_asked = threading.Condition()

    @cachedmethod(attrgetter("_resident"), condition=attrgetter("_health_asked"))
    def resident(self) -> Sequence[str]:
        return [base for base, place in self._places.bases().items() if self._answers(place)]

    def generate(self, request: GenerationRequest, is_wanted: Wanted | None = None) -> Generation:
        until = self._until(request.options.deadline_seconds)
        with _translated(request.base_model), self._asked(request, until, is_wanted, stream=False) as exchange:
            return generation_of(json.loads(exchange.read()))

    def stream(self, request: GenerationRequest, is_wanted: Wanted | None = None) -> Generator[Piece]:
        until = self._until(request.options.deadline_seconds)
        with _translated(request.base_model), self._asked(request, until, is_wanted, stream=True) as exchange:
            chunks = exchange.chunks()
            yield from pieces_of(chunks)
            for _ in chunks:  # to the end of the body, or the connection could not be used again
                pass

    def classify(self, request: LabelRequest) -> Sequence[Mapping[str, float]]:
        until = self._until(request.deadline_seconds)
        body = {"model": str(request.engine), "input": [list(ids) for ids in request.texts]}
        with _translated(request.engine.base_model):
            place = self._places.find(request.engine, until)
            _, exchange = self._sent(request.engine, place, "/classify", body, until, None)
            with closing(exchange):
                _check(exchange, request.engine.base_model, None)
                return shares_of(json.loads(exchange.read()))

    def _until(self, deadline_seconds: float | None) -> float:
        return time.monotonic() + min(self._timeout, deadline_seconds or self._timeout)

    @contextmanager
    def _asked(
        self, request: GenerationRequest, until: float, is_wanted: Wanted | None, stream: bool
    ) -> Iterator[Exchange]:
        """The engine's 200, its body to be read. Where it does not have the adapter, load it and ask again.

        A connection whose body is not read to its end is closed, and so the engine knows that nobody waits.
        """
        body = completion_body(request, stream)
        place = self._places.find(request.engine, until)
        place, exchange = self._sent(request.engine, place, "/v1/completions", body, until, is_wanted)
        for _ in range(MOST_LOADS):
            if exchange.status != 404 or request.adapter is None:
                break
            exchange.close()
            loaded = self._load(place, request.adapter, until)
            exchange = self._post(place, "/v1/completions", body, until, is_wanted)
            if not loaded:
                break
        with closing(exchange):
            _check(exchange, request.base_model, request.adapter)
            yield exchange

    def _sent(
        self,
        engine: EngineName,
        place: Place,
        path: str,
        body: Mapping[str, Any],
        until: float,
        is_wanted: Wanted | None,
    ) -> tuple[Place, Exchange]:
        """One that was started on demand may have gone a moment ago: then once more, where it comes back."""
        try:
            exchange = self._post(place, path, body, until, is_wanted)
            if not place.on_demand or exchange.status != 503:
                return place, exchange
            exchange.close()
        except NotConnected:  # it refuses, or breaks off before it answers
            if not place.on_demand:
                raise
        place = self._places.find(engine, until, but=place)
        return place, self._post(place, path, body, until, is_wanted)

    def _post(
        self, place: Place, path: str, body: Mapping[str, Any], until: float, is_wanted: Wanted | None = None
    ) -> Exchange:
        return self._connections.send("POST", place.url + path, until, body, place.headers, is_wanted)

    def _answers(self, place: Place) -> bool:
        try:
            until = time.monotonic() + HEALTH_SECONDS
            with closing(self._connections.send("GET", f"{place.url}/health", until)) as exchange:
                exchange.read()
                return exchange.status == 200
        except (NotConnected, CutOff):
            return False

    def _load(self, place: Place, adapter: Adapter, until: float) -> bool:
        """A refusal is only logged: whether the adapter is there now, by whoever's doing, is asked next."""
        with closing(self._post(place, "/v1/load_lora_adapter", load_body(adapter), until)) as exchange:
            said = exchange.read()
        if exchange.status != 200:
            logger.warning("adapter %s: the engine answered %d: %s", adapter.name, exchange.status, said[:500])
        return exchange.status == 200


def load_body(adapter: Adapter) -> dict[str, Any]:
    """vLLM reads past ``pinned``; yet it hears of it only where it is wanted."""
    body = {"lora_name": adapter.name, "lora_path": adapter.folder}
    return {**body, "pinned": True} if adapter.pinned else body


def _check(exchange: Exchange, base_model: str, adapter: Adapter | None) -> None:
    status = exchange.status
    if status == 200:
        return
    said = exchange.read()
    if status == 404:
        raise _unknown(base_model, adapter)
    if status == 429:
        raise TooMany("the engine has too much to do; try again", code="engine_busy", retry_after=_wait(exchange))
    if status in (400, 413, 422):
        raise Invalid(_message(said))
    logger.error("the engine answered %d: %s", status, said[:500].decode(errors="replace"))
    raise Unavailable("the engine cannot answer now", code="engine_unavailable", retry_after=_wait(exchange))


def _unknown(base_model: str, adapter: Adapter | None) -> Unavailable:
    """404: the engine does not have this adapter, or serves another model."""
    if adapter is None:
        message = f"the engine of {base_model!r} serves another base model"
        return Unavailable(message, code="base_not_resident")
    return Unavailable("the engine refused this version's adapter; the log says why", code="adapter_refused")


def _message(said: bytes) -> str:
    try:
        return str(json.loads(said)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "the engine finds fault with the request"


def _wait(exchange: Exchange) -> int:
    given = exchange.headers.get("retry-after", "")
    return int(given) if given.isdecimal() else 1


@contextmanager
def _translated(base_model: str) -> Iterator[None]:
    """What hinders an exchange and a malformed answer raise, as the interface's errors."""
    try:
        yield
    except AppError:
        raise
    except CutOff as cut:
        if cut.reason == "unwanted":
            raise Unavailable("nobody waits for the answer", code="client_gone") from None
        raise Unavailable("the engine took too long to answer", code="engine_timeout") from None
    except (NotConnected, ValueError, KeyError, TypeError, IndexError) as error:
        _unavailable(base_model, error)


def _unavailable(base_model: str, error: Exception) -> NoReturn:
    logger.warning("engine of %s: %s: %s", base_model, type(error).__name__, error)
    message = f"the engine of {base_model!r} does not answer; try again shortly"
    raise Unavailable(message, code="engine_unavailable", retry_after=2) from None
