"""Answers that are JSON of a schema, by a model with random weights: nothing but the schema makes them so."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest

from tests.running_engine import BASE, Engine, parts

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["new", "gold", "née"]}, "maxItems": 3},
        "address": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/address"}]},
    },
    "required": ["name", "age", "tags", "address"],
    "additionalProperties": False,
    "$defs": {
        "address": {
            "type": "object",
            "properties": {"street": {"type": "string", "maxLength": 8}, "no": {"type": "integer", "maximum": 99}},
            "required": ["street", "no"],
            "additionalProperties": False,
        }
    },
}
CODE = {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"}
SCHEMAS: list[dict[str, Any]] = [
    PERSON,
    {"type": "boolean"},
    {"const": {"a": [1, None, "é"]}},
    CODE,
    {"type": "string", "format": "date"},
    {"type": "array", "prefixItems": [{"type": "number"}, {"type": "boolean"}], "items": False, "minItems": 2},
    {"type": "integer", "minimum": -5, "maximum": 5},
    {
        "$ref": "#/$defs/tree",
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {
                    "v": {"type": "integer", "minimum": 0, "maximum": 9},
                    "sub": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2},
                },
                "required": ["v", "sub"],
                "additionalProperties": False,
            }
        },
    },
]


def of_schema(schema: Any, **changes: Any) -> dict[str, Any]:
    return {"structured_outputs": {"json": schema}, "max_tokens": 200, "temperature": 1.0, **changes}


def check(schema: dict[str, Any], choice: dict[str, Any]) -> bool:
    """Whether it came to its end."""
    if choice["finish_reason"] == "length":
        return False
    jsonschema.validate(json.loads(choice["text"]), schema)
    return True


def test_answers_are_valid_whoever_asks_what_beside_them(engine: Engine) -> None:
    jobs = [
        (schema, model, of_schema(schema if seed % 2 else json.dumps(schema), seed=seed, ignore_eos=seed == 1))
        for schema in SCHEMAS
        for seed in range(6)
        for model in (BASE, "one")
    ]
    plain = engine.text(seed=1, temperature=1.0)
    with ThreadPoolExecutor(32) as pool:
        free = pool.submit(engine.text, seed=1, temperature=1.0)
        answers = list(pool.map(lambda job: engine.complete(job[1], **job[2]).json()["choices"][0], jobs))
        assert free.result() == plain
    ended = [check(schema, choice) for (schema, _, _), choice in zip(jobs, answers, strict=True)]
    assert ended.count(True) > 0.7 * len(ended)
    assert len({choice["text"] for choice in answers}) > 30


@pytest.mark.parametrize("stream", [False, True])
def test_each_of_n_choices_is_valid(engine: Engine, stream: bool) -> None:
    response = engine.complete(**of_schema(CODE, n=4, seed=3, stream=stream))
    texts, reasons = [""] * 4, [""] * 4
    for choice in (choice for part in parts(response) for choice in part["choices"]):
        texts[choice["index"]] += choice["text"]
        reasons[choice["index"]] = choice["finish_reason"] or ""
    ended = [check(CODE, {"text": t, "finish_reason": r}) for t, r in zip(texts, reasons, strict=True)]
    assert ended == [True] * 4
    assert len(set(texts)) == 4


def test_the_likeliest_of_what_is_allowed(engine: Engine) -> None:
    body = engine.complete(**of_schema(PERSON, temperature=0)).json()
    assert body["choices"] == engine.complete(**of_schema(PERSON, temperature=0, seed=2)).json()["choices"]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "nothing"}, "nothing"),
        ({"enum": []}, "Unsatisfiable"),
        ({"$ref": "http://127.0.0.1/schema"}, "does not fetch"),
        ({"type": "string", "pattern": "("}, "regex"),
        ({"type": "array", "minItems": 10**9}, "too much memory or time"),
        ({"type": "integer", "multipleOf": 999983}, "too much memory or time"),
        (
            {
                "$ref": "#/$defs/a0",
                "$defs": {f"a{i}": {"type": "array", "items": {"$ref": f"#/$defs/a{i + 1}"}} for i in range(1000)}
                | {"a1000": {"type": "integer"}},
            },
            "too much memory or time",
        ),
        ("3", "object"),
        ("{", "structured_outputs"),
        ({"enum": ["x" * 70_000]}, "65536"),
    ],
)
def test_a_hostile_schema_is_refused_and_the_core_lives_on(engine: Engine, schema: Any, reason: str) -> None:
    core = engine.core
    for _ in range(2):
        response = engine.complete(**of_schema(schema))
        assert response.status_code == 400, response.text
        assert reason in response.json()["error"]["message"]
    assert engine.core == core
    engine.await_figure("engine_num_requests_waiting", 0)
    assert engine.text()


def test_what_else_vllm_takes_there_is_refused_by_name(engine: Engine) -> None:
    response = engine.complete(structured_outputs={"regex": "a+"})
    assert response.status_code == 400
    assert "structured_outputs.regex" in response.json()["error"]["message"]
