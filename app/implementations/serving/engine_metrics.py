"""What the engine tells Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from app.implementations.serving.core_link import CoreLink


class EngineMetrics:
    """Counters of requests and tokens; gauges that read the link when they are asked."""

    def __init__(self, base_model: str, link: CoreLink) -> None:
        self._base_model = base_model
        self._registry = CollectorRegistry()
        self._requests = self._counter("engine_requests", "Completions answered, by HTTP status", "status")
        prompt = self._counter("engine_prompt_tokens", "Prompt tokens of completions that have ended")
        generated = self._counter("engine_generated_tokens", "New tokens of completions that have ended")
        self._prompt_tokens, self._generated_tokens = prompt.labels(base_model), generated.labels(base_model)
        self._gauge("engine_requests_running", "Sequences that advance each turn", lambda: link.last_turn.running)
        self._gauge("engine_requests_waiting", "Requests that wait for a place", lambda: link.last_turn.waiting)
        self._gauge("engine_adapters_resident", "Adapters in memory", lambda: len(link.adapters))
        self._gauge("engine_adapter_bytes", "What they take", lambda: link.last_turn.adapter_bytes)
        self._gauge("engine_kv_bytes", "Set aside for keys and values", lambda: link.last_turn.kv_bytes)
        self._gauge(
            "engine_reused_prompt_tokens", "Not read again since the start", lambda: link.last_turn.reused_tokens
        )

    def count(self, status: int) -> None:
        self._requests.labels(self._base_model, str(status)).inc()

    def count_tokens(self, prompt_tokens: int, generated_tokens: int) -> None:
        self._prompt_tokens.inc(prompt_tokens)
        self._generated_tokens.inc(generated_tokens)

    def exposition(self) -> bytes:
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, ["base_model", *labels], registry=self._registry)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(name, text, ["base_model"], registry=self._registry).labels(self._base_model).set_function(value)
