"""The main job from end to end, on this machine: ``make demo``.

Everything here goes through what production uses: the training command's job, the evaluation service, ``run.py``
and the gateway. What an earlier run made is used again.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from app.bootstrap import Settings, SettingsError, load_training_config, one_line
from app.core.entities.evaluation import EvaluationReport
from app.core.entities.identity import Role
from app.core.entities.jobs import JobState
from app.core.entities.models import ModelVersion, Reference
from app.core.errors import AppError, Unavailable
from app.model.training_service import foreground_app, report, train
from app.scripts.evaluate_model import evaluate, score_table
from app.scripts.process_data import table
from app.utils.files import write_whole
from app.utils.project import ROOT, shown

if TYPE_CHECKING:
    from flask import Flask

    from app.core.entities.training_config import TrainingConfig
    from app.core.services import Services

MODEL_NAME = "support-assistant"
USER = "demo"
QUESTION = "Is there a minimum order value for free parcel shipping?"
READY = re.compile(r"is ready: (http://\S+)")
READY_SECONDS = 120
STOP_SECONDS = 15


class DemoFailed(Exception):
    """One line that says why."""


def main() -> int:
    """Exit status: 0 all done, 1 something failed, 130 stopped by Ctrl-C."""
    argparse.ArgumentParser(prog="demo", description=__doc__).parse_args()
    started = time.monotonic()
    try:
        app = foreground_app()
        settings, services = app.extensions["settings"], app.extensions["services"]
        config = load_training_config(
            settings.train_config_file,
            base_model=settings.engine_base_model,  # what run.py serves, so that the version can be asked
            model_name=MODEL_NAME,
            experiment_name=MODEL_NAME,
        )
        prepare(services, config)
        before = score(services, config, config.base_model)
        version = tuned(app, config)
        after = score(services, config, version.reference)
        password = demo_user(settings, services)
        ask_through_the_gateway(version, password, settings.instance_dir / "demo-service.log")
    except (AppError, SettingsError, DemoFailed) as error:
        print(f"the demo failed: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; `make demo` goes on from what is done", file=sys.stderr)
        return 130
    say("Questions that the training never saw, answered with the right fact")
    print("\n".join(f"  {line}" for line in score_table([before, after])))
    print_next_steps(settings, version, time.monotonic() - started)
    return 0


def say(title: str) -> None:
    print(f"\n== {title}", flush=True)


def prepare(services: Services, config: TrainingConfig) -> None:
    say(f"Base model {config.base_model}")
    print(f"  in {services.models.pull(config.base_model)}")
    say(f"Data {config.dataset_path}")
    prepared = services.datasets.prepare(config.dataset_path, config.seed)
    summary = services.datasets.summary(prepared, config.base_model, config.max_length)
    print("\n".join(f"  {line}" for line in table(summary)))


def score(services: Services, config: TrainingConfig, model: str) -> EvaluationReport:
    say(f"Held-out questions, asked of {model}")
    found = evaluate(services.evaluation, model, config.dataset_path, "test")
    print(f"  {found.overall.correct} of {found.overall.total} answers state the right fact")
    return found


def tuned(app: Flask, config: TrainingConfig) -> ModelVersion:
    """The newest version, if this data and config made it; else a new one."""
    services: Services = app.extensions["services"]
    say(f"Fine-tuning {config.base_model} with LoRA")
    digest = services.datasets.check(config.dataset_path).digest
    newest = services.models.find(Reference(MODEL_NAME))
    if newest and newest.dataset_digest == digest and newest.config == config.model_dump(mode="json"):
        print(f"  {newest.reference} was made of this data with this config: used again")
        return newest
    job = train(app, config)
    if report(app, job) != 0 or job.state is not JobState.SUCCEEDED:
        raise DemoFailed("the training job did not succeed")
    return services.models.version(job.model_version_id or "")


def demo_user(settings: Settings, services: Services) -> str:
    """The password of the user ``demo``, who may train and predict. Both are made once."""
    place = settings.instance_dir / "demo-password"
    if not place.is_file():
        write_whole(place, secrets.token_urlsafe(16))
    password = place.read_text("utf-8")
    if USER not in {user.username for user, _ in services.accounts.users()}:
        services.accounts.create_user(USER, password, Role.DEVELOPER)
    return password


def ask_through_the_gateway(version: ModelVersion, password: str, log: Path) -> None:
    say("The service: python run.py")
    with running_service(log) as url, httpx.Client(base_url=url, timeout=60) as client:
        print(f"  ready at {url}")
        token = _post(client, "/api/v1/auth/token", {"username": USER, "password": password})["access_token"]
        print(f"  POST /api/v1/auth/token   a token for {USER}")
        client.headers["Authorization"] = f"Bearer {token}"
        body = {"text": QUESTION, "max_length": 64, "temperature": 0, "model": version.reference}
        answer = _post(client, "/api/v1/predict", body)
        print(f"  POST /api/v1/predict      {version.reference}")
        print(f"    Q: {QUESTION}\n    A: {answer['text']}")


@contextmanager
def running_service(log: Path) -> Iterator[str]:
    """``python run.py`` on a free port, its log in ``log``; its URL once it is ready. Stopped as Ctrl-C would."""
    environment = {**os.environ, "PORT": "0", "HOST": "127.0.0.1", "LOG_LEVEL": "WARNING"}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "run.py"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        if (url := _ready_url(process)) is None:
            raise DemoFailed(f"the service did not start: {shown(log)} says why")
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready_url(process: subprocess.Popen[str]) -> str | None:
    """Reads until the service says where it listens; None if it ends or is silent for too long."""
    assert process.stdout is not None
    watchdog = threading.Timer(READY_SECONDS, process.terminate)
    watchdog.start()
    try:
        for line in process.stdout:
            if found := READY.search(line):
                return found[1]
    finally:
        watchdog.cancel()
    return None


def _post(client: httpx.Client, path: str, body: dict[str, object]) -> dict[str, str]:
    answer = client.post(path, json=body)
    if answer.is_error:
        raise Unavailable(f"POST {path} answered {answer.status_code}: {answer.json().get('detail')}")
    found: dict[str, str] = answer.json()
    return found


def print_next_steps(settings: Settings, version: ModelVersion, seconds: float) -> None:
    say(f"Done in {seconds / 60:.1f} minutes. Next")
    place = shown(settings.instance_dir / "demo-password")
    print(
        f"""  make serve                      the service at http://127.0.0.1:5000, its API page at /docs
  cat {place:<27} the password of the user {USER}, for POST /api/v1/auth/token
  .venv/bin/flask predict "{QUESTION}" --model {version.reference}
                                  (while the service runs)
  .venv/bin/flask users set-password admin
                                  the operator's password, which nobody knows yet
  .venv/bin/flask models list     what is published
  .venv/bin/python -m app.model.training_service --help
                                  train on your own file"""
    )


if __name__ == "__main__":
    sys.exit(main())
