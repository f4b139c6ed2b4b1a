"""The table of docs/openai.md, route by route: it is printed with `pytest -s`, and true."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[4] / "docs" / "openai.md"
ROWS = re.findall(r"^\| `([A-Z]+) (/v1/\S+)` \| (here|not here)\b", DOCS.read_text(), re.MULTILINE)


def test_it_has_every_route_under_v1(app):
    routed = {
        (method, re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/v1/")
        for method in rule.methods - {"OPTIONS", "HEAD"}
    }
    assert {(method, path) for method, path, state in ROWS if state == "here"} == routed


@pytest.mark.parametrize(("method", "path", "state"), ROWS)
def test_a_route_is_what_the_table_says(caller, method, path, state):
    answer = caller(method, path.replace("{", "").replace("}", ""))
    print(f"{method:6} {path:40} {state}")
    code = answer.json.get("error", {}).get("code")
    assert (code in ("not_found", "method_not_allowed")) == (state == "not here"), answer.json


def test_each_answer_has_its_request_id(caller):
    for method, path, _ in ROWS:
        assert caller(method, path).headers["X-Request-ID"]
