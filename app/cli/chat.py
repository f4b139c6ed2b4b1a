"""``flask chat``: a conversation in the terminal, through the engines that the service uses."""

from __future__ import annotations

import queue
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click
from flask.cli import with_appcontext

from app.bootstrap import one_line
from app.cli.base import OPERATOR, Command, services
from app.cli.chat_params import changed, shown
from app.cli.columns import GAP, Column, SideBySide, plain
from app.core.entities.inference import AnswerOptions, AnswerPiece, ChatRequest
from app.core.errors import AppError

if TYPE_CHECKING:
    from app.core.entities.datasets import Message
    from app.core.interfaces.services.answers import Inference

NARROW = 60  # columns, below which answers do not stand side by side

HELP = """\
/model NAME      ask this model from now on; without NAME: say which
/params K=V …    change how answers are drawn; without K=V: show
/system TEXT     tell the model how to be; without TEXT: nothing any more
/compare A B     ask two models at once; without A B: the first of them alone
/history         show the conversation
/clear           begin a new one
/quit            end (so does Ctrl-D); Ctrl-C stops an answer"""


@click.command("chat", cls=Command)
@click.argument("model", required=False)
@with_appcontext
def chat(model: str | None) -> None:
    """Talk to MODEL (a reference, or a base model) as its answers come; /help lists what else can be done.

    Without MODEL the resident base model answers. The engine that `python run.py` has started must be running.
    """
    Chat(services().inference, model).run()


@dataclass
class Side:
    """A model, and the conversation with it."""

    model: str | None
    messages: list[Message] = field(default_factory=list)


