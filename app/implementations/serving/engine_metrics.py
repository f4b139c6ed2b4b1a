"""What the engine tells Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from app.implementations.serving.core_link import CoreLink


class EngineMetrics:
    """Counters of requests and tokens; gauges that read the link when they are asked."""

    def __init__(self, base_model: str, link: CoreLink) -> None:
        self._registry = CollectorRegistry()
        labels = ["base_model"]
        requests = Counter(
            "engine_requests_total",
            "Completions answered, by HTTP status",
            [*labels, "status"],
            registry=self._registry,
        )
        self._requests = lambda status: requests.labels(base_model, str(status))
        self._prompt_tokens, self._generated_tokens = (
            Counter(name, text, labels, registry=self._registry).labels(base_model)
            for name, text in (
                ("engine_prompt_tokens_total", "Prompt tokens of completions that have ended"),
                ("engine_generated_tokens_total", "New tokens of completions that have ended"),
            )
        )
        for name, text, value in (
            ("engine_requests_running", "Sequences that advance each turn", lambda: link.running),
            ("engine_requests_waiting", "Requests that wait for a place", lambda: link.waiting),
            ("engine_adapters_resident", "Adapters in memory", lambda: len(link.adapters)),
        ):
            gauge = Gauge(name, text, labels, registry=self._registry).labels(base_model)
            gauge.set_function(value)  # type: ignore[no-untyped-call]

    def count(self, status: int) -> None:
        self._requests(status).inc()

    def count_tokens(self, prompt_tokens: int, generated_tokens: int) -> None:
        self._prompt_tokens.inc(prompt_tokens)
        self._generated_tokens.inc(generated_tokens)

    def exposition(self) -> bytes:
        exposition: bytes = generate_latest(self._registry)
        return exposition
