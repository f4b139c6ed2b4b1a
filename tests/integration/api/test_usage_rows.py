"""Usage rows of real web processes: one for each request, and none lost when gunicorn is told to stop."""

import http.client
import json
import os
import socket
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr

from app import create_app
from app.bootstrap import build_base_models, prepare_instance
from app.core.entities.identity import DEFAULT_PROJECT_ID
from app.extensions import db
from app.processes.supervisor import _web
from app.repositories.usage import SqlUsageRepository

ROOT = Path(__file__).parents[3]
PASSWORD = "correct horse battery"
REQUESTS = 12


class Engine(BaseHTTPRequestHandler):
    """Answers every completion alike."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        choice = {"text": "yes", "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 3}
        body = json.dumps({"choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def engine_url():
    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def ask(address, path, body, headers):
    connection = http.client.HTTPConnection(*address, timeout=60)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    read = answer.status, json.loads(answer.read())
    connection.close()
    return read


def test_every_request_leaves_its_row_when_gunicorn_stops(settings, engine_url):
    engines = {"tiny-random": engine_url}
    settings = settings.model_copy(
        update={"web_workers": 2, "web_threads": 4, "admin_password": SecretStr(PASSWORD)}
    )
    build_base_models(settings).pull("tiny-random")
    app = create_app(settings)
    prepare_instance(app)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        places = {
            f"{name}_DIR": getattr(settings, f"{name.lower()}_dir") for name in ("INSTANCE", "DATA", "MODELS")
        }
        environment = {**os.environ, **{name: str(place) for name, place in places.items()}}
        server = subprocess.Popen(
            _web(settings, listener),
            cwd=ROOT,
            env={**environment, "ENGINES": json.dumps(engines)},
            pass_fds=[listener.fileno()],
        )
        try:
            address = listener.getsockname()
            log_in = {"username": "admin", "password": PASSWORD}
            token = ask(address, "/api/v1/auth/token", log_in, {})[1]["access_token"]
            headers = {"Authorization": f"Bearer {token}"}
            body = {"text": "hi", "model": "tiny-random"}
            statuses = [ask(address, "/api/v1/predict", body, headers)[0] for _ in range(REQUESTS)]
        finally:
            server.terminate()
            server.wait(20)
    assert statuses == [200] * REQUESTS
    with app.app_context():
        today = datetime.now(UTC).date()
        [found] = SqlUsageRepository(db.engine).sums(DEFAULT_PROJECT_ID, "model", today - timedelta(days=1), today)
        db.engine.dispose()
    assert (found.key, found.requests, found.completion_tokens) == ("tiny-random", REQUESTS, 3 * REQUESTS)
