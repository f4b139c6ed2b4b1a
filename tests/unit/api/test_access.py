"""The matrix of roles and routes, against the application, the OpenAPI document, every role and every scope."""

import re
from datetime import UTC, datetime

import pytest

from app.core.entities.api_keys import ApiKey, digest_of, new_key_text
from app.core.entities.identity import Role, Scope
from app.gateway.access import OPEN, ROUTES, scope_of

WANTED = {
    endpoint: (scope, role)
    for scope, roles in ROUTES.items()
    for role, endpoints in roles.items()
    for endpoint in endpoints
}
LISTED = [endpoint for roles in ROUTES.values() for endpoints in roles.values() for endpoint in endpoints]


def guarded(app):
    """(endpoint, method, path with nobody's ids)"""
    for rule in app.url_map.iter_rules():
        if rule.endpoint not in OPEN:
            for method in rule.methods - {"OPTIONS", "HEAD"}:
                yield rule.endpoint, method, re.sub(r"<(?:path:)?\w+>", "x", rule.rule)


def code_of(answer):
    return answer.json["error"]["code"] if "error" in answer.json else answer.json["code"]


def test_every_route_stands_in_the_matrix_once(app):
    assert sorted(LISTED) == sorted({endpoint for endpoint, _, _ in guarded(app)})
    assert {rule.endpoint for rule in app.url_map.iter_rules()} == OPEN | WANTED.keys()


def test_the_document_says_what_the_matrix_says(app, client):
    paths = client.get("/openapi.json").json["paths"]
    for rule in app.url_map.iter_rules():
        if rule.endpoint in WANTED:
            item = paths[re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule)]
            for method in rule.methods - {"OPTIONS", "HEAD"}:
                _, role = WANTED[rule.endpoint]
                assert item[method.lower()]["security"] == [{"bearer": [role.value]}], rule.endpoint


@pytest.mark.parametrize("role", Role)
def test_each_role_gets_where_the_matrix_lets_it(app, client, bearer, role):
    for endpoint, method, path in guarded(app):
        _, wanted = WANTED[endpoint]
        answer = client.open(path, method=method, headers=bearer(role))  # anew: a log-out ends a session
        assert (answer.status_code == 403) == (not role.covers(wanted)), (endpoint, role)
        if answer.status_code == 403:
            assert code_of(answer) == "forbidden"


@pytest.mark.parametrize("scope", Scope)
def test_each_scope_opens_its_own_routes_alone(app, client, bearer, twins, scope):
    bearer(Role.OPERATOR)
    (owner,) = twins.users.list()
    text, now = new_key_text(), datetime.now(UTC)
    twins.keys.add(ApiKey("key-1", "default", owner.id, "k", digest_of(text), "llmft_", [scope], "u", now, None))
    for endpoint, method, path in guarded(app):
        answer = client.open(path, method=method, headers={"Authorization": f"Bearer {text}"})
        refused = answer.status_code == 403 and code_of(answer) == "scope_missing"
        assert refused == (scope_of(endpoint) is not scope), endpoint
