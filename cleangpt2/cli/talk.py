"""What happens between a person and a conversation: answers, and commands with a slash."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cleangpt2.cli import terminal
from cleangpt2.errors import CleanGPT2Error, InputError, OutputError, did_you_mean

if TYPE_CHECKING:
    from cleangpt2.completion.conversation import Conversation


class Talk:
    """What happens between a person, or a pipe, and a conversation."""

    def __init__(self, conversation: "Conversation", *, as_json: bool) -> None:
        self.conversation = conversation
        self.as_json = as_json
        self.is_terminal = sys.stdin is not None and sys.stdin.isatty()
        self.failed = False
        """Whether any message or command was refused."""
        self.forgotten = 0

    def hear(self, line: str) -> bool:
        """Answer a message or obey a command; False if it was ``/quit``."""
        try:
            if line.startswith("/") and not line.startswith("//"):
                return self._obey(line)
            message = line[1:] if line.startswith("//") else line
            if message or (self.conversation.template is None and self.conversation.turns):
                self._answer(self.conversation.ask(message))
        except CleanGPT2Error as error:
            self.failed = True
            terminal.error(" ".join(str(error).split()))
        return True

    def _obey(self, line: str) -> bool:
        name, _, rest = line.partition(" ")
        if name not in COMMANDS:
            raise InputError(
                f"there is no command {name!r}.{did_you_mean(name, COMMANDS)} /help lists them; "
                "a message that begins with a slash takes two"
            )
        command = COMMANDS[name]
        if command.run is None:
            return False
        command.run(self, rest.strip())
        return True

    def _answer(self, pieces: Generator[str, None, None]) -> None:
        """Show an answer as it comes; Ctrl-C at a terminal ends the answer and no more."""
        began, conversation = time.monotonic(), self.conversation
        with contextlib.closing(pieces):
            try:
                for piece in pieces:
                    self._tell_what_is_forgotten()
                    if not self.as_json:
                        print(terminal.harmless(piece), end="", flush=True)
            except KeyboardInterrupt:
                if not self.is_terminal:
                    raise
                pieces.close()
                print()
                self.note("stopped; /retry asks again, Ctrl-D leaves")
                return
        print(json.dumps(self._facts()) if self.as_json else "", flush=True)
        completion = conversation.turns[-1].completion
        if completion is not None and sys.stderr.isatty():
            rate = len(completion.ids) / max(time.monotonic() - began, 1e-9)
            why = "" if completion.finish_reason == "stop" else "; cut at its longest"
            tokens = f"{len(completion.ids)} tokens, {rate:.0f} a second"
            self.note(f"{tokens}{why}; --seed {conversation.config.seed}")

    def _tell_what_is_forgotten(self) -> None:
        count = self.conversation.forgotten
        if count > self.forgotten:
            turns = "turn" if count == 1 else f"{count} turns"
            self.note(f"the context is full: the model no longer sees the oldest {turns}")
        self.forgotten = count

    def _facts(self) -> dict:
        turn = self.conversation.turns[-1]
        facts = {"message": turn.message, "answer": turn.answer}
        if turn.completion is not None:
            facts["finish_reason"] = turn.completion.finish_reason
            facts["tokens"] = len(turn.completion.ids)
        return facts | {"forgotten": self.conversation.forgotten}

    def note(self, text: str) -> None:
        """Say something that is no part of the conversation."""
        print(terminal.paint(f"[{text}]", "dim", sys.stderr), file=sys.stderr, flush=True)

    def retry(self, _: str) -> None:
        """Another answer to the last message."""
        self._answer(self.conversation.retry())

    def undo(self, _: str) -> None:
        """Take back the last message and its answer."""
        turn = self.conversation.undo()
        self.note(f"taken back: {terminal.harmless(turn.message, sys.stderr)!r} and its answer")

    def reset(self, _: str) -> None:
        """Begin anew."""
        self.conversation.reset()
        self.forgotten = 0
        self.note("all forgotten but the system message" if self.conversation.system else "anew")

    def save(self, name: str) -> None:
        """Add the conversation to a file, as fine-tuning reads it."""
        if not name:
            raise InputError("where to? Name a file, as in /save talks.jsonl")
        if not self.conversation.turns:
            raise InputError("nothing was said yet that could be saved")
        path = Path(name).expanduser()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8", newline="\n") as file:
                for record in as_records(self.conversation):
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
        except OSError as error:
            raise OutputError(
                f"cannot write to {path}: {error.strerror or error}; choose another file"
            ) from None
        self.note(f"added to {path}, in lines of JSON")

    def temperature(self, text: str) -> None:
        """Set the temperature, or say it."""
        config = self.conversation.config
        if text:
            try:
                value = float(text)
            except ValueError:
                raise InputError(f"{text!r} is no number; as in /temperature 0.5") from None
            self.conversation.config = replace(config, temperature=value)
        self.note(f"temperature {self.conversation.config.temperature:g}")

    def help(self, _: str) -> None:
        """List the commands."""
        width = max(len(f"{name} {c.takes}") for name, c in COMMANDS.items())
        for name, command in COMMANDS.items():
            print(f"{f'{name} {command.takes}':<{width}}  {command.does}", file=sys.stderr)
        print("Ctrl-C stops an answer; Ctrl-D leaves", file=sys.stderr, flush=True)


class Command(NamedTuple):
    """What a word with a slash does."""

    run: Callable[[Talk, str], None] | None
    """``None`` leaves."""
    takes: str
    does: str


COMMANDS = {
    "/retry": Command(Talk.retry, "", "another answer to the last message"),
    "/undo": Command(Talk.undo, "", "take back the last message and its answer"),
    "/reset": Command(Talk.reset, "", "forget all that was said"),
    "/save": Command(Talk.save, "FILE", "add the conversation to a file that `sft` can learn from"),
    "/temperature": Command(Talk.temperature, "X", "how varied the answers are; 0 is greedy"),
    "/help": Command(Talk.help, "", "this list"),
    "/quit": Command(None, "", "leave"),
}


def as_records(conversation: "Conversation") -> list[dict]:
    """A conversation as examples to learn from: messages, or the texts of a base model."""
    if conversation.template is None:
        return [{"text": text} for text in conversation.texts() if text]
    said = conversation.messages()
    return [{"messages": [{"role": m.role, "content": m.content} for m in said]}]