class Chat:
    def __init__(self, inference: Inference, model: str | None) -> None:
        self._inference = inference
        self._sides = [Side(model)]
        self._options = AnswerOptions()
        self._system: str | None = None
        self._commands = {
            "/model": self._model,
            "/params": self._params,
            "/system": self._set_system,
            "/compare": self._compare,
            "/history": self._history,
            "/clear": self._clear,
            "/help": lambda _: click.echo(HELP),
        }

    def run(self) -> None:
        """Until the end of the input."""
        if sys.stdin.isatty():
            with suppress(ImportError):
                import readline  # noqa: F401  (lines can be edited, and come again)
            _note("/help lists the commands, Ctrl-D ends")
        while (line := self._read()) is not None:
            words = line.split(maxsplit=1)
            if not words:
                continue
            if words[0] == "/quit":
                return
            with _told():
                if not line.startswith("/"):
                    self._ask(line.strip())
                elif command := self._commands.get(words[0]):
                    command(words[1].strip() if len(words) > 1 else "")
                else:
                    _note(f"no such command: {words[0]}; /help lists them")

    def _read(self) -> str | None:
        """A line without slashes is a question. None: there is no more."""
        try:
            if sys.stdin.isatty():
                return input(f"{' | '.join(side.model or 'base' for side in self._sides)}> ")
            return sys.stdin.readline() or None
        except EOFError:
            click.echo()
            return None
        except KeyboardInterrupt:  # gives up the line, not the chat
            click.echo()
            return ""

    def _ask(self, question: str) -> None:
        width = shutil.get_terminal_size().columns
        if len(self._sides) > 1 and width >= NARROW:
            self._ask_side_by_side(question, (width - 1 - len(GAP)) // 2)
            return
        for side in self._sides:
            if len(self._sides) > 1:
                click.secho(f"{side.model}:", bold=True)
            with _told():
                self._ask_one(side, question)

    def _ask_one(self, side: Side, question: str) -> None:
        said: list[str] = []
        thought = False
        try:
            with closing(self._inference.stream(OPERATOR, self._request(side, question))) as answer:
                for piece in answer:
                    if piece.text and thought and not said:
                        click.echo()
                    if piece.reasoning:
                        thought = True
                        click.secho(plain(piece.reasoning), dim=True, nl=False)
                    if piece.text:
                        said.append(piece.text)
                        click.echo(plain(piece.text), nl=False)
                    if piece.finish_reason == "length":
                        _note("\n(cut off: max_tokens, or the model's context, is reached)", nl=False)
        finally:
            if said or thought:
                click.echo()
            _keep(side, question, "".join(said))

    def _ask_side_by_side(self, question: str, width: int) -> None:
        """A thread reads each answer; this one writes."""
        columns = [Column(width) for _ in self._sides]
        said: list[list[str]] = [[] for _ in self._sides]
        live = sys.stdout.isatty()
        table = SideBySide(columns, width, lambda text: click.echo(text, nl=False), live)
        news: queue.Queue[tuple[int, AnswerPiece | AppError | None]] = queue.Queue()
        stopped = threading.Event()

        def follow(place: int, request: ChatRequest) -> None:
            try:
                with closing(self._inference.stream(OPERATOR, request)) as answer:
                    for piece in answer:
                        news.put((place, piece))
                        if stopped.is_set():
                            return
            except AppError as error:
                news.put((place, error))
            finally:
                news.put((place, None))

        heads = [plain(side.model or "base")[:width].ljust(width) for side in self._sides]
        click.secho(GAP.join(heads).rstrip(), bold=True)
        try:
            for place, side in enumerate(self._sides):
                arguments = (place, self._request(side, question))
                threading.Thread(target=follow, args=arguments, daemon=True).start()
            while not all(column.ended for column in columns):
                place, piece = news.get()
                if piece is None:
                    columns[place].ended = True
                elif isinstance(piece, AppError):
                    columns[place].push(f"Error: {one_line(piece)}", dim=False)
                else:
                    columns[place].push(piece.reasoning, dim=True)
                    columns[place].push(piece.text, dim=False)
                    said[place].append(piece.text)
                table.draw()
        finally:
            stopped.set()
            for column in columns:
                column.ended = True
            table.draw()
            for side, parts in zip(self._sides, said, strict=True):
                _keep(side, question, "".join(parts))

    def _request(self, side: Side, question: str) -> ChatRequest:
        before: list[Message] = [{"role": "system", "content": self._system}] if self._system else []
        messages: list[Message] = [*before, *side.messages, {"role": "user", "content": question}]
        return ChatRequest(messages, side.model, self._options)

    def _model(self, name: str) -> None:
        if name:
            self._sides = [Side(name, self._sides[0].messages)]
        else:
            click.echo(" | ".join(side.model or "the resident base model" for side in self._sides))

    def _params(self, changes: str) -> None:
        if changes:
            self._options = changed(self._options, changes)
        click.echo(shown(self._options))

    def _set_system(self, text: str) -> None:
        self._system = text or None

    def _compare(self, names: str) -> None:
        models = names.split()
        if len(models) not in (0, 2):
            _note("/compare wants two models")
            return
        messages = self._sides[0].messages
        self._sides = [Side(model, [*messages]) for model in models] or self._sides[:1]

    def _history(self, _: str) -> None:
        if self._system:
            click.echo(f"system: {self._system}")
        for side in self._sides:
            if len(self._sides) > 1:
                click.secho(f"{side.model}:", bold=True)
            for message in side.messages:
                click.echo(f"{message['role']}: {plain(message['content'])}")

    def _clear(self, _: str) -> None:
        for side in self._sides:
            side.messages = []


def _keep(side: Side, question: str, answer: str) -> None:
    """What was asked and not answered is as if it had not been asked."""
    if answer:
        side.messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@contextmanager
def _told() -> Iterator[None]:
    """A failure is one line, and Ctrl-C ends what is being done: the chat goes on."""
    try:
        yield
    except AppError as error:
        _note(f"Error: {one_line(error)}")
    except KeyboardInterrupt:
        _note("(stopped)")


def _note(text: str, nl: bool = True) -> None:
    click.secho(text, err=True, dim=True, nl=nl)
