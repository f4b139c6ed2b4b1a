"""What a chat template does with tools: tried out, for there is no other way to tell."""

from __future__ import annotations

from app.core.entities.datasets import Message
from app.core.entities.tool_calls import TOOL_FORMATS, Tool, ToolCallStream, ToolFormat
from app.core.errors import Invalid
from app.implementations.data.chat_template import ChatTemplate

NAME = "look_up_parcel"
TOOL: Tool = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "Where a parcel is.",
        "parameters": {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]},
    },
}
QUESTION: Message = {"role": "user", "content": "Where is parcel 7?"}
CALL: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": NAME, "arguments": {"number": "7"}}}],
}
RESULT: Message = {"role": "tool", "content": "In Ulm.", "tool_call_id": "call_1"}


def knows_tools(template: ChatTemplate) -> bool:
    """Whether the model reads of a tool that is offered."""
    return NAME in _written(template, [QUESTION])


def tool_format(template: ChatTemplate) -> ToolFormat | None:
    """That in which a call, rendered, is read again."""
    written = _written(template, [QUESTION, CALL])
    return next((form for form in TOOL_FORMATS if ToolCallStream(form, {NAME}).push(written)[1]), None)


def _written(template: ChatTemplate, messages: list[Message]) -> str:
    try:
        return template.render(messages, tools=[TOOL], add_generation_prompt=False)
    except Invalid:
        return ""
