"""What an operator asks of engines, over the inference wire: ours, vLLM's, and what else speaks it."""

import json
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from app.core.entities.engines import EngineKind, EngineName, EngineState, LoadedAdapter
from app.core.entities.inference import Adapter
from app.core.errors import Invalid, Unavailable
from app.core.interfaces.operations import EngineAdmin
from app.implementations.serving.connections import Connections
from app.implementations.serving.engine_client import HEALTH_SECONDS, _translated, load_body, logger
from app.implementations.serving.places import EnginePlaces, Place

KIND_KEPT_SECONDS = 30.0
KINDS = {"engine": EngineKind.OURS, "vllm": EngineKind.VLLM}  # by what owns the base model in /v1/models


class HttpEngineAdmin(EngineAdmin):
    """``timeout``: seconds that an adapter may take to load, the start of its engine among them."""

    def __init__(self, places: EnginePlaces, timeout: float) -> None:
        self._places = places
        self._timeout = timeout
        self._connections = Connections()
        weakref.finalize(self, self._connections.close)
        self._kinds: dict[str, tuple[float, EngineKind]] = {}  # when it was asked, and what it was

    def states(self) -> Sequence[EngineState]:
        return [self._state(base, place) for base, place in self._places.bases().items()]

    def kind(self, base_model: str) -> EngineKind:
        asked, kind = self._kinds.get(base_model, (float("-inf"), EngineKind.OURS))
        place = self._places.bases().get(base_model)
        if place is not None and time.monotonic() - asked > KIND_KEPT_SECONDS:
            kind = self._state(base_model, place).kind or kind
            self._kinds[base_model] = time.monotonic(), kind
        return kind

    def load(self, base_model: str, adapter: Adapter) -> None:
        place = self._places.find(EngineName(base_model), time.monotonic() + self._timeout)
        with _translated(base_model):
            state = _state_of(base_model, self._cards(place))
            is_ours = state.kind is EngineKind.OURS
            if adapter.pinned and not is_ours:
                raise Invalid(
                    f"the engine of {base_model!r} is not this service's own, and pins no adapters: load it only",
                    code="pin_not_supported",
                )
            if not is_ours and adapter.name in {loaded.name for loaded in state.adapters}:
                return  # vLLM calls a second time an error
            status, said = self._post(place, "/v1/load_lora_adapter", load_body(adapter))
            if status == 200:
                return
            logger.warning("adapter %s: %d: %s", adapter.name, status, said[:500])
            if status >= 500 and is_ours:
                raise Unavailable("the engine cannot load it now", code="engine_unavailable", retry_after=2)
            # Our engine's words name no path of the host; another's may.
            why = (
                str(json.loads(said)["error"]["message"])
                if is_ours
                else "the adapter was refused; the log says why"
            )
            raise Invalid(why, code="adapter_refused")

    def unload(self, base_model: str, name: str) -> bool:
        place = self._places.bases().get(base_model)
        if place is None:  # an engine that does not run holds nothing
            return False
        with _translated(base_model):
            status, said = self._post(place, "/v1/unload_lora_adapter", {"lora_name": name})
            if status not in (200, 404):
                logger.warning("adapter %s: %d: %s", name, status, said[:500])
                raise Unavailable("the engine cannot unload it now", code="engine_unavailable", retry_after=2)
            return status == 200

    def _post(self, place: Place, path: str, body: Mapping[str, Any]) -> tuple[int, bytes]:
        """Status and body."""
        until = time.monotonic() + self._timeout
        with closing(self._connections.send("POST", place.url + path, until, body, place.headers)) as exchange:
            return exchange.status, exchange.read()

    def _state(self, base_model: str, place: Place) -> EngineState:
        try:
            with _translated(base_model):
                return _state_of(base_model, self._cards(place))
        except Unavailable:
            return EngineState(base_model)

    def _cards(self, place: Place) -> Sequence[Mapping[str, Any]]:
        until = time.monotonic() + HEALTH_SECONDS
        sent = self._connections.send("GET", f"{place.url}/v1/models", until, headers=place.headers)
        with closing(sent) as exchange:
            if exchange.status != 200:
                raise Unavailable("the engine cannot answer now", code="engine_unavailable", retry_after=2)
            cards: Sequence[Mapping[str, Any]] = json.loads(exchange.read())["data"]
        return cards


def _state_of(base_model: str, cards: Sequence[Mapping[str, Any]]) -> EngineState:
    bases = [card for card in cards if not card.get("parent")]
    adapters = [
        LoadedAdapter(card["id"], card.get("bytes"), card.get("pinned")) for card in cards if card.get("parent")
    ]
    kind = KINDS.get(bases[0].get("owned_by", ""), EngineKind.OTHER)
    return EngineState(base_model, kind, bases[0].get("max_model_len"), adapters)
