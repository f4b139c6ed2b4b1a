"""Bad input: the status, every fault at once, nothing written, no traceback."""

import json

import pytest

SOUND = {"dataset_path": "data/raw/sound.json"}


@pytest.fixture
def refused(caller, twins, settings, caplog):
    """Send a body to /api/v1/train; answers the problem after checking that nothing came of it."""

    def send(status, body=None, **arguments):
        before = sorted(settings.data_dir.parent.rglob("*"))
        if body is not None:
            arguments["json"] = body
        answer = caller("POST", "/api/v1/train", **arguments)
        assert answer.status_code == status, answer.json
        assert answer.content_type == "application/problem+json"
        assert twins.job_count() == 0
        assert twins.queue.rung == []
        assert sorted(settings.data_dir.parent.rglob("*")) == before
        text = answer.get_data(as_text=True)
        assert "Traceback" not in text
        assert str(settings.data_dir) not in text
        assert not [record for record in caplog.records if record.exc_info]
        assert answer.json["request_id"] == answer.headers["X-Request-ID"]
        return answer.json

    return send


def wheres(problem):
    return sorted({fault["where"] for fault in problem["errors"]})


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"dataset_path": }', b"nonsense", b'{"a": 1} trailing', b"\xff\xfe{\x00}\x00", b"'", b"[1, 2"],
)
def test_malformed_json(refused, body):
    assert refused(400, data=body, content_type="application/json")["code"] == "malformed_json"


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 50_000 + b"]" * 50_000, b"[" * 33 + b"]" * 33]
)
def test_nested_brackets(refused, body):
    assert refused(400, data=body, content_type="application/json")["code"] == "json_too_deep"


def test_a_key_given_twice(refused):
    body = b'{"dataset_path": "data/raw/sound.json", "config": {"seed": 1, "seed": 2}}'
    problem = refused(400, data=body, content_type="application/json")
    assert (problem["code"], wheres(problem)) == ("duplicate_key", ["seed"])


def test_a_key_given_twice_that_no_one_can_write(refused):
    body = rb'{"\ud800": 1, "\ud800": 2}'
    assert refused(400, data=body, content_type="application/json")["code"] == "invalid_text"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1" * 5000])
def test_numbers_that_json_has_not(refused, value):
    body = f'{{"dataset_path": "data/raw/sound.json", "config": {{"learning_rate": {value}}}}}'
    assert refused(400, data=body, content_type="application/json")["code"] == "malformed_json"


@pytest.mark.parametrize("text", [r"\u0000", r"\ud800", r"a\udfffb"])
def test_text_that_nothing_can_store(refused, text):
    body = f'{{"dataset_path": "{text}"}}'
    assert refused(400, data=body, content_type="application/json")["code"] == "invalid_text"


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_does_not_say_it_is_json(refused, content_type):
    assert refused(415, data=json.dumps(SOUND), content_type=content_type)["code"] == "unsupported_media_type"


def test_fifty_megabytes(refused):
    body = b'{"dataset_path": "' + b"x" * 50_000_000 + b'"}'
    assert refused(413, data=body, content_type="application/json")["code"] == "body_too_large"


def test_a_key_in_two_places_hides_no_other_fault(refused):
    config = {"seed": 1, "model": {"seed": 2, "batch_size": -1, "base_model": "nope"}}
    problem = refused(422, {**SOUND, "config": config})
    assert wheres(problem) == ["base_model", "config", "config.batch_size"]


@pytest.mark.parametrize("body", [[], [1], "text", 5, None, True])
def test_json_that_is_no_object(refused, body):
    problem = refused(422, data=json.dumps(body), content_type="application/json")
    assert wheres(problem) == ["body"]


def test_every_fault_at_once(refused):
    problem = refused(
        422,
        {
            "dataset_path": "../../etc/passwd",
            "base_model": "gpt-9",
            "config": {
                "learning_rate": -0.1,
                "batch_size": "many",
                "num_epochs": True,
                "colour": "red",
                "lora": {"r": 0},
                "output_dir": "/tmp/mine",
            },
            "dataset": "x",
        },
    )
    assert wheres(problem) == [
        "base_model",
        "config.batch_size",
        "config.colour",
        "config.learning_rate",
        "config.lora.r",
        "config.num_epochs",
        "config.output_dir",
        "dataset",
        "dataset_path",
    ]


