"""Behind proxies, under names, from strangers' pages."""

from dataclasses import replace
from typing import Any, cast

import pytest

from app import create_app
from app.core.entities.identity import Role
from app.core.services import Services
from tests.rates import a_minute
from tests.unit.conftest import QUIET

FORMS = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None)
FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="rows.json"\r\n\r\n[]\r\n--x--\r\n'


@pytest.fixture
def make_client(settings, services, tmp_path):
    quiet = tmp_path / "quiet.yaml"
    quiet.write_text(QUIET)

    def make(instead: Services | None = None, **changes: Any):
        changed = settings.model_copy(update={"logging_file": quiet, **changes})
        return create_app(changed, instead or services).test_client()

    return make


def addresses(twins):
    return [entry.address for entry in twins.audit.kept]


def log_in(client, **headers):
    body = {"username": "nobody", "password": "wrong"}
    return client.post("/api/v1/auth/token", json=body, headers=headers)


@pytest.mark.parametrize(
    ("proxies", "address"), [(0, "127.0.0.1"), (1, "198.51.100.9"), (2, "203.0.113.5"), (3, "127.0.0.1")]
)
def test_the_clients_address_is_what_trusted_proxies_say(make_client, twins, proxies, address):
    client = make_client(trusted_proxies=proxies)
    log_in(client, **{"X-Forwarded-For": "203.0.113.5, 198.51.100.9"})
    assert addresses(twins) == [address]


@pytest.fixture
def one_log_in(services):
    return replace(services, rates=a_minute(log_ins=1))


def test_the_log_in_limit_counts_by_that_address(make_client, one_log_in):
    client = make_client(one_log_in, trusted_proxies=1)
    statuses = [
        log_in(client, **{"X-Forwarded-For": who}).status_code for who in ("192.0.2.1", "192.0.2.2", "192.0.2.2")
    ]
    assert statuses == [401, 401, 429]


def test_a_header_that_nobody_vouches_for_escapes_no_limit(make_client, one_log_in):
    client = make_client(one_log_in)
    statuses = [log_in(client, **{"X-Forwarded-For": f"192.0.2.{n}"}).status_code for n in (1, 2)]
    assert statuses == [401, 429]


def test_hsts_over_tls_alone(make_client):
    client = make_client(trusted_proxies=1)
    secure = client.get("/docs", headers={"X-Forwarded-Proto": "https"})
    assert secure.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert "Strict-Transport-Security" not in client.get("/docs").headers
    unproven = make_client().get("/docs", headers={"X-Forwarded-Proto": "https"})
    assert "Strict-Transport-Security" not in unproven.headers


def test_other_names_are_refused(make_client):
    client = make_client(trusted_hosts=["llm.example.com", ".internal"])
    for host in ("llm.example.com", "llm.example.com:8443", "a.internal", "127.0.0.1:5000", "localhost"):
        assert client.get("/api/v1/monitor/health", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "llm.example.com.evil.example", "xllm.example.com", "a b", ""):
        answer = client.get("/api/v1/monitor/health", headers={"Host": host})
        assert (answer.status_code, answer.json["code"]) == (400, "untrusted_host"), host
        assert answer.headers["X-Request-ID"] == answer.json["request_id"]
        assert answer.headers["Content-Security-Policy"]
    refused = client.get("/v1/models", headers={"Host": "evil.example"})
    assert refused.json["error"]["code"] == "untrusted_host"


def test_without_a_list_any_name_will_do(client):
    assert client.get("/api/v1/monitor/health", headers={"Host": "any.example"}).status_code == 200


def test_every_answer_keeps_others_out(client):
    for path in ("/docs", "/api/v1/models", "/nothing"):
        headers = client.get(path, headers={"Origin": "https://evil.example"}).headers
        assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "camera=()" in headers["Permissions-Policy"]
        assert not [name for name, _ in headers if name.startswith("Access-Control-")]


# --- Requests that a browser would send from a stranger's page: forms, and whatever cookies there are ---


def changing(app):
    for rule in app.url_map.iter_rules():
        for method in sorted(rule.methods & {"POST", "PUT", "PATCH", "DELETE"}):
            path = rule.rule
            for argument in rule.arguments:
                path = path.replace(f"<{argument}>", "x").replace(f"<path:{argument}>", "x")
            yield method, path


def test_a_form_of_another_site_changes_nothing(app, client, bearer, twins):
    token = bearer(Role.OPERATOR)["Authorization"].removeprefix("Bearer ")
    for name in ("session", "access_token", "Authorization", "token"):
        client.set_cookie(name, token)
    before = twins.all_rows()
    found = list(changing(app))
    assert len(found) > 20
    for method, path in found:
        for kind in FORMS:
            headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
            answer = client.open(path, method=method, data=FORM, content_type=kind, headers=headers)
            wanted = (415, 422) if path.endswith(("/auth/token", "/auth/refresh")) else (401,)
            assert answer.status_code in wanted, (method, path, kind)
            assert "Set-Cookie" not in answer.headers
    assert twins.all_rows() == before


def test_no_route_sets_a_cookie_or_varies_by_one(app, client, bearer):
    headers = bearer(Role.OPERATOR)
    for rule in app.url_map.iter_rules():
        if "GET" in rule.methods and not rule.arguments:
            with client.get(rule.rule, headers=headers) as answer:
                assert "Set-Cookie" not in answer.headers, rule.rule
                assert "Cookie" not in answer.headers.get("Vary", ""), rule.rule
    assert cast("Any", app).secret_key is None  # Flask's own session could not be used if somebody tried
