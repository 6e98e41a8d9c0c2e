"""Every code block of README and documentation is run, page by page in an empty folder, or says why it is only read."""

from __future__ import annotations

from pathlib import Path

import pytest

from code_blocks import ROOT, Block, BlockError, Stage, blocks_of

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MOST_PYTHON, MOST_CONSOLE = 2, 12
"""How many Python and console blocks may say that they are not run here, all pages together."""


def play(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    stage = Stage(folder)
    for block in blocks_of(page):
        stage.play(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(page, tmp_path, monkeypatch)


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    skipped = [b for page in PAGES for b in blocks_of(page) if b.reason]
    by_language = {name: [b for b in skipped if b.language == name] for name in ("python", "console", "toml")}
    assert len(by_language["python"]) <= MOST_PYTHON, by_language["python"]
    assert len(by_language["console"]) <= MOST_CONSOLE, by_language["console"]
    assert not by_language["toml"]
    assert all(len(b.reason) > 10 for b in skipped)


FENCE = "```"
TOML = 'version = 1\nname = "x"\n[data]\nname = "digits"\n'
BROKEN = {
    "a name that is missing": f"{FENCE}python\nimport qspinn\nqspinn.no_such_name\n{FENCE}\n",
    "syntax": f"<!-- not run: takes an hour here -->\n{FENCE}python\nif:\n{FENCE}\n",
    "another result": f'{FENCE}python\nprint(1)\n{FENCE}\n\n{FENCE}text title="Output"\n2\n{FENCE}\n',
    "an unknown option": f"{FENCE}console\n$ qspinn explore x.toml --nonsense\n{FENCE}\n",
    "an unknown option, only read": f"<!-- not run: takes an hour here -->\n{FENCE}console\n$ qspinn run x\n{FENCE}\n",
    "a file that is missing": f"{FENCE}console\n$ qspinn inspect missing.qspinn\n{FENCE}\n",
    "an experiment that is missing": f"{FENCE}console\n$ qspinn explore experiments/none.toml\n{FENCE}\n",
    "an unknown command": f"{FENCE}console\n$ curl x\n{FENCE}\n",
    "an unknown target": f"{FENCE}console\n$ make nonsense\n{FENCE}\n",
    "an unknown script": f"{FENCE}console\n$ python benchmarks/none.py\n{FENCE}\n",
    "an unknown extra": f"{FENCE}console\n$ pip install 'qspinn[none]'\n{FENCE}\n",
    "an unknown key": f"{FENCE}toml\n{TOML}nane = 3\n{FENCE}\n",
    "an unknown key in a part": f"{FENCE}toml\n{TOML}{FENCE}\n\n{FENCE}toml\n[search]\nbits = [1]\n{FENCE}\n",
    "a part without a whole": f"{FENCE}toml\n[search]\nweight_bits = [1]\n{FENCE}\n",
    "a reason that belongs to nothing": f"<!-- not run: takes an hour -->\n\ntext\n\n{FENCE}python\n1 / 0\n{FENCE}\n",
    "an unknown language": f"{FENCE}ruby\nputs 1\n{FENCE}\n",
    "no language": f"{FENCE}\nputs 1\n{FENCE}\n",
    "indented code": "text\n\n    make demo\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_block_fails(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises((BlockError, SyntaxError)):
        play(page, tmp_path, monkeypatch)


def test_blocks_of_a_page_share_names_folder_and_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        f'{FENCE}python\nx = 2\n{FENCE}\n\n{FENCE}python\nprint(x, "and", x)\n{FENCE}\n\n'
        f'{FENCE}text title="Output"\n2 ... 2\n{FENCE}\n\n{FENCE}toml title="x.toml"\n{TOML}{FENCE}\n'
    )
    play(page, tmp_path, monkeypatch)
    assert (tmp_path / "x.toml").read_text() == TOML


def test_a_block_knows_where_it_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# T\n\n<!-- not run: needs the recordings -->\n{FENCE}python\nx\n{FENCE}\n")
    assert blocks_of(page) == [Block(page, 4, "python", "", "x\n", "needs the recordings")]