def test_an_unknown_base_model_lists_the_known_ones(refused):
    problem = refused(422, {**SOUND, "base_model": "gpt-9"})
    (fault,) = problem["errors"]
    assert (fault["where"], fault["code"]) == ("base_model", "unknown_base_model")
    for known in ("deepseek-r1-1.5b", "smollm2-135m-instruct", "tiny-random"):
        assert known in fault["message"]


def test_a_negative_learning_rate(refused):
    problem = refused(422, {**SOUND, "config": {"learning_rate": -1}})
    assert wheres(problem) == ["config.learning_rate"]


@pytest.mark.parametrize(
    "path",
    [
        "../secrets.json",
        "data/raw/../../secrets.json",
        "/etc/passwd",
        "data/processed/x.json",
        "data/raw/absent.json",
        "data/raw",
        "C:\\data\\raw\\x.json",
        "file:///etc/passwd",
        "x" * 1024,
        "~/x.json",
        "data/raw/link.json",
    ],
)
def test_paths_that_are_not_files_under_data_raw(refused, settings, path):
    outside = settings.data_dir.parent / "secrets.json"
    outside.write_text("[]")
    (settings.data_dir / "raw" / "link.json").symlink_to(outside)
    problem = refused(422, {"dataset_path": path})
    assert wheres(problem) == ["dataset_path"]


@pytest.mark.parametrize("value", [5, [], {}, True, "", "x" * 1025])
def test_a_path_of_the_wrong_type(refused, value):
    assert wheres(refused(422, {"dataset_path": value})) == ["dataset_path"]


@pytest.mark.parametrize("config", [5, None, [], "x", {"model": 5}, {"lora": 5, "r": 3}, {"lora": None}])
def test_a_config_of_the_wrong_type(refused, config):
    assert all(where.startswith("config") for where in wheres(refused(422, {**SOUND, "config": config})))


def test_a_key_under_model_and_at_the_top(refused):
    problem = refused(422, {**SOUND, "config": {"model": {"seed": 1}, "seed": 2}})
    assert wheres(problem) == ["config"]
    problem = refused(422, {**SOUND, "base_model": "tiny-random", "config": {"base_model": "tiny-random"}})
    assert wheres(problem) == ["base_model"]


def test_a_row_without_an_answer_has_its_number(refused, settings):
    rows = [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}]},
    ]
    (settings.data_dir / "raw" / "rows.json").write_text(json.dumps(rows))
    text = json.dumps(refused(422, {"dataset_path": "data/raw/rows.json"})["errors"])
    assert "row 2" in text
    assert "row 3" in text
    assert "row 1" not in text


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00", "null"])
def test_a_file_with_nothing_to_train_on(refused, settings, content):
    (settings.data_dir / "raw" / "empty.json").write_text(content)
    assert refused(422, {"dataset_path": "data/raw/empty.json"})["errors"]


def test_a_million_faults_make_a_short_answer(refused):
    config = {f"key{n}": n for n in range(5_000)}
    problem = refused(422, {**SOUND, "config": config})
    assert len(problem["errors"]) == 100
    assert "of 5000 faults" in problem["detail"]


def test_a_long_key_is_not_sent_back_whole(refused):
    problem = refused(422, {**SOUND, "x" * 100_000: 1})
    assert len(json.dumps(problem)) < 2_000


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"text": ""}, "text"),
        ({"text": " \n\t"}, "text"),
        ({"text": "x" * 32_001}, "text"),
        ({"text": 5}, "text"),
        ({"max_length": 0}, "max_length"),
        ({"max_length": 2049}, "max_length"),
        ({"max_length": 1.5}, "max_length"),
        ({"max_length": "8"}, "max_length"),
        ({"max_length": True}, "max_length"),
        ({"max_length": 10**30}, "max_length"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": None}, "temperature"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"seed": -1}, "seed"),
        ({"stop": "x"}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [""]}, "stop.0"),
        ({"json_schema": "x"}, "json_schema"),
        ({"deadline_seconds": 0}, "deadline_seconds"),
        ({"ignore_eos": "true"}, "ignore_eos"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"texts": ["a"]}, "text"),
    ],
)
def test_predict_refuses(caller, twins, change, where):
    answer = caller("POST", "/api/v1/predict", json={"text": "hello", **change})
    assert (answer.status_code, wheres(answer.json)) == (422, [where])
    assert twins.inference.asked == []


