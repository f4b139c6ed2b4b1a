"""A chat template is a program by whoever made the model: one not met before runs in a child process first.

Jinja's sandbox keeps it from the host, not from looping for ever or filling the memory. The child renders a few
conversations under limits of processor time, memory and output.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from enum import IntEnum
from functools import cache
from pathlib import Path

import jinja2

from app.core.entities.datasets import Message
from app.core.entities.tool_calls import Tool
from app.core.errors import Invalid
from app.implementations.data.chat_template import ChatTemplate, template_hash
from app.implementations.data.template_tools import CALL, QUESTION, RESULT, TOOL
from app.utils.files import write_whole
from app.utils.project import ROOT

TRIED = ".tried-templates.json"  # beside the folders of models: what was found of each template
MOST_KEPT = 1000
CPU_SECONDS = 1
WALL_SECONDS = 30.0  # a template cannot wait: only a busy machine takes longer than its processor time
MEMORY_BYTES = 512 * 2**20
MOST_CHARACTERS = 1_000_000
LOG_BYTES = 500

log = logging.getLogger(__name__)

_SYSTEM: Message = {"role": "system", "content": "Be brief."}
_QUESTION: Message = {"role": "user", "content": "What is 1 + 1?\nAnd 2 + 2?"}
_ANSWER: Message = {"role": "assistant", "content": "<think>\nEasy.\n</think>\n\n2 and 4 — 二和四."}
CONVERSATIONS: tuple[tuple[list[Message], list[Tool]], ...] = (
    ([_QUESTION], []),
    ([_SYSTEM, _QUESTION], []),
    ([_QUESTION, _ANSWER], []),
    ([_QUESTION, _ANSWER] * 8 + [_QUESTION], []),
    ([QUESTION, CALL, RESULT], [TOOL]),
)
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}


class Ended(IntEnum):
    """A child's exit status."""

    WELL = 0
    RENDERS_NOTHING = 10
    OUTPUT = 11
    MEMORY = 12
    RECURSION = 13


_REASONS: Mapping[int, str] = {
    Ended.WELL: "",
    Ended.RENDERS_NOTHING: "it renders not one of the conversations that it was tried with",
    Ended.OUTPUT: f"it writes more than {MOST_CHARACTERS:,} characters for a short conversation",
    Ended.MEMORY: f"it takes more than {MEMORY_BYTES // 2**20} MB for a short conversation",
    Ended.RECURSION: "it is nested too deep",
}
_TOO_SLOW = f"it takes more than about {CPU_SECONDS} s of processor time for a short conversation"


def try_once(text: str, tried: Path) -> None:
    """``try_template``, unless ``tried``, a file, or this process knows what comes of it."""
    reason = _known(template_hash(text), text, tried)
    if reason:
        raise _refused(reason)


def try_template(text: str) -> None:
    """``Invalid`` (template_refused) with the reason. No Jinja at all is no harm: to load it says so."""
    reason = _reason(text)
    if reason:
        raise _refused(reason)


@cache
def _known(name: str, text: str, tried: Path) -> str:
    key = f"{name} with tools, jinja2 {jinja2.__version__}"
    found = dict(_read(tried))
    if key not in found:
        found[key] = _reason(text)
        kept = dict(list(found.items())[-MOST_KEPT:])
        with suppress(OSError):  # of a folder that is not ours to write to: tried again by the next process
            write_whole(tried, json.dumps(kept, indent=1))
    return found[key]


def _read(tried: Path) -> Mapping[str, str]:
    try:
        found = json.loads(tried.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    sound = isinstance(found, dict) and all(isinstance(reason, str) for reason in found.values())
    return found if sound else {}


def _reason(text: str) -> str:
    """Why not; "" if nothing is against it."""
    try:
        child = subprocess.run(
            [sys.executable, "-m", __name__],
            input=text.encode("utf-8", "surrogatepass"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=WALL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return _TOO_SLOW
    if child.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return _TOO_SLOW
    if child.returncode not in _REASONS:
        log.error("the trial of a template ended %d: %s", child.returncode, child.stderr[-LOG_BYTES:])
    return _REASONS.get(child.returncode, "to render a short conversation with it fails")


def _refused(reason: str) -> Invalid:
    return Invalid(f"the model's chat template is refused: {reason}", code="template_refused")


def _limit() -> None:
    """Of this process, from here on: a core file too is out."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    # In whole seconds: what is left is CPU_SECONDS, half a second more or less.
    seconds = math.ceil(used.ru_utime + used.ru_stime + CPU_SECONDS - 0.5)
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, MEMORY_BYTES),
    ):
        with suppress(ValueError, OSError):  # a lower limit is there already, or the system has none of the kind
            resource.setrlimit(kind, (most, most))


def main() -> Ended:
    """The child: reads a template, says by its exit status what came of it."""
    text = sys.stdin.buffer.read().decode("utf-8", "surrogatepass")
    _limit()
    try:
        template = ChatTemplate(text, VARIABLES)
    except Invalid:
        return Ended.WELL
    except MemoryError:
        return Ended.MEMORY
    except RecursionError:
        return Ended.RECURSION
    outcomes = [_render(template, *asked, prompt) for asked in CONVERSATIONS for prompt in (True, False)]
    if Ended.WELL not in outcomes:
        return max(outcomes)
    return next((outcome for outcome in outcomes if outcome > Ended.RENDERS_NOTHING), Ended.WELL)


def _render(template: ChatTemplate, messages: list[Message], tools: list[Tool], prompt: bool) -> Ended:
    try:
        written = template.render(messages, add_generation_prompt=prompt, tools=tools)
    except Invalid:  # it may refuse some
        return Ended.RENDERS_NOTHING
    except MemoryError:
        return Ended.MEMORY
    return Ended.OUTPUT if len(written) > MOST_CHARACTERS else Ended.WELL


if __name__ == "__main__":
    sys.exit(main())
