"""schemathesis, with all of its checks, against the application over its twins: it finds nothing.

Each caller's run sends the examples of the document, each boundary of each parameter and body, random requests,
and chains of them that take up what an earlier answer named. The seed is fixed.
"""

import io
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.openapi import from_dict
from schemathesis.transport.wsgi import WSGITransport

from app.core.entities.api_keys import ApiKey, digest_of, new_key_text
from app.core.entities.identity import Principal, Role, Scope
from app.core.entities.models import ModelAlias, ModelVersion
from app.core.entities.webhooks import WebhookEvent
from app.core.errors import AppError
from app.core.services.jobs.job_records import JobRecords
from app.gateway import streams
from tests.unit.conftest import SOUND_ROWS

CALLERS = [*Role, "a key with scopes"]
# Not one of the checks: a schema cannot say which ids exist, or which settings go together.
EXCLUDED = "positive_data_acceptance"
EXPECTED = [
    "2xx",
    "4xx",
    503,
]  # 503 where a route's document has it: no tokenizer lies on this disk, no engine runs
NOW = datetime(2026, 3, 3, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _network_settings(monkeypatch):
    """schemathesis 4.32 hands a connection's to werkzeug's client when it asks again without a token."""
    send = WSGITransport.send

    def sent(self, case, *, max_redirects=None, verify=None, cert=None, proxies=None, **arguments):
        return send(self, case, **arguments)

    monkeypatch.setattr(WSGITransport, "send", sent)


@pytest.fixture(autouse=True)
def _short_streams(monkeypatch):
    """Of a job that has not ended: it says what there is, and lets the client come back."""
    monkeypatch.setattr(streams, "LONGEST_SECONDS", 0)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    """For a job that no worker carries."""
    wait = JobRecords.wait
    monkeypatch.setattr(
        JobRecords, "wait", lambda self, principal, job_id, seconds: wait(self, principal, job_id, 0)
    )


@pytest.fixture
def house(client, bearer, services, twins):
    """A project that has one of each thing."""
    headers = bearer(Role.OPERATOR)
    (user,) = twins.users.list()
    owner = Principal(user.id, user.username, "default", Role.OPERATOR)
    upload = {"file": (io.BytesIO(SOUND_ROWS.encode()), "rows.json")}
    dataset = client.post("/api/v1/datasets?name=support", data=upload, headers=headers).json["dataset_id"]
    job = services.training.submit(owner, {"dataset_id": dataset})
    version = (
        "version-1",
        "default",
        "support-assistant",
        1,
        "tiny-random",
        "t" * 64,
        "version-1",
        job.id,
        "d" * 64,
    )
    twins.versions.publish(ModelVersion(*version, {}, {}, user.id, NOW))
    twins.versions.set_alias(ModelAlias("default", "support-assistant", "champion", {1: 1}, user.id, NOW))
    services.projects.create_service_account(owner, "ci", Role.DEVELOPER)
    services.webhooks.create(owner, "https://hooks.example.com/", list(WebhookEvent))
    return user


@pytest.fixture
def credential(house, bearer, services, twins):
    """A function that answers what the caller sends: anew where a request has taken it away."""

    def make(caller):
        if isinstance(caller, Role):
            return bearer(caller)["Authorization"]
        text, later = new_key_text(), datetime.now(UTC) + timedelta(days=1)
        number, scopes = len(twins.keys.list("default")), [Scope.DATASETS, Scope.INFER, Scope.TRAIN]
        key = (f"key-{number}", "default", house.id, f"key {number}", digest_of(text), text[:8], scopes, "u")
        twins.keys.add(ApiKey(*key, datetime.now(UTC), later))
        return f"Bearer {text}"

    def ask_for(caller):
        kept = make(caller)

        def current():
            nonlocal kept
            try:
                role = services.identity.authenticate(kept.removeprefix("Bearer ")).role
            except AppError:
                role = None
            if role is None or (isinstance(caller, Role) and role is not caller):
                kept = make(caller)
            return kept

        return current

    return ask_for


def strict(document, half):
    """Without the answer for any other status: what a route answers has to be there by its number."""
    for number, (path, item) in enumerate(list(document["paths"].items())):
        if half is not None and number % 2 != half:
            del document["paths"][path]
        for verb in item.keys() - {"parameters"}:
            del item[verb]["responses"]["default"]
    return document


def fuzz(app, current, *, random, chains, half=None):
    """The number of cases, and what was found: a text for each check and operation.

    ``random`` requests are sent to each operation, and at most ``chains`` chains: most that are drawn end at
    once, at an answer that names nothing.
    """
    generation = {"database": "none", "deterministic": True, "no-shrink": True}
    config = SchemathesisConfig.from_dict(
        {
            "seed": 7,
            "generation": generation,
            "phases": {
                "fuzzing": {"generation": {**generation, "max-examples": random}},
                "stateful": {"generation": {**generation, "max-examples": chains}},
            },
            "checks": {EXCLUDED: {"enabled": False}, "not_a_server_error": {"expected-statuses": EXPECTED}},
        }
    )
    schema = from_dict(strict(app.test_client().get("/openapi.json").json, half), config=config)
    schema.app = app

    @schema.auth(refresh_interval=None)
    class Bearer:
        def get(self, case, context):
            return current()

        def set(self, case, data, context):
            case.headers["Authorization"] = data

    cases, found = Counter(), {}
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found[repr(event)] = str(getattr(event, "value", None) or event.exception)
        if not isinstance(event, events.ScenarioFinished):
            continue
        cases[event.phase.value] += len(event.recorder.interactions)
        for case_id, checks in event.recorder.checks.items():
            for check in checks:
                if check.failure_info is not None:
                    label = event.recorder.cases[case_id].value.operation.label
                    text = f"{check.failure_info.failure.message}\n{check.failure_info.code_sample}"
                    found.setdefault((check.name, label), text)
    return cases, found


PHASES = {"examples", "coverage", "fuzzing", "stateful"}


@pytest.mark.parametrize("caller", CALLERS)
def test_a_tenth_of_it_finds_nothing(app, credential, caller):
    """Each caller with every other path, the next caller with the rest."""
    cases, found = fuzz(app, credential(caller), random=5, chains=100, half=CALLERS.index(caller) % 2)
    assert (found, cases.keys(), cases.total() > 2000) == ({}, PHASES, True), dict(cases)


@pytest.mark.slow
@pytest.mark.parametrize("caller", CALLERS)
def test_it_finds_nothing(app, credential, caller):
    cases, found = fuzz(app, credential(caller), random=240, chains=2000)
    assert (found, cases.keys(), cases.total() > 20_000) == ({}, PHASES, True), dict(cases)
