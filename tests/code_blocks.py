"""The code blocks of a page of the documentation, and what running them means; see test_code_blocks."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import typer
from markdown_it import MarkdownIt

from qspinn.cli import app
from qspinn.errors import QSpinnError
from qspinn.exploration.family import read_experiment
from qspinn.workflow.experiments import load_experiment
from samples import command_line

ROOT = Path(__file__).resolve().parents[1]
SKIP = re.compile(r"<!-- not run: (.+?) -->")
TITLE = re.compile(r'title="([^"]+)"')
LIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
OUTPUT = "Output"
"""Title of a text block that shows what the block before it prints; `...` stands for anything."""


class BlockError(AssertionError):
    """A code block does not do what its page says; names page and line."""


class Block(NamedTuple):
    """A fenced block: where it is, its language and title, and why it is not run where a comment before it says so."""

    page: Path
    line: int
    language: str
    title: str
    code: str
    reason: str

    def wrong(self, problem: str) -> BlockError:
        return BlockError(f"{self.page}:{self.line}: {problem}")


def blocks_of(page: Path) -> list[Block]:
    """All code blocks of a page, in order.

    Raises:
        BlockError: a block is indented instead of fenced, or has a language that nothing here can check.
    """
    found: list[Block] = []
    reason = ""
    for token in MarkdownIt().parse(page.read_text()):
        line = (token.map or [0])[0] + 1
        if token.type == "html_block":
            reason = found_reason[1] if (found_reason := SKIP.search(token.content)) else ""
        elif token.type in ("paragraph_open", "heading_open"):
            reason = ""  # it belongs to the block that follows it at once
        elif token.type in ("fence", "code_block"):
            language, _, rest = token.info.strip().partition(" ")
            title = found_title[1] if (found_title := TITLE.search(rest)) else ""
            block = Block(page, line, language, title, token.content, reason)
            if language not in CHECKS:
                raise block.wrong(f"a code block of the language {language!r}; known: {', '.join(CHECKS)}")
            found.append(block)
            reason = ""
    return found


class Stage:
    """Where the blocks of one page run: a folder, the names that Python blocks made, the last whole experiment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "page"}
        self.experiment: dict[str, Any] = {}
        self.printed = ""

    def play(self, block: Block) -> None:
        """Runs one block, or reads it where it is not to be run.

        Raises:
            BlockError: it fails, or prints something else than the page shows.
        """
        CHECKS[block.language](self, block)

    def python(self, block: Block) -> None:
        code = compile(block.code, f"{block.page}:{block.line}", "exec")
        if block.reason:
            return
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                exec(code, self.names)
        except Exception as error:
            raise block.wrong(f"{type(error).__name__}: {error}") from error
        self.printed = out.getvalue()

    def console(self, block: Block) -> None:
        lines = block.code.replace("\\\n", " ").splitlines()
        if any(not line.startswith("$ ") for line in lines):
            raise block.wrong("a console block holds commands only, each after '$ '")
        self.printed = "".join(self.command(block, line.removeprefix("$ ")) for line in lines)

    def command(self, block: Block, line: str) -> str:
        """What a command prints; empty where it is only read."""
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words[:1] == ["qspinn"]:
            _parse(block, words[1:])
            return "" if block.reason else self._run(block, words[1:])
        check = KNOWN.get(words[0]) if words else None
        if check is None:
            raise block.wrong(f"no way to check the command {line!r}; known: qspinn, {', '.join(KNOWN)}")
        check(block, words)
        return ""

    def _run(self, block: Block, arguments: list[str]) -> str:
        done = command_line(*arguments, cwd=self.folder)
        if done.returncode:
            raise block.wrong(f"exit code {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def toml(self, block: Block) -> None:
        """A whole experiment, or parts that are laid over the last whole one of the page."""
        try:
            plain = tomllib.loads(block.code)
            if "name" in plain:
                self.experiment = plain
            elif not self.experiment:
                raise block.wrong("keys without a whole experiment before them")
            read_experiment(_laid(self.experiment, plain))
            if block.title and not block.reason:
                path = self.folder / block.title
                path.write_text(block.code)
                load_experiment(path)
        except (tomllib.TOMLDecodeError, QSpinnError) as error:
            raise block.wrong(str(error)) from error

    def text(self, block: Block) -> None:
        if block.title == OUTPUT and not doctest.OutputChecker().check_output(block.code, self.printed, LIKE):
            raise block.wrong(f"the page shows\n{block.code}\nbut what is printed is\n{self.printed}")


CHECKS = {"python": Stage.python, "console": Stage.console, "toml": Stage.toml, "text": Stage.text}


def _laid(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Nested tables, one over the other; lists are taken whole."""
    both = {
        k: _laid(below[k], v) if isinstance(v, dict) and isinstance(below.get(k), dict) else v for k, v in above.items()
    }
    return {**below, **both}


def _parse(block: Block, arguments: list[str]) -> None:
    """Reads a command line of qspinn as the program would, without doing it."""
    group = typer.main.get_command(app)
    if arguments[:1] in (["--help"], ["--version"]):
        return
    command = group.commands.get(arguments[0]) if arguments else None
    if command is None:
        raise block.wrong(f"no verb of qspinn: {arguments[:1]}")
    try:
        command.make_context(arguments[0], list(arguments[1:]), resilient_parsing=False)
    except SystemExit:
        pass  # --help
    except Exception as error:
        raise block.wrong(f"qspinn {arguments[0]}: {error}") from error
    for word in arguments[1:]:
        if word.startswith("experiments/") and not (ROOT / word).is_file():
            raise block.wrong(f"no such file in the repository: {word}")


def _make(block: Block, words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for word in words[1:]:
        if "=" not in word and word not in targets:
            raise block.wrong(f"make has no target {word!r}")


def _python(block: Block, words: list[str]) -> None:
    if words[1:3] == ["-m", "pytest"] or words[1:3] == ["-m", "http.server"] or words[1:3] == ["-m", "venv"]:
        return
    if not (ROOT / words[1]).is_file():
        raise block.wrong(f"no such script: {words[1]}")


def _pip(block: Block, words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = {x for word in words for group in re.findall(r"\[([\w,-]+)\]", word) for x in group.split(",")}
    if words[1] != "install" or asked - set(extras):
        raise block.wrong(f"not an installation with known extras: {' '.join(words)}")


def _known(block: Block, words: list[str]) -> None:
    """Commands of every system: nothing of this project to check."""


KNOWN = {"make": _make, "python": _python, "pip": _pip, "pre-commit": _known, "git": _known, "find": _known}
