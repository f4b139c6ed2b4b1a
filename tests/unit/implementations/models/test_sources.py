"""The hub, reached and not reached, in processes of their own: its library reads HF_ENDPOINT at import."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ASK = """
import sys, time
from pathlib import Path
from app.core.entities.models import BaseModelSpec
from app.core.errors import Unavailable
from app.implementations.models.sources import pull_from_hub
import huggingface_hub  # half a second of import is not the hub's
started = time.monotonic()
try:
    pull_from_hub(BaseModelSpec("a", "hub", "some/model"), Path(sys.argv[1]))
except Unavailable as error:
    print(error.message)
print(time.monotonic() - started)
assert "torch" not in sys.modules
"""


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address that refuses connections, or takes them and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        if request.param == "refuses":
            server.close()
        yield address


@pytest.mark.parametrize(
    ("endpoint", "offline", "says"),
    [
        ("refuses", "", "the hub does not answer"),
        ("is silent", "", "the hub does not answer"),
        ("is silent", "1", "HF_HUB_OFFLINE forbids"),
    ],
    indirect=["endpoint"],
)
def test_it_fails_soon_and_says_what_to_do(endpoint: str, offline: str, says: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": offline, "HF_HOME": str(tmp_path)}
    asked = subprocess.run(
        [sys.executable, "-c", ASK, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert asked.returncode == 0, asked.stderr
    message, seconds = asked.stdout.splitlines()
    assert says in message
    assert len(re.findall(r"\(\d\)", message)) == 3
    assert float(seconds) < 5


COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "chat_template.jinja": b"{{ messages }}",
    "pytorch_model.bin": b"a pickle",
    "modeling.py": b"print('never run')",
    "README.md": b"words",
    "onnx/config.json": b"{}",
}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's API as a download asks for."""

    protocol_version = "HTTP/1.1"
    sent: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/some/model/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(body), "oid": sha1(body).hexdigest()}
                for name, body in FILES.items()
            ]
            self._answer(json.dumps(tree).encode())
        elif path.startswith("/api/models/some/model"):
            self._answer(json.dumps({"id": "some/model", "sha": COMMIT, "siblings": []}).encode())
        elif path.startswith("/api/"):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            name = path.removeprefix(f"/some/model/resolve/{COMMIT}/")
            if self.command == "GET":
                self.sent.append(name)
            self._answer(FILES[name])

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    Hub.sent = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def pull(hub: ThreadingHTTPServer, repository: str, target: Path, home: Path) -> str:
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HUB_OFFLINE": "",
        "HF_HOME": str(home),
    }
    asked = subprocess.run(
        [sys.executable, "-c", ASK.replace("some/model", repository), str(target)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert asked.returncode == 0, asked.stderr
    return asked.stdout + asked.stderr


def test_weights_and_json_are_fetched_and_no_code(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert f"downloading some/model at {COMMIT[:12]}" in pull(hub, "some/model", tmp_path / "model", tmp_path)
    wanted = {"config.json", "model.safetensors", "chat_template.jinja"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == {
        name: FILES[name] for name in wanted
    }
    assert sorted(Hub.sent) == sorted(wanted)


def test_a_repository_that_is_not_there(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    assert "the hub shows no other/model (a gated one wants HF_TOKEN)" in pull(
        hub, "other/model", tmp_path, tmp_path
    )
