"""The official client over a real server, whose services are twins."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from flask import Flask
from openai import OpenAI
from werkzeug.serving import make_server

from app.core.entities.identity import DEFAULT_PROJECT_ID
from app.core.entities.models import ModelVersion
from tests.unit.conftest import Twins


@pytest.fixture(scope="session")
def anyone(shared_app: Flask) -> Iterator[OpenAI]:
    """A client without a key. One for all tests, and its server: to make them costs more than a test."""
    server = make_server("127.0.0.1", 0, shared_app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    with OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="nobody", max_retries=0) as client:
        yield client
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def connect(app: Flask, anyone: OpenAI, bearer: Callable[..., dict[str, str]]) -> Callable[..., OpenAI]:
    """``connect(role, project)``: the client of a new member."""

    def connect(*member: str) -> OpenAI:
        token = bearer(*member)["Authorization"].removeprefix("Bearer ")
        return anyone.with_options(api_key=token)

    return connect


@pytest.fixture
def openai(connect: Callable[..., OpenAI]) -> OpenAI:
    return connect()


@pytest.fixture
def publish(twins: Twins) -> Callable[..., ModelVersion]:
    def publish(name: str = "support", project: str = DEFAULT_PROJECT_ID) -> ModelVersion:
        return twins.versions.publish(
            ModelVersion(
                id=f"{project}-{name}-{datetime.now(UTC).timestamp()}",
                project_id=project,
                name=name,
                number=0,
                base_model="smollm2-135m-instruct",
                template_hash="0" * 64,
                artifacts="v1",
                job_id=None,
                dataset_digest="0" * 64,
                config={},
                metrics={},
                created_by=None,
                created_at=datetime(2026, 11, 27, tzinfo=UTC),
            )
        )

    return publish
