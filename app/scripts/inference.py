"""Ask a model in this process, with no service running: ``python -m app.scripts.inference --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # python app/scripts/inference.py
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from app.bootstrap import SettingsError, one_line
from app.core.errors import AppError
from app.model.training_service import foreground_app


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 answered, 1 failed, 2 a usage error."""
    options = parser().parse_args(arguments)
    try:
        service = foreground_app().extensions["services"].evaluation
        print(f"loading {options.model}", file=sys.stderr)
        for answer in service.answers(options.model, options.text, max_tokens=options.max_length):
            print(answer)
    except (AppError, SettingsError) as error:
        print(one_line(error), file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser("inference", description="Ask a model in this process, greedily.")
    arguments.add_argument("--model", required=True, help="a base model, or a version: name, name:3 or name@alias")
    arguments.add_argument("--text", nargs="+", required=True, help="one user message each")
    arguments.add_argument("--max_length", type=int, default=128, help="new tokens at the most")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
