"""What the engine tells Prometheus: where vLLM has a figure, by its name, with ``engine_`` for ``vllm:``."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from app.implementations.serving.completions import Completion
from app.implementations.serving.core_link import CoreLink
from app.implementations.serving.messages import MOST_RUNNING, Turn
from app.implementations.serving.ticket import Ticket

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
SEQUENCES = (1, 2, 4, 8, 16, 32, MOST_RUNNING)
NOBODY = ""  # the label of requests for a model that is not, or no longer, here


class EngineMetrics:
    """By model: the base model, and each adapter as long as it is loaded. Gauges are read when asked for."""

    def __init__(self, base_model: str, link: CoreLink) -> None:
        self._base_model = base_model
        self._link = link
        self._registry = CollectorRegistry()
        self._labelled = {NOBODY, base_model}  # models
        text = "Requests, by how they ended: stop, length, label, cancelled, or the code of the error"
        self._requests = Counter(
            "engine_requests", text, ["base_model", "model", "outcome"], registry=self._registry
        )
        self._prompt_tokens = self._counter("engine_prompt_tokens", "Prompt tokens of completions that have ended")
        self._generation_tokens = self._counter("engine_generation_tokens", "New tokens of these")
        self._hits = self._counter("engine_prefix_cache_hits", "Prompt tokens that were not read again")
        self._first = self._seconds("engine_time_to_first_token_seconds", "From the request on")
        self._each = self._seconds(
            "engine_request_time_per_output_token_seconds", "From the first token to the last, by token"
        )
        self._queue = self._seconds("engine_request_queue_time_seconds", "Until there was a place")
        for metric in self._by_model():
            if metric is not self._requests:
                metric.labels(base_model, base_model)  # zero, not missing, before the first request
        self._batch = Histogram(
            "engine_batch_size",
            "Sequences of a turn",
            ["base_model"],
            buckets=SEQUENCES,
            registry=self._registry,
        ).labels(base_model)
        self._gauge("engine_num_requests_running", "Sequences that have a place", lambda t: t.running)
        self._gauge("engine_num_requests_waiting", "Sequences that wait for one", lambda t: t.waiting)
        self._gauge("engine_adapters_resident", "Adapters in memory", lambda _: len(link.adapters))
        self._gauge("engine_adapter_bytes", "What they take", lambda t: t.adapter_bytes)
        self._gauge("engine_kv_bytes", "Set aside for keys and values", lambda t: t.kv_bytes)
        link.on_turn = self._count_turn

    def refused(self, code: str) -> None:
        """By the front alone."""
        self._requests.labels(self._base_model, NOBODY, code).inc()

    def classified(self, outcome: str, prompt_tokens: int) -> None:
        labels = self._base_model, self._base_model
        self._requests.labels(*labels, outcome).inc()
        self._prompt_tokens.labels(*labels).inc(prompt_tokens)

    def ended(self, completion: Completion, ticket: Ticket) -> None:
        labels = self._base_model, self._label(completion.model)
        self._requests.labels(*labels, completion.outcome).inc()
        self._prompt_tokens.labels(*labels).inc(completion.prompt_tokens)
        self._generation_tokens.labels(*labels).inc(completion.completion_tokens)
        self._hits.labels(*labels).inc(ticket.reused)
        if ticket.waited is not None:
            self._queue.labels(*labels).observe(ticket.waited)
        if completion.first_token is None or completion.last_token is None:
            return
        self._first.labels(*labels).observe(completion.first_token - completion.began)
        longest = max(choice.tokens for choice in completion.choices)
        if longest > 1:
            self._each.labels(*labels).observe((completion.last_token - completion.first_token) / (longest - 1))

    def exposition(self) -> bytes:
        self._forget_those_that_went()
        return generate_latest(self._registry)

    def _label(self, model: str) -> str:
        if model != self._base_model and model not in self._link.adapters:
            return NOBODY
        if model not in self._labelled:
            self._forget_those_that_went()
            self._labelled.add(model)
        return model

    def _forget_those_that_went(self) -> None:
        """Adapters come and go without end; their series must not stay."""
        gone = self._labelled - {NOBODY, self._base_model} - self._link.adapters.keys()
        self._labelled -= gone
        for metric in self._by_model():
            for model in gone:
                metric.remove_by_labels({"model": model})

    def _by_model(self) -> "tuple[Counter | Histogram, ...]":
        counters = self._requests, self._prompt_tokens, self._generation_tokens, self._hits
        return *counters, self._first, self._each, self._queue

    def _count_turn(self, turn: Turn) -> None:
        if turn.batch:
            self._batch.observe(turn.batch)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, ["base_model", "model"], registry=self._registry)

    def _seconds(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ["base_model", "model"], buckets=SECONDS, registry=self._registry)

    def _gauge(self, name: str, text: str, value: Callable[[Turn], float]) -> None:
        gauge = Gauge(name, text, ["base_model"], registry=self._registry).labels(self._base_model)
        gauge.set_function(lambda: value(self._link.last_turn))
