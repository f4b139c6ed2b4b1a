"""JSON schemas as grammars of llguidance, and whether one can be had at all.

A schema of a hundred bytes may ask for more memory than there is, recurse until the stack ends, or compile for
ever. Hence the trial, in a process whose memory, stack and time are small: what does not survive it is refused.
"""

import resource
import sys
from pathlib import Path
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

_MEMORY = 64 * 2**20  # bytes beyond what the process has before
_STACK = 2**20  # bytes; a thread that compiles later has at least the double
_SECONDS = 2
# A space, or a line and its indentation: else a likely answer of a small model is white space without end.
_WHITESPACE = r"( |\n[ \t]{0,32})?"


def limits() -> LLParserLimits:
    """Beside the library's own: states take a kilobyte or two each, and come while it answers."""
    return LLParserLimits(max_lexer_states=20_000, verbose_errors=False)


def matcher(tokenizer: LLTokenizer, schema: str) -> LLMatcher:
    """``ValueError``: what is wrong with the schema."""
    options: Any = {"whitespace_flexible": True, "whitespace_pattern": _WHITESPACE}
    grammar = LLMatcher.grammar_from_json_schema(schema, overrides=options)
    made = LLMatcher(tokenizer, grammar, log_level=0, limits=limits())
    if made.is_error():
        raise ValueError(made.get_error().strip().splitlines()[0][:300])
    return made


def try_out(schema: str) -> str | None:
    """What is wrong with it. To be called by a process that may die of it."""
    tokenizer = LLTokenizer("byte")
    wanted = {resource.RLIMIT_CPU: _SECONDS, resource.RLIMIT_STACK: _STACK, resource.RLIMIT_CORE: 0}
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        wanted[resource.RLIMIT_AS] = pages * resource.getpagesize() + _MEMORY
    for kind, value in wanted.items():
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))
    try:
        matcher(tokenizer, schema).compute_bitmask()
    except ValueError as error:
        return str(error)
    return None
