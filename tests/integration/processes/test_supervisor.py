"""``python run.py``: real web and worker processes, the double for torch, no engine."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from typing import Any

import psutil

from app.core.entities.jobs import JobState
from tests.running_service import (
    BASE,
    PASSWORD,
    ROOT,
    WAIT_SECONDS,
    MakeService,
    Service,
    at_large,
    wait_until,
)

END_SECONDS = 10.0


def ready(run: subprocess.Popen[bytes]) -> str:
    """The address, once the service says that it is ready."""
    assert run.stdout is not None
    said = b""
    while b"ready:" not in said:
        assert select.select([run.stdout], [], [], WAIT_SECONDS)[0], said
        more = os.read(run.stdout.fileno(), 4096)
        assert more, f"run.py ended: {said!r}"
        said += more
    return said.split(b"ready:")[1].split()[0].decode()


def post(url: str, body: dict[str, Any], token: str | None = None) -> Any:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def child(run: subprocess.Popen[bytes], word: str) -> psutil.Process | None:
    for process in psutil.Process(run.pid).children():
        if at_large(process) and any(word in argument for argument in process.cmdline()):
            return process
    return None


def start_slow_job(service: Service, address: str) -> str:
    token = post(f"{address}/api/v1/auth/token", {"username": "admin", "password": PASSWORD})["access_token"]
    body = {
        "dataset_path": "data/raw/rows.json",
        "base_model": BASE,
        "config": {"experiment_name": "double-slow", "num_epochs": 1000},
    }
    job_id: str = post(f"{address}/api/v1/train", body, token)["task_id"]
    wait_until(lambda: service.marks(job_id), service.log)
    return job_id


def family(run: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(run.pid).children(recursive=True)


def test_the_whole_service_comes_up_mends_itself_and_goes(make_service: MakeService) -> None:
    service = make_service()
    run = service.start("run.py")
    address = ready(run)
    worker = child(run, "celery")
    assert worker is not None
    worker.kill()
    wait_until(lambda: child(run, "celery") not in (None, worker), service.log)
    job_id = start_slow_job(service, address)
    everybody = family(run)
    assert len(everybody) >= 4  # web and its worker, the worker and its trainer
    began = time.monotonic()
    run.send_signal(signal.SIGINT)
    assert run.wait(END_SECONDS) == 0
    assert time.monotonic() - began < END_SECONDS
    assert not any(at_large(process) for process in everybody)
    assert service.job(job_id).state is JobState.QUEUED  # for the next start


def test_a_second_ctrl_c_does_not_wait(make_service: MakeService) -> None:
    service = make_service()
    run = service.start("run.py")
    ready(run)
    worker = child(run, "celery")
    assert worker is not None
    web = child(run, "gunicorn")
    everybody = family(run)
    worker.suspend()  # it will not end by itself
    began = time.monotonic()
    run.send_signal(signal.SIGINT)
    assert web is not None
    wait_until(lambda: not at_large(web), service.log)
    run.send_signal(signal.SIGINT)
    run.wait(END_SECONDS)
    assert time.monotonic() - began < 8
    assert not any(at_large(process) for process in everybody)


def test_nothing_outlives_a_supervisor_that_was_killed(make_service: MakeService) -> None:
    service = make_service()
    run = service.start("run.py")
    start_slow_job(service, ready(run))
    everybody = family(run)
    run.kill()
    run.wait()
    wait_until(lambda: not any(at_large(process) for process in everybody), service.log)


def refusal(service: Service) -> str:
    """The one line that run.py says instead of starting."""
    run = subprocess.run(
        [sys.executable, "run.py"], cwd=ROOT, env=service.environment, capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (1, "")
    (line,) = run.stderr.splitlines()
    return line


def test_figures_of_web_processes_add_up_and_a_second_service_is_refused(
    make_service: MakeService,
) -> None:
    service = make_service(web_workers=2)
    address = ready(service.start("run.py"))
    assert "INSTANCE_DIR" in refusal(service)
    claimed = urllib.request.Request(f"{address}/docs", headers={"X-Forwarded-Proto": "https"})
    with urllib.request.urlopen(
        claimed, timeout=30
    ) as answer:  # TRUSTED_PROXIES is 0, and nobody else believes it
        assert "Strict-Transport-Security" not in answer.headers
    for _ in range(20):
        urllib.request.urlopen(f"{address}/api/v1/monitor/health", timeout=30).close()
    for _ in range(10):
        with urllib.request.urlopen(f"{address}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        counted = [line for line in lines if "duration_seconds_count" in line and "monitor/health" in line]
        assert [float(line.split()[-1]) for line in counted] == [20]


def test_help_starts_nothing(make_service: MakeService) -> None:
    service = make_service()
    run = service.start("run.py", "--help")
    said, _ = run.communicate(timeout=WAIT_SECONDS)
    assert (run.returncode, b"usage: run.py" in said, b"ready" in said) == (0, True, False)


def test_a_busy_port_is_refused_in_one_line(make_service: MakeService) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = make_service(port=port)
        assert str(port) in refusal(service)
