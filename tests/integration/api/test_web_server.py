"""The web application under gunicorn: what a browser and a raw socket see."""

import http.client
import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app import create_app
from app.bootstrap import load_settings, prepare_instance
from app.extensions import db

ROOT = Path(__file__).parents[3]
PASSWORD = "correct horse battery"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """(host, port) of one gunicorn worker on a fresh instance."""
    folder = tmp_path_factory.mktemp("web")
    places = {f"{name}_dir": folder / name for name in ("instance", "data", "models", "results")}
    app = create_app(load_settings(**places, admin_password=PASSWORD))
    prepare_instance(app)
    with app.app_context():
        db.engine.dispose()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        environment = {
            "DOTENV_PATH": "/dev/null",
            **{name.upper(): str(place) for name, place in places.items()},
        }
        command = [sys.executable, "-m", "gunicorn", "app:create_app()", "--bind", f"fd://{listener.fileno()}"]
        options = ["--worker-class", "gthread", "--threads", "4", "--no-control-socket"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [*command, *options],
                cwd=ROOT,
                env=environment,
                pass_fds=[listener.fileno()],
                stdout=log,
                stderr=log,
            )
        try:
            yield listener.getsockname()
        finally:
            server.terminate()
            server.wait(20)


@pytest.fixture
def connection(address):
    with_time = http.client.HTTPConnection(*address, timeout=60)
    yield with_time
    with_time.close()


def ask(connection, method, path, body=None, **headers):
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer, json.loads(answer.read())


def log_in(connection):
    body = json.dumps({"username": "admin", "password": PASSWORD})
    answer, token = ask(connection, "POST", "/api/v1/auth/token", body, Content_Type="application/json")
    assert answer.status == 200
    return {"Authorization": f"Bearer {token['access_token']}", "Content-Type": "application/json"}


def test_the_api_page_shows_every_operation(address, chromium, connection, tmp_path):
    host, port = address
    page = f"http://{host}:{port}/docs"
    done = subprocess.run(
        [
            chromium,
            *FLAGS,
            f"--user-data-dir={tmp_path}",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            page,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    _, document = ask(connection, "GET", "/openapi.json")
    expected = sum(
        len(item.keys() & {"get", "post", "put", "patch", "delete"}) for item in document["paths"].values()
    )
    assert len(re.findall(r'class="opblock-summary-path"', done.stdout)) == expected, done.stderr[-2000:]
    for text in ("Start a fine-tuning job", "Authorize", "Rate limits", "malformed_json"):
        assert text in done.stdout
    refused = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert refused == []  # the policy lets the page do all that it does


def test_a_body_that_says_it_is_too_large_is_not_read(address, connection):
    headers = log_in(connection)
    with socket.create_connection(address, timeout=60) as raw:
        lines = ["POST /api/v1/train HTTP/1.1", "Host: x", f"Content-Length: {50_000_000}"]
        raw.sendall("\r\n".join([*lines, *map(": ".join, headers.items()), "", ""]).encode())
        started = time.monotonic()
        status = raw.recv(4096).split(b"\r\n")[0]  # though not a byte of the body was sent
        assert status.startswith(b"HTTP/1.1 413")
        assert time.monotonic() - started < 10


def test_a_chunked_body_is_cut_off(connection):
    headers = log_in(connection)
    sent = 0

    def chunks():
        nonlocal sent
        yield b'{"dataset_path": "'
        for _ in range(50):
            sent += 1_000_000
            yield b"x" * 1_000_000

    try:
        connection.request("POST", "/api/v1/train", chunks(), headers, encode_chunked=True)
    except (BrokenPipeError, ConnectionResetError):
        assert sent < 50_000_000  # the server has hung up
        return
    assert connection.getresponse().status == 413


def test_a_chunked_body_just_over_the_limit_is_too_large(connection):
    chunks = iter([b'{"dataset_path": "', *[b"x" * 1_048_576] * 10, b'"}'])
    connection.request("POST", "/api/v1/train", chunks, log_in(connection), encode_chunked=True)
    assert connection.getresponse().status == 413


def test_a_sound_chunked_body_is_read(connection):
    headers = log_in(connection)
    connection.request(
        "POST", "/api/v1/train", iter([b'{"dataset_', b'path": "x"}']), headers, encode_chunked=True
    )
    answer = connection.getresponse()
    problem = json.loads(answer.read())
    assert (answer.status, [fault["where"] for fault in problem["errors"]]) == (422, ["dataset_path"])


def test_a_method_and_a_path_that_mean_nothing(connection):
    answer, problem = ask(connection, "BREW", "/%2e%2e/%00?x=%ff")
    assert (answer.status, problem["code"]) == (404, "not_found")


LONG = [
    ("line", f"GET /api/v1/models?after={'x' * 5000} HTTP/1.1", [], (414, 400)),
    ("header", "GET /api/v1/models HTTP/1.1", [f"X-Long: {'x' * 9000}"], (431, 400)),
    ("headers", "GET /api/v1/models HTTP/1.1", [f"X-{n}: x" for n in range(200)], (431, 400)),
    ("name", "GET /api/v1/models HTTP/1.1", ["X Y: z"], (400,)),
    ("query", f"GET /api/v1/models?after={'x' * 3000} HTTP/1.1", [], (401,)),
    ("path", f"GET /api/v1/models/{'x' * 3000} HTTP/1.1", [], (401,)),
]


@pytest.mark.parametrize(("line", "headers", "statuses"), [one[1:] for one in LONG], ids=[one[0] for one in LONG])
def test_a_head_that_is_too_large_is_refused(address, line, headers, statuses):
    with socket.create_connection(address, timeout=60) as raw:
        raw.sendall("\r\n".join([line, "Host: x", "Connection: close", *headers, "", ""]).encode())
        status = raw.recv(4096).split(b"\r\n")[0]
    assert int(status.split()[1]) in statuses, status
