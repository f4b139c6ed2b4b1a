"""The list of error codes, against the code that raises them, the page in docs/ and the page that is served."""

import ast
from pathlib import Path

import pytest

from app.core.errors import AppError
from app.gateway.error_codes import CODES, as_markdown

ROOT = Path(__file__).resolve().parents[3]
# The first argument, or the second, is the code of a job that failed.
JOB_ENDS = {"JobError": 0, "TrainerOutcome": 1}
OF_THE_ENGINE = {"WireError", "Failed"}  # its wire is not the service's: the client translates what it says
ENDS_A_JOB = {"TrainingFailed"}


def classes():
    """Name → status of each child of AppError, found in the source: some import torch."""
    found = {"AppError": None}
    trees = [ast.parse(file.read_text()) for file in (ROOT / "app").rglob("*.py")]
    while True:
        before = len(found)
        for node in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in found]
            if bases:
                assigned = {
                    target.id: item.value.value
                    for item in node.body
                    if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant)
                    for target in item.targets
                }
                found[node.name] = assigned.get("status", found[bases[0]])
        if len(found) == before:
            return found


def literal(node):
    """Its text; of ``this or "that"`` the last one's."""
    node = node.values[-1] if isinstance(node, ast.BoolOp) else node
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def raised():
    """(code, status or None where no answer has it, where)"""
    statuses = classes()
    for file in sorted((ROOT / "app").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            where = f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.ClassDef) and node.name in statuses:
                for item in node.body:
                    target = item.targets[0] if isinstance(item, ast.Assign) else getattr(item, "target", None)
                    if getattr(target, "id", "") == "default_code":
                        status = 500 if node.name == "AppError" else statuses[node.name]
                        yield literal(item.value), None if node.name in ENDS_A_JOB else status, where
            elif isinstance(node, ast.Call):
                name = getattr(node.func, "id", None) or getattr(node.func, "attr", "")
                given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
                if name in OF_THE_ENGINE:
                    continue
                if name in JOB_ENDS:
                    given += node.args[JOB_ENDS[name] : JOB_ENDS[name] + 1]
                elif name == "_answer" and len(node.args) > 2 and literal(node.args[1]):
                    yield literal(node.args[1]), node.args[0].value, where
                elif name == "raise_any" or (name == "_fault" and len(node.args) == 3):
                    given += node.args[1:2]
                known = {"raise_any": 422, "_fault": 422, **statuses}
                for value in filter(None, map(literal, given)):
                    status = None if name in ENDS_A_JOB else known.get(name)
                    assert name in {*known, *JOB_ENDS}, f"{where}: what is {name}?"
                    yield value, status, where
            elif isinstance(node, ast.FunctionDef):
                arguments = node.args.args[len(node.args.args) - len(node.args.defaults) :]
                for argument, default in zip(arguments, node.args.defaults, strict=True):
                    if argument.arg == "code" and literal(default):
                        yield literal(default), 422, where


def from_http():
    tree = ast.parse((ROOT / "app/gateway/errors.py").read_text())
    table = next(
        node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "_CODES"
    )
    return [(code, status, "_CODES") for status, (code, _) in ast.literal_eval(table).items()]


@pytest.fixture(scope="module")
def found():
    return [*raised(), *from_http()]


def test_what_is_raised_is_listed_and_what_is_listed_is_raised(found):
    assert {code: where for code, _, where in found if code not in CODES} == {}
    assert CODES.keys() - {code for code, _, _ in found} == set()


def test_it_has_the_statuses_that_it_is_raised_with(found):
    statuses = {code: set() for code in CODES}
    for code, status, _ in found:
        if status is not None:
            statuses[code].add(status)
    assert statuses == {code: set(about.statuses) for code, about in CODES.items()}


def test_the_search_finds_what_is_raised_in_any_way(found):
    codes = {code for code, _, _ in found}
    ways = {"job_not_found", "malformed_json", "poisoned", "lease_ended", "only_a_thought", "invalid_row"}
    assert ways | {AppError.default_code, "method_not_allowed", "nan_loss"} <= codes


def test_the_page_in_docs_is_the_list():
    assert (ROOT / "docs/errors.md").read_text("utf-8") == as_markdown(), (
        "python -m app.gateway.error_codes > docs/errors.md"
    )


def test_the_service_has_the_page_that_type_names(client):
    problem = client.get("/nothing").json
    page, _, anchor = problem["type"].partition("#")
    answer = client.get(page)
    assert answer.status_code == 200
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    text = answer.get_data(as_text=True)
    assert f'id="{anchor}"' in text
    assert all(f'<h2 id="{code}">' in text for code in CODES)
    assert problem["title"] == CODES["not_found"].title
