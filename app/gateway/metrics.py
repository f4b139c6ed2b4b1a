"""/metrics, in Prometheus' format."""

import hmac
import os
from collections.abc import Iterator
from ipaddress import ip_address

from flask import Flask, Response, request
from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_flask_exporter import PrometheusMetrics

from app.core.errors import Unauthorized
from app.extensions import current_services


class JobCollector(Collector):
    """Jobs by state, counted when Prometheus asks. While the database is away there is no such sample."""

    def describe(self) -> Iterator[GaugeMetricFamily]:
        yield self._family()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = self._family()
        monitoring = current_services().monitoring
        if monitoring.database_problem() is None:
            for state, count in monitoring.job_counts().items():
                family.add_metric([state.value], count)
        yield family

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily("finetuning_jobs", "Fine-tuning jobs by state", labels=["state"])


class ProcessCollector(Collector):
    """What the components of this process count, in the client library's own registry."""

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        yield from REGISTRY.collect()


def init_metrics(app: Flask, token: str | None) -> None:
    """Open to this host's own processes; from elsewhere only with ``token``."""
    registry = CollectorRegistry()
    exporter = PrometheusMetrics(app, path=None, group_by="url_rule", registry=registry)
    jobs = JobCollector()
    registry.register(jobs)
    registry.register(ProcessCollector())

    @app.get("/metrics")
    @exporter.do_not_track()
    def metrics() -> Response:
        if not (_from_this_host() or _has(token)):
            raise Unauthorized("send Authorization: Bearer with the METRICS_TOKEN of this service")
        scraped = registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # several web processes: their figures lie in files
            scraped = CollectorRegistry()
            MultiProcessCollector(scraped)  # type: ignore[no-untyped-call]
            scraped.register(jobs)
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(scraped), content_type=content_type)


def _from_this_host() -> bool:
    """A proxy on this host says for whom it asks: that is not this host."""
    proxied = any(name in request.headers for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP"))
    return not proxied and bool(request.remote_addr) and ip_address(request.remote_addr or "").is_loopback


def _has(token: str | None) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return token is not None and scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), token.encode())
