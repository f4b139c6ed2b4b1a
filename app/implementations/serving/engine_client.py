"""The gateway's client of the inference wire. It uses vLLM's fields and routes alone, so it speaks to vLLM too."""

import logging
import socket
import threading
import time
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, NoReturn

import httpx

from app.core.entities.engines import EngineName
from app.core.entities.inference import Adapter, Generation, GenerationRequest, LabelRequest, Piece
from app.core.errors import AppError, Invalid, TooMany, Unavailable
from app.core.interfaces.operations import EngineClient
from app.implementations.serving.client_wire import completion_body, generation_of, pieces_of, shares_of
from app.implementations.serving.places import EnginePlaces, Place

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0
LEAST_SECONDS = 0.001  # that is left to ask: 0 would be no timeout at all, to some
HEALTH_SECONDS = 1.0
HEALTH_KEPT_SECONDS = 1.0
MOST_CONNECTIONS = 512
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
        self._http = httpx.Client(
            timeout=httpx.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout)),
            limits=httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=64),
            trust_env=False,  # an engine is in the house: no proxy between
        )
        weakref.finalize(self, self._http.close)
        self._health_lock = threading.Lock()
        self._resident: tuple[float, Sequence[str]] = (float("-inf"), ())

    def resident(self) -> Sequence[str]:
        with self._health_lock:
            since, bases = self._resident
            if time.monotonic() - since > HEALTH_KEPT_SECONDS:
                bases = [base for base, place in self._places.bases().items() if self._answers(place)]
                self._resident = (time.monotonic(), bases)
            return bases

    def generate(self, request: GenerationRequest) -> Generation:
        until = self._until(request.options.deadline_seconds)
        with _translated(request.base_model), self._asked(request, until, stream=False) as response:
            response.read()
            return generation_of(response.json())

    def stream(self, request: GenerationRequest) -> Generator[Piece]:
        until = self._until(request.options.deadline_seconds)
        with (
            _translated(request.base_model),
            self._asked(request, until, stream=True) as response,
            _cut_off(response, until),
        ):
            yield from pieces_of(response.iter_bytes())

    def classify(self, request: LabelRequest) -> Sequence[Mapping[str, float]]:
        until = self._until(request.deadline_seconds)
        body = {"model": str(request.engine), "input": [list(ids) for ids in request.texts]}
        with _translated(request.engine.base_model):
            place = self._places.find(request.engine, until)
            _, response = self._sent(request.engine, place, "/classify", body, until)
            with closing(response):
                _check(response, request.engine.base_model, None)
                response.read()
                return shares_of(response.json())

    def _until(self, deadline_seconds: float | None) -> float:
        return time.monotonic() + min(self._timeout, deadline_seconds or self._timeout)

    @contextmanager
    def _asked(self, request: GenerationRequest, until: float, stream: bool) -> Iterator[httpx.Response]:
        """The engine's 200, its body to be read. Where it does not have the adapter, load it and ask again.

        A connection whose body is not read to its end is closed, and so the engine knows that nobody waits.
        """
        body = completion_body(request, stream)
        place = self._places.find(request.engine, until)
        place, response = self._sent(request.engine, place, "/v1/completions", body, until)
        for _ in range(MOST_LOADS):
            if response.status_code != 404 or request.adapter is None:
                break
            response.close()
            loaded = self._load(place, request.adapter, until)
            response = self._post(place, "/v1/completions", body, until)
            if not loaded:
                break
        with closing(response):
            _check(response, request.base_model, request.adapter)
            yield response

    def _sent(
        self, engine: EngineName, place: Place, path: str, body: Mapping[str, Any], until: float
    ) -> tuple[Place, httpx.Response]:
        """One that was started on demand may have gone a moment ago: then once more, where it comes back."""
        try:
            response = self._post(place, path, body, until)
            if not place.on_demand or response.status_code != 503:
                return place, response
            response.close()
        except (httpx.NetworkError, httpx.RemoteProtocolError):  # it refuses, or breaks off before it answers
            if not place.on_demand:
                raise
        place = self._places.find(engine, until, but=place)
        return place, self._post(place, path, body, until)

    def _post(self, place: Place, path: str, body: Mapping[str, Any], until: float) -> httpx.Response:
        left = max(LEAST_SECONDS, until - time.monotonic())
        timeout = httpx.Timeout(left, connect=min(CONNECT_SECONDS, left))
        request = self._http.build_request(
            "POST", place.url + path, json=body, headers=place.headers, timeout=timeout
        )
        return self._http.send(request, stream=True)

    def _answers(self, place: Place) -> bool:
        try:
            return self._http.get(f"{place.url}/health", timeout=HEALTH_SECONDS).status_code == 200
        except httpx.HTTPError:
            return False

    def _load(self, place: Place, adapter: Adapter, until: float) -> bool:
        """A refusal is only logged: whether the adapter is there now, by whoever's doing, is asked next."""
        response = self._post(place, "/v1/load_lora_adapter", load_body(adapter), until)
        response.read()
        if response.status_code != 200:
            logger.warning(
                "adapter %s: the engine answered %d: %s", adapter.name, response.status_code, response.text[:500]
            )
        return response.status_code == 200


