"""/metrics."""

import subprocess
import sys

import pytest
from prometheus_client import REGISTRY, Counter
from prometheus_client.parser import text_string_to_metric_families

from app import create_app


def jobs(answer):
    families = {family.name: family for family in text_string_to_metric_families(answer.get_data(as_text=True))}
    return {s.labels["state"]: s.value for s in families["finetuning_jobs"].samples}


def test_jobs_by_state_are_counted_when_asked(caller):
    assert set(jobs(caller("GET", "/metrics")).values()) == {0}
    caller("POST", "/api/v1/train", json={"dataset_path": "data/raw/sound.json"})
    counts = jobs(caller("GET", "/metrics"))
    assert counts["validating_files"] == 1
    assert sum(counts.values()) == 1


def test_what_components_of_the_process_count_is_there_too(client):
    counted = Counter("counted_by_a_test", "As a component does")
    try:
        counted.inc(3)
        assert "counted_by_a_test_total 3.0" in client.get("/metrics").get_data(as_text=True)
    finally:
        REGISTRY.unregister(counted)


def test_requests_are_grouped_by_route(caller):
    for name in ("a", "b"):
        caller("GET", f"/api/v1/models/{name}")
    text = caller("GET", "/metrics").get_data(as_text=True)
    assert 'url_rule="/api/v1/models/<name>"' in text
    assert "models/a" not in text


def test_without_the_database_the_rest_is_still_there(caller, twins):
    twins.database.problem = "away"
    answer = caller("GET", "/metrics")
    assert jobs(answer) == {}
    assert "flask_http_request_total" in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("where", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("127.0.0.1", {"X-Forwarded-For": "203.0.113.5"}, 401),
        ("203.0.113.5", {}, 401),
        ("203.0.113.5", {"Authorization": "Bearer wrong"}, 401),
        ("203.0.113.5", {"Authorization": "Bearer é"}, 401),
        ("203.0.113.5", {"Authorization": "Bearer open sesame"}, 200),
        ("", {}, 401),
    ],
)
def test_open_on_this_host_else_with_its_token(quiet_settings, services, where, headers, status):
    settings = type(quiet_settings).model_validate({**quiet_settings.model_dump(), "metrics_token": "open sesame"})
    client = create_app(settings, services).test_client()
    assert client.get("/metrics", headers=headers, environ_base={"REMOTE_ADDR": where}).status_code == status


def test_without_a_token_set_no_token_opens_it(client):
    headers = {"Authorization": "Bearer None"}
    answer = client.get("/metrics", headers=headers, environ_base={"REMOTE_ADDR": "203.0.113.5"})
    assert answer.status_code == 401


COUNT_TWICE = """
import sys
from typing import Any, cast
from types import SimpleNamespace
from pathlib import Path
from app import create_app
from app.bootstrap import load_settings
monitoring = SimpleNamespace(database_problem=lambda: None, job_counts=lambda: {})
app = create_app(load_settings(logging_file=Path(sys.argv[1])), cast(Any, SimpleNamespace(monitoring=monitoring)))
app.test_client().get("/api/v1/monitor/health")
for line in app.test_client().get("/metrics").get_data(as_text=True).splitlines():
    if line.startswith("flask_http_request_total"):
        print(line)
"""


def test_several_web_processes_add_up(tmp_path):
    quiet = tmp_path / "logging.yaml"
    quiet.write_text("version: 1\n")
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "DOTENV_PATH": "/dev/null"}
    for count in (1, 2):
        done = subprocess.run(
            [sys.executable, "-c", COUNT_TWICE, str(quiet)],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        assert done.stdout.split() == ['flask_http_request_total{method="GET",status="200"}', f"{count}.0"]
