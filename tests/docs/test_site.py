"""The documentation site: built strictly, complete, and loading nothing from elsewhere."""

from __future__ import annotations

import ast
import itertools
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src" / "qspinn"
REFERENCE = ROOT / "docs" / "reference"
NOT_REFERENCE = {"compiled", "kernels", "torch_passes"}
"""Folders of compiled code and of its twins in torch: nobody calls them from outside."""
LOADING = {
    "link": "href",
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "object": "data",
}
NOT_LOADED = {"canonical", "prev", "next", "alternate"}
"""Links that a browser does not follow by itself."""


class _Loads(HTMLParser):
    """What a page makes the browser load, as (tag, address)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        address = own.get(LOADING.get(tag, ""))
        if address and not NOT_LOADED & set((own.get("rel") or "").split()):
            self.found.append((tag, address))
        self.found += [("style", address) for address in re.findall(r"url\(([^)]+)\)", own.get("style") or "")]


def loads(page: str) -> list[tuple[str, str]]:
    reader = _Loads()
    reader.feed(page)
    return reader.found


def foreign(page: str) -> list[tuple[str, str]]:
    return [(tag, address) for tag, address in loads(page) if re.match(r"\s*['\"]?(https?:)?//", address)]


def build(folder: Path, source: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The site of a checkout, built strictly into a folder."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed; make install brings it")
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    assert sum(len(loads(page.read_text())) for page in pages) > len(pages)
    for page in pages:
        assert not foreign(page.read_text()), page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", sheet.read_text()), sheet


@pytest.mark.slow
def test_figures_of_the_site_are_those_that_were_measured(site: Path) -> None:
    text = (site / "measurements.html").read_text()
    assert "N = 400, all tensors quantized, winner: inference memory" in text
    for page in site.rglob("*.html"):
        assert not re.search(r"&lt;!-- |<!-- (value|spread|topic|missed|public names)", page.read_text()), page


@pytest.mark.slow
def test_the_reference_shows_signatures_and_docstrings(site: Path) -> None:
    text = (site / "reference" / "networks.html").read_text()
    assert "diehl_cook" in text
    assert "winner-take-all" in text or "Winner" in text or "competing" in text
    assert "qspinn.Spikes" in (site / "reference" / "index.html").read_text()


@pytest.mark.slow
def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    source = tmp_path / "checkout"
    for name in ("mkdocs.yml", "docs", "src/qspinn/__init__.py", "benchmarks"):
        place = source / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(ROOT / name)
    (source / "docs").unlink()
    (source / "docs").mkdir()
    for name in ("measured.py", "doctests.py"):
        (source / "docs" / name).symlink_to(ROOT / "docs" / name)
    (source / "docs" / "index.md").write_text("# Start\n\n[broken](nowhere.md)\n")
    text = (ROOT / "mkdocs.yml").read_text()
    (source / "mkdocs.yml").unlink()
    (source / "mkdocs.yml").write_text(text[: text.index("nav:\n")] + "nav:\n  - Start: index.md\n")
    done = build(tmp_path / "site", source)
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr


@pytest.mark.parametrize(
    "page",
    [
        '<link rel="stylesheet" href="https://fonts.example/css">',
        "<script src='//cdn.example/x.js'></script>",
        '<img src="http://example.org/x.png">',
        '<p style="background: url(https://example.org/x.png)">',
    ],
)
def test_what_is_loaded_from_elsewhere_is_found(page: str) -> None:
    assert len(foreign(page)) == 1
    assert not foreign(
        '<a href="https://example.org">a link</a><img src="img/x.svg"><link rel="canonical" href="https://x">'
    )


def public_modules() -> set[str]:
    """Modules with public functions or classes, outside of compiled code."""
    found = set()
    for path in SOURCES.rglob("*.py"):
        parts = ("qspinn", *path.relative_to(SOURCES).with_suffix("").parts)
        tree = ast.parse(path.read_text())
        defines = any(
            isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_") for node in tree.body
        )
        if defines and not NOT_REFERENCE & set(parts):
            found.add(".".join(parts).removesuffix(".__init__"))
    return found - {"qspinn", "qspinn.former", "qspinn.__main__"}


def test_every_public_module_is_in_the_reference_once() -> None:
    listed = [m for page in sorted(REFERENCE.glob("*.md")) for m in re.findall(r"^::: (\S+)", page.read_text(), re.M)]
    assert len(listed) == len(set(listed))
    assert set(listed) == public_modules()


def test_lists_begin_after_an_empty_line() -> None:
    """The Markdown of the site takes them for text otherwise, though other readers do not."""
    item = re.compile(r"\s*([-*]|\d+\.) ")
    for page in sorted((ROOT / "docs").rglob("*.md")):
        lines = page.read_text().splitlines()
        for number, (before, line) in enumerate(itertools.pairwise(lines), start=2):
            begins = item.match(line) and before.strip() and not item.match(before) and not before.startswith(" ")
            assert not begins, f"{page.name}:{number}"
