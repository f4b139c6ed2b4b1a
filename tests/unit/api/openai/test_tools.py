"""Tools of /v1/chat/completions, as the official client sends them and reads the calls."""

import json

import openai as wire
import pytest

BASE = "smollm2-135m-instruct"
QUESTION = {"role": "user", "content": "Where is parcel 7?"}
FUNCTION = {"name": "parcel", "description": "Where it is.", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}
WRITTEN = '<tool_call>\n{"name": "parcel", "arguments": {"number": %d}}\n</tool_call>'
CALL = {"id": "c", "type": "function", "function": {"name": "parcel", "arguments": '{"number": 7}'}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "In Ulm."}


def ask(openai, messages=(QUESTION,), **options):
    return openai.chat.completions.create(
        **{"model": BASE, "messages": list(messages), "tools": [TOOL], **options}
    )


def asked(twins):
    return twins.inference.asked[-1][1]


def test_a_call_its_result_and_what_the_model_is_shown(openai, twins):
    twins.inference.streams = WRITTEN % 7
    [choice] = ask(openai, tools=[{**TOOL, "function": {**FUNCTION, "strict": True}}]).choices
    assert asked(twins).tools == (TOOL,)
    [call] = choice.message.tool_calls
    assert (choice.finish_reason, choice.message.content, call.type) == ("tool_calls", None, "function")
    assert (call.function.name, json.loads(call.function.arguments)) == ("parcel", {"number": 7})

    ask(openai, [QUESTION, choice.message, {**RESULT, "tool_call_id": call.id}], tool_choice="auto")
    made = {"id": call.id, "type": "function", "function": {"name": "parcel", "arguments": {"number": 7}}}
    assert asked(twins).messages == [
        QUESTION,
        {"role": "assistant", "content": "", "tool_calls": [made]},
        {**RESULT, "tool_call_id": call.id},
    ]


def test_calls_as_they_stream(openai, twins):
    twins.inference.streams = f"Well.\n{WRITTEN % 7}\n{WRITTEN % 8}"
    choices = [choice for chunk in ask(openai, stream=True, n=2) for choice in chunk.choices]
    for index in (0, 1):
        own = [choice for choice in choices if choice.index == index]
        assert "".join(choice.delta.content or "" for choice in own) == "Well."
        calls = [call for choice in own for call in choice.delta.tool_calls or ()]
        assert [(call.index, call.type, call.function.name) for call in calls] == [
            (0, "function", "parcel"),
            (1, "function", "parcel"),
        ]
        assert [json.loads(call.function.arguments) for call in calls] == [{"number": 7}, {"number": 8}]
        assert len({call.id for call in calls}) == 2
        assert [choice.finish_reason for choice in own if choice.finish_reason] == ["tool_calls"]


def test_what_is_no_call_is_content(openai, twins):
    twins.inference.streams = '<tool_call>{"name": "parcel"}</tool_call>'
    [choice] = ask(openai).choices
    assert (choice.message.content, choice.message.tool_calls) == (twins.inference.streams, None)
    streamed = [choice for chunk in ask(openai, stream=True) for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in streamed) == twins.inference.streams
    assert streamed[-1].finish_reason == "stop"


def test_none_is_no_tools(openai, twins):
    ask(openai, tool_choice="none", response_format={"type": "json_object"})
    assert asked(twins).tools == ()
    ask(openai, [QUESTION, CALLED, RESULT], tools=[])
    assert asked(twins).tools == ()


LONG = {**TOOL, "function": {**FUNCTION, "description": "x" * 500_000}}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "parcel"}}}, "tool_choice"),
        ({"tools": [TOOL, TOOL]}, "tools.1"),
        ({"tools": [LONG]}, "tools"),
        ({"tools": [{**TOOL, "function": {"name": f"f{n}"}} for n in range(129)]}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [{**TOOL, "function": {"name": "two words"}}]}, "tools.0.function.name"),
        ({"tools": [{**TOOL, "function": {**FUNCTION, "parameters": []}}]}, "tools.0.function.parameters"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"functions": [FUNCTION]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"messages": [QUESTION, RESULT]}, "messages.1.tool_call_id"),
        ({"messages": [QUESTION, CALLED, {**RESULT, "tool_call_id": "d"}]}, "messages.2.tool_call_id"),
        ({"messages": [QUESTION, {"role": "tool", "content": "x"}]}, "messages.1.tool_call_id"),
        ({"messages": [{**QUESTION, "tool_calls": [CALL]}]}, "messages.0.tool_calls"),
        ({"messages": [QUESTION, {"role": "assistant", "tool_calls": []}]}, "messages.1.content"),
        ({"messages": [QUESTION, {"role": "assistant"}]}, "messages.1.content"),
        *(
            (
                {
                    "messages": [
                        QUESTION,
                        {**CALLED, "tool_calls": [{**CALL, "function": {"name": "parcel", "arguments": text}}]},
                    ]
                },
                "messages.1.tool_calls.0.function.arguments",
            )
            for text in ("", "7", "{", '{"a": NaN}', '{"a":' * 40 + "1" + "}" * 40, {}, '{"a": "\\ud800"}')
        ),
    ],
)
def test_what_is_refused(openai, twins, change, where):
    with pytest.raises(wire.BadRequestError) as caught:
        ask(openai, **change)
    assert (caught.value.code, caught.value.param) == ("invalid_request", where)
    assert len(caught.value.body["message"].splitlines()) == 2
    assert not twins.inference.asked