@pytest.mark.parametrize(
    ("texts", "where"),
    [
        ([], "texts"),
        (["a"] * 65, "texts"),
        (["a", " "], "texts.1"),
        ("a", "texts"),
        ([1], "texts.0"),
        (None, "texts"),
    ],
)
def test_a_batch_refuses(caller, twins, texts, where):
    answer = caller("POST", "/api/v1/predict", json={"texts": texts})
    assert (answer.status_code, wheres(answer.json)) == (422, [where])
    assert twins.inference.asked == []


QUESTION = {"role": "user", "content": "hello"}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages.0"),
        ({"messages": [QUESTION] * 513}, "messages"),
        ({"messages": [{**QUESTION, "content": "x" * 250_001}] * 2}, "messages"),
        ({"messages": [QUESTION, {"role": "tool", "content": ""}]}, "messages.1.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{**QUESTION, "content": ["hello"]}]}, "messages.0.content"),
        ({"messages": [{**QUESTION, "name": "x"}]}, "messages.0.name"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"min_p": 1.1}, "min_p"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"stream": 1}, "stream"),
        ({"n": 9}, "n"),
        ({"n": 2, "stream": True}, "n"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"conversation": ""}, "conversation"),
        ({"max_length": 5}, "max_length"),
    ],
)
def test_chat_refuses(caller, twins, change, where):
    answer = caller("POST", "/api/v1/chat", json={"messages": [QUESTION], **change})
    assert (answer.status_code, wheres(answer.json)) == (422, [where])
    assert twins.inference.asked == []


def test_chat_lists_all_of_its_faults(caller):
    body = {"messages": [{"role": "x"}], "n": 2, "stream": True, "seed": "x", "top_logprobs": 1}
    answer = caller("POST", "/api/v1/chat", json=body)
    assert wheres(answer.json) == ["messages.0.content", "messages.0.role", "n", "seed", "top_logprobs"]


def test_predict_lists_all_of_its_faults(caller):
    answer = caller("POST", "/api/v1/predict", json={"max_length": 0, "temperature": 9, "model": 5, "zz": 1})
    assert wheres(answer.json) == ["max_length", "model", "temperature", "text", "zz"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "status=asleep", "after=x", "after=ftjob-", "page=2", "after=%00"]
)
def test_list_refuses(caller, query):
    answer = caller("GET", f"/api/v1/train?{query}")
    assert (answer.status_code, wheres(answer.json)) == (422, [query.partition("=")[0]])


def test_an_unknown_cursor(caller):
    assert caller("GET", f"/api/v1/train?after=ftjob-{'0' * 24}").status_code in (404, 422)


@pytest.mark.parametrize(
    "body", [{}, {"username": "a"}, {"username": 1, "password": 2}, {"username": "", "password": ""}]
)
def test_log_in_refuses(client, body):
    answer = client.post("/api/v1/auth/token", json=body)
    assert answer.status_code == 422
    assert set(wheres(answer.json)) <= {"username", "password"}


def parts(count, text=b"x"):
    head = b'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n'
    return (head + text + b"\r\n") * count + b"--b--\r\n"


UPLOADS = [
    (parts(2000), "; boundary=b", 413),
    (parts(1, b"x" * 600_000), "; boundary=b", 413),
    (parts(1), "; boundary=b", 422),
    (b"--b\r\n", "; boundary=b", 422),
    (b"--b\r\nContent-Disposition: " + b"x" * 100_000 + b"\r\n\r\n--b--\r\n", "; boundary=b", 422),
    (parts(1), "", 422),
    (b"", "; boundary=" + "b" * 1000, 422),
]


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}], ids=["", "with a key"])
@pytest.mark.parametrize(("body", "boundary", "status"), UPLOADS)
def test_forms_that_are_no_upload(caller, body, boundary, status, headers):
    content_type = f"multipart/form-data{boundary}"
    path = "/api/v1/datasets?name=x"
    answer = caller("POST", path, data=body, content_type=content_type, headers=headers)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json"), answer.json
