"""A model's own chat template, rendered as transformers renders it, without transformers.

The environment follows ``transformers.utils.chat_template_utils``: block trimming, loop controls, ``tojson`` that
escapes nothing, ``raise_exception``, ``strftime_now``, and a sandbox: a template is code by who made the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.core.entities.datasets import Message
from app.core.entities.tool_calls import Tool
from app.core.errors import Invalid

TEMPLATE_FILE = "chat_template.jinja"
_KEYS = ("role", "content", "tool_calls", "tool_call_id")  # of a message, that a template is shown
# What a template can raise by itself, given odd messages: it is a small program.
_TEMPLATE_FAULTS = (
    TemplateError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
)


class _Refused(TemplateError):
    """The template called ``raise_exception``: its own words on why it takes no such conversation."""


class _Generation(Extension):
    """``{% generation %}`` marks the assistant's text for transformers; here it only has to be let through."""

    tags = {"generation"}  # noqa: RUF012  (jinja declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


def _raise_exception(message: str) -> NoReturn:
    raise _Refused(message)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # the output is a prompt, not HTML
        extensions=[_Generation, loopcontrols],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def unsupported(message: str) -> Invalid:
    return Invalid(message, code="template_not_supported")


class ChatTemplate:
    """Compiled once; safe in many threads. ``Invalid`` (template_not_supported) if it is no Jinja."""

    def __init__(self, text: str, variables: Mapping[str, Any]) -> None:
        self.text = text
        self.hash = template_hash(text)
        self._variables = dict(variables)
        try:
            self._template = _environment().from_string(text)
        except TemplateSyntaxError as error:
            raise unsupported(f"the chat template is not valid Jinja (line {error.lineno})") from None

    def render(
        self, messages: Sequence[Message], *, add_generation_prompt: bool, tools: Sequence[Tool] = ()
    ) -> str:
        """The conversation as the model reads it; ``Invalid`` if the template takes no such conversation."""
        plain = [{key: said for key, said in message.items() if key in _KEYS} for message in messages]
        try:
            return self._written(plain, tools, add_generation_prompt)
        except Invalid as error:
            others = [message for message in plain if message["role"] != "system"]
            if len(others) == len(plain) or not self._takes(others, tools, add_generation_prompt):
                raise
            raise Invalid(
                f"{error.message}. It takes no system message: put its words into the first user message",
                code="system_message_refused",
            ) from None

    @property
    def changes_with(self) -> str:
        """What the rendering depends on beside the conversation: of a template that asks for the date, today."""
        return f"{datetime.now():%Y-%m-%d}" if "strftime_now" in self.text else ""

    def _takes(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool], add_generation_prompt: bool
    ) -> bool:
        try:
            self._written(messages, tools, add_generation_prompt)
        except Invalid:
            return False
        return True

    def _written(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool], add_generation_prompt: bool
    ) -> str:
        try:
            return self._template.render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                tools=list(tools) or None,
                documents=None,
                **self._variables,
            )
        except _Refused as refusal:
            why = f": {str(refusal.message)[:200]}"
        except _TEMPLATE_FAULTS:
            why = ""
        raise Invalid(
            f"the model's chat template does not take this conversation{why}", code="chat_not_renderable"
        )


def template_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def template_text(folder: Path, config: Mapping[str, Any]) -> str | None:
    """From chat_template.jinja, else tokenizer_config.json (a text, or a list of named ones).

    Line ends are line feeds, as Jinja makes of them: the hash is the same wherever the text stands.
    """
    file = folder / TEMPLATE_FILE
    text = file.read_text("utf-8") if file.is_file() else config.get("chat_template")
    if isinstance(text, list):
        text = next((entry.get("template") for entry in text if entry.get("name") == "default"), None)
    return text.replace("\r\n", "\n").replace("\r", "\n") if isinstance(text, str) else None


def load_chat_template(folder: Path, config: Mapping[str, Any]) -> ChatTemplate:
    """``Invalid`` (template_not_supported) where there is none."""
    text = template_text(folder, config)
    if text is None:
        raise unsupported(
            f"the model has no chat template: put one into {TEMPLATE_FILE} beside its tokenizer.json"
        )
    return ChatTemplate(text, special_tokens(config))


def special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """``bos_token`` and the like of tokenizer_config.json, which writes each as a text or as an object."""
    found: dict[str, str] = {}
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        value = config.get(key)
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            found[key] = value
    return found
