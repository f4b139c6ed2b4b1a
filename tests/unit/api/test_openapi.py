"""The OpenAPI document, and that the application is what it says."""

import re

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.core.entities.training_config import TrainingConfig

VERBS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
def document(client):
    return client.get("/openapi.json").json


def operations(document):
    for path, item in document["paths"].items():
        for verb in item.keys() & VERBS:
            yield path, verb, item[verb]


def test_it_is_valid_openapi_3_1(document):
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


def test_it_has_every_route_and_no_other(app, document):
    routed = {
        (re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(("/api/", "/v1/", "/.well-known/"))
        for method in rule.methods - {"OPTIONS", "HEAD"}
    }
    assert {(path, verb) for path, verb, _ in operations(document)} == routed


def test_each_operation_explains_itself(document):
    for path, verb, operation in operations(document):
        where = f"{verb} {path}"
        assert operation["summary"], where
        description = operation.get("description", "").strip()
        assert description not in ("", operation["summary"].strip()), where
        endings = {"stream": "text/event-stream", "content": "application/octet-stream"}
        media = endings.get(path.rpartition("/")[2], "application/json")
        for status, good in operation["responses"].items():
            assert status[0] != "2" or status == "204" or "example" in good["content"][media], where
        assert "default" in operation["responses"], where


def test_each_parameter_says_what_it_is(document):
    described = 0
    for path, item in document["paths"].items():
        for holder in (item, *(item[verb] for verb in item.keys() & VERBS)):
            for one in holder.get("parameters", []):
                assert one.get("description"), (path, one["name"])
                assert one["in"] != "path" or one["example"], (path, one["name"])
                described += 1
    assert described > 80


def test_each_body_has_an_example_and_its_refusals(document):
    for path, verb, operation in operations(document):
        for media, body in operation.get("requestBody", {}).get("content", {}).items():
            where = f"{verb} {path}"
            assert "example" in body, where
            refusals = {"400", "413", "415", "422"} if media == "application/json" else {"413", "422"}
            if path.startswith("/v1/"):
                refusals = refusals - {"422"} | {"400"}
            assert refusals <= operation["responses"].keys(), where


def test_each_limited_operation_says_so(document):
    for path, _, operation in operations(document):
        is_limited = path.startswith(("/api/", "/v1/")) and not path.startswith("/api/v1/monitor/")
        assert ("429" in operation["responses"]) == is_limited, path


def test_errors_have_an_example_and_their_headers(document):
    answers = document["components"]["responses"]
    for name, answer in answers.items():
        (content,) = answer["content"].values()
        assert content["example"], name
    for name in ("TOO_MANY_REQUESTS", "OPENAI_TOO_MANY_REQUESTS"):
        assert {"Retry-After", "RateLimit", "RateLimit-Policy"} <= answers[name]["headers"].keys()
    assert "x-ratelimit-reset-tokens" in answers["OPENAI_TOO_MANY_REQUESTS"]["headers"]
    assert list(answers["UNAUTHORIZED"]["headers"]) == ["WWW-Authenticate"]


def test_each_guarded_operation_says_so(client, document):
    for path, verb, operation in operations(document):
        is_open = client.open(path, method=verb.upper()).status_code != 401
        assert is_open == ("security" not in operation), path
        if not is_open:
            assert [list(one) for one in operation["security"]] == [["bearer"]]
            assert {"401", "403"} <= operation["responses"].keys(), path


def test_errors_are_problems(document):
    for name, answer in document["components"]["responses"].items():
        media = "application/json" if name.startswith("OPENAI_") else "application/problem+json"
        assert list(answer["content"]) == [media], name


def test_under_v1_they_are_openais(document):
    found = [(path, operation) for path, _, operation in operations(document) if path.startswith("/v1/")]
    assert found
    for path, operation in found:
        refused = {status: answer for status, answer in operation["responses"].items() if status[0] != "2"}
        assert "422" not in refused, path
        assert all("/OPENAI_" in answer["$ref"] for answer in refused.values()), path


def test_the_training_config_is_a_component(document):
    schemas = document["components"]["schemas"]
    assert schemas["TrainingConfig"]["properties"].keys() == TrainingConfig.model_fields.keys()
    assert schemas["Train"]["properties"]["config"]["$ref"] == "#/components/schemas/TrainingConfig"
    assert schemas["Train"]["additionalProperties"] is False
    assert schemas["TrainingConfig"]["properties"]["lora"]["$ref"] == "#/components/schemas/LoraSettings"


def test_the_description_shows_how(document):
    description = document["info"]["description"]
    for word in ("Authorization: Bearer", "/api/v1/auth/token", "RateLimit", "malformed_json", "per minute"):
        assert word in description


def test_the_examples_of_requests_are_accepted(caller, document, settings):
    (settings.data_dir / "raw" / "sample_data.json").write_bytes(
        (settings.data_dir / "raw" / "sound.json").read_bytes()
    )
    for path in ("/api/v1/train", "/api/v1/predict", "/api/v1/chat", "/v1/chat/completions", "/v1/completions"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        answer = caller("POST", path, json=body)
        assert answer.status_code in (200, 202), answer.json


def test_what_is_taken_under_v1_is_documented_so(document):
    fields = document["components"]["schemas"]["ChatCompletionBody"]["properties"]
    assert "null" in fields["modalities"]["type"]
    assert set(fields["stop"]["type"]) == {"string", "array", "null"}


def test_what_takes_an_adapter_away_may_refuse_its_name(document):
    assert "422" in document["paths"]["/api/v1/engines/{base_model}/adapters/{reference}"]["delete"]["responses"]


def test_names_have_no_length_of_one_text(document):
    query = document["paths"]["/api/v1/train/{task_id}/metrics"]["get"]["parameters"]
    (names,) = [one for one in query if one["name"] == "names"]
    assert "maxLength" not in names["schema"]
