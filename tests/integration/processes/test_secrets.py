"""Secrets are planted everywhere, the service runs, fails and ends: no log, file, table or answer has one."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any

import psutil
import pytest
import redis
from sqlalchemy import create_engine, inspect, text

from app.core.entities.jobs import JobState
from tests.integration.processes.test_supervisor import ready
from tests.running_service import BASE, ROOT, MakeService, Service
from tests.servers import RedisServer, free_port

MARK = "pl4nted"  # of every secret; the rest tells which it is


def secret(name: str) -> str:
    return f"{MARK}-{name}-{'x' * 24}"


SETTINGS = {
    "secret_key": secret("secret-key"),
    "old_secret_keys": [secret("old-secret-key")],
    "admin_password": secret("admin-password"),
    "metrics_token": secret("metrics-token"),
    "engine_secret": secret("engine-secret"),
}


@pytest.fixture
def planted(make_service: MakeService, postgres_database: str, redis_server: RedisServer) -> Any:
    """A service over servers that want passwords: PostgreSQL takes any, Redis is told one."""
    password = secret("redis-password")
    database = postgres_database.replace("+psycopg", "").replace("postgres@", f"postgres:{secret('database')}@")
    with redis.Redis(port=redis_server.port) as admin:
        admin.config_set("requirepass", password)
    try:
        yield make_service(
            **SETTINGS,
            log_level="DEBUG",
            database_url=database,
            redis_url=redis_server.url.replace("redis://", f"redis://:{password}@"),
            engines={BASE: f"http://engine:{secret('engine-url')}@127.0.0.1:9"},
        )
    finally:
        # A restart has made it forget the password.
        with suppress(redis.AuthenticationError), redis.Redis(port=redis_server.port, password=password) as admin:
            admin.config_set("requirepass", "")


class Client:
    """Keeps what it was answered, but for what hands a secret out."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.answers: list[str] = []
        self.given: list[str] = []

    def ask(self, path: str, body: Any = None, bearer: str | None = None, *, hands_out: str = "") -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self._address + path, data, headers)
        try:
            answer = urllib.request.urlopen(request, timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            said = answer.read().decode()
        if not hands_out:
            self.answers.append(f"{said} {answer.headers}")
            return said
        found = json.loads(said)
        self.given += [found[name] for name in hands_out.split()]
        return found


def use(client: Client) -> str:
    """Everything that has to do with a secret, right and wrong; the answer is the id of a job."""
    log_in = {"username": "admin", "password": SETTINGS["admin_password"]}
    tokens = client.ask("/api/v1/auth/token", log_in, hands_out="access_token refresh_token")
    token = tokens["access_token"]
    client.ask("/api/v1/auth/token", {**log_in, "password": secret("wrong-password")})
    client.ask("/api/v1/auth/token", {**log_in, "pasword": secret("misspelt-field")})
    client.ask("/api/v1/auth/token", b'{"password": "' + secret("broken-json").encode())
    again = client.ask(
        "/api/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]}, hands_out="access_token"
    )
    key = client.ask("/api/v1/keys", {"name": "laptop"}, again["access_token"], hands_out="key")["key"]
    client.ask("/api/v1/keys", {"name": "laptop"}, secret("bearer"))
    client.ask("/v1/models", None, key)
    client.ask("/v1/models", None, key[:-1] + "x")
    client.ask("/api/v1/users", {"username": "b b", "password": secret("new-password"), "role": "viewer"}, token)
    client.ask("/metrics", None, SETTINGS["metrics_token"])
    client.ask("/api/v1/predict", {"text": "hello"}, token)  # no engine answers
    client.ask("/api/v1/engines", None, token)
    client.ask("/api/v1/monitor/ready")
    body = {"dataset_path": "data/raw/rows.json", "base_model": BASE, "config": {"experiment_name": "double"}}
    job = json.loads(client.ask("/api/v1/train", body, token))["task_id"]
    entries = json.loads(client.ask("/api/v1/audit?all=true&limit=100", None, token))["data"]
    seen = {(entry["actor"], entry["action"], entry["object_id"], entry["status"]) for entry in entries}
    assert seen >= {
        ("admin", "auth.token", "", 200),
        ("admin", "auth.token", "", 401),
        ("admin", "auth.refresh", "", 200),
        ("admin", "users.create_user", "", 422),
        ("admin", "train.submit", job, 202),
    }
    client.ask("/api/v1/audit?all=true&format=csv", None, token)
    return str(job)


def flask(service: Service, *words: str, **environment: str) -> str:
    command = [sys.executable, "-m", "flask", "--app", "run", *words]
    done = subprocess.run(
        command, cwd=ROOT, env={**service.environment, **environment}, capture_output=True, text=True
    )
    return done.stdout + done.stderr


def tables(url: str) -> str:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        found = [
            repr(connection.execute(text(f'SELECT * FROM "{name}"')).all())
            for name in inspect(connection).get_table_names()
        ]
    engine.dispose()
    return "\n".join(found)


def test_no_secret_is_told(planted: Service, redis_server: RedisServer) -> None:
    run = planted.start("run.py")
    client = Client(ready(run))
    job = use(client)
    assert planted.wait_for(job).state is JobState.SUCCEEDED
    lines = [word for process in psutil.Process(run.pid).children(recursive=True) for word in process.cmdline()]
    with redis_server.away():
        client.ask("/api/v1/monitor/ready")
    told = {"answers": "\n".join(client.answers), "command lines": "\n".join(lines)}
    told["tables"] = tables(str(planted.settings.database_url))
    told["settings"] = repr(planted.settings)
    nowhere = f"127.0.0.1:{free_port()}"
    told["flask"] = "\n".join(
        [
            flask(planted, "keys", "list"),
            flask(planted, "users", "list", DATABASE_URL=f"postgresql://app:{secret('db')}@{nowhere}/llm"),
            flask(
                planted,
                "train",
                "submit",
                "--dataset-path",
                "rows.json",
                REDIS_URL=f"redis://:{secret('r')}@{nowhere}",
            ),
        ]
    )
    run.terminate()
    out, _ = run.communicate(timeout=30)
    told["standard output"] = out.decode()
    for folder in (planted.settings.instance_dir, planted.settings.results_dir, planted.settings.models_dir):
        told |= {str(file): file.read_text(errors="replace") for file in folder.rglob("*") if file.is_file()}
    assert any(name.endswith("config.yaml") for name in told)
    assert "POST '/api/v1/auth/token' 401" in planted.whole_log()
    found = {
        f"{name}: …{said[max(0, place - 150) : place + 80]}"
        for name, said in told.items()
        for given in (MARK, *client.given)
        if (place := said.find(given)) >= 0
    }
    assert found == set()


def test_beyond_loopback_run_py_wants_a_secret(make_service: MakeService) -> None:
    service = make_service(host="0.0.0.0")
    run = subprocess.run(
        [sys.executable, "run.py"], cwd=ROOT, env=service.environment, capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (1, "")
    (line,) = run.stderr.splitlines()
    assert "set SECRET_KEY" in line
    assert "HOST=0.0.0.0" in line
