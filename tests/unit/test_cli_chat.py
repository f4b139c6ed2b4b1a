"""``flask chat`` over the twins, its input a pipe."""

import os
import shutil

import pytest

from app.core.entities.inference import AnswerOptions
from app.core.errors import Unavailable


@pytest.fixture
def chat(app):
    """``chat(*lines)`` → (standard output, standard error)"""
    runner = app.test_cli_runner()

    def talk(*lines, words=("m:1",)):
        done = runner.invoke(args=["chat", *words], input="".join(f"{line}\n" for line in lines))
        assert (done.exit_code, done.exception) == (0, None), done.output
        return done.stdout, done.stderr

    return talk


def asked(twins, place=-1):
    request = twins.inference.asked[place][1]
    return request.model, [f"{message['role'][0]}:{message['content']}" for message in request.messages]


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda **_: os.terminal_size((80, 24)))


def test_it_answers_and_remembers(chat, twins):
    assert chat("abc", "", "de") == ("cba\ned\n", "")
    assert asked(twins) == ("m:1", ["u:abc", "a:cba", "u:de"])
    assert twins.inference.asked[0][0] == "default"
    assert twins.inference.ended == 2


def test_without_a_model_the_resident_base_answers(chat, twins):
    assert chat("abc", words=())[0] == "cba\n"
    assert asked(twins)[0] is None


def test_model_system_and_clear(chat, twins):
    out, _ = chat("abc", "/system Be brief.", "/model m:2", "/model", "de", "/clear", "/system", "fg")
    assert out == "cba\nm:2\ned\ngf\n"
    assert asked(twins, 1) == ("m:2", ["s:Be brief.", "u:abc", "a:cba", "u:de"])
    assert asked(twins, 2) == ("m:2", ["u:fg"])


def test_history(chat):
    out, _ = chat("/system Be.", "abc", "/history")
    assert out == "cba\nsystem: Be.\nuser: abc\nassistant: cba\n"


def test_params(chat, twins):
    out, err = chat('/params temperature=0.2 max_tokens=20 stop=\'["x", "y"]\' seed=3', "/params seed=null", "abc")
    assert err == ""
    assert out.startswith("max_tokens=20\ntemperature=0.2\n")
    assert 'seed=3\ndeadline_seconds=null\nstop=["x", "y"]\n' in out
    expected = AnswerOptions(max_tokens=20, temperature=0.2, stop=["x", "y"])
    assert twins.inference.asked[0][1].options == expected


@pytest.mark.parametrize(
    "words",
    [
        "heat=1",
        "temperature",
        "temperature=hot",
        "temperature=3",
        "top_k=1.5",
        "top_k=true",
        "stop=5",
        "n=2",
        "top_p=",
    ],
)
def test_params_with_a_fault_change_nothing(chat, twins, words):
    _, err = chat(f"/params max_tokens=5 {words}", "abc")
    assert err.startswith(f"Error: not changed: {words.partition('=')[0]}: ")
    assert err.count("\n") == 1
    assert twins.inference.asked[0][1].options == AnswerOptions()


def test_an_open_quotation_is_a_fault(chat):
    assert chat("/params stop='x")[1].count("\n") == 1


def test_help_quit_and_what_is_no_command(chat, twins):
    out, err = chat("/help", "/nonsense", "/compare a", "/quit", "abc")
    assert "/compare A B" in out
    assert err == "no such command: /nonsense; /help lists them\n/compare wants two models\n"
    assert twins.inference.asked == []


def test_an_engine_that_fails_is_one_line_and_the_question_is_forgotten(chat, twins):
    twins.inference.error = Unavailable("no engine\nanswers")
    assert chat("abc", "de") == ("", "Error: no engine answers\n" * 2)
    assert asked(twins) == ("m:1", ["u:de"])


@pytest.mark.parametrize(
    ("failure", "said"), [(KeyboardInterrupt(), "(stopped)\n"), (Unavailable("it failed"), "Error: it failed\n")]
)
def test_what_was_said_before_the_answer_broke_off_is_kept(chat, twins, failure, said):
    twins.inference.failure = failure
    assert chat("abc", "de") == ("c\ne\n", said * 2)
    assert asked(twins) == ("m:1", ["u:abc", "a:c", "u:de"])
    assert twins.inference.ended == 2


def test_reasoning_stands_before_the_answer(chat):
    assert chat("2 4>kniht/<mh>kniht<")[0] == "hm\n4 2\n"


def test_a_model_does_not_steer_the_terminal(chat):
    assert chat("m13[\x1b\x07")[0] == "[31m\n"


def test_two_models_side_by_side(chat, twins, wide):
    out, _ = chat("hi", "/compare a:1 b:2", "olleh ereht", "/history", "/compare", "x")
    lines = out.splitlines()
    assert lines[1].split(" │ ") == ["a:1".ljust(38), "b:2"]
    assert lines[2].split(" │ ") == ["there hello".ljust(38), "there hello"]
    assert lines[3:9] == [
        "a:1:",
        "user: hi",
        "assistant: ih",
        "user: olleh ereht",
        "assistant: there hello",
        "b:2:",
    ]
    requests = [request for _, request in twins.inference.asked]
    assert sorted(request.model for request in requests[1:3]) == ["a:1", "b:2"]
    assert asked(twins) == ("a:1", ["u:hi", "a:ih", "u:olleh ereht", "a:there hello", "u:x"])


def test_one_of_two_fails(chat, twins, wide):
    twins.inference.error = Unavailable("away")
    out, err = chat("/compare a b", "abc")
    assert out.splitlines()[1].split(" │ ") == ["Error: away".ljust(38), "Error: away"]
    assert err == ""


def test_in_a_narrow_terminal_one_stands_below_the_other(chat, monkeypatch):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda **_: os.terminal_size((40, 24)))
    assert chat("/compare a b", "abc") == ("a:\ncba\nb:\ncba\n", "")
