"""Errors as answers: whose envelope, and what they never say."""

import logging

import pytest

from app.core.errors import Conflict, Fault, Invalid
from app.gateway.errors import from_app_error

SECRET = "/home/someone/secret.db is locked"


@pytest.fixture
def broken(caller, twins):
    def call(error, path="/api/v1/predict"):
        twins.inference.error = error
        return caller("POST", path, json={"text": "hello"})

    return call


def test_an_unknown_exception_says_nothing_but_is_logged(broken, caplog):
    answer = broken(RuntimeError(SECRET))
    assert (answer.status_code, answer.json["code"]) == (500, "internal_error")
    assert SECRET not in answer.get_data(as_text=True)
    (record,) = [record for record in caplog.records if record.exc_info]
    assert SECRET in str(record.exc_info[1])
    assert record.levelno == logging.ERROR


def test_recursion_is_no_exception_to_that(broken):
    assert broken(RecursionError()).status_code == 500


def test_a_problem_has_all_its_members(broken):
    answer = broken(Invalid("two things", faults=[Fault("a", "x", "A"), Fault("b", "y", "B")]))
    assert answer.content_type == "application/problem+json"
    assert answer.json == {
        "type": "/docs/errors#invalid_request",
        "title": "The request has faults",
        "status": 422,
        "detail": "two things",
        "code": "invalid_request",
        "request_id": answer.headers["X-Request-ID"],
        "errors": [{"where": "a", "code": "x", "message": "A"}, {"where": "b", "code": "y", "message": "B"}],
    }


def test_under_v1_the_envelope_is_openais(client):
    answer = client.get("/v1/nothing")
    assert answer.status_code == 404
    assert answer.content_type == "application/json"
    assert answer.json["error"].keys() == {"message", "type", "param", "code"}
    assert answer.json["error"]["code"] == "not_found"


@pytest.mark.parametrize("path", ["/", "/v10/x", "/api/v2", "/api/v1/train/x/y/z", "/static/../run.py"])
def test_elsewhere_it_is_a_problem(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.json["code"]) == (404, "not_found")


def test_a_wrong_method_names_the_right_ones(client):
    answer = client.delete("/api/v1/auth/token")
    assert (answer.status_code, answer.json["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "OPTIONS, POST"


def test_every_answer_is_guarded_by_headers(client):
    for path in ("/docs", "/api/v1/monitor/health", "/nothing", "/openapi.json", "/static/docs.js"):
        with client.get(path) as answer:
            headers = answer.headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "'unsafe" not in headers["Content-Security-Policy"]
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_the_callers_request_id_is_kept_if_it_is_sane(client):
    def sent(value):
        return client.get("/api/v1/models", headers={"X-Request-ID": value})

    answer = sent("trace-1.a_B")
    assert answer.headers["X-Request-ID"] == answer.json["request_id"] == "trace-1.a_B"
    made = [sent(value).headers["X-Request-ID"] for value in ("", "x" * 129, "a b", "<script>", "é")]
    assert len(set(made)) == 5
    assert all(len(one) == 32 for one in made)


def test_the_log_has_the_request_id_and_no_forged_line(client, caplog, app):
    from app.gateway.request_ids import RequestIdFilter

    caplog.handler.addFilter(RequestIdFilter())
    with caplog.at_level(logging.INFO, "app.requests"):
        client.get("/a%0Ab", headers={"X-Request-ID": "trace-2"})
        logging.getLogger("app.requests").info("outside")
    inside, outside = caplog.records
    assert (inside.request_id, outside.request_id) == ("trace-2", "-")
    assert "\n" not in inside.getMessage()


@pytest.mark.parametrize(("seconds", "said"), [(None, "false"), (1, None)])
def test_openais_client_asks_again_where_that_helps(app, seconds, said):
    with app.test_request_context("/v1/files"):
        answer = from_app_error(Conflict("busy", retry_after=seconds))
    assert answer.status_code == 409
    assert answer.headers.get("X-Should-Retry") == said
