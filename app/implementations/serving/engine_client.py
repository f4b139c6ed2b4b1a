"""The gateway's client of the inference wire. It uses vLLM's fields and routes alone, so it speaks to vLLM too."""

import logging
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import httpx

from app.core.entities.inference import Adapter, Generation, GenerationRequest
from app.core.errors import AppError, Invalid, TooMany, Unavailable
from app.core.interfaces.operations import EngineClient

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0
HEALTH_SECONDS = 1.0
HEALTH_KEPT_SECONDS = 1.0
MOST_CONNECTIONS = 512


class _ModelUnknown(Exception):
    """404: the engine does not have this adapter (or serves another base model)."""


class HttpEngineClient(EngineClient):
    """``engines``: base model → URL. ``timeout``: seconds that a generation may take, in all.

    Besides what the interface says: ``TooMany`` when the engine's queue is full, ``Invalid`` when it finds fault
    with the request (a prompt beyond the context), ``Unavailable`` with engine_timeout or adapter_refused.
    """

    def __init__(self, engines: Mapping[str, str], secret: str | None, timeout: float) -> None:
        self._engines = {base: url.rstrip("/") for base, url in engines.items()}
        self._timeout = timeout
        self._http = httpx.Client(
            headers={"authorization": f"Bearer {secret}"} if secret else {},
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
                bases = [base for base, url in self._engines.items() if self._answers(url)]
                self._resident = (time.monotonic(), bases)
            return bases

    def generate(self, request: GenerationRequest) -> Generation:
        """Where the engine does not have the adapter, load it and ask once more."""
        url = self._url(request.base_model)
        with _translated(request.base_model):
            try:
                return self._complete(url, request)
            except _ModelUnknown:
                if request.adapter is None:
                    raise Unavailable(
                        f"the engine of {request.base_model!r} serves another base model", code="base_not_resident"
                    ) from None
            self._load(url, request.adapter)
            try:
                return self._complete(url, request)
            except _ModelUnknown:
                raise Unavailable(
                    "the engine refused this version's adapter; the log says why", code="adapter_refused"
                ) from None

    def _answers(self, url: str) -> bool:
        try:
            return self._http.get(f"{url}/health", timeout=HEALTH_SECONDS).status_code == 200
        except httpx.HTTPError:
            return False

    def _url(self, base_model: str) -> str:
        try:
            return self._engines[base_model]
        except KeyError:
            resident = ", ".join(self.resident()) or "none"
            raise Unavailable(
                f"no engine serves the base model {base_model!r}; resident: {resident}", code="base_not_resident"
            ) from None

    def _load(self, url: str, adapter: Adapter) -> None:
        """Its answer is only logged: whether the adapter is there now, by whoever's doing, is asked next."""
        body = load_body(adapter)
        response = self._http.post(f"{url}/v1/load_lora_adapter", json=body)
        if response.status_code != 200:
            logger.warning(
                "adapter %s: the engine answered %d: %s", adapter.name, response.status_code, response.text[:500]
            )

    def _complete(self, url: str, request: GenerationRequest) -> Generation:
        response = self._http.post(f"{url}/v1/completions", json=_body(request))
        _check(response)
        answer = response.json()
        choice, usage = answer["choices"][0], answer["usage"]
        return Generation(choice["text"], _reason(choice), usage["prompt_tokens"], usage["completion_tokens"])


def load_body(adapter: Adapter) -> dict[str, Any]:
    """vLLM reads past ``pinned``; yet it hears of it only where it is wanted."""
    body = {"lora_name": adapter.name, "lora_path": adapter.folder}
    return {**body, "pinned": True} if adapter.pinned else body


def _body(request: GenerationRequest) -> dict[str, Any]:
    return {
        "model": request.adapter.name if request.adapter else request.base_model,
        "prompt": list(request.prompt_ids),
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "stop_token_ids": list(request.stop_token_ids),
        **({} if request.sharing is None else {"cache_salt": request.sharing}),
    }


def _reason(choice: Mapping[str, Any]) -> Any:
    return "length" if choice["finish_reason"] == "length" else "stop"


def _check(response: httpx.Response) -> None:
    if response.status_code == 200:
        return
    if response.status_code == 404:
        raise _ModelUnknown
    if response.status_code == 429:
        raise TooMany("the engine has too much to do; try again", code="engine_busy", retry_after=_wait(response))
    if response.status_code in (400, 413, 422):
        raise Invalid(_message(response))
    logger.error("the engine answered %d: %s", response.status_code, response.text[:500])
    raise Unavailable("the engine cannot answer now", code="engine_unavailable", retry_after=_wait(response))


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "the engine finds fault with the request"


def _wait(response: httpx.Response) -> int:
    given = response.headers.get("retry-after", "")
    return int(given) if given.isdecimal() else 1


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
