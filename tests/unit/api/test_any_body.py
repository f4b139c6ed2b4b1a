"""Whatever the body, never a 500, and a job only for an answer of 202."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.entities.training_config import LoraSettings, TrainingConfig

FIXTURES = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = sorted({*TrainingConfig.model_fields, *LoraSettings.model_fields, "model"})
CONFIG = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), JSON, max_size=6)
PATHS = st.sampled_from(["data/raw/sound.json", "data/raw", "..", "\x00", "data/raw/\ud800"]) | st.text()
TRAIN = JSON | st.fixed_dictionaries(
    {}, optional={"dataset_path": PATHS | JSON, "base_model": JSON, "config": CONFIG | JSON, "zz": JSON}
)
PREDICT = JSON | st.fixed_dictionaries(
    {},
    optional={
        "text": st.text() | JSON,
        "texts": st.lists(st.text()) | JSON,
        "stop": st.lists(st.text()) | JSON,
        "max_length": st.integers() | JSON,
        "temperature": st.floats() | JSON,
        "model": st.text() | JSON,
    },
)
MESSAGES = st.lists(
    JSON
    | st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]) | JSON, "content": st.text() | JSON}),
    max_size=4,
)
CHAT = JSON | st.fixed_dictionaries(
    {"messages": MESSAGES | JSON},
    optional={"n": st.integers() | JSON, "stream": JSON, "top_p": st.floats() | JSON, "conversation": JSON},
)


@FIXTURES
@given(body=TRAIN)
def test_train(caller, twins, body):
    before = twins.job_count()
    answer = caller("POST", "/api/v1/train", data=json.dumps(body), content_type="application/json")
    assert answer.status_code in (202, 400, 422), answer.get_data(as_text=True)
    assert twins.job_count() - before == (answer.status_code == 202)
    assert answer.status_code == 202 or answer.json["detail"]


@FIXTURES
@given(body=PREDICT)
def test_predict(caller, twins, body):
    before = len(twins.inference.asked)
    answer = caller("POST", "/api/v1/predict", data=json.dumps(body), content_type="application/json")
    assert answer.status_code in (200, 400, 422), answer.get_data(as_text=True)
    assert len(twins.inference.asked) - before == (answer.status_code == 200)


@FIXTURES
@given(body=CHAT)
def test_chat(caller, twins, body):
    before = len(twins.inference.asked)
    answer = caller("POST", "/api/v1/chat", data=json.dumps(body), content_type="application/json")
    assert answer.status_code in (200, 400, 422), answer.get_data(as_text=True)
    assert len(twins.inference.asked) - before == (answer.status_code == 200)


@FIXTURES
@given(body=st.binary(max_size=200))
def test_bytes(caller, twins, body):
    answer = caller("POST", "/api/v1/train", data=body, content_type="application/json")
    assert answer.status_code in (400, 422)
    assert twins.job_count() == 0


@FIXTURES
@given(query=st.dictionaries(st.sampled_from(["status", "limit", "after"]), st.text(), max_size=3))
def test_queries(caller, query):
    assert caller("GET", "/api/v1/train", query_string=query).status_code in (200, 404, 422)