def load_body(adapter: Adapter) -> dict[str, Any]:
    """vLLM reads past ``pinned``; yet it hears of it only where it is wanted."""
    body = {"lora_name": adapter.name, "lora_path": adapter.folder}
    return {**body, "pinned": True} if adapter.pinned else body


def _check(response: httpx.Response, base_model: str, adapter: Adapter | None) -> None:
    if response.status_code == 200:
        return
    response.read()
    if response.status_code == 404:
        raise _unknown(base_model, adapter)
    if response.status_code == 429:
        raise TooMany("the engine has too much to do; try again", code="engine_busy", retry_after=_wait(response))
    if response.status_code in (400, 413, 422):
        raise Invalid(_message(response))
    logger.error("the engine answered %d: %s", response.status_code, response.text[:500])
    raise Unavailable("the engine cannot answer now", code="engine_unavailable", retry_after=_wait(response))


def _unknown(base_model: str, adapter: Adapter | None) -> Unavailable:
    """404: the engine does not have this adapter, or serves another model."""
    if adapter is None:
        message = f"the engine of {base_model!r} serves another base model"
        return Unavailable(message, code="base_not_resident")
    return Unavailable("the engine refused this version's adapter; the log says why", code="adapter_refused")


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "the engine finds fault with the request"


def _wait(response: httpx.Response) -> int:
    given = response.headers.get("retry-after", "")
    return int(given) if given.isdecimal() else 1


@contextmanager
def _cut_off(response: httpx.Response, until: float) -> Iterator[None]:
    """Ends the connection when time is up: httpx limits each read of a body, not all of them."""
    connection = response.extensions["network_stream"].get_extra_info("socket")

    def cut() -> None:
        with suppress(OSError):  # closed meanwhile
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(until - time.monotonic(), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (httpx.HTTPError, ValueError):
        if time.monotonic() < until:
            raise
        raise httpx.ReadTimeout("the whole answer took too long") from None
    finally:
        timer.cancel()


@contextmanager
def _translated(base_model: str) -> Iterator[None]:
    """What httpx and a malformed answer raise, as the interface's errors."""
    try:
        yield
    except AppError:
        raise
    except httpx.ConnectTimeout as error:
        _unavailable(base_model, error)
    except httpx.TimeoutException:
        raise Unavailable("the engine took too long to answer", code="engine_timeout") from None
    except httpx.HTTPError as error:
        _unavailable(base_model, error)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        _unavailable(base_model, error)


def _unavailable(base_model: str, error: Exception) -> NoReturn:
    logger.warning("engine of %s: %s: %s", base_model, type(error).__name__, error)
    message = f"the engine of {base_model!r} does not answer; try again shortly"
    raise Unavailable(message, code="engine_unavailable", retry_after=2) from None
